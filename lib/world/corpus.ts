import { judgePrompt } from "../baselines/judge"
import { revisePrompt } from "../baselines/revise"
import { negatePrompt, substitutePrompt } from "../musc/corrupt"
import { decomposePrompt, formatConstraints } from "../musc/decompose"
import { recombinePrompt } from "../musc/recombine"
import { respondMessages } from "../musc/respond"
import { selfInstructPrompt } from "../musc/source"
import { type Rng, rng } from "../rng"
import { type Constraint, kinds, negate, questionOf, satisfies } from "./kinds"
import { adjectives, counts, nouns, openers, places, subjects } from "./pools"
import { realise } from "./realise"
import {
  gradeAnswer,
  instructionOf,
  type Split,
  sampleConstraints,
  splitOf,
  substitute,
  type WorldSpec,
  wordSpec,
} from "./spec"

/**
 * copy: echo alone. able: every task, faultless. searching: look-up alone. finishing: every task again. careless: answers heed
 * each constraint by chance only; all other tasks stay faultless.
 */
export const phases = ["copy", "able", "searching", "finishing", "careless"] as const
export type Phase = (typeof phases)[number]

/**
 * Every task of the pipeline and the baselines, and two that no stage asks for. `echo` repeats random words and teaches to
 * copy, which all other tasks need, but by place; `look-up` repeats them from one of them on, if it is there, and teaches to
 * find a word or miss it, which judging needs and verdicts alone do not teach.
 */
export const tasks = [
  ...(["respond", "decompose", "recombine", "negate", "substitute", "judge", "revise", "self-instruct"] as const),
  ...(["echo", "look-up"] as const),
] as const
export type Task = (typeof tasks)[number]

const everyTask: Shares = {
  respond: 0.19,
  decompose: 0.16,
  recombine: 0.15,
  negate: 0.03,
  substitute: 0.06,
  judge: 0.14,
  revise: 0.22,
  "self-instruct": 0.02,
  echo: 0.03,
}
const onceMore: Shares = {
  respond: 0.17,
  decompose: 0.16,
  recombine: 0.16,
  negate: 0.03,
  substitute: 0.06,
  judge: 0.18,
  revise: 0.16,
  "self-instruct": 0.02,
  echo: 0.02,
  "look-up": 0.04,
}
type Shares = Readonly<Partial<Record<Task, number>>>

/** Share of each task in the corpus of a phase. */
export const taskShares: Readonly<Record<Phase, Shares>> = {
  copy: { echo: 1 },
  able: everyTask,
  searching: { "look-up": 1 },
  finishing: onceMore,
  careless: everyTask,
}

export interface CorpusExample {
  task: Task
  /** User message as the stages send it, without demonstrations. */
  prompt: string
  response: string
  /** respond: a further answer to the same prompt, so that its reading is paid for once. */
  others?: string[]
  /** What the instruction asks for; for recombine what the listed questions ask for. */
  spec: WorldSpec
  /** negate, substitute and judge: the constraint in question. */
  asked?: Constraint
}

/**
 * Example `i` of the endless corpus; depends on nothing but its arguments. The training split, which is what a model is
 * trained on, never holds specs of the evaluation split.
 */
export function corpusExample(i: number, options: { seed: number; phase: Phase; split?: Split }): CorpusExample {
  const random = rng(options.seed, "world-corpus", i)
  const task = options.phase === "copy" ? "echo" : pickTask(taskShares[options.phase], random.next())
  const spec = drawSpec(task, random, options.split ?? "train")
  return { task, spec, ...write[task](spec, random, options.phase) }
}

type Written = Omit<CorpusExample, "task" | "spec">

