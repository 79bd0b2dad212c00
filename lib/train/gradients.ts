import type { Scalar, Tensor, Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { evenBatches, grouped, microBatches } from "../model/batch"
import { type Plan, planFor } from "../model/executor"
import { bind, type Lora, release } from "../model/lora"
import { type Bound, floatParams, type Model, type Params, sizeOf } from "../model/transformer"
import { flatten } from "../ops/optimizer"
import { type Item, lossOf, type Objective, tokensOf, weightOf } from "./objective"

/**
 * Loss and gradient of a step: its items are cut into micro-batches, and what they give is added up in their order. How
 * they are cut depends on nothing but items, budget and model, so the sums are the same to the last bit however many
 * threads there are.
 */

/** All that a gradient depends on, but for the items. */
export interface Learner {
  model: Model
  /** trained if given; else all weights of the model are */
  lora?: Lora
  objective: Objective
  /** how it is run; if not given, as for a training on few tokens */
  plan?: Plan
}

const planOf = ({ model, lora, plan }: Pick<Learner, "model" | "lora" | "plan">): Plan =>
  plan ?? planFor(sizeOf(model.params), { kind: "train", adapter: lora !== undefined })

/** What is trained, by name. @throws InputError for all weights of a model that keeps its matrices as bf16 */
export const trainedParams = ({ model, lora }: Pick<Learner, "model" | "lora">): Params =>
  lora ? lora.params : floatParams(model)

/** A micro-batch's share in the loss, in what is logged, and in the gradient, which is `flatten` of all parameters. */
export interface Share {
  loss: number
  logs: Record<string, number>
  gradient: Tensor1D
}

/** Padded tokens below which a micro-batch takes hardly less time than one of twice the size. */
const leastTokens = 256

/** The micro-batches of a step: for small models two or more. Those in one list are computed together. */
function cut(learner: Learner, items: readonly Item[], tokenBudget: number): Item[][][] {
  const padded = items.length * Math.max(...items.map(tokensOf))
  const plan = planOf(learner)
  const parts = padded >= 2 * leastTokens ? plan.microBatches : 1
  const batches =
    parts > 1 ? evenBatches(items, tokensOf, tokenBudget, parts) : microBatches(items, tokensOf, tokenBudget)
  return grouped(batches, plan.together > 1)
}

/** The model ready for a step; null where all weights are trained, which is done on the tape. */
export const bound = (learner: Learner): Bound | null =>
  learner.lora ? bind(learner.model, { lora: learner.lora, plan: planOf(learner) }) : null

/** Share of some micro-batches in a step whose items weigh `total`. The caller disposes `gradient`. */
export async function shareOf(
  learner: Learner,
  ready: Bound | null,
  parts: readonly (readonly Item[])[],
  total: number,
): Promise<Share> {
  const { model, objective } = learner
  const plan = planOf(learner)
  let names: string[] = []
  const [values, gradient] = tf.tidy((): [Tensor, Tensor1D] => {
    const logSums: Record<string, Tensor> = {}
    const taped: { value: Tensor; grads: Tensor[] } = tf.engine().gradients(
      (): Scalar => {
        const trained = ready ?? bind(model, { trainAll: true, plan })
        const { loss, logs } = lossOf(objective, trained, parts, total, model)
        for (const [name, tensor] of Object.entries(logs)) logSums[name] = tf.keep(tf.sum(tensor))
        return loss
      },
      Object.values(trainedParams(learner)),
    )
    names = Object.keys(logSums)
    const values = tf.stack([taped.value, ...Object.values(logSums)])
    tf.dispose(logSums)
    return [values, flatten(taped.grads)]
  })
  // One read a micro-batch: on a GPU each waits for all that was sent.
  const [loss, ...sums] = await values.data()
  values.dispose()
  return { loss: loss!, logs: Object.fromEntries(names.map((name, i) => [name, sums[i]!])), gradient }
}

export interface StepOptions {
  tokenBudget?: number
}

/**
 * Loss, gradient and logs of one step, and its padded tokens. The caller disposes `gradient`, which is `flatten` of
 * those of all parameters.
 */
export async function stepGradient(
  learner: Learner,
  items: readonly Item[],
  { tokenBudget = 4096 }: StepOptions = {},
): Promise<Share & { tokens: number }> {
  const batches = cut(learner, items, tokenBudget)
  const total = items.reduce((sum, item) => sum + weightOf(learner.objective, item), 0)
  const ready = bound(learner)
  const logs: Record<string, number> = {}
  let loss = 0
  let gradient: Tensor1D | null = null
  try {
    for (const batch of batches) {
      const share = await shareOf(learner, ready, batch, total)
      loss += share.loss
      for (const [name, value] of Object.entries(share.logs)) logs[name] = (logs[name] ?? 0) + value
      const previous: Tensor1D | null = gradient
      gradient = previous ? (tf.add(previous, share.gradient) as Tensor1D) : share.gradient
      if (previous) tf.dispose([previous, share.gradient])
    }
  } catch (error) {
    gradient?.dispose()
    throw error
  } finally {
    if (ready) release(ready)
  }
  const tokens = batches.flat().reduce((n, batch) => n + batch.length * Math.max(...batch.map(tokensOf)), 0)
  return { loss, logs, gradient: gradient!, tokens }
}
