import type { RunConfig } from "../config/config"
import { sum } from "../data/numbers"
import type { CorruptedRow, DecomposedRow } from "../data/schema"
import { estimateTokens, silentJudge } from "../eval/judge"
import { stages } from "../musc/stages"
import { judgesOf } from "./baselines"
import type { Recorder } from "./recorder"
import { loadBenchmarks } from "./run-benchmarks"
import { isWorld, stageOptions } from "./stages"
import { asksVerifier } from "./verified"

/** How fast a machine is, in tokens a second. */
export interface Rates {
  write: number
  read: number
  train: number
}

/**
 * What an 8 B model in bf16 does on one GPU of 80 GB, served in batches: round figures, to be replaced by one's own.
 */
const assumedRates: Rates = { write: 1500, read: 10_000, train: 3000 }

/** Lengths in tokens that are assumed where nothing has been written yet; never above the limits of the settings. */
const assumed = {
  instruction: 120,
  constraints: 5,
  question: 15,
  decompose: 150,
  recombine: 120,
  answer: 400,
  verdict: 60,
}

/** A line of the plan. `most`: tokens written if every reply reached its limit. */
interface Cost {
  stage: string
  calls: number
  read: number
  written: number
  most: number
  /** tokens that training passes over, with their gradients */
  trained?: number
  /** someone else's machine does it, so its hours are not counted */
  elsewhere?: boolean
}

export interface CostOptions {
  /** Instructions that go through the stages, and those answered in the evaluation. */
  instructions: number
  evaluated: number
  /** Self-instructed ones. */
  written: number
  /** Mean tokens of an instruction; assumed if not known. */
  instruction?: number
}

/** Calls, tokens and hours of a run by stage, as cells of a table, and what they rest on. */
export async function costOf(
  config: RunConfig,
  engine: () => Recorder,
  options: CostOptions,
  rates: Rates = assumedRates,
): Promise<{ rows: string[][]; notes: string[] }> {
  const { instruction = assumed.instruction } = options
  const answer = Math.min(assumed.answer, config.respondMaxTokens)
  const lengths: Lengths = { ...(await promptLengths(config, engine)), instruction, answer }
  const costs = [
    ...pairCosts(config, options, lengths),
    ...baselineCosts(config, options, lengths),
    trainingCost(config, options, lengths),
    ...evaluationCosts(config, options, lengths),
    ...(await benchmarkCosts(config)),
  ]
  const notes = [
    ...(isWorld(config) ? ["Exact checks judge the answers of the evaluation: no calls."] : []),
    `Rates assumed, in tokens/s: writing ${count(rates.write)}, reading ${count(rates.read)}, ` +
      `training ${count(rates.train)} (an 8 B model served in batches on one GPU of 80 GB; ` +
      "--rates write,read,train gives those of another machine).",
    `Lengths assumed, in tokens: instruction ${Math.round(instruction)}, answer ${answer}, ` +
      `${assumed.constraints} constraints, verdict ${assumed.verdict}; prompts are counted with their examples, ` +
      "which a server that shares prefixes reads once.",
  ]
  return { rows: costTable(costs, config.repeat, rates), notes }
}

/** Tokens of prompts without the instruction that is put in, of an instruction and of an answer. */
type Lengths = Awaited<ReturnType<typeof promptLengths>> & { instruction: number; answer: number }

/** Calls that read so many tokens each, and write `reply` of them, at most `limit`. */
const stage = (stage: string, calls: number, read: number, reply: number, limit: number): Cost => ({
  ...{ stage, calls, read: calls * read, written: calls * Math.min(reply, limit), most: calls * limit },
})

/** Calls of a judge, each about an instruction and its answer. */
function judged(name: string, calls: number, { judge, answer, instruction }: Lengths, limit: number): Cost {
  return stage(name, calls, judge + answer + instruction, assumed.verdict, limit)
}

