import { judgeMessages, parseVerdict, verdictVersion } from "../baselines/judge"
import { checkableSpec, gradeCheckable } from "../checkable/spec"
import type { RunConfig } from "../config/config"
import { decomposedRow, type InstructionRow, type PairRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import type { Grader, Verdicts } from "../eval/grader"
import { shotsFor } from "../musc/prompt"
import { ask } from "../musc/row"
import type { PairVerdicts } from "../musc/verify"
import { readInstruction } from "../world/inverse"
import { gradeAnswer, worldSpec } from "../world/spec"
import { isWorld } from "./stages"

/**
 * To be raised when exact checks of either world, those of IFEval among them, say something else of a text: verdicts
 * are kept on disk. `tests/musc/golden-checks.test.ts` tells.
 */
export const checksVersion = 1

/**
 * What keys of exact verdicts have of it: nothing for the first, so that outputs from before it was counted are found.
 */
export const checksKey = (): number[] => (checksVersion > 1 ? [checksVersion] : [])

/** What keys of a model's verdicts have of how they are read. The embedded world's say yes or no and nothing else. */
export const verdictsKey = ({ instructionsFrom }: Pick<RunConfig, "instructionsFrom">): number[] =>
  instructionsFrom === "world" ? [] : [verdictVersion]

/** The same of grades, which are exact where they can be. */
export const gradesKey = (config: Pick<RunConfig, "instructionsFrom">): number[] =>
  isWorld(config) ? checksKey() : [...checksKey(), ...verdictsKey(config)]

/** Exact verdicts for instructions of the embedded world. */
export const worldGrader: Grader = async (row, answer) =>
  gradeAnswer(worldSpec.parse(row.world), answer).map(({ question, kind, satisfied }) => ({
    question,
    kind,
    satisfied,
  }))

/** Exact verdicts for a row of either world; undefined for a row of other origin. */
export function exactGrader(row: InstructionRow): Grader | undefined {
  if (worldSpec.safeParse(row.world).success) return worldGrader
  const spec = checkableSpec.safeParse(row.checkable).data
  return spec && ((_, answer) => gradeCheckable(spec, answer))
}

/** How a model is asked for verdicts. */
export interface JudgeOptions {
  /** most tokens of a reply */
  maxTokens: number
  /** demonstrations shown (default 0) */
  shots?: number
}

/** What a run's settings say of its judge. */
export const judgeOptions = ({ judgeMaxTokens, shots }: RunConfig): Required<JudgeOptions> => ({
  maxTokens: judgeMaxTokens,
  shots: Math.min(4, shots),
})

/**
 * Verdicts of a model that is asked one question a constraint, the row's own (greedily), with the instruction and its
 * text in sight. A reply that is neither yes nor no gives null, where the released code counts .9.
 */
export function judgeGrader(engine: Generator, { maxTokens, shots = 0 }: JudgeOptions): Grader {
  const examples = shotsFor(engine, shots, 0)
  const bare = engine.maxShots === 0 // the embedded model knows the bare question alone
  return async (row, answer) => {
    const { input, constraints, instruction } = decomposedRow.parse(row)
    const judge = async (question: string, index: number): Promise<Verdicts[number]> => {
      const prompt = judgeMessages(question, input, answer, examples, bare ? null : instruction)
      const call = await ask(
        { engine, seed: 0, stage: "judge", id: row.id },
        prompt,
        { temperature: 0, maxTokens },
        index,
      )
      const { text, thoughts, problem, finish } = call
      const verdict = problem ? undefined : parseVerdict(text, finish === "length")
      return { question, kind: "", satisfied: verdict ?? null, reply: text, ...(thoughts && { thoughts }) }
    }
    return Promise.all(constraints.map(judge))
  }
}

/** The exact grader for rows of either world, the model's own judgement for all others. */
export function graderOf(judge: Generator, options: JudgeOptions): Grader {
  const ask = judgeGrader(judge, options)
  return (row, answer) => (exactGrader(row) ?? ask)(row, answer)
}

/** Verdicts on both answers of a pair. */
export interface GradedPair extends PairVerdicts {
  id: string
  /** the same of those constraints that were corrupted, where the edits name them as the grader does */
  spoiled: PairVerdicts
}

/**
 * Verdicts on both answers of a pair, against its clean instruction. In the embedded world that one is read back; a
 * wording that is none of the world's, and the checkable instructions, leave the constraints which the row started
 * from.
 */
export async function gradePair(row: PairRow, grade: Grader): Promise<GradedPair> {
  const spec = worldSpec.safeParse(row.world).data
  const constraints = readInstruction(row.clean_instruction) ?? spec?.constraints
  const questionRow: InstructionRow = {
    ...row,
    instruction: row.clean_instruction,
    ...(spec && { world: { ...spec, constraints } }),
  }
  const [chosen, rejected] = await Promise.all([grade(questionRow, row.chosen), grade(questionRow, row.rejected)])
  const edited = new Set(row.edits?.map(({ before }) => before))
  const spoiled = (verdicts: Verdicts) => verdicts.filter(({ question }) => edited.has(question))
  return { id: row.id, chosen, rejected, spoiled: { chosen: spoiled(chosen), rejected: spoiled(rejected) } }
}