const write: Readonly<Record<Task, (spec: WorldSpec, random: Rng, phase: Phase) => Written>> = {
  respond: (spec, random, phase) => {
    const answer = () => realise(spec, random, (_, k) => phase !== "careless" || random.next() < heed(spec, k))
    const prompt = respondMessages(instructionOf(spec), null)[0]!.content
    return { prompt, response: answer(), others: [answer()] }
  },
  decompose: (spec) => ({
    prompt: decomposePrompt({ instruction: instructionOf(spec), input: null }),
    response: formatConstraints(spec.constraints.map(questionOf)),
  }),
  recombine: (spec) => ({
    prompt: recombinePrompt(spec.constraints.map(questionOf), null),
    response: instructionOf(spec),
  }),
  negate: (spec, random) => {
    const asked = random.pick(spec.constraints.slice(1))
    return { asked, prompt: negatePrompt(questionOf(asked)), response: questionOf(negate(asked)) }
  },
  substitute: (spec, random) => {
    const asked = random.pick(spec.constraints.slice(1))
    const other = substitute(asked, spec.constraints, random)
    return { asked, prompt: substitutePrompt(questionOf(asked)), response: questionOf(other) }
  },
  judge: (spec, random) => {
    const index = random.int(spec.constraints.length)
    const asked = spec.constraints[index]!
    const verdict = random.next() < 0.5
    const heeds = (k: number) => (k === index ? verdict : k === 0 || random.next() < 0.6)
    const { text } = draft(spec, random, heeds, (answer) => satisfies(asked, answer) === verdict)
    return {
      asked,
      prompt: judgePrompt(questionOf(asked), null, text),
      response: `${evidence(asked, text)}\n${verdict ? "yes" : "no"}`,
    }
  },
  revise: (spec, random) => {
    const failedOf = (text: string) => gradeAnswer(spec, text).filter(({ satisfied }) => !satisfied)
    const heeds = (k: number) => k === 0 || random.next() < 0.5
    const { text, key } = draft(spec, random, heeds, (answer) => failedOf(answer).length > 0)
    const failed = failedOf(text).map(({ question }) => question)
    return { prompt: revisePrompt(instructionOf(spec), text, failed), response: realise(spec, rng(key)) }
  },
  echo: (_, random) => {
    const words = someWords(random)
    return { prompt: `Repeat the words.\n\nWords: ${words.join(" ")}`, response: words.join(" ") }
  },
  "look-up": (_, random) => {
    const words = someWords(random)
    const from = random.pick(random.next() < 0.5 ? words : random.pick(wordPools))
    const at = words.indexOf(from)
    return {
      prompt: `Repeat the words from ${from} on.\n\nWords: ${words.join(" ")}`,
      response: at < 0 ? `${from}: nothing` : words.slice(at).join(" "),
    }
  },
  "self-instruct": (spec) => ({ prompt: selfInstructPrompt, response: instructionOf(spec) }),
}

/**
 * The text quoted from what is asked for on, "lantern and rested.", or "lantern: nothing". A model that can copy goes on
 * behind a word by itself, and the verdict follows from how it goes on; to compare a word with a list of those that the text
 * has is learned late, if at all.
 */
function evidence({ kind, value }: Constraint, text: string): string {
  const { values, holds } = kinds[kind]
  if (values.length <= counts.length) return `${value}: ${values.find((other) => holds(other, text)) ?? "nothing"}`
  const behind = holds(value, text) && new RegExp(`\\b${value}\\b(\\S*(?: \\S+){0,3})`, "i").exec(text)![1]
  return behind ? `${value}${behind}` : `${value}: nothing`
}

const wordPools = [subjects, nouns, places, adjectives, openers]

const someWords = (random: Rng): string[] =>
  Array.from({ length: 4 + random.int(9) }, () => random.pick(random.pick(wordPools)))

/** An answer that heeds some constraints, redrawn until it is as wanted, and the key of its stream. */
function draft(
  spec: WorldSpec,
  random: Rng,
  heeds: (index: number) => boolean,
  wanted: (text: string) => boolean,
): { text: string; key: number } {
  for (;;) {
    const key = random.int(2 ** 32)
    const text = realise(spec, rng(key), (_, k) => heeds(k), "errs")
    if (wanted(text)) return { text, key }
  }
}

/**
 * The chance, .25 to .65 and .45 on average, that a careless answer heeds constraint `k`: by kind, more for what the opening
 * says, less for what follows an "and". The topic is always heeded. What is not heeded is forgotten, a ban too: were bans
 * misread, leaving one out would make an answer keep it, and a contrast of answers would teach to break it.
 */
export function heed(spec: WorldSpec, k: number): number {
  const { kind } = spec.constraints[k]!
  if (k === 0) return 1
  const place = spec.wording[k] === -1 ? 0.1 : spec.joined[k] ? -0.1 : 0
  return kinds[kind].heed + place
}

/** A spec of a split; for tasks that meet spoiled constraint lists, often such a list. */
function drawSpec(task: Task, random: Rng, split: Split): WorldSpec {
  for (;;) {
    // Self-instruct asks for more than five; one more leaves room for a miscount.
    const clean = sampleConstraints(task === "self-instruct" ? 7 : 2 + random.int(5), random)
    const spoiled = spoiledShare[task] && random.next() < spoiledShare[task]
    const constraints = spoiled ? spoil(clean, random) : clean
    if (splitOf(constraints) === split) return wordSpec(constraints, random)
  }
}

const spoiledShare: Readonly<Partial<Record<Task, number>>> = { respond: 0.3, decompose: 0.3, recombine: 0.5 }

/** Drops, negates or substitutes some constraints, in the proportions of the corrupt stage. */
function spoil(constraints: readonly Constraint[], random: Rng): Constraint[] {
  const count = Math.min(constraints.length - 1, Math.max(1, Math.round(0.3 * constraints.length)))
  const picked = new Set(random.sample([...constraints.keys()].slice(1), count))
  return constraints.flatMap((item, i) => {
    if (!picked.has(i)) return [item]
    const edit = random.next()
    if (edit < 0.5) return []
    return [edit < 0.75 ? negate(item) : substitute(item, constraints, random)]
  })
}

function pickTask(shares: Shares, u: number): Task {
  let left = u
  return (
    tasks.find((task) => {
      left -= shares[task] ?? 0
      return left < 0
    }) ?? "respond"
  )
}