/** The stages that make pairs. */
function pairCosts(config: RunConfig, { instructions, evaluated, written }: CostOptions, lengths: Lengths): Cost[] {
  const c = config
  const { instruction, answer } = lengths
  const edits = instructions * Math.max(1, Math.round(c.noiseRatio * assumed.constraints)) * (c.negate + c.substitute)
  const editsPerRow = Math.round(edits / (c.drop + c.negate + c.substitute))
  const decomposed = instructions + (isWorld(c) ? 0 : evaluated)
  const [readByDecompose, readByRecombine] = [lengths.decompose + instruction, lengths.recombine]
  const verdicts = judged("verify", 2 * instructions * assumed.constraints, lengths, c.judgeMaxTokens)
  return [
    ...(c.instructionsFrom === "self-instruct"
      ? [stage("self-instruct", written, 5 * instruction, instruction, c.selfInstructMaxTokens)]
      : []),
    ...(c.stages === "world"
      ? []
      : [
          stage("decompose", decomposed, readByDecompose, assumed.decompose, c.decomposeMaxTokens),
          stage("corrupt", editsPerRow, lengths.corrupt, assumed.question, c.corruptMaxTokens),
          stage("recombine", 2 * instructions, readByRecombine, assumed.recombine, c.recombineMaxTokens),
        ]),
    stage("respond", 2 * instructions, instruction, answer, c.respondMaxTokens),
    ...(asksVerifier(c) ? [{ ...verdicts, elsewhere: !!c.judgeEndpoint }] : []),
    stage("weigh", instructions, 6 * (instruction + answer), 0, 0),
  ]
}

/** Sampling, judging and revising of Self-Reward and Self-Correct. */
function baselineCosts(config: RunConfig, { instructions }: CostOptions, lengths: Lengths): Cost[] {
  const { methods, samples, respondMaxTokens, judgeMaxTokens } = config
  const { instruction, answer } = lengths
  const judges = judgesOf(config)
  const sampled = judges.size ? samples * instructions : 0
  const judge = (name: string, calls: number) => judged(name, calls, lengths, judgeMaxTokens)
  const verdicts = sampled * assumed.constraints
  return [
    ...(sampled ? [stage("sample", sampled, instruction, answer, respondMaxTokens)] : []),
    ...(judges.has("yesno") ? [judge("judge for baselines", verdicts)] : []),
    ...(judges.has("points") ? [judge("points for baselines", sampled)] : []),
    ...(judges.has("external") ? [{ ...judge("judge for baselines, by a server", verdicts), elsewhere: true }] : []),
    ...(methods.includes("self-correct")
      ? [stage("revise", instructions, 2 * (instruction + answer), answer, respondMaxTokens)]
      : []),
  ]
}

function trainingCost({ methods, pairs, epochs }: RunConfig, { instructions }: CostOptions, lengths: Lengths): Cost {
  const trained = methods.filter((method) => method !== "base").length
  const rows = Math.min(instructions, pairs || instructions)
  const tokens = 2 * (lengths.instruction + lengths.answer)
  return { ...stage("train", trained, 0, 0, 0), trained: trained * rows * epochs * tokens }
}

function evaluationCosts(config: RunConfig, { evaluated }: CostOptions, lengths: Lengths): Cost[] {
  const { methods, evalTemperatures, evalMaxTokens, evalJudgeEndpoint, judgeMaxTokens } = config
  const answers = evaluated * methods.length * evalTemperatures.length
  const length = Math.min(assumed.answer, evalMaxTokens)
  const verdicts = judged("evaluate: verdicts", answers * assumed.constraints, lengths, judgeMaxTokens)
  return [
    stage("evaluate: answers", answers, lengths.instruction, length, evalMaxTokens),
    ...(isWorld(config) ? [] : [{ ...verdicts, elsewhere: !!evalJudgeEndpoint }]),
  ]
}

const count = (value: number) => Math.round(value).toLocaleString("en")

