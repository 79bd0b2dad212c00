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
import { gradeAnswer, instructionOf, sampleConstraints, splitOf, substitute, type WorldSpec, wordSpec } from "./spec"

/**
 * copy: echo alone. writing: every task but judging, faultless. searching: look-up alone. judging: every task, verdicts
 * and look-up most. able: every task. settling, finishing: every task, those most that are learned last. careless:
 * answers heed each constraint by chance only; all other tasks stay faultless.
 */
export const phases = ["copy", "writing", "searching", "judging", "able", "settling", "finishing", "careless"] as const
export type Phase = (typeof phases)[number]

/**
 * Every task of the pipeline and the baselines, and two that no stage asks for. `echo` repeats random words and teaches
 * to copy, which all other tasks need, but by place; `look-up` quotes a text from given words on, or misses them, and
 * teaches to find a word wherever it is. Judging stands on that, so it comes behind it: whoever meets verdicts first
 * learns to look at the usual place, takes what is there for what was asked, and does not leave the habit.
 */
export const tasks = [
  ...(["respond", "decompose", "recombine", "negate", "substitute", "judge", "revise", "self-instruct"] as const),
  ...(["echo", "look-up"] as const),
] as const
export type Task = (typeof tasks)[number]

type Shares = Readonly<Partial<Record<Task, number>>>
const learnedLast: Shares = {
  decompose: 0.14,
  recombine: 0.12,
  negate: 0.02,
  substitute: 0.07,
  judge: 0.28,
  revise: 0.13,
  "self-instruct": 0.02,
  echo: 0.01,
}

/** Share of each task in the corpus of a phase. */
export const taskShares: Readonly<Record<Phase, Shares>> = {
  copy: { echo: 1 },
  writing: {
    respond: 0.2,
    decompose: 0.18,
    recombine: 0.18,
    negate: 0.04,
    substitute: 0.07,
    revise: 0.26,
    "self-instruct": 0.03,
    echo: 0.04,
  },
  searching: { "look-up": 1 },
  judging: {
    respond: 0.08,
    decompose: 0.07,
    recombine: 0.07,
    negate: 0.02,
    substitute: 0.03,
    judge: 0.35,
    revise: 0.07,
    "self-instruct": 0.01,
    "look-up": 0.3,
  },
  able: {
    respond: 0.15,
    decompose: 0.14,
    recombine: 0.14,
    negate: 0.03,
    substitute: 0.06,
    judge: 0.21,
    revise: 0.14,
    "self-instruct": 0.02,
    echo: 0.01,
    "look-up": 0.1,
  },
  settling: {
    respond: 0.13,
    decompose: 0.14,
    recombine: 0.12,
    negate: 0.02,
    substitute: 0.05,
    judge: 0.26,
    revise: 0.12,
    "self-instruct": 0.02,
    echo: 0.01,
    "look-up": 0.13,
  },
  finishing: { ...learnedLast, respond: 0.12, "look-up": 0.09 },
  careless: { ...learnedLast, respond: 0.15, "look-up": 0.06 },
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
  original?: Constraint
}

/**
 * Example `i` of the endless corpus; depends on nothing but its arguments. The training split, which is what a model is
 * trained on, never holds specs of the evaluation split.
 */
export function corpusExample(
  i: number,
  options: { seed: number; phase: Phase; split?: "train" | "eval" },
): CorpusExample {
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
    const constraint = random.pick(spec.constraints.slice(1))
    return {
      original: constraint,
      prompt: negatePrompt(questionOf(constraint)),
      response: questionOf(negate(constraint)),
    }
  },
  substitute: (spec, random) => {
    const asked = random.pick(spec.constraints.slice(1))
    const other = substitute(asked, spec.constraints, random)
    return { original: asked, prompt: substitutePrompt(questionOf(asked)), response: questionOf(other) }
  },
  judge: (spec, random) => {
    const index = random.int(spec.constraints.length)
    const asked = spec.constraints[index]!
    const verdict = random.next() < 0.5
    const heeds = (k: number) => (k === index ? verdict : k === 0 || random.next() < 0.6)
    const { text } = draft(spec, random, heeds, (answer) => satisfies(asked, answer) === verdict)
    return {
      original: asked,
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
  "look-up": (spec, random) => {
    const text = random.next() < 0.6 ? someWords(random).join(" ") : realise(spec, random)
    const questions = new Set<string>()
    const there = wordPools.flat().filter((word) => quote(word, text) !== undefined)
    while (questions.size < 4)
      questions.add(random.pick(random.next() < 0.5 && there.length > 0 ? there : random.pick(wordPools)))
    return {
      prompt: lookUpPrompt([...questions], text),
      response: [...questions].map((word) => quote(word, text) ?? `${word}: nothing`).join("\n"),
    }
  },
  "self-instruct": (spec) => ({ prompt: selfInstructPrompt, response: instructionOf(spec) }),
}

/** Laid out as a judge's prompt, so that what is learned here serves there. */
const lookUpPrompt = (words: readonly string[], text: string): string =>
  `Quote the answer from each word on, or write nothing.\n\nQuestion: ${words.join(" ")}\n\nAnswer: ${text}`

/** What decides a verdict: the text quoted from the asked word on, "lantern and rested.", or "lantern: nothing". */
function evidence({ kind, value }: Constraint, text: string): string {
  const { values, holds } = kinds[kind]
  if (values.length <= counts.length) return `${value}: ${values.find((other) => holds(other, text)) ?? "nothing"}`
  return (holds(value, text) && quote(value, text)) || `${value}: nothing`
}

/** `word` and what follows it in `text`, two words at most; undefined where it is not. */
function quote(word: string, text: string): string | undefined {
  const behind = new RegExp(`\\b${word}\\b(\\S*(?: \\S+){0,2})`, "i").exec(text)?.[1]
  return behind === undefined ? undefined : word + behind
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
 * The chance, .25 to .65 and .45 on average, that a careless answer heeds constraint `k`: by kind, more for what the
 * opening says, less for what follows an "and". The topic is always heeded. What is not heeded is forgotten, a ban too:
 * were bans misread, leaving one out would make an answer keep it, and a contrast of answers would teach to break it.
 */
export function heed(spec: WorldSpec, k: number): number {
  const { kind } = spec.constraints[k]!
  if (k === 0) return 1
  const place = spec.wording[k] === -1 ? 0.1 : spec.joined[k] ? -0.1 : 0
  return kinds[kind].heed + place
}

/** A spec of a split; for tasks that meet spoiled constraint lists, often such a list. */
function drawSpec(task: Task, random: Rng, split: "train" | "eval"): WorldSpec {
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
