import { z } from "zod"
import { type DecomposedRow, decomposedRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { respondMessages } from "../musc/respond"
import { ask, failed, type Outcome, problemOf, withCalls } from "../musc/row"

/** An instruction with several different answers of the model; `input` is null where the instruction holds the text. */
export const sampledRow = decomposedRow.extend({ answers: z.array(z.string().min(1)).min(2) })
/** A row of `sample`: a decomposed instruction with two or more answers. @interface */
export type SampledRow = z.infer<typeof sampledRow>

/** How answers are sampled for the baselines. */
export interface SampleOptions {
  /** Run seed, any integer. */
  seed: number
  /** Answers to an instruction, 2 to 16; paper 4. */
  samples: number
  /** Sampling temperature, above 0. */
  temperature: number
  /** Most tokens of an answer, end-of-turn included. */
  maxTokens: number
  /** Whether answers that were cut off at the limit are kept. */
  keepCut: boolean
}

/** The paper's: four answers at temperature .5. */
export const sampleDefaults: SampleOptions = { seed: 0, samples: 4, temperature: 0.5, maxTokens: 1024, keepCut: false }

/**
 * First stage of Self-Reward and Self-Correct: several answers to the instruction as it stands. Empty ones, repeats and
 * (unless `keepCut`) cut-off ones are left out; a row needs two that are left.
 */
export async function sample(
  engine: Generator,
  row: DecomposedRow,
  options: Partial<SampleOptions> = {},
): Promise<Outcome<SampledRow>> {
  const { seed, samples, temperature, maxTokens, keepCut } = { ...sampleDefaults, ...options }
  const input = row.input && row.instruction.includes(row.input) ? null : row.input
  const messages = respondMessages(row.instruction, input)
  const asker = { engine, seed, stage: "sample", id: row.id }
  const calls = await Promise.all(
    Array.from({ length: samples }, (_, i) => ask(asker, messages, { temperature, maxTokens }, i)),
  )
  const noted = withCalls({ ...row, input }, "sample", calls)
  const whole = calls.filter((call) => !problemOf([call], keepCut)).map(({ text }) => text.trim())
  const answers = [...new Set(whole.filter((text) => text))]
  if (answers.length < 2) {
    const problem = whole.length < 2 ? problemOf(calls, keepCut) : undefined
    return failed(noted, "sample", problem ?? "fewer than 2 different answers")
  }
  return { ...noted, answers, failure: undefined }
}
