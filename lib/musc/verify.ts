import type { PairRow } from "../data/schema"
import { constraintShare, type Verdicts } from "../eval/grader"
import { failed, type Outcome } from "./row"

/** Verdicts on each constraint of a pair's clean instruction, for both answers. */
export interface PairVerdicts {
  chosen: Verdicts
  rejected: Verdicts
}

const NOT_VERIFIED = "chosen keeps no more constraints than rejected"

/**
 * Verified contrast, between stages 4 and 5: a pair passes only where the chosen answer keeps a larger share of the
 * constraints than the rejected one. The answer to the clean instruction is the better one on average, but by no means
 * always. Who judges is the caller's to say. A pair of which an answer has no readable verdict does not pass either.
 */
export async function verify(row: PairRow, judge: (row: PairRow) => Promise<PairVerdicts>): Promise<Outcome<PairRow>> {
  const { chosen, rejected } = await judge(row)
  const judged = { ...row, verdicts: { chosen, rejected } }
  const gap = constraintShare(chosen) - constraintShare(rejected)
  if (Number.isNaN(gap)) return failed(judged, "verify", "no verdict could be read")
  return gap > 0 ? { ...judged, failure: undefined } : failed(judged, "verify", NOT_VERIFIED)
}
