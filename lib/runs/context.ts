import { join } from "node:path"
import type { RunConfig } from "../config/config"
import type { InstructionRow, PairRow, StageName } from "../data/schema"
import type { Generator, PreparedScorer, ScoreRequest, SignalScorer } from "../engine/engine"
import type { OpenAIOptions } from "../engine/openai"
import { removeJob } from "../engine/torch"
import { InputError } from "../errors"
import type { Plan } from "../model/executor"
import { hasPassed, type Outcome } from "../musc/row"
import { type RowStageName, type StageOptions, stageNamed } from "../musc/stages"
import { weighRequest } from "../musc/weigh"
import { lossWarning, stageCountOf } from "../report/losses"
import type { Tracking } from "../trackers/trackers"
import type { StepLog } from "../train/loop"
import type { Engines } from "./engines"
import type { RunJudge } from "./run-judge"
import { keyOf, type RowStage, readOutput, runRows, type StageOutput } from "./store"
import { worldStage } from "./worlds"

/** Work done of one stage; `unit` says what is counted. */
export interface Progress {
  /** Stage by its path in the run folder, e.g. `seed-0/decompose`. */
  stage: string
  unit: "rows" | "steps" | "tensors" | "MB" | "seconds"
  done: number
  total: number
  /** Such as the loss. */
  note?: string
}

/** What all stages of a run share. */
export interface RunContext {
  config: RunConfig
  /** Run folder. */
  dir: string
  /** The model, by what it is asked for: texts, signals, trainings. */
  engines: Engines
  /** How the judging server of the settings is asked. */
  judge?: Omit<OpenAIOptions, "model" | "baseURL">
  /** Judges the final evaluation and the benchmarks; without one, exact checks or the model itself do. */
  evalJudge?: RunJudge
  /** Folder of finished outputs shared by runs. */
  cache?: string
  /**
   * Folder for what the runs of a study have in common: answers to benchmarks without an adapter, the judge's calls.
   */
  shared?: string
  signal?: AbortSignal
  onProgress: (progress: Progress) => void
  /** Where metrics are logged to besides. */
  tracking?: Tracking
  /** One line of news: the backend chosen, a finished stage. */
  onNote: (line: string) => void
  /** How the model is run for a part of the run. */
  onPlan: (part: string, plan: Plan) => void
}

/** Shows the steps of a training, and warns where there is but one, whose rate the warm-up leaves at 0. */
export function stepProgress(
  stage: string,
  { onProgress, onNote }: Pick<RunContext, "onProgress" | "onNote">,
): (log: StepLog) => void {
  return ({ step, steps, loss, lr }) => {
    onProgress({ stage, unit: "steps", done: step, total: steps, note: `loss ${loss.toFixed(3)}` })
    if (steps === 1 && lr === 0) {
      onNote(`${stage}: nothing was learned in a single step, which is warm-up; lower batchSize or raise epochs`)
    }
  }
}

export interface NamedStage<In, Out extends object> extends Pick<RowStage<In, Out>, "key" | "rows" | "work"> {
  /** Path of the output in the run folder, without `.jsonl`. */
  name: string
  /** The engine that is asked, for the number of rows worked on at once; the one that writes if not given. */
  engine?: Pick<Generator, "concurrency" | "independent">
  /** Rows expected, for the progress display; more may come, such as those that are held out. */
  total: number
}

/** A stage over rows, whose output is a file of the run folder. */
export function rowsStage<In, Out extends object>(
  context: RunContext,
  stage: NamedStage<In, Out>,
): Promise<StageOutput> {
  const { name, total, engine = context.engines.base, ...rest } = stage
  return runRows({
    ...rest,
    stage: name.split("/").at(-1)!,
    file: join(context.dir, `${name}.jsonl`),
    chunk: () => engine.concurrency,
    replay: () => !engine.independent,
    cache: context.cache,
    signal: context.signal,
    onNote: context.onNote,
    onRow: (done) => context.onProgress({ stage: name, unit: "rows", done, total: Math.max(total, done) }),
  })
}

/**
 * Key of a stage's output: the stage and its version, its options, the model that it asks, the key of its input. The
 * same form everywhere, so that a run and a stage command write the same key for the same work.
 */
export const stageKey = (stage: RowStageName, options: object, model: string, input: unknown): string =>
  keyOf(stage, stageNamed(stage).version, options, model, input)

