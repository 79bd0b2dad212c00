import type { InstructionRow } from "../data/schema"
import { decompose } from "../musc/decompose"
import { stageVersion } from "../musc/pipeline"
import type { Outcome } from "../musc/row"
import { selfInstruct } from "../musc/source"
import { sha256File } from "./manifest"
import { HELD_OUT, sourceRows, stageOptions, worldHoldout } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"
import { first, rowsStage, type Workshop } from "./workshop"

const version = stageVersion.source
const same = async <Row>(row: Row) => row

/** Stage 0: the instructions that a seed starts from; those held out for evaluation are among them, marked as failed. */
export async function sourceStage(shop: Workshop, seed: number): Promise<StageOutput> {
  const { instructions, minConstraints, maxConstraints, nearDuplicate, holdout, seeds } = shop.config
  const stage = (key: string, total: number, generated?: AsyncIterable<Outcome<InstructionRow>>) =>
    rowsStage(shop, {
      name: `seed-${seed}/source`,
      key,
      total,
      rows: () => sourceRows(shop.config, seed, generated),
      work: same,
    })
  const filter = { instructions, nearDuplicate, holdout }
  if (seeds === "world") {
    return stage(keyOf("source", version, seeds, seed, instructions, minConstraints, maxConstraints), instructions)
  }
  if (seeds !== "self-instruct") {
    return stage(keyOf("source", version, await sha256File(seeds), filter), instructions)
  }
  const { source: options } = stageOptions(shop.config, seed)
  const total = Math.ceil(instructions / (1 - Math.min(0.9, holdout)))
  const written = await rowsStage(shop, {
    name: `seed-${seed}/self-instruct`,
    key: keyOf("self-instruct", version, options, shop.local.fingerprint, total),
    total,
    rows: () => Array.from({ length: total }, (_, i) => i),
    work: (i) => selfInstruct(shop.base, i, options),
  })
  return stage(keyOf("source", version, written.key, filter), total, readOutput(written))
}

/**
 * Held-out instructions with all that grading needs: those of the embedded world, or the rows that `source` holds out,
 * decomposed. All seeds and methods answer the same ones.
 */
export function holdoutStage(shop: Workshop, source: StageOutput): Promise<StageOutput> {
  const { config, local, base } = shop
  if (config.seeds === "world") {
    const rows = worldHoldout(config)
    const asked = rows.map(({ id, instruction }) => [id, instruction])
    const key = keyOf("holdout", version, asked)
    return rowsStage(shop, { name: "holdout", key, total: rows.length, rows: () => rows, work: same })
  }
  const options = stageOptions(config, config.seed).decompose
  const most = config.evalInstructions
  return rowsStage(shop, {
    name: "holdout",
    key: keyOf("holdout", stageVersion.decompose, options, local.fingerprint, source.key, most),
    total: most,
    rows: () => first(most, heldOut(source)),
    work: (row) => decompose(base, row, options),
  })
}

async function* heldOut(source: StageOutput): AsyncGenerator<InstructionRow> {
  for await (const { failure, ...row } of readOutput<InstructionRow>(source)) {
    if (failure?.reason === HELD_OUT) yield row as InstructionRow
  }
}
