import pLimit from "p-limit"
import type { AnyStage, Failure, InstructionRow, StageName } from "../data/schema"
import { stageName } from "../data/schema"
import { StoppedError } from "../errors"
import { type FailedRow, hasPassed, type Outcome } from "./row"

/** Rows as they come: an array, a file being read, or the output of another stage. */
export type Rows<Row> = AsyncIterable<Row> | Iterable<Row>

/** How a stage works through its rows. */
export interface StageRunOptions<Row> {
  /** Rows worked on at once, 1 to a few hundred. */
  concurrency: number
  /** Called with every row in order, before it is handed on. */
  onRow?: (row: Row) => void
  /** Aborting starts no further row, hands on those under way, and then throws StoppedError. */
  signal?: AbortSignal
}

/**
 * Applies a stage to each row, `concurrency` at once, and yields the outcomes in input order. Rows that failed earlier
 * pass through. Reads at most 4 x `concurrency` rows ahead, so any number of rows can stream through.
 * @throws StoppedError when aborted, and what the stage or the input throws (an engine that is down, a bad line), each
 * after the rows before it.
 */
export async function* runStage<In extends InstructionRow, Out extends InstructionRow>(
  rows: Rows<In | FailedRow>,
  stage: (row: In) => Promise<Outcome<Out>>,
  { concurrency, onRow, signal }: StageRunOptions<Outcome<Out>>,
): AsyncGenerator<Outcome<Out>> {
  const limit = pLimit(concurrency)
  const pending: Promise<Outcome<Out>>[] = []
  let broken: { error: unknown } | undefined
  async function* unbroken() {
    try {
      yield* rows
    } catch (error) {
      broken = { error }
    }
  }
  const startStage = async (row: In) => {
    if (signal?.aborted) throw new StoppedError()
    return stage(row)
  }
  const start = (row: In | FailedRow) => {
    const result = hasPassed(row) ? limit(startStage, row) : Promise.resolve<FailedRow>(row)
    result.catch(() => {}) // it is thrown when its turn comes
    pending.push(result)
  }
  const next = async () => {
    const row = await pending.shift()!
    onRow?.(row)
    return row
  }
  try {
    for await (const row of unbroken()) {
      if (signal?.aborted) break
      start(row)
      if (pending.length >= 4 * concurrency) yield await next()
    }
    while (pending.length) yield await next()
    if (broken) throw broken.error
    if (signal?.aborted) throw new StoppedError()
  } finally {
    limit.clearQueue()
  }
}

/** Outcomes of the rows that reached a stage. */
export interface StageCount {
  stage: StageName
  rows: number
  passed: number
  /** Failed rows by reason. */
  reasons: Record<string, number>
}

/** Counts rows as they leave the pipeline. `counts()` lists the stages up to `last` in order. */
export function stageTally(last: StageName = "respond"): {
  add(row: { failure?: Failure | undefined }): void
  counts(): StageCount[]
} {
  let total = 0
  const reasons = new Map<AnyStage, Record<string, number>>()
  return {
    add({ failure }) {
      total++
      if (!failure) return
      const counted = reasons.get(failure.stage) ?? {}
      reasons.set(failure.stage, { ...counted, [failure.reason]: (counted[failure.reason] ?? 0) + 1 })
    },
    counts() {
      const stages = stageName.options.slice(0, stageName.options.indexOf(last) + 1)
      let rows = total
      return stages.map((stage) => {
        const why = reasons.get(stage) ?? {}
        const passed = rows - Object.values(why).reduce((sum, n) => sum + n, 0)
        const count = { stage, rows, passed, reasons: why }
        rows = passed
        return count
      })
    },
  }
}
