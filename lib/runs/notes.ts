import type { RunConfig } from "../config/config"
import type { InstructionRow } from "../data/schema"
import { passed } from "./context"
import type { StageOutput } from "./store"

/** How many rows have constraints that their seed file brought. */
export async function broughtConstraints(decomposed: StageOutput): Promise<number> {
  let count = 0
  for await (const row of passed<InstructionRow>(decomposed)) if (row.decomposed_by === "seed file") count++
  return count
}

/** What a reader of the table must know about the run. */
export function notesOf(config: RunConfig, brought: readonly { seed: number; n: number; of: number }[]): string[] {
  const { seeds, stages, evalInstructions } = config
  const some = brought.filter(({ n }) => n > 0)
  return [
    ...(stages === "world"
      ? ["Rules decompose, corrupt and recombine the instructions; the model writes the answers and scores the tokens."]
      : []),
    ...some.map(
      ({ seed, n, of }) => `Seed ${seed}: the seed file holds the constraints of ${n} of ${of} instructions.`,
    ),
    ...(evalInstructions && seeds === "checkable"
      ? ["The exact checks do not judge the task itself, only its constraints."]
      : []),
  ]
}

/** The note on pairs that were verified. */
export const verifiedNote = (seed: number, { n, of, by }: { n: number; of: number; by: string }): string =>
  `Seed ${seed}: ${n} of ${of} pairs verified, by ${by}.`
