import { z } from "zod"
import { mean } from "../data/numbers"
import type { InstructionRow } from "../data/schema"
import { InputError } from "../errors"
import { type Rng, rng, streamKey } from "../rng"
import { type Constraint, type KindName, kindNames, kinds, questionOf, sameConstraint, satisfies } from "./kinds"
import { favourite, lowerFirst, withArticle } from "./pools"

const constraint = z
  .object({ kind: z.enum(kindNames), value: z.string(), negated: z.boolean() })
  .refine(({ kind, value }) => kinds[kind].values.includes(value), "must be a value of its kind")

/** What an instruction asks for, and in which words: enough to write the instruction and to grade any answer. */
export const worldSpec = z.object({
  constraints: z.array(constraint).min(1).describe("constraint 0 is the topic"),
  opening: z.int().min(0).describe("index in `openings`"),
  wording: z.array(z.int()).describe("per constraint: index of its clause, or -1 for the wording inside the opening"),
  joined: z.array(z.boolean()).describe('per constraint: its clause follows the one before it with "and"'),
})
/** What an instruction of the embedded world was made from: enough to check an answer exactly. @interface */
export type WorldSpec = z.infer<typeof worldSpec>

export const openings = [
  "Write about",
  "Tell a story about",
  "Write a short text about",
  "Please write about",
  "Tell me about",
] as const

const splits = ["train", "eval", "development"] as const
export type Split = (typeof splits)[number]
export const isSplit = (name: string): name is Split => splits.includes(name as Split)

/** What constraints ask for, whatever their order. */
const combinationOf = (constraints: readonly Constraint[]): string[] =>
  constraints.map(({ kind, value, negated }) => `${kind} ${negated} ${value}`).sort()

/** One combination of values in ten is kept for evaluation; wording and order do not matter. */
export function splitOf(constraints: readonly Constraint[]): Exclude<Split, "development"> {
  return streamKey("world-split", ...combinationOf(constraints)) % 10 === 0 ? "eval" : "train"
}

/** Instructions of the eval split that development keeps away from: more than any result reports. */
const REPORTED = 2000

const reported = new Map<string, ReadonlySet<string>>()

/** The combinations that the first instructions of the eval split ask for, as runs report them (seed 0). */
function reportedCombinations(least: number, most: number): ReadonlySet<string> {
  const key = `${least} ${most}`
  let combinations = reported.get(key)
  if (!combinations) {
    const rows = worldInstructions({ n: REPORTED, seed: 0, split: "eval", constraints: [least, most] })
    combinations = new Set(rows.map(({ world }) => combinationOf(world.constraints).join("\n")))
    reported.set(key, combinations)
  }
  return combinations
}

/** Whether development may use a combination: kept from training, and reported in none of the usual ranges. */
function isFree(constraints: readonly Constraint[], [least, most]: readonly [number, number]): boolean {
  const combination = combinationOf(constraints).join("\n")
  const usual = [
    [3, 5],
    [3, 6],
  ] as const
  return [[least, most] as const, ...usual].every(([a, b]) => !reportedCombinations(a, b).has(combination))
}

/**
 * The instruction in words: the opening with what is worded inside it, then one clause a constraint, in list order,
 * at most two of them in a sentence.
 */
export function instructionOf(spec: WorldSpec): string {
  const [topic, ...rest] = spec.constraints
  const inside = rest.filter((_, i) => spec.wording[i + 1] === -1)
  const adjective = inside.find(({ kind }) => kind === "attribute")
  const hero = adjective ? `${kinds.attribute.inline!(adjective.value)} ${topic!.value}` : topic!.value
  const behind = inside.filter((item) => item !== adjective).map(({ kind, value }) => kinds[kind].inline!(value))
  const sentences = [[openings[spec.opening], withArticle(hero), ...behind].join(" ")]
  rest.forEach(({ kind, value, negated }, i) => {
    const form = spec.wording[i + 1]!
    if (form === -1) return
    const clause = kinds[kind].clauses(value, negated)[form]!
    if (spec.joined[i + 1]) sentences.push(`${sentences.pop()} and ${lowerFirst(clause)}`)
    else sentences.push(clause)
  })
  return sentences.map((sentence) => `${sentence}.`).join(" ")
}

const isOrder = (clause: string): boolean => !/^(The|It) /.test(clause)

/** Words a list of constraints at random. Inside the opening go only the first ones, an adjective only as the first. */
export function wordSpec(constraints: readonly Constraint[], random: Rng): WorldSpec {
  let inside = true
  // Two orders, or two rules ("The hero must ..."), may share a sentence; a third clause starts the next.
  let open: "order" | "rule" | undefined = "order"
  const wording: number[] = [0]
  const joined: boolean[] = [false]
  constraints.slice(1).forEach(({ kind, value, negated }, i) => {
    const { inline, clauses } = kinds[kind]
    inside &&= inline !== undefined && !negated && (kind !== "attribute" || i === 0) && random.next() < 0.5
    const form = inside ? -1 : random.int(clauses(value, negated).length)
    const mood = form < 0 || isOrder(clauses(value, negated)[form]!) ? "order" : "rule"
    const join = form >= 0 && mood === open && random.next() < 0.4
    open = join ? undefined : mood
    wording.push(form)
    joined.push(join)
  })
  return { constraints: [...constraints], opening: random.int(openings.length), wording, joined }
}

