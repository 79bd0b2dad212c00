import type { Params } from "../../lib/model/transformer"
import { unflatten } from "../../lib/ops/optimizer"
import { type Learner, stepGradient, trainedParams } from "../../lib/train/gradients"
import type { PreferenceOptions } from "../../lib/train/losses"
import type { ItemOf, Objective, PreferenceObjective } from "../../lib/train/objective"

export const preferring = (preference: PreferenceOptions): { objective: PreferenceObjective } => ({
  objective: { kind: "preference", preference },
})

/** Loss and gradients of one step, by parameter name. The caller disposes `grads`. */
export async function stepGradients<O extends Objective>(
  { tokenBudget, ...learner }: Learner & { objective: O; tokenBudget?: number },
  items: readonly ItemOf<O>[],
): Promise<{ loss: number; logs: Record<string, number>; tokens: number; grads: Params }> {
  const { gradient, ...rest } = await stepGradient(learner, items, { tokenBudget })
  const params = trainedParams(learner)
  const parts = unflatten(gradient, Object.values(params))
  gradient.dispose()
  return { ...rest, grads: Object.fromEntries(Object.keys(params).map((name, i) => [name, parts[i]!])) }
}
