import type { EvalItem } from "../data/results"
import type { InstructionRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import type { Grader } from "../eval/grader"
import { respondMessages } from "./respond"
import { ask } from "./row"

/** How held-out instructions are answered and graded. */
export interface EvaluateOptions {
  /** Name of what is evaluated: base, sft, coarse, musc, … */
  method: string
  /** Run seed, any integer. */
  seed: number
  /** Sampling temperature; 0 is greedy. */
  temperature: number
  /** Most tokens of an answer, end-of-turn included. */
  maxTokens: number
}

/** Part of the key of evaluations. To be raised when a change makes them write something else. */
export const evaluateVersion = 4

/**
 * Stage 7 for one held-out instruction: the answer and a verdict on each constraint. The random stream depends on seed
 * and row but not on the method, so that methods are compared on the same draws. A model that gives no answer (it was
 * cut off inside its thoughts, a filter stopped it) satisfies nothing, not even what an empty answer cannot break. (The
 * released judge overwrites the answer with its own first verdict and takes an unreadable one for .9; here each
 * constraint is judged on the answer, and what cannot be read stays null.)
 */
export async function evaluate(
  engine: Generator,
  row: InstructionRow,
  grade: Grader,
  { method, seed, temperature, maxTokens }: EvaluateOptions,
): Promise<EvalItem> {
  const messages = respondMessages(row.instruction, row.input)
  const call = await ask({ engine, seed, stage: "evaluate", id: row.id }, messages, { temperature, maxTokens })
  const answer = call.text.trim()
  const { tokens, finish, thoughts, problem } = call
  const verdicts = await grade(row, answer)
  const constraints = problem ? verdicts.map((verdict) => ({ ...verdict, satisfied: false })) : verdicts
  const identity = { id: row.id, seed, method, temperature, instruction: messages[0]!.content }
  const said = { answer, ...(thoughts && { thoughts }), ...(problem && { problem }) }
  return { ...identity, ...said, tokens, cut: finish === "length", constraints }
}
