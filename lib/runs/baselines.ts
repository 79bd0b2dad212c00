import { join } from "node:path"
import { pointsOf } from "../baselines/points"
import { type SampledRow, sample } from "../baselines/sample"
import { selfCorrect } from "../baselines/self-correct"
import {
  type BaselinePair,
  type JudgedRow,
  judgeByConstraint,
  judgeByPoints,
  selfReward,
} from "../baselines/self-reward"
import { type BaselineName, isBaseline, type RunConfig } from "../config/config"
import type { DecomposedRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { removeJob } from "../engine/torch"
import { failed, hasPassed, type Outcome, orRefusal, Refused } from "../musc/row"
import { shortNumbers, stages } from "../musc/stages"
import { type ScoredPair, weighRequest, weighSamples } from "../musc/weigh"
import { jobOf, passed, type RunContext, rowsStage, scoredByJob, scoringJob } from "./context"
import { checksKey, exactGrader, judgeGrader, judgeOptions, verdictsKey } from "./graders"
import { openWriting, type WritingServer } from "./servers"
import { stageOptions } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"

/** Part of the keys of the baselines' stages; to be raised when a change makes them write something else. */
const version = 3

/** The pairs of a baseline, and how many of its judge's verdicts could not be read. */
export interface BaselinePairs {
  output: StageOutput
  unreadable: number
}

/**
 * Pairs that a baseline makes for itself: answers are sampled and judged, then the best and the worst are taken
 * (Self-Reward) or the worst is revised (Self-Correct). Baselines share the stages that they have in common, and
 * decompose with the method itself.
 */
export async function baselinePairs(
  context: RunContext,
  seed: number,
  method: BaselineName,
  decomposed: StageOutput,
): Promise<BaselinePairs> {
  const { config, engines } = context
  const { base, textIdentity } = engines
  const respond = stageOptions(config, seed).respond
  const sampling = { ...respond, samples: config.samples }
  const sampled = await stage<DecomposedRow>(
    context,
    `seed-${seed}/sample`,
    decomposed,
    [sampling, textIdentity],
    (row) => sample(base, row, sampling),
  )
  const judge = judgeOf(config, method)
  const server = judge === "external" ? await openJudge(context) : undefined
  const judging = server ?? { engine: base, id: textIdentity }
  const judged = await stage<SampledRow>(
    context,
    `seed-${seed}/judge-${judge}`,
    sampled,
    judgeKey(context, judge, judging.id),
    judgeWith(context, judge, judging.engine),
    judging.engine,
  ).finally(() => server?.close())
  await server?.finish()
  const unreadable = await countUnreadable(judged)
  if (method === "self-correct") {
    const work = (row: JudgedRow) => selfCorrect(base, row, respond)
    const identity = [respond, textIdentity]
    return { unreadable, output: await stage(context, `seed-${seed}/${method}`, judged, identity, work) }
  }
  const counted = method === "self-reward-points" && judge === "yesno"
  const score = counted ? ({ verdicts }: JudgedRow, i: number) => pointsOf(verdicts?.[i] ?? []) : undefined
  const work = async (row: JudgedRow) => selfReward(row, score)
  return { unreadable, output: await stage(context, `seed-${seed}/${method}`, judged, [counted], work) }
}

/**
 * The pairs of Self-Reward by the model's own verdicts, weighed by the clean against the empty prompt: token weights on
 * pairs that are not contrastive. With `coarse`, `musc` and `self-reward-yesno` it makes the four corners of the two
 * granularities.
 */
export async function finePairs(context: RunContext, seed: number, decomposed: StageOutput): Promise<StageOutput> {
  const { output } = await baselinePairs(context, seed, "self-reward-yesno", decomposed)
  const { scorer, fingerprint } = context.engines
  const options = stageOptions(context.config, seed).weigh
  const identity = [stages.weigh.version, options, fingerprint]
  const name = `seed-${seed}/weigh-fine`
  const requestOf = (row: ScoredPair) => weighRequest({ ...row, rejected_from: "clean" })
  const ahead = scorer.prepare ? scoredByJob(scorer, scoringJob(context, name, output, requestOf)) : null
  const weighed = await stage<BaselinePair>(context, name, output, identity, async (row) => {
    const done = await orRefusal(ahead ?? scorer, () => weighSamples(ahead ?? scorer, row, options))
    return done instanceof Refused ? failed(row, "weigh", done.reason) : shortNumbers(done)
  }).finally(() => ahead?.dispose())
  await removeJob(jobOf(context, name))
  return weighed
}

type Judge = "yesno" | "points" | "external" | "verifier"

/** Judges whom a run's baselines, and the answers that `fine` trains on, ask for verdicts or points; each once. */
export function judgesOf(config: RunConfig): Set<Judge> {
  const baselines = config.methods.filter(isBaseline).map((method) => judgeOf(config, method))
  return new Set(config.methods.includes("fine") ? [...baselines, "yesno"] : baselines)
}

function judgeOf({ pointsFrom }: RunConfig, method: BaselineName): Judge {
  if (method === "self-correct") return "yesno"
  const judge = method.slice("self-reward-".length) as Judge
  return judge === "points" && pointsFrom === "verdicts" ? "yesno" : judge
}

/** All that decides what a judge says of the same answers. */
function judgeKey({ config }: RunContext, judge: Judge, id: string): unknown[] {
  return judge === "verifier" ? [judge, ...checksKey()] : [judge, judgeOptions(config), id, ...verdictsKey(config)]
}

/** The judging server of the settings, with its finished calls in the run folder. */
export function openJudge({ config, dir, judge, signal, onNote }: RunContext): Promise<WritingServer> {
  const { judgeEndpoint: baseURL, judgeModel: model } = config
  return openWriting({ ...judge, model, baseURL }, { file: join(dir, ".judge.calls.jsonl"), signal, onNote })
}

function judgeWith(
  { config }: RunContext,
  judge: Judge,
  engine: Generator,
): (row: SampledRow) => Promise<Outcome<JudgedRow>> {
  const options = judgeOptions(config)
  if (judge === "points") return (row) => judgeByPoints(engine, row, options)
  if (judge === "verifier")
    return async (row) => {
      const exact = exactGrader(row)
      return exact ? judgeByConstraint(exact, row) : failed(row, "judge", "no exact check for this instruction")
    }
  const grade = judgeGrader(engine, options)
  return (row) => judgeByConstraint(grade, row)
}

/** A stage over the rows of another; failed ones go through as they are. */
function stage<In extends DecomposedRow>(
  context: RunContext,
  name: string,
  input: StageOutput,
  identity: readonly unknown[],
  work: (row: In) => Promise<Outcome<DecomposedRow>>,
  engine: Generator = context.engines.base,
): Promise<StageOutput> {
  return rowsStage<Outcome<In>, Outcome<DecomposedRow>>(context, {
    name,
    key: keyOf(name.split("/").at(-1), version, identity, input.key),
    total: input.rows,
    engine,
    rows: () => readOutput<Outcome<In>>(input),
    work: async (row) => (hasPassed(row) ? work(row) : row),
  })
}

async function countUnreadable(judged: StageOutput): Promise<number> {
  let count = 0
  for await (const { verdicts, scores } of passed<JudgedRow>(judged)) {
    const read: readonly unknown[] = verdicts ? verdicts.flat().map(({ satisfied }) => satisfied) : scores
    count += read.filter((value) => value === null).length
  }
  return count
}