/** A stage of the method by the table of stages, or as a world does it, which passes failed rows through. */
export async function methodStage<Name extends RowStageName>(
  context: RunContext,
  name: Name,
  { seed, input, options }: { seed: number; input: StageOutput; options: StageOptions[Name] },
): Promise<StageOutput> {
  const stage = stageNamed(name)
  const exact = worldStage(name, context.config, options)
  const { base, scorer, fingerprint, textIdentity } = context.engines
  const identity = stage.needs === "text" ? textIdentity : fingerprint
  const ahead =
    stage.needs === "signals" && scorer.prepare
      ? scoredByJob(scorer, scoringJob(context, `seed-${seed}/${name}`, input))
      : null
  const engine = (stage.needs === "text" ? base : (ahead ?? scorer)) as Parameters<typeof stage.work>[0]
  const output = await rowsStage<Outcome<InstructionRow>, Outcome<InstructionRow>>(context, {
    name: `seed-${seed}/${name}`,
    key: exact ? exact.key(input.key) : stageKey(name, options, identity, input.key),
    total: input.rows,
    engine,
    rows: () => readOutput<Outcome<InstructionRow>>(input),
    work: async (row) => (!hasPassed(row) ? row : exact ? exact.work(row) : stage.work(engine, row, options)),
  }).finally(() => ahead?.dispose())
  if (stage.needs === "signals") await removeJob(jobOf(context, `seed-${seed}/${name}`))
  tellLosses(name, output, context.onNote)
  return output
}

export interface ScoringJob extends Partial<Pick<RunContext, "signal" | "onProgress">> {
  /** Folder of the job. */
  folder: string
  /** As progress names it. */
  stage: string
  /** Rows expected, for the progress display. */
  total: number
  requests: () => AsyncIterable<ScoreRequest>
}

/** A scorer whose job for all rows of a stage starts when the first of them is asked for. */
export function scoredByJob(
  scorer: SignalScorer,
  { folder, stage, total, requests, signal, onProgress }: ScoringJob,
): SignalScorer & { dispose(): Promise<void> } {
  let prepared: Promise<PreparedScorer> | undefined
  const onDone = (done: number) => onProgress?.({ stage: `${stage} (job)`, unit: "rows", done, total })
  return {
    concurrency: scorer.concurrency,
    async score(request) {
      prepared ??= scorer.prepare!(requests(), { folder, signal, onDone })
      return (await prepared).score(request)
    },
    async dispose() {
      ;(await prepared?.catch(() => undefined))?.dispose()
    },
  }
}

/** Folder of the job that scores for a stage of a run; removed when the stage is whole. */
export const jobOf = ({ dir }: Pick<RunContext, "dir">, name: string): string => join(dir, `${name}.job`)

/** The job that scores the pairs of an output. */
export function scoringJob(
  context: RunContext,
  name: string,
  input: StageOutput,
  requestOf: (row: PairRow) => ScoreRequest = weighRequest,
): ScoringJob {
  async function* requests() {
    for await (const row of passed<PairRow>(input)) yield requestOf(row)
  }
  const { signal, onProgress } = context
  return { folder: jobOf(context, name), stage: name, total: input.rows, requests, signal, onProgress }
}

/**
 * Warns of a stage that lost more than half of its rows.
 * @throws NoRowsError where none is left, with reason and remedy
 */
export function tellLosses(
  stage: StageName,
  { rows, failures, file }: StageOutput,
  onNote: (line: string) => void,
): void {
  const count = stageCountOf(stage, rows, failures)
  const warning = lossWarning(count)
  if (warning && !count.passed) throw new NoRowsError(`no row passed ${warning}`, { file })
  if (warning) onNote(`WARNING ${warning}`)
}

/** A stage after which no row is left to continue with. */
export class NoRowsError extends InputError {}

/** The rows of an output that did not fail. */
export async function* passed<Row extends InstructionRow>(output: StageOutput): AsyncGenerator<Row> {
  for await (const row of readOutput<Outcome<Row>>(output)) if (hasPassed(row)) yield row
}

/** The first `n` of some rows. */
export async function* first<Row>(n: number, rows: AsyncIterable<Row>): AsyncGenerator<Row> {
  let taken = 0
  if (n > 0) {
    for await (const row of rows) {
      yield row
      if (++taken === n) return
    }
  }
}

/** All rows in memory. */
export async function collect<Row>(rows: AsyncIterable<Row>): Promise<Row[]> {
  const all: Row[] = []
  for await (const row of rows) all.push(row)
  return all
}
