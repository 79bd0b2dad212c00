import { type Plan, planFor } from "../../lib/model/executor"

/** Plans as this device has them for models that are small. */
const small = 1e6

/** Of a training long enough for graphs, or so short that operations are called one by one. */
export const training = (
  { adapter = true, graphs = false, checkpointing = false } = {},
  changes: Partial<Plan> = {},
): Plan => ({
  ...planFor(small, { kind: "train", adapter, checkpointing, tokens: graphs ? Infinity : 0 }),
  ...changes,
})

/** Of scoring and writing; without graphs if so wished. */
export const scoring = ({ graphs = true } = {}): Plan => {
  const plan = planFor(small, { kind: "score" })
  return graphs ? plan : { ...plan, layers: "eager", step: "eager", together: 1 }
}
