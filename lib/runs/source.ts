import { sha256File } from "../data/files"
import type { InstructionRow } from "../data/schema"
import { decompose } from "../musc/decompose"
import type { Outcome } from "../musc/row"
import { selfInstruct } from "../musc/source"
import { stages, sourceVersion as version } from "../musc/stages"
import { first, type RunContext, rowsStage } from "./context"
import {
  candidates,
  heldOutRows,
  isWorld,
  selfInstructed,
  sourceRows,
  stageOptions,
  worldHoldout,
  worldSource,
} from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"

/** Raised when seed files are read otherwise. */
const readerVersion = 2

const same = async <Row>(row: Row) => row

/** Stage 0 of a seed, and the candidates that evaluation may draw on (none needed for the embedded world). */
export interface Source {
  rows: StageOutput
  candidates?: { key: string; rows: () => AsyncIterable<Outcome<InstructionRow>> }
}

/** Stage 0: the instructions that a seed starts from. */
export async function sourceStage(context: RunContext, seed: number): Promise<Source> {
  const { config } = context
  const { instructions, nearDuplicate, holdout, instructionsFrom } = config
  const name = `seed-${seed}/source`
  if (isWorld(config)) {
    const rows = worldSource(config, seed)
    const key = keyOf("source", version, instructionsFrom, rows)
    return { rows: await rowsStage(context, { name, key, total: instructions, rows: () => rows, work: same }) }
  }
  const written = instructionsFrom === "self-instruct" ? await selfInstructStage(context, seed) : undefined
  const origin = written
    ? keyOf(written.key, nearDuplicate)
    : keyOf(await sha256File(instructionsFrom), nearDuplicate, readerVersion)
  const pool = { key: origin, rows: () => candidates(config, written && readOutput(written)) }
  const development = config.evalSplit === "development" ? ["development"] : []
  const key = keyOf("source", version, pool.key, instructions, holdout, ...development)
  const rows = () => sourceRows(config, pool.rows())
  return { rows: await rowsStage(context, { name, key, total: instructions, rows, work: same }), candidates: pool }
}

/** Instructions that the model writes; more than are asked for, as a share is held out. */
function selfInstructStage(context: RunContext, seed: number): Promise<StageOutput> {
  const { config, engines } = context
  const { source: options } = stageOptions(config, seed)
  const total = selfInstructed(config)
  return rowsStage(context, {
    name: `seed-${seed}/self-instruct`,
    key: keyOf("self-instruct", version, options, engines.textIdentity, total),
    total,
    rows: () => Array.from({ length: total }, (_, i) => i),
    work: (i) => selfInstruct(engines.base, i, options),
  })
}

/**
 * Held-out instructions with all that grading needs: those of the embedded world, or held-out candidates, decomposed.
 * All seeds and methods answer the same ones.
 */
export function holdoutStage(context: RunContext, { candidates: pool }: Source): Promise<StageOutput> {
  const { config, engines } = context
  const most = config.evalInstructions
  if (!pool) {
    const rows = worldHoldout(config)
    const identity = rows.map(({ id, instruction }) => [id, instruction])
    const key = keyOf("holdout", version, identity)
    return rowsStage(context, { name: "holdout", key, total: rows.length, rows: () => rows, work: same })
  }
  const options = stageOptions(config, config.seed).decompose
  const reserved = config.evalSplit === "development" ? [config.holdout, "development"] : [config.holdout]
  return rowsStage(context, {
    name: "holdout",
    key: keyOf("holdout", 2, stages.decompose.version, options, engines.textIdentity, pool.key, ...reserved, most),
    total: most,
    rows: () => first(most, heldOutRows(config, pool.rows())),
    // A text that decompose finds stands in the instruction, which is asked as it is.
    work: async (row) => ({ ...(await decompose(engines.base, row, options)), input: row.input }),
  })
}
