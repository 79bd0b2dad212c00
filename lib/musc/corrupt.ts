import type { Call, CorruptedRow, DecomposedRow, Edit, EditKind } from "../data/schema"
import type { Generator } from "../engine/engine"
import { rng } from "../rng"
import { negateDemos, substituteDemos } from "./demos"
import { bare, blocks, type Demonstration, fewShot, fields, shotsFor } from "./prompt"
import { ask, failed, type Outcome, problemOf, sameWords, withCalls } from "./row"

/** How constraints are corrupted. */
export interface CorruptOptions {
  /** Run seed, any integer. */
  seed: number
  /** Share of the constraints that is corrupted, 0 to 1; paper .3. At least one is, and constraint 0 never. */
  ratio: number
  /** Share of edits that drop the constraint; paper .5. The three shares need not add up to 1. */
  drop: number
  /** Share of edits that ask for the opposite; paper .25. */
  negate: number
  /** Share of edits that ask for something else of the same kind; paper .25. */
  substitute: number
  /** Few-shot examples shown, 0 to 4. */
  shots: number
  /** Sampling temperature, 0 to 1; paper .5. */
  temperature: number
  /** Most tokens of one new question, 32 to 256. */
  maxTokens: number
  /** Tries for one new question, 1 to 5; the row fails when none changes the question. */
  attempts: number
}

/** The paper's: three constraints in ten, dropped, negated or substituted with probabilities .5, .25, .25. */
export const corruptDefaults: CorruptOptions = {
  seed: 0,
  ratio: 0.3,
  drop: 0.5,
  negate: 0.25,
  substitute: 0.25,
  shots: 4,
  temperature: 0.5,
  maxTokens: 128,
  attempts: 2,
}

/** User message that asks for the opposite of a constraint. */
export function negatePrompt(question: string): string {
  return editPrompt("Change the question so that it asks for the opposite. Write only the new question.", question)
}

/** User message that asks for another constraint of the same kind in place of this one. */
export function substitutePrompt(question: string): string {
  return editPrompt(
    "Change the question so that it asks for something else of the same kind. Write only the new question.",
    question,
  )
}

const editPrompt = (task: string, question: string) => blocks(task, `${fields({ Question: question })}\nNew question:`)

/** The changed question of a reply: its first line, without label, number or quotes; empty when there is none. */
export function parseQuestion(text: string): string {
  const line = bare(text, "new question").split("\n")[0]!
  return bare(line.replace(/^(##\s*)?\d+\s*[.):]\s*/, "").replaceAll("**", ""), "(new )?question").replace(/\s+/g, " ")
}

/** How many of `n` constraints are corrupted: `min(n - 1, max(1, round(ratio n)))`, halves to even. */
export function editCount(n: number, ratio: number): number {
  const floor = Math.floor(ratio * n)
  const rest = ratio * n - floor
  const rounded = rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
  return Math.min(n - 1, Math.max(1, rounded))
}

/** Which constraints are corrupted, and how: by position, constraint 0 never. Depends on seed and row alone. */
export function planEdits(
  row: { id: string; constraints: readonly string[] },
  { seed, ratio, drop, negate, substitute }: CorruptOptions,
): { index: number; kind: EditKind }[] {
  const n = row.constraints.length
  const places = Array.from({ length: n - 1 }, (_, i) => i + 1)
  const picked = rng(seed, "corrupt", row.id).sample(places, editCount(n, ratio))
  return picked
    .sort((a, b) => a - b)
    .map((index) => {
      const u = rng(seed, "corrupt", row.id, index).next() * (drop + negate + substitute)
      const kind = u < drop ? "constraint-dropout" : u < drop + negate ? "constraint-negate" : "constraint-substitute"
      return { index, kind }
    })
}

/** The constraint list after the edits: dropped ones gone, changed ones in place. */
export function applyEdits(constraints: readonly string[], edits: readonly Edit[]): string[] {
  const changed = new Map(edits.map((edit) => [edit.index, edit.after]))
  return constraints.flatMap((question, i) => (changed.has(i) ? (changed.get(i) ?? []) : question))
}

/**
 * Stage 2 (paper: constraint dropout, negate, substitute). In the released code negate and substitute call a function
 * that is not there and then keep the old text, so only dropout could ever act; here all three do. A new question that
 * is empty, cut off or in the same words as the old one is asked for again, with another random stream; after
 * `attempts` the row fails.
 */
export async function corrupt(
  engine: Generator,
  row: DecomposedRow,
  options: Partial<CorruptOptions> = {},
): Promise<Outcome<CorruptedRow>> {
  const settings = { ...corruptDefaults, ...options }
  const { seed, temperature, maxTokens, attempts } = settings
  const shots = shotsFor(engine, options.shots, corruptDefaults.shots)
  const change = async (index: number, kind: EditKind) => {
    const before = row.constraints[index]!
    const calls: Call[] = []
    let problem = ""
    if (kind === "constraint-dropout") return { calls, edit: { index, kind, before, after: null } }
    const [prompt, demos] =
      kind === "constraint-negate" ? [negatePrompt, negateDemos] : [substitutePrompt, substituteDemos]
    const examples = demos.slice(0, shots).map((demo): Demonstration => [prompt(demo.question), demo.changed])
    const messages = fewShot(examples, prompt(before))
    while (calls.length < attempts) {
      const sample = `${index}.${calls.length}`
      const asker = { engine, seed, stage: "corrupt", id: row.id }
      const call = await ask(asker, messages, { temperature, maxTokens }, sample)
      calls.push(call)
      const after = parseQuestion(call.text)
      problem = problemOf([call]) ?? (!after ? "empty" : sameWords(before, after) ? "question unchanged" : "")
      if (!problem) return { calls, edit: { index, kind, before, after } }
    }
    return { calls, problem: `${kind}: ${problem}` }
  }
  const results = await Promise.all(planEdits(row, settings).map(({ index, kind }) => change(index, kind)))
  const noted = withCalls(
    row,
    "corrupt",
    results.flatMap((result) => result.calls),
  )
  const problem = results.find((result) => result.problem)?.problem
  if (problem) return failed(noted, "corrupt", problem)
  const edits = results.map((result) => result.edit!)
  return { ...noted, noised_constraints: applyEdits(row.constraints, edits), edits, failure: undefined }
}
