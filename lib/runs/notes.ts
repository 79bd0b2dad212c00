import type { RunConfig } from "../config/config"
import type { InstructionRow } from "../data/schema"
import { passed } from "./context"
import { isWorld } from "./stages"
import type { StageOutput } from "./store"

/** How many rows have constraints that their seed file brought. */
export async function broughtConstraints(decomposed: StageOutput): Promise<number> {
  let count = 0
  for await (const row of passed<InstructionRow>(decomposed)) if (row.decomposed_by === "seed file") count++
  return count
}

/** What a reader of the table must know of how the run was done. */
export function notesOf(config: RunConfig, brought: readonly { seed: number; n: number; of: number }[]): string[] {
  const { seeds, stages, evalSplit, evalInstructions } = config
  const some = brought.filter(({ n }) => n > 0)
  return [
    ...(stages === "world"
      ? ["Decomposition, edits and recombination by the world, exactly; answers and token signals by the model."]
      : []),
    ...some.map(
      ({ seed, n, of }) => `Seed ${seed}: ${n} of ${of} instructions brought their constraints in the seed file.`,
    ),
    ...(evalInstructions && isWorld(config)
      ? [
          seeds === "checkable"
            ? `Answers to the ${evalSplit} split graded by exact checks, which cannot judge the task itself.`
            : "Answers graded by exact checks.",
        ]
      : []),
  ]
}

/** The note on pairs that were verified. */
export const verifiedNote = (seed: number, { n, of, by }: { n: number; of: number; by: string }): string =>
  `Seed ${seed}: ${n} of ${of} pairs verified, by ${by}.`
