import { existsSync } from "node:fs"
import { readInstructions } from "../data/formats"
import { parseRecord } from "../data/jsonl"
import type { InstructionRow, PairRow } from "../data/schema"
import type { Scorer } from "../engine/engine"
import { InputError } from "../errors"
import { hasPassed, type Outcome, requireStage, stageOrder } from "../musc/row"
import { type RowStageName, stageNamed } from "../musc/stages"
import { first } from "./context"
import { readState, runRows, type StageOutput } from "./store"
import type { WorldStage } from "./worlds"

/**
 * A stage over the rows of a file, as the stage commands do it. Rows are read as they are needed, never all at once.
 */

/** The rows of a file, as often as they are wanted. */
export interface StageInput {
  count: number
  rows(): AsyncGenerator<Outcome<InstructionRow>>
}

/**
 * Reads a file through for a stage, so that a bad line is told before anything is asked.
 * @throws InputError naming file, line and field; and, for rows of an earlier stage, what to run first
 */
export async function stageInput(name: RowStageName, file: string, limit?: number): Promise<StageInput> {
  const rows = () => first(limit ?? Number.POSITIVE_INFINITY, readRows(name, file))
  let count = 0
  for await (const _ of rows()) count++
  return { count, rows }
}

/** The pairs of an input, for engines that score whole files. */
export async function* pairsOf({ rows }: StageInput): AsyncGenerator<PairRow> {
  for await (const row of rows()) if (hasPassed(row)) yield row as PairRow
}

export interface StageFile {
  name: RowStageName
  input: StageInput
  /** Output, JSONL; see runRows. */
  out: string
  key: string
  engine: Pick<Scorer, "concurrency" | "independent" | "generate" | "score">
  settings: object
  /** What does the stage in the engine's place. */
  world?: WorldStage
  /** Whether an output of other settings is replaced. */
  force?: boolean
  signal?: AbortSignal
  onNote?: (line: string) => void
  onRow?: (done: number) => void
}

/**
 * Runs the stage, or finds it done; a stopped one goes on behind its last row.
 * @throws InputError for an output of other settings without `force`; else as runRows
 */
export async function runStageFile(stage: StageFile): Promise<StageOutput> {
  const { name, input, out, key, engine, settings, world, force, ...watched } = stage
  const { work } = stageNamed(name)
  const state = readState(out)
  if (existsSync(out) && state?.key !== key && !force) {
    const got = state ? "one made with other settings" : "one that this command did not write"
    const rule = `must be a new file or one made with these settings, got ${got}`
    throw new InputError(`${rule}; choose another name, or --force to replace it`, { file: out })
  }
  return runRows<Outcome<InstructionRow>, Outcome<InstructionRow>>({
    ...{ stage: name, file: out, key, rows: input.rows },
    work: async (row) => (!hasPassed(row) ? row : world ? world.work(row) : work(engine as Scorer, row, settings)),
    chunk: () => engine.concurrency,
    replay: () => !engine.independent,
    ...watched,
  })
}

const stageBefore = (name: RowStageName) => stageOrder[stageOrder.indexOf(name) - 1]!

/** Rows of the stage's kind; failed ones pass through. */
async function* readRows(name: RowStageName, file: string): AsyncGenerator<Outcome<InstructionRow>> {
  const { input } = stageNamed(name)
  let record = 0
  for await (const row of readInstructions(file)) {
    record++
    if (row.failure) yield row as Outcome<InstructionRow>
    else {
      requireStage(row, stageBefore(name), file)
      yield parseRecord(input, row, { file: `${file}, record ${record} (input of ${name})` }) as Outcome<InstructionRow>
    }
  }
}
