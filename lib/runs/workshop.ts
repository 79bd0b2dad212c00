import { join } from "node:path"
import type { RunConfig } from "../config/config"
import type { InstructionRow } from "../data/schema"
import type { LocalEngine, LocalModel } from "../engine/local"
import { stageVersion } from "../musc/pipeline"
import { hasPassed, type Outcome } from "../musc/row"
import type { StepLog } from "../train/loop"
import { keyOf, type RowStage, readOutput, runRows, type StageOutput } from "./store"

/** Work done of one stage; `unit` says what is counted. */
export interface Progress {
  /** Stage by its path in the run folder, e.g. `seed-0/decompose`. */
  stage: string
  unit: "rows" | "steps" | "tensors" | "MB"
  done: number
  total: number
  /** Such as the loss. */
  note?: string
}

/** What all stages of a run share. */
export interface Workshop {
  config: RunConfig
  /** Run folder. */
  dir: string
  local: LocalModel
  /** The model without an adapter: writes, scores and judges. */
  base: LocalEngine
  /** Folder of finished outputs shared by runs. */
  cache?: string
  signal?: AbortSignal
  onProgress: (progress: Progress) => void
  /** Called with the tokens that each step of generation made. */
  onTokens?: (count: number) => void
  /** One line of news: the backend chosen, a finished stage. */
  onNote: (line: string) => void
}

/** Shows the steps of a training, and warns where there is but one, whose rate the warm-up leaves at 0. */
export function stepProgress(
  stage: string,
  { onProgress, onNote }: Pick<Workshop, "onProgress" | "onNote">,
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
  /** Rows expected, for the progress display; more may come, such as those that are held out. */
  total: number
}

/** A stage over rows, whose output is a file of the run folder. */
export function rowsStage<In, Out extends object>(shop: Workshop, stage: NamedStage<In, Out>): Promise<StageOutput> {
  const { name, total, ...rest } = stage
  return runRows({
    ...rest,
    stage: name.split("/").at(-1)!,
    file: join(shop.dir, `${name}.jsonl`),
    chunk: shop.base.concurrency,
    replay: true,
    cache: shop.cache,
    signal: shop.signal,
    onRow: (done) => shop.onProgress({ stage: name, unit: "rows", done, total: Math.max(total, done) }),
  })
}

/** A stage of the method, which passes failed rows through. Its key holds its options, the model and its input's key. */
export function methodStage<In extends InstructionRow, Options extends object>(
  shop: Workshop,
  stage: "decompose" | "corrupt" | "recombine" | "respond" | "weigh",
  { seed, input, options }: { seed: number; input: StageOutput; options: Options },
  work: (row: In, options: Options) => Promise<Outcome<InstructionRow>>,
): Promise<StageOutput> {
  return rowsStage<Outcome<In>, Outcome<InstructionRow>>(shop, {
    name: `seed-${seed}/${stage}`,
    key: keyOf(stage, stageVersion[stage], options, shop.local.fingerprint, input.key),
    total: input.rows,
    rows: () => readOutput<Outcome<In>>(input),
    work: async (row) => (hasPassed(row) ? work(row, options) : row),
  })
}

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
