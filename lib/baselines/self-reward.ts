import { z } from "zod"
import { evalItem } from "../data/results"
import { pairRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { constraintShare, type Grader } from "../eval/grader"
import { blocks } from "../musc/prompt"
import { ask, failed, type Outcome, problemOf, withCalls } from "../musc/row"
import { parsePoints, pointsPrompt } from "./points"
import { type SampledRow, sampledRow } from "./sample"

/** Answers with what a judge thinks of each: null for one whose judgement could not be read at all. */
const judgedRow = sampledRow.extend({
  scores: z.array(z.number().nullable()).describe("share of constraints kept, 0 to 1, or points, 0 to 5"),
  verdicts: z.array(evalItem.shape.constraints).optional().describe("verdicts on each constraint, by answer"),
})
/** A sampled row with a score for each answer, and the verdicts or replies that it comes from. @interface */
export type JudgedRow = z.infer<typeof judgedRow>

/** A preference pair of a baseline: an instruction as it stands and two answers to it. */
const baselinePair = pairRow.pick({ chosen: true, rejected: true, clean_instruction: true })
/** A row of a baseline with its chosen and rejected answer. @interface */
export type BaselinePair = SampledRow & z.infer<typeof baselinePair>

/** Judges each answer constraint by constraint; its score is the share of yes among the verdicts that could be read. */
export async function judgeByConstraint(grade: Grader, row: SampledRow): Promise<Outcome<JudgedRow>> {
  const verdicts = await Promise.all(row.answers.map((answer) => grade(row, answer)))
  const shares = verdicts.map(constraintShare)
  const scores = shares.map((share) => (Number.isNaN(share) ? null : share))
  return { ...row, verdicts, scores, failure: undefined }
}

/** Asks a model for the points of each answer, greedily. */
export async function judgeByPoints(
  engine: Generator,
  row: SampledRow,
  { maxTokens }: { maxTokens: number },
): Promise<Outcome<JudgedRow>> {
  const prompt = blocks(row.instruction, row.input)
  const asker = { engine, seed: 0, stage: "judge", id: row.id }
  const calls = await Promise.all(
    row.answers.map((answer, i) => ask(asker, pointsPrompt(prompt, answer), { temperature: 0, maxTokens }, i)),
  )
  // The sum is to stand at the end, so that a reply which was cut off has none.
  const scores = calls.map((call) => (problemOf([call]) ? null : (parsePoints(call.text) ?? null)))
  return { ...withCalls(row, "judge", calls), scores, failure: undefined }
}

/**
 * Self-Reward's pair: the answer with the best score is chosen, the one with the worst rejected; the first one where
 * several have it. `score` makes another score of a row's verdicts. A row whose answers all score the same fails and is
 * counted.
 */
export function selfReward(
  row: JudgedRow,
  score = (judged: JudgedRow, i: number): number | null => judged.scores[i] ?? null,
): Outcome<BaselinePair> {
  const known = row.answers.flatMap((answer, i) => {
    const value = score(row, i)
    return value === null ? [] : { answer, value }
  })
  if (known.length < 2) return failed(row, "select", "fewer than 2 answers with a score")
  const values = known.map(({ value }) => value)
  const [best, worst] = [Math.max(...values), Math.min(...values)]
  if (best === worst) return failed(row, "select", "all answers score the same")
  const first = (value: number) => known.find((entry) => entry.value === value)!.answer
  return { ...row, clean_instruction: row.instruction, chosen: first(best), rejected: first(worst), failure: undefined }
}
