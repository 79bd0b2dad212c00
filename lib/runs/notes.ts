import type { RunConfig } from "../config/config"
import type { InstructionRow } from "../data/schema"
import { passed } from "./context"
import type { StageOutput } from "./store"

/** What the rows of a seed file had of their own. */
export interface Brought {
  seed: number
  /** Rows with constraints. */
  constraints: number
  /** Rows under a system message, which no stage reads. */
  system: number
  of: number
}

/** What the rows of a seed file had of their own, counted. */
export async function broughtBy(seed: number, decomposed: StageOutput): Promise<Brought> {
  const count = { seed, constraints: 0, system: 0, of: decomposed.rows }
  for await (const { decomposed_by, system } of passed<InstructionRow>(decomposed)) {
    if (decomposed_by === "seed file") count.constraints++
    if (typeof system === "string" && system.trim()) count.system++
  }
  return count
}

/** What a reader of the table must know about the run. */
export function notesOf(config: RunConfig, brought: readonly Brought[]): string[] {
  const { instructionsFrom, stages, evalInstructions } = config
  return [
    ...(stages === "world"
      ? ["Rules decompose, corrupt and recombine the instructions; the model writes the answers and scores the tokens."]
      : []),
    ...brought.flatMap(({ seed, constraints, system, of }) => [
      ...(constraints
        ? [`Seed ${seed}: the seed file holds the constraints of ${constraints} of ${of} instructions.`]
        : []),
      ...(system ? [`Seed ${seed}: the system messages of ${system} of ${of} instructions are left out.`] : []),
    ]),
    ...(evalInstructions && instructionsFrom === "checkable"
      ? ["The exact checks do not judge the task itself, only its constraints."]
      : []),
  ]
}

/** The note on pairs that were verified. */
export const verifiedNote = (seed: number, { n, of, by }: { n: number; of: number; by: string }): string =>
  `Seed ${seed}: ${n} of ${of} pairs verified, by ${by}.`
