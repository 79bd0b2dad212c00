import type { CorruptedRow, RecombinedRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { formatConstraints } from "./decompose"
import { decomposeDemos } from "./demos"
import { bare, blocks, type Demonstration, fewShot, shotsFor } from "./prompt"
import { ask, failed, type Outcome, problemOf, sameWords, withCalls } from "./row"

/** How constraint lists are written as instructions. */
export interface RecombineOptions {
  /** Run seed, any integer. */
  seed: number
  /** Few-shot examples shown, 0 to 5; paper 2. */
  shots: number
  /** Sampling temperature, 0 to 1; paper .1. */
  temperature: number
  /** Most tokens of the instruction, 64 to 4096. */
  maxTokens: number
}

/** The paper's: two examples, temperature .1. */
export const recombineDefaults: RecombineOptions = { seed: 0, shots: 2, temperature: 0.1, maxTokens: 1024 }

/** User message that asks for one instruction out of a list of constraints. */
export function recombinePrompt(constraints: readonly string[], input: string | null): string {
  return blocks(
    "Write one instruction for which a good answer gets a yes to each question. Write only the instruction, in plain sentences.",
    `${input ? `Text: ${input}\n` : ""}Questions:\n${formatConstraints(constraints)}\nInstruction:`,
  )
}

/** The instruction of a reply, without label or quotes. */
export function parseInstruction(text: string): string {
  return bare(text, "(new )?instruction")
}

/**
 * Stage 3 (paper: recombination): both constraint lists become instructions, with the same examples, those of decompose
 * inverted. Rejects a result that is empty, was cut off, holds a `**word**` label, or that says the same in both
 * versions.
 */
export async function recombine(
  engine: Generator,
  row: CorruptedRow,
  options: Partial<RecombineOptions> = {},
): Promise<Outcome<RecombinedRow>> {
  const { seed, temperature, maxTokens } = { ...recombineDefaults, ...options }
  const shots = shotsFor(engine, options.shots, recombineDefaults.shots)
  const demos = decomposeDemos
    .slice(0, shots)
    .map((demo): Demonstration => [recombinePrompt(demo.questions, demo.input), demo.instruction])
  const write = (constraints: readonly string[], sample: string) => {
    const messages = fewShot(demos, recombinePrompt(constraints, row.input))
    return ask({ engine, seed, stage: "recombine", id: row.id }, messages, { temperature, maxTokens }, sample)
  }
  const calls = await Promise.all([write(row.constraints, "clean"), write(row.noised_constraints, "noised")])
  const [clean, noised] = calls.map((call) => parseInstruction(call.text)) as [string, string]
  const noted = withCalls(row, "recombine", calls)
  const problem = problemOf(calls)
  if (problem) return failed(noted, "recombine", problem)
  if (!clean || !noised) return failed(noted, "recombine", "empty instruction")
  if (/\*\*[^\s*]+\*\*/.test(`${clean}\n${noised}`)) return failed(noted, "recombine", "label in the instruction")
  if (sameWords(clean, noised)) return failed(noted, "recombine", "clean equals noised")
  return { ...noted, clean_instruction: clean, noised_instruction: noised, failure: undefined }
}
