import type { EvalItem } from "../data/results"
import type { InstructionRow } from "../data/schema"

/** Outcome of each constraint of an answer. */
export type Verdicts = EvalItem["constraints"]

/** Says of each constraint of a row whether an answer keeps it; null where it cannot tell, which is never guessed. */
export type Grader = (row: InstructionRow, answer: string) => Promise<Verdicts>

/** Share of the readable constraints that an answer keeps; NaN when none is readable. */
export function constraintShare(verdicts: Verdicts): number {
  const known = verdicts.filter(({ satisfied }) => satisfied !== null)
  return known.filter(({ satisfied }) => satisfied).length / known.length
}
