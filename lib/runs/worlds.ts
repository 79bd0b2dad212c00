import { checkableWorld } from "../checkable/world"
import type { RunConfig } from "../config/config"
import type { CorruptedRow, DecomposedRow, InstructionRow } from "../data/schema"
import { type ExactWorld, exactCorrupt, exactDecompose, exactRecombine } from "../musc/exact"
import { failed, type Outcome } from "../musc/row"
import type { RowStageName, StageOptions } from "../musc/stages"
import { embeddedWorld } from "../world/exact"
import { keyOf } from "./store"

/** The stages that a world does in the model's place under `stages: world`. */
const worldStages = ["decompose", "corrupt", "recombine"] as const
type WorldStageName = (typeof worldStages)[number]

const isWorldStage = (name: RowStageName): name is WorldStageName => (worldStages as readonly string[]).includes(name)

const worlds = [embeddedWorld, checkableWorld] as unknown as ExactWorld<unknown>[]

/** A stage done by the row's world, without a model. */
export interface WorldStage {
  /** Key of the output, of a given input: neither the model nor its sampling matters. */
  key(input: unknown): string
  work(row: InstructionRow): Outcome<InstructionRow>
}

/** The stage as the world does it; undefined where the settings leave it to the model. */
export function worldStage<Name extends RowStageName>(
  name: Name,
  { stages }: Pick<RunConfig, "stages">,
  options: StageOptions[Name],
): WorldStage | undefined {
  if (stages !== "world" || !isWorldStage(name)) return undefined
  const { seed, ratio, drop, negate, substitute } = options as StageOptions["corrupt"]
  const settings = { decompose: {}, recombine: { seed }, corrupt: { seed, ratio, drop, negate, substitute } }[name]
  const versions = worlds.map((world) => [world.name, world.version])
  return {
    key: (input) => keyOf(name, "world", versions, settings, input),
    work(row) {
      const world = worlds.find((one) => one.itemsOf(row))
      if (!world) return failed(row, name, "no world knows this instruction")
      if (name === "decompose") return exactDecompose(world, row)
      if (name === "corrupt") return exactCorrupt(world, row as DecomposedRow, settings)
      return exactRecombine(world, row as CorruptedRow, { seed })
    },
  }
}
