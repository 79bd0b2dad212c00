import type { CorruptedRow, DecomposedRow, InstructionRow, PairRow, RecombinedRow, StageName } from "../data/schema"
import type { Generator } from "../engine/engine"
import { type CorruptOptions, corrupt } from "./corrupt"
import { type DecomposeOptions, decompose } from "./decompose"
import { type RecombineOptions, recombine } from "./recombine"
import { type RespondOptions, respond } from "./respond"
import type { FailedRow, Outcome } from "./row"
import { type Rows, runStage } from "./run-stage"

/** Part of the key of a stage's stored output. To be raised when a change makes the stage write something else. */
export const stageVersion: Readonly<Record<StageName, number>> = {
  source: 3,
  decompose: 3,
  corrupt: 3,
  recombine: 3,
  respond: 1,
  weigh: 1,
}

export interface PairOptions {
  decompose?: Partial<DecomposeOptions>
  corrupt?: Partial<CorruptOptions>
  recombine?: Partial<RecombineOptions>
  respond?: Partial<RespondOptions>
  /** Rows in each stage at once, 1 to a few hundred; what the engine asks for if not given. */
  concurrency?: number
  /** Called with every row after each stage, in input order within a stage. */
  onRow?: (stage: StageName, row: Outcome<InstructionRow>) => void
  /** See runStage. */
  signal?: AbortSignal
}

/**
 * The data half of the paper's figure: instructions in, preference pairs out. Rows flow through all stages at once and
 * come out in input order, failed ones with the reason.
 */
export async function* makePairs(
  engine: Generator,
  rows: Rows<InstructionRow | FailedRow>,
  { concurrency = engine.concurrency, onRow, signal, ...options }: PairOptions = {},
): AsyncGenerator<Outcome<PairRow>> {
  const run = (stage: StageName) => ({
    concurrency,
    signal,
    onRow: (row: Outcome<InstructionRow>) => onRow?.(stage, row),
  })
  const decomposed = runStage<InstructionRow, DecomposedRow>(
    rows,
    (row) => decompose(engine, row, options.decompose),
    run("decompose"),
  )
  const corrupted = runStage<DecomposedRow, CorruptedRow>(
    decomposed,
    (row) => corrupt(engine, row, options.corrupt),
    run("corrupt"),
  )
  const recombined = runStage<CorruptedRow, RecombinedRow>(
    corrupted,
    (row) => recombine(engine, row, options.recombine),
    run("recombine"),
  )
  yield* runStage<RecombinedRow, PairRow>(recombined, (row) => respond(engine, row, options.respond), run("respond"))
}
