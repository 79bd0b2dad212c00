import type { Scalar, Tensor, Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { evenBatches, grouped, microBatches } from "../model/batch"
import { bind, type Lora, release } from "../model/lora"
import { gainsByProcesses, sideBySide } from "../model/parallel"
import { type Bound, type Model, type Params, sizeOf } from "../model/transformer"
import { flatten } from "../ops/flat"
import { type Item, lossOf, type Objective, tokensOf, weightOf } from "./objective"

/**
 * Loss and gradient of a step: its items are cut into micro-batches, each is computed by this process or by another, and
 * what they give is added up in their order. How they are cut depends on nothing but items, budget and model, so the sums
 * are the same to the last bit however many threads and processes there are.
 */

/** All that a gradient depends on, but for the items. */
export interface Learner {
  model: Model
  /** trained if given; else all weights of the model are */
  lora?: Lora
  objective: Objective
  /** compute each layer again in the backward pass instead of keeping its activations: a third more work, less memory */
  gradientCheckpointing?: boolean
  /**
   * Layers run as graphs where that can be had: a fifth less time once they are made. Sums differ in their last bits, so
   * all processes of a training must agree.
   */
  graphs?: boolean
}

/** Whether a training on so many tokens in all wins back the second that graphs take to be made. */
export const worthGraphs = (model: Model, tokens: number): boolean => tokens * sizeOf(model.params) >= 1.8e11

/** What is trained, by name. */
export const trainedParams = ({ model, lora }: Pick<Learner, "model" | "lora">): Params => (lora ?? model).params

/** A micro-batch's share in the loss, in what is logged, and in the gradient, which is `flatten` of all parameters. */
export interface Share<Gradient = Tensor1D> {
  loss: number
  logs: Record<string, number>
  gradient: Gradient
}

/** Processes that compute for a learner, each with a copy of it. */
export interface Helpers {
  /** Whether work on so many tokens is worth having them, which takes seconds to start. */
  worth(tokens: number): boolean
  /** Tells them the trained parameters, `flatten` of all, for all that is asked from now on. */
  update(vector: Tensor1D): Promise<void>
  /** As `shareOf`, for a micro-batch in a step whose items weigh `total`. @throws MuscError when a process has ended */
  share(items: readonly Item[], total: number): Promise<Share>
  /** As `referenceOf`. @throws as `share` */
  reference(items: readonly Item[]): Promise<Float32Array>
}

/** Padded tokens below which a micro-batch takes hardly less time than one of twice the size. */
const leastTokens = 256

/** Whether this process computes two micro-batches of a step side by side, and so needs no helpers. */
export const inThreads = ({ model, graphs = false }: Learner): boolean => graphs && sideBySide(sizeOf(model.params))

/** The micro-batches of a step: for small models two or more. Those in one list are computed together. */
function cut(learner: Learner, items: readonly Item[], tokenBudget: number): Item[][][] {
  const padded = items.length * Math.max(...items.map(tokensOf))
  const parts = padded >= 2 * leastTokens && gainsByProcesses(sizeOf(learner.model.params)) ? 2 : 1
  const batches =
    parts > 1 ? evenBatches(items, tokensOf, tokenBudget, parts) : microBatches(items, tokensOf, tokenBudget)
  return grouped(batches, inThreads(learner))
}

/** The model ready for a step; null where all weights are trained, which is done on the tape. */
export const bound = ({ model, lora, gradientCheckpointing, graphs }: Learner): Bound | null =>
  lora ? bind(model, { lora, apart: true, recompute: gradientCheckpointing, graphs }) : null

/** Share of some micro-batches in a step whose items weigh `total`. The caller disposes `gradient`. */
export async function shareOf(
  learner: Learner,
  ready: Bound | null,
  parts: readonly (readonly Item[])[],
  total: number,
): Promise<Share> {
  const { model, objective, gradientCheckpointing: recompute, graphs } = learner
  let names: string[] = []
  const [values, gradient] = tf.tidy((): [Tensor, Tensor1D] => {
    const kept: Record<string, Tensor> = {}
    const taped: { value: Tensor; grads: Tensor[] } = tf.engine().gradients(
      (): Scalar => {
        const trained = ready ?? bind(model, { trainAll: true, recompute, graphs })
        const { loss, logs } = lossOf(objective, trained, parts, total, model)
        for (const [name, tensor] of Object.entries(logs)) kept[name] = tf.keep(tf.sum(tensor))
        return loss
      },
      Object.values(trainedParams(learner)),
    )
    names = Object.keys(kept)
    const values = tf.stack([taped.value, ...Object.values(kept)])
    tf.dispose(kept)
    return [values, flatten(taped.grads)]
  })
  // One read a micro-batch: on a GPU each waits for all that was sent.
  const [loss, ...sums] = await values.data()
  values.dispose()
  return { loss: loss!, logs: Object.fromEntries(names.map((name, i) => [name, sums[i]!])), gradient }
}

export interface StepOptions {
  tokenBudget?: number
  helpers?: Helpers | null
  /** the trained parameters, for helpers, where their record is behind */
  vector?: Tensor1D
}

/**
 * Loss, gradient and logs of one step, and its padded tokens. The caller disposes `gradient`, which is `flatten` of those
 * of all parameters.
 */
export async function stepGradient(
  learner: Learner,
  items: readonly Item[],
  { tokenBudget = 4096, helpers = null, vector }: StepOptions = {},
): Promise<Share & { tokens: number }> {
  const batches = cut(learner, items, tokenBudget)
  const total = items.reduce((sum, item) => sum + weightOf(learner.objective, item), 0)
  const shares = helpers ? helped(helpers, learner, batches, total, vector) : alone(learner, batches, total)
  const logs: Record<string, number> = {}
  let loss = 0
  let gradient: Tensor1D | null = null
  try {
    for await (const share of shares) {
      loss += share.loss
      for (const [name, value] of Object.entries(share.logs)) logs[name] = (logs[name] ?? 0) + value
      const previous: Tensor1D | null = gradient
      gradient = previous ? (tf.add(previous, share.gradient) as Tensor1D) : share.gradient
      if (previous) tf.dispose([previous, share.gradient])
    }
  } catch (error) {
    gradient?.dispose()
    throw error
  }
  const tokens = batches.flat().reduce((n, batch) => n + batch.length * Math.max(...batch.map(tokensOf)), 0)
  return { loss, logs, gradient: gradient!, tokens }
}

async function* alone(learner: Learner, batches: readonly Item[][][], total: number): AsyncGenerator<Share> {
  const ready = bound(learner)
  try {
    for (const batch of batches) yield await shareOf(learner, ready, batch, total)
  } finally {
    if (ready) release(ready)
  }
}

/** Shares in the order of the micro-batches, which are all under way at once. */
async function* helped(
  helpers: Helpers,
  learner: Learner,
  batches: readonly Item[][][],
  total: number,
  vector?: Tensor1D,
): AsyncGenerator<Share> {
  const told = vector ?? flatten(Object.values(trainedParams(learner)))
  await helpers.update(told)
  if (told !== vector) told.dispose()
  const shares = batches.map((batch) => helpers.share(batch.flat(), total))
  for (const share of shares) share.catch(() => {}) // told when its turn comes
  let done = 0
  try {
    for (const share of shares) {
      const result = await share
      done++
      yield result
    }
  } finally {
    for (const share of shares.slice(done)) share.then(({ gradient }) => gradient.dispose()).catch(() => {})
  }
}
