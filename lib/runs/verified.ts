import { isVerified, type RunConfig } from "../config/config"
import type { InstructionRow, PairRow } from "../data/schema"
import { hasPassed, type Outcome } from "../musc/row"
import { verify } from "../musc/verify"
import { openJudge } from "./baselines"
import { passed, type RunContext, rowsStage, tellLosses } from "./context"
import { checksKey, gradePair, graderOf, judgeOptions, verdictsKey } from "./graders"
import { isWorld } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"

/** Part of the key of verified pairs; to be raised when a change lets others through. */
const version = 1

/** Who says which answer of a pair keeps more of the constraints, for notes, results and report. */
export function verifierOf({ instructionsFrom, judgeEndpoint, judgeModel }: RunConfig): string {
  if (isWorld({ instructionsFrom })) return "exact checks"
  return judgeEndpoint ? judgeModel : "the model's own verdicts"
}

/** Whether anyone has to be asked which answer of a pair keeps more of the constraints; exact checks need nobody. */
export const asksVerifier = (config: RunConfig): boolean =>
  !isWorld(config) && (config.keepPairs === "verified" || config.methods.some(isVerified))

/** Stage between respond and weigh: pairs whose chosen answer does not keep more constraints fail, with the reason. */
export async function verifyStage(context: RunContext, seed: number, answered: StageOutput): Promise<StageOutput> {
  const { config, engines } = context
  const { judgeEndpoint, judgeModel } = config
  const options = judgeOptions(config)
  const server = !isWorld(config) && judgeEndpoint && judgeModel ? await openJudge(context) : undefined
  const grade = graderOf(server?.engine ?? engines.base, options)
  const by = isWorld(config)
    ? ["exact", ...checksKey()]
    : [options, server?.id ?? engines.textIdentity, ...verdictsKey(config)]
  const output = await rowsStage<Outcome<PairRow>, Outcome<InstructionRow>>(context, {
    name: `seed-${seed}/verify`,
    key: keyOf("verify", version, by, answered.key),
    total: answered.rows,
    engine: server?.engine,
    rows: () => readOutput<Outcome<PairRow>>(answered),
    work: async (row) => (hasPassed(row) ? verify(row, (pair) => gradePair(pair, grade)) : row),
  }).finally(() => server?.close())
  await server?.finish()
  tellLosses("verify", output, context.onNote)
  return output
}

/** Ids of the rows that passed. */
export async function idsOf(output: StageOutput): Promise<Set<string>> {
  const ids = new Set<string>()
  for await (const { id } of passed<InstructionRow>(output)) ids.add(id)
  return ids
}
