import type { InstructionRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { rng, streamKey } from "../rng"
import { selfInstructDemos } from "./demos"
import { blocks, type Demonstration, fewShot } from "./prompt"
import { parseInstruction } from "./recombine"
import { ask, failed, type Outcome, problemOf } from "./row"
import type { Rows } from "./run-stage"

/** Reason of rows that are kept for evaluation. */
export const HELD_OUT = "held out for evaluation"

/** How the model writes instructions of its own. */
export interface SelfInstructOptions {
  /** Run seed, any integer. */
  seed: number
  /** Sampling temperature, 0 to 1; paper .5. */
  temperature: number
  /** Most tokens of the new instruction, 64 to 1024. */
  maxTokens: number
  /** Examples drawn with a text of their own; paper 2. */
  textDemos: number
  /** Examples drawn without one; paper 2. */
  plainDemos: number
}

/** The paper's: temperature .5. */
export const selfInstructDefaults: SelfInstructOptions = {
  seed: 0,
  temperature: 0.5,
  maxTokens: 512,
  textDemos: 2,
  plainDemos: 2,
}

/** User message that asks for a new instruction (self-instruct). */
export const selfInstructPrompt = blocks(
  "Write one new instruction on another topic, with more than five constraints on the answer. Write only the instruction.",
  "Instruction:",
)

/**
 * Stage 0, self-instruct: the `index`-th new instruction, from 2 + 2 examples drawn for it in random order. `pool`
 * takes the place of our own examples, for instance with seeds of the user. A reply that is empty or cut off fails; as
 * an instruction cannot be empty, it then reads "(none)".
 */
export async function selfInstruct(
  engine: Generator,
  index: number,
  options: Partial<SelfInstructOptions> = {},
  pool = selfInstructDemos,
): Promise<Outcome<InstructionRow>> {
  const { seed, temperature, maxTokens, textDemos, plainDemos } = { ...selfInstructDefaults, ...options }
  const id = `self-${index}`
  const draw = rng(seed, "source", id, "demos")
  const demos = draw.shuffle([...draw.sample(pool.text, textDemos), ...draw.sample(pool.plain, plainDemos)])
  const examples = demos.map((demo): Demonstration => [selfInstructPrompt, demo])
  const messages = fewShot(examples, selfInstructPrompt)
  const call = await ask({ engine, seed, stage: "source", id }, messages, { temperature, maxTokens })
  const instruction = parseInstruction(call.text)
  const row = {
    id,
    instruction: instruction || "(none)",
    input: null,
    source: "self-instruct",
    calls: { source: [call] },
  }
  const problem = problemOf([call])
  if (problem) return failed(row, "source", problem)
  if (!instruction) return failed(row, "source", "empty instruction")
  return row
}

/**
 * Jaccard similarity of the character 5-grams (letters and digits, lower case, other characters as one space) from
 * which two instructions count as near-duplicates. One changed word in a sentence of twelve is just about .7.
 */
const NEAR_DUPLICATE = 0.7

/** Rows read before the first comparison, to learn which 5-grams are common. */
const SAMPLE = 1000

/** How many n-grams must be shared (k below) before two rows are compared in full: more index, fewer comparisons. */
const SHARED = 8

/**
 * Marks near-duplicates: a row (instruction and input together) whose similarity to an earlier kept row reaches
 * `threshold` fails with the reason "near-duplicate" and names that row in `duplicate_of`. Rows come out in the order
 * in which they came in; failed rows pass through. Exact, not sampled: two sets with Jaccard >= t share at least t |x|
 * n-grams, and so, in any fixed order of n-grams, k of them lie among the first |x| - ceil(t |x|) + k of each set. Only
 * those are indexed and looked up, the rarest first. Threshold 1 finds only repeats of the same n-grams, above 1 finds
 * nothing.
 */
export async function* markNearDuplicates<Row extends InstructionRow>(
  rows: Rows<Outcome<Row>>,
  threshold = NEAR_DUPLICATE,
): AsyncGenerator<Outcome<Row>> {
  const accepted: { id: string; grams: Uint32Array }[] = []
  const holders = new Map<number, number[]>()
  const common = new Map<number, number>()
  const mark = (row: Outcome<Row>, grams: Uint32Array): Outcome<Row> => {
    if (row.failure || threshold > 1) return row
    const rarestFirst = Array.from(grams).sort((a, b) => (common.get(a) ?? 0) - (common.get(b) ?? 0) || a - b)
    const least = Math.ceil(threshold * grams.length - 1e-9)
    const prefix = rarestFirst.slice(0, grams.length - least + SHARED)
    const shared = new Map<number, number>()
    for (const gram of prefix) for (const i of holders.get(gram) ?? []) shared.set(i, (shared.get(i) ?? 0) + 1)
    for (const [i, count] of shared) {
      const earlier = accepted[i]!
      if (count < Math.min(SHARED, least) || jaccard(grams, earlier.grams) < threshold) continue
      return failed({ ...row, duplicate_of: earlier.id }, "source", "near-duplicate")
    }
    for (const gram of prefix) {
      const rowsWith = holders.get(gram)
      if (rowsWith) rowsWith.push(accepted.length)
      else holders.set(gram, [accepted.length])
    }
    accepted.push({ id: row.id, grams })
    return row
  }
  let sample: { row: Outcome<Row>; grams: Uint32Array }[] | undefined = []
  for await (const row of rows) {
    const grams = fiveGrams(blocks(row.instruction, row.input))
    if (!sample) {
      yield mark(row, grams)
      continue
    }
    sample.push({ row, grams })
    for (const gram of grams) common.set(gram, (common.get(gram) ?? 0) + 1)
    if (sample.length < SAMPLE) continue
    for (const read of sample) yield mark(read.row, read.grams)
    sample = undefined
  }
  for (const read of sample ?? []) yield mark(read.row, read.grams)
}

/** Sorted distinct hashes of the character 5-grams of a text; a shorter text is one gram. */
function fiveGrams(text: string): Uint32Array {
  const chars = [
    ...(text
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu)
      ?.join(" ") ?? text),
  ]
  const grams = new Set<number>()
  for (let i = 0; i < Math.max(1, chars.length - 4); i++) grams.add(streamKey(chars.slice(i, i + 5).join("")))
  return Uint32Array.from(grams).sort()
}

function jaccard(a: Uint32Array, b: Uint32Array): number {
  let shared = 0
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) shared++
    const [x, y] = [a[i]!, b[j]!]
    if (x <= y) i++
    if (y <= x) j++
  }
  return shared / (a.length + b.length - shared)
}