/** Shares of the kinds among constraints 1, 2, ...; each comes once at most, but for `word`. */
const shares: Readonly<Record<Exclude<KindName, "topic">, number>> = {
  word: 4,
  begin: 2,
  end: 2,
  setting: 2,
  attribute: 2,
  time: 2,
  company: 2,
  sentences: 2,
  case: 1,
  mark: 2,
}
const bag = Object.entries(shares).flatMap(([kind, share]) => Array<KindName>(share).fill(kind as KindName))

/** Bans on kinds of few values are hard to learn unless they are frequent. */
const oftenBanned: ReadonlySet<KindName> = new Set(["word", "end", "company", "sentences", "mark"])

/** Values of the kind that no other constraint uses. */
function unused(kind: KindName, list: readonly Constraint[]): string[] {
  const taken = new Set(list.map(({ value }) => value))
  return kinds[kind].values.filter((value) => !taken.has(value))
}

/** `n` constraints at random, the topic first; no two use the same value, so that all can be kept together. */
export function sampleConstraints(n: number, random: Rng): Constraint[] {
  const out: Constraint[] = [{ kind: "topic", value: random.pick(kinds.topic.values), negated: false }]
  while (out.length < n) {
    const kind = random.pick(bag)
    const alike = out.filter((other) => other.kind === kind)
    if (alike.length >= (kind === "word" ? 2 : 1)) continue
    const negated = random.next() < (oftenBanned.has(kind) ? 0.4 : 0.25)
    out.push({ kind, value: random.pick(unused(kind, out)), negated })
  }
  return out
}

/** Another value of the same kind, not used in the list. */
export const substitute = (item: Constraint, list: readonly Constraint[], random: Rng): Constraint => ({
  ...item,
  value: favourite(random, unused(item.kind, list)),
})

/** `count` constraints at random and a wording, from the given split; of those only that `allowed` lets pass. */
export function sampleSpec(
  count: number,
  split: Exclude<Split, "development">,
  random: Rng,
  allowed: (constraints: readonly Constraint[]) => boolean = () => true,
): WorldSpec {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const constraints = sampleConstraints(count, random)
    if (splitOf(constraints) === split && allowed(constraints)) return wordSpec(constraints, random)
  }
  throw new InputError(
    `the world must have more instructions of ${count} constraints, got no free one; ask for more constraints`,
  )
}

/** Draws after which a split counts as used up; one in ten is of the eval split. */
const MOST_TRIES = 20_000

/**
 * `n` instructions of a split with their specs in the extra field `world`. `development` is for choices (rates,
 * weightings): it shares no combination of constraints with `train`, nor with the instructions of `eval` that runs
 * report. `constraints`: fewest and most, the topic counted in (default 3 to 6).
 * @throws InputError for a split that there is not
 */
export function worldInstructions(options: {
  n: number
  seed: number
  split: Split
  constraints?: readonly [number, number]
}): (InstructionRow & { world: WorldSpec })[] {
  const { n, seed, split, constraints: [least, most] = [3, 6] } = options
  if (!isSplit(split)) throw new InputError(`split: must be ${splits.join(", ")}, got "${split}"`)
  return Array.from({ length: n }, (_, i) => {
    const random = rng(seed, "world-instruction", split, i)
    const count = least + random.int(most - least + 1)
    const world =
      split === "development"
        ? sampleSpec(count, "eval", random, (constraints) => isFree(constraints, [least, most]))
        : sampleSpec(count, split, random)
    return {
      id: `world-${split}-${seed}-${i}`,
      instruction: instructionOf(world),
      input: null,
      source: "world",
      calls: {},
      world,
    }
  })
}

/** A constraint of the embedded world, its question, and whether a text keeps it. */
export interface Graded extends Constraint {
  question: string
  satisfied: boolean
}

/** Each constraint of a spec with its question and whether the text keeps it. */
export const gradeAnswer = (spec: { constraints: readonly Constraint[] }, text: string): Graded[] =>
  spec.constraints.map((item) => ({ ...item, question: questionOf(item), satisfied: satisfies(item, text) }))

const share = (graded: readonly Graded[]): number => mean(graded.map(({ satisfied }) => Number(satisfied)))

/** Constraint satisfaction rate: share of constraints kept, averaged over answers. NaN without answers. */
export const csr = (answers: readonly (readonly Graded[])[]): number => mean(answers.map(share))

/** Instruction satisfaction rate: share of answers that keep every constraint. NaN without answers. */
export const isr = (answers: readonly (readonly Graded[])[]): number =>
  mean(answers.map((graded) => Number(share(graded) === 1)))

/** Whether two lists hold the same constraints, in any order. */
export const sameConstraints = (a: readonly Constraint[], b: readonly Constraint[]): boolean =>
  a.length === b.length && a.every((item) => b.some((other) => sameConstraint(item, other)))