/** Costs of all repetitions as cells, a row a stage and one for all. */
function costTable(costs: readonly Cost[], repeat: number, rates: Rates): string[][] {
  const hours = ({ read, written, trained = 0, elsewhere }: Cost) =>
    elsewhere ? 0 : (repeat * (read / rates.read + written / rates.write + trained / rates.train)) / 3600
  const columns: readonly ((cost: Cost) => number)[] = [
    ({ calls }) => repeat * calls,
    ({ read }) => repeat * read,
    ({ written }) => repeat * written,
    ({ most }) => repeat * most,
    ({ trained = 0 }) => repeat * trained,
  ]
  return [
    ["stage", "calls", "tokens read", "tokens written", "at most", "tokens trained", "hours"],
    ...costs.map((cost) => [
      cost.stage,
      ...columns.map((column) => count(column(cost))),
      cost.elsewhere ? "judge's" : hours(cost).toFixed(2),
    ]),
    ["all", ...columns.map((column) => count(sum(costs.map(column)))), sum(costs.map(hours)).toFixed(1)],
  ]
}

/** Tokens of each stage's prompt without the instruction that is put in, measured on prompts as they are sent. */
async function promptLengths(config: RunConfig, engine: () => Recorder) {
  const options = stageOptions(config, config.seed)
  const question = "Is it as long as it has to be?"
  const constraints = Array.from({ length: assumed.constraints }, (_, i) => `${question} ${i}`)
  const plain = { id: "0", instruction: "x", input: null, source: "plan", calls: {} }
  const row: DecomposedRow = { ...plain, constraints }
  const lengthOf = async (work: (recorder: Recorder) => Promise<unknown>) => {
    const recorder = engine()
    await work(recorder)
    const first = recorder.requests[0]
    return first ? first.messages.reduce((sum, { content }) => sum + estimateTokens(content), 0) : 0
  }
  const noised = { ...row, noised_constraints: constraints.slice(1), edits: [] } as unknown as CorruptedRow
  return {
    decompose: await lengthOf((one) => stages.decompose.work(one, plain, options.decompose)),
    corrupt: await lengthOf((one) =>
      stages.corrupt.work(one, row, { ...options.corrupt, drop: 0, negate: 1, substitute: 0 }),
    ),
    recombine: await lengthOf((one) => stages.recombine.work(one, noised, options.recombine)),
    judge: 60 + 110 * Math.min(4, config.shots),
  }
}

/**
 * What the benchmarks of the settings ask, for all methods of one seed. Answers are assumed to be of half their limit
 * at most.
 */
async function benchmarkCosts(config: RunConfig): Promise<Cost[]> {
  const loaded = await loadBenchmarks(config, true)
  const methods = config.methods.length
  return Promise.all(
    loaded.map(async ({ benchmark, items }): Promise<Cost[]> => {
      const { judge, requests } = silentJudge()
      if (benchmark.judged)
        for (const item of items)
          await benchmark.collect(
            item,
            item.turns.map(() => ""),
            judge,
          )
      const turns = items.flatMap((item) => item.turns.map((text) => ({ text, most: item.maxTokens })))
      const reply = (most: number) => Math.min(assumed.answer, most)
      const answers: Cost = {
        ...{ stage: `${benchmark.name}: answers`, calls: methods * turns.length },
        read: methods * sum(turns.map(({ text }) => estimateTokens(text))),
        written: methods * sum(turns.map(({ most }) => reply(most))),
        most: methods * sum(turns.map(({ most }) => most)),
      }
      if (!benchmark.judged) return [answers]
      const prompts = requests.map(({ messages }) => sum(messages.map(({ content }) => estimateTokens(content))))
      return [
        answers,
        {
          ...{ stage: `${benchmark.name}: judge`, calls: methods * requests.length, elsewhere: true },
          read: methods * (sum(prompts) + requests.length * assumed.answer),
          written: methods * sum(requests.map(({ maxTokens }) => Math.min(assumed.verdict, maxTokens))),
          most: methods * sum(requests.map(({ maxTokens }) => maxTokens)),
        },
      ]
    }),
  ).then((lists) => lists.flat())
}
