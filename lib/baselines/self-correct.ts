import type { Generator } from "../engine/engine"
import { blocks } from "../musc/prompt"
import { ask, failed, type Outcome, problemOf, withCalls } from "../musc/row"
import { parseRevision, revisePrompt } from "./revise"
import type { BaselinePair, JudgedRow } from "./self-reward"

/** How an answer is revised by Self-Correct. */
export interface CorrectOptions {
  /** Run seed, any integer. */
  seed: number
  /** Sampling temperature of the revision. */
  temperature: number
  /** Most tokens of the revision, end-of-turn included. */
  maxTokens: number
  /** Whether a revision that was cut off is kept. */
  keepCut: boolean
}

/**
 * Self-Correct: the answer that the model itself judges worst (the first such one) is revised by it against the
 * constraints that it found to fail; the revision is chosen, the answer before it rejected. Whether the revision is
 * better is not checked, as in the paper. The released code never shows the instruction and drops rows whose scores
 * happen to add up to 4; here the reviser sees it, and only a row without a failed constraint is left out.
 */
export async function selfCorrect(
  engine: Generator,
  row: JudgedRow,
  { seed, temperature, maxTokens, keepCut }: CorrectOptions,
): Promise<Outcome<BaselinePair>> {
  const least = Math.min(...row.scores.map((score) => score ?? Number.POSITIVE_INFINITY))
  const worst = row.scores.indexOf(least)
  const missed = row.verdicts?.[worst]?.filter(({ satisfied }) => satisfied === false) ?? []
  if (!missed.length) return failed(row, "revise", worst < 0 ? "no verdict could be read" : "no constraint fails")
  const rejected = row.answers[worst]!
  const questions = missed.map(({ question }) => question)
  const prompt = revisePrompt(blocks(row.instruction, row.input), rejected, questions)
  const call = await ask({ engine, seed, stage: "revise", id: row.id }, prompt, { temperature, maxTokens })
  const noted = withCalls(row, "revise", [call])
  const chosen = parseRevision(call.text)
  const problem = problemOf([call], keepCut)
  if (problem) return failed(noted, "revise", problem)
  if (!chosen) return failed(noted, "revise", "empty revision")
  if (chosen === rejected) return failed(noted, "revise", "answer unchanged")
  return { ...noted, clean_instruction: row.instruction, chosen, rejected, failure: undefined }
}
