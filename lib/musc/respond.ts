import type { Preference } from "../data/preferences"
import type { Message, PairRow, RecombinedRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { blocks } from "./prompt"
import { ask, failed, type Outcome, problemOf, withCalls } from "./row"

/** How both instructions are answered. */
export interface RespondOptions {
  /** Run seed, any integer. */
  seed: number
  /** Sampling temperature, 0 to 1; paper .5. */
  temperature: number
  /** Most tokens of an answer, end-of-turn included, 64 to 4096. */
  maxTokens: number
  /** Whether a pair with a cut-off answer is kept. Training then teaches the model to stop in the middle. */
  keepCut: boolean
}

/** The paper's: temperature .5. */
export const respondDefaults: RespondOptions = { seed: 0, temperature: 0.5, maxTokens: 1024, keepCut: false }

/** The chat that asks for an answer: one user turn, the instruction and then the text that it is about. */
export function respondMessages(instruction: string, input: string | null): Message[] {
  return [{ role: "user", content: blocks(instruction, input) }]
}

/**
 * Stage 4: the answer to the clean instruction is chosen, the answer to the noised one rejected. Rejects empty,
 * identical and (unless `keepCut`) cut-off answers. Answers are trimmed; the raw text stays in `calls`.
 */
export async function respond(
  engine: Generator,
  row: RecombinedRow,
  options: Partial<RespondOptions> = {},
): Promise<Outcome<PairRow>> {
  const { seed, temperature, maxTokens, keepCut } = { ...respondDefaults, ...options }
  const answer = (instruction: string, sample: string) => {
    const messages = respondMessages(instruction, row.input)
    return ask({ engine, seed, stage: "respond", id: row.id }, messages, { temperature, maxTokens }, sample)
  }
  const calls = await Promise.all([answer(row.clean_instruction, "clean"), answer(row.noised_instruction, "noised")])
  const [chosen, rejected] = calls.map((call) => call.text.trim()) as [string, string]
  const noted = withCalls(row, "respond", calls)
  const problem = problemOf(calls, keepCut)
  if (problem) return failed(noted, "respond", problem)
  if (!chosen || !rejected) return failed(noted, "respond", "empty answer")
  if (chosen === rejected) return failed(noted, "respond", "identical answers")
  return { ...noted, chosen, rejected, failure: undefined }
}

/** The pair that a row stands for: prompt (clean instruction and text), chosen, rejected. */
export function preferenceOf(row: Pick<PairRow, "clean_instruction" | "input" | "chosen" | "rejected">): Preference {
  return { prompt: respondMessages(row.clean_instruction, row.input), chosen: row.chosen, rejected: row.rejected }
}
