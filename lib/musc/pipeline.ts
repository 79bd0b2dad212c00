import type { InstructionRow, PairRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import type { FailedRow, Outcome } from "./row"
import { type Rows, runStage } from "./run-stage"
import { type RowStageName, type StageOptions, stageNamed, textStages } from "./stages"

/** Name of a stage that writes text: decompose, corrupt, recombine or respond. */
export type TextStageName = (typeof textStages)[number]

/** Options of each stage by its name, and how many rows are worked on at once. */
export type PairOptions = { [Name in TextStageName]?: Partial<StageOptions[Name]> } & {
  /** Rows in each stage at once, 1 to a few hundred; what the engine asks for if not given. */
  concurrency?: number
  /** Called with every row after each stage, in input order within a stage. */
  onRow?: (stage: RowStageName, row: Outcome<InstructionRow>) => void
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
  let flowing: Rows<InstructionRow | FailedRow> = rows
  for (const name of textStages) {
    const stage = stageNamed(name)
    flowing = runStage<InstructionRow, InstructionRow>(
      flowing,
      (row) => stage.work(engine as Parameters<typeof stage.work>[0], row, options[name] ?? {}),
      { concurrency, signal, onRow: (row) => onRow?.(name, row) },
    )
  }
  yield* flowing as AsyncGenerator<Outcome<PairRow>>
}
