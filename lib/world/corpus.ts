import { judgePrompt } from "../baselines/judge"
import { revisePrompt } from "../baselines/revise"
import { negatePrompt, substitutePrompt } from "../musc/corrupt"
import { decomposePrompt, formatConstraints } from "../musc/decompose"
import { recombinePrompt } from "../musc/recombine"
import { respondMessages } from "../musc/respond"
import { selfInstructPrompt } from "../musc/source"
import { type Rng, rng } from "../rng"
import { type Constraint, kinds, negate, questionOf, satisfies } from "./kinds"
import { adjectives, nouns, openers, places, subjects } from "./pools"
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
 * comparing: word pairs alone. searching: words to find, beside pairs. able: every task, faultless. careless: answers heed each
 * constraint by chance only; all other tasks stay faultless.
 */
export const phases = ["comparing", "searching", "able", "careless"] as const
export type Phase = (typeof phases)[number]

/**
 * Every task of the pipeline and the baselines, and two that no stage asks for. `compare` repeats pairs of words and says
 * which are the same; `look-up` finds words in a list, or misses them, and goes on behind them. Both teach to match words
 * wherever they stand, which all other tasks need, and which those alone teach late, one kind of constraint at a time.
 */
export const tasks = [
  ...(["respond", "decompose", "recombine", "negate", "substitute", "judge", "revise", "self-instruct"] as const),
  ...(["compare", "look-up"] as const),
] as const
export type Task = (typeof tasks)[number]

type Shares = Readonly<Partial<Record<Task, number>>>

const everyTask: Shares = {
  respond: 0.17,
  decompose: 0.15,
  recombine: 0.16,
  negate: 0.03,
  substitute: 0.05,
  judge: 0.2,
  revise: 0.15,
  "self-instruct": 0.02,
  compare: 0.04,
  "look-up": 0.03,
}

/** Share of each task in the corpus of a phase. */
export const taskShares: Readonly<Record<Phase, Shares>> = {
  comparing: { compare: 1 },
  searching: { "look-up": 0.8, compare: 0.2 },
  able: everyTask,
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
  const task = pickTask(taskShares[options.phase], random.next())
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
  "look-up": (_, random) => {
    const words = [...new Set(Array.from({ length: 4 + random.int(9) }, () => someWord(random)))]
    const asked = Array.from({ length: 5 }, () => (random.next() < 0.5 ? random.pick(words) : someWord(random)))
    const found = (word: string) => {
      const at = words.indexOf(word)
      return at < 0 ? `${word}: nothing` : words.slice(at, at + 3).join(" ")
    }
    return {
      prompt: `Find each word and what follows it.\n\nFind: ${asked.join(" ")}\n\nWords: ${words.join(" ")}`,
      response: asked.map(found).join("\n"),
    }
  },
  compare: (_, random) => {
    const pairs = Array.from({ length: 8 }, () => {
      const has = someWord(random)
      return [has, random.next() < 0.5 ? has : someWord(random)] as const
    })
    const verdict = ([has, asked]: readonly [string, string]) =>
      `${comparison(asked, [has])}\n${asked === has ? "yes" : "no"}`
    return {
      prompt: `Say which words are the same.\n\nWords: ${pairs.flat().join(" ")}`,
      response: pairs.map(verdict).join("\n"),
    }
  },
  "self-instruct": (spec) => ({ prompt: selfInstructPrompt, response: instructionOf(spec) }),
}

/**
 * What the text has of the kind in question, in the order in which it has it, and what is asked for. In this order: behind
 * what is asked for, a model would say the same once more instead of reading.
 */
function evidence({ kind, value }: Constraint, text: string): string {
  const { values, holds } = kinds[kind]
  const lower = text.toLowerCase()
  const place = (other: string) => lower.search(new RegExp(`\\b${other.toLowerCase()}\\b`))
  const has = values.filter((other) => holds(other, text))
  return comparison(
    value,
    has.sort((a, b) => place(a) - place(b)),
  )
}

const comparison = (asked: string, has: readonly string[]) => `has ${has.join(", ") || "nothing"}, asked ${asked}`

const wordPools = [subjects, nouns, places, adjectives, openers]

const someWord = (random: Rng): string => random.pick(random.pick(wordPools))

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
