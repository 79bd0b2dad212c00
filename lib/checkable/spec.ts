import { z } from "zod"
import type { InstructionRow } from "../data/schema"
import { InputError } from "../errors"
import type { Verdicts } from "../eval/grader"
import { loadLanguages } from "../eval/ifeval/language"
import { type Rng, rng, streamKey } from "../rng"
import { type Constraint, conflict, kindNames, kinds, labelOf, questionOf, satisfies } from "./kinds"
import { forms, type Task, tasks } from "./tasks"

const constraint = z.object({ kind: z.enum(kindNames), value: z.string(), negated: z.boolean() })

/** What an instruction asks for, and in which words: enough to write the instruction and to grade any answer. */
export const checkableSpec = z.object({
  task: z
    .string()
    .refine((topic) => taskOf(topic), "must be the topic of a task that musc knows")
    .describe("topic of the task"),
  form: z.int().min(0).describe("index in the forms of the task's type"),
  listed: z.boolean().describe("whether the constraints stand in a list instead of one behind the other"),
  constraints: z.array(constraint).min(1).describe("all but the task itself"),
  wording: z.array(z.int().min(0)).describe("index of the wording of each constraint"),
})
/** What a checkable instruction was made from: enough to check an answer by rules. @interface */
export type CheckableSpec = z.infer<typeof checkableSpec>

/** Evaluation splits: `development` for choices (rate, weighting, recipe), `test` for what is reported. */
const checkableSplits = ["train", "development", "test"] as const
export type CheckableSplit = (typeof checkableSplits)[number]

const byTopic: ReadonlyMap<string, Task> = new Map(tasks.map((task) => [task.topic, task]))
export const taskOf = (topic: string): Task | undefined => byTopic.get(topic)

/** One task in five is met in the test split alone. */
const isTestTask = ({ topic }: Task): boolean => streamKey("checkable-task", topic) % 5 === 0

/**
 * Of the other tasks, one combination with constraints in eight is kept for development; wording and order do not
 * matter.
 */
function splitOf(task: Task, constraints: readonly Constraint[]): CheckableSplit {
  if (isTestTask(task)) return "test"
  const parts = constraints.map(({ kind, value, negated }) => `${kind} ${negated} ${value}`).sort()
  return streamKey("checkable-combination", task.topic, ...parts) % 8 === 0 ? "development" : "train"
}

/** The instruction in words: the task, then each constraint as a sentence or as a line of a list. */
export function instructionOf({ task, form, listed, constraints, wording }: CheckableSpec): string {
  const { type, topic } = taskOf(task)!
  const { ask } = forms[type]
  const clauses = constraints.map(({ kind, value, negated }, i) => {
    const wordings = kinds[kind].ask(value, negated)
    return wordings[wording[i]! % wordings.length]!
  })
  const opening = ask[form % ask.length]!(topic)
  if (listed) return `${opening}\nKeep to these rules:\n${clauses.map((clause) => `- ${clause}`).join("\n")}`
  return [opening, ...clauses.map((clause) => (/[.!?]"?$/.test(clause) ? clause : `${clause}.`))].join(" ")
}

/** Constraint 0, the task itself, then the others, as yes/no questions. */
export const questionsOf = ({ task, constraints }: CheckableSpec): string[] => {
  const { type, topic } = taskOf(task)!
  return [forms[type].question(topic), ...constraints.map(questionOf)]
}

const bag = kindNames.flatMap((kind) => Array<(typeof kindNames)[number]>(kinds[kind].share).fill(kind))

/** Whether a constraint may stand beside the others: no common claim, and no word banned that another one asks for. */
function fits(item: Constraint, others: readonly Constraint[]): boolean {
  return others.every((other) => !conflict(item, other))
}

/** `n` constraints at random that can all be kept together. */
function sampleConstraints(task: Task, n: number, random: Rng): Constraint[] {
  const out: Constraint[] = []
  while (out.length < n) {
    const kind = random.pick(bag)
    const negated = random.next() < kinds[kind].negated
    // A ban on a word that nobody would use asks for nothing.
    const values = kind === "word" && negated ? task.words : kinds[kind].values(task)
    const item = { kind, value: random.pick(values), negated }
    const alike = out.filter((other) => other.kind === kind).length
    if (alike < (kind === "word" ? 2 : 1) && fits(item, out)) out.push(item)
  }
  return out
}

/** Whether a constraint asks for no less than another one, so that it could not spoil it. */
function keeps(a: Constraint, b: Constraint): boolean {
  if (a.kind !== b.kind) return false
  const [one, other] = a.negated ? [b.value, a.value] : [a.value, b.value]
  return one === other || !!kinds[a.kind].entails?.(one, other)
}

/** Another constraint of the same family that fits the others; undefined where there is none. */
export function substitute(
  item: Constraint,
  { task, constraints }: Pick<CheckableSpec, "task" | "constraints">,
  random: Rng,
): Constraint | undefined {
  const others = constraints.filter((other) => other !== item)
  const { family } = kinds[item.kind]
  const choices = kindNames
    .filter((kind) => kinds[kind].family === family)
    .flatMap((kind) =>
      [...new Set(kinds[kind].values(taskOf(task)!))].map((value) => ({
        kind,
        value,
        negated: kind === item.kind && item.negated,
      })),
    )
    .filter((other) => !keeps(other, item) && fits(other, others))
  const alike = choices.filter(({ kind }) => kind === item.kind)
  const pool = alike.length ? alike : choices
  return pool.length ? random.pick(pool) : undefined
}

/**
 * `n` instructions of a split with their specs in the extra field `checkable`. `constraints`: fewest and most, the task
 * itself counted in (default 3 to 6).
 * @throws InputError for a split that there is not
 */
export function checkableInstructions(options: {
  n: number
  seed: number
  split: CheckableSplit
  constraints?: readonly [number, number]
}): (InstructionRow & { checkable: CheckableSpec })[] {
  const { n, seed, split, constraints: [least, most] = [3, 6] } = options
  if (!checkableSplits.includes(split))
    throw new InputError(`split: must be one of ${checkableSplits.join(", ")}, got "${split}"; correct it`)
  const own = tasks.filter((task) => isTestTask(task) === (split === "test"))
  return Array.from({ length: n }, (_, i) => {
    const random = rng(seed, "checkable", split, i)
    const checkable = sampleSpec(own, least - 1 + random.int(most - least + 1), split, random)
    return {
      id: `checkable-${split}-${seed}-${i}`,
      instruction: instructionOf(checkable),
      input: null,
      source: "checkable",
      calls: {},
      checkable,
    }
  })
}

function sampleSpec(own: readonly Task[], count: number, split: CheckableSplit, random: Rng): CheckableSpec {
  for (;;) {
    const task = random.pick(own)
    const constraints = sampleConstraints(task, count, random)
    if (splitOf(task, constraints) !== split) continue
    const wording = constraints.map(() => random.int(6))
    return { task: task.topic, form: random.int(6), listed: random.next() < 0.25, constraints, wording }
  }
}

/** Each constraint of a spec, but for the task itself, which no check can decide, and whether the text keeps it. */
export async function gradeCheckable(spec: Pick<CheckableSpec, "constraints">, text: string): Promise<Verdicts> {
  await loadLanguages()
  return spec.constraints.map((item) => ({
    question: questionOf(item),
    kind: labelOf(item),
    satisfied: satisfies(item, text),
  }))
}
