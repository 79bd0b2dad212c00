import type { Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import type { ModelConfig } from "../model/config"
import type { Lora } from "../model/lora"
import type { Params } from "../model/transformer"
import { unflatten } from "../ops/flat"
import { type Learner, trainedParams } from "../train/gradients"

/** Models, adapters and gradients as they travel between processes: plain data with Float32Arrays. */

/** An adapter. */
export interface SentLora extends Omit<Lora, "params"> {
  params: Record<string, { shape: number[]; values: Float32Array }>
}

export async function sentLora(lora: Lora): Promise<SentLora> {
  const params: SentLora["params"] = {}
  for (const [name, tensor] of Object.entries(lora.params)) {
    params[name] = { shape: tensor.shape, values: (await tensor.data()) as Float32Array }
  }
  return { ...lora, params }
}

/** The adapter as tensors; the caller disposes them. */
export const receivedLora = (lora: SentLora): Lora => ({
  ...lora,
  params: Object.fromEntries(
    Object.entries(lora.params).map(([name, { shape, values }]) => [name, tf.tensor(values, shape)]),
  ),
})

/** A learner without its model, which is in a folder or comes with the parameters, nor its parameters. */
export interface SentLearner extends Pick<Learner, "objective" | "gradientCheckpointing" | "graphs"> {
  config: ModelConfig
  lora: Omit<Lora, "params"> | null
  shapes: Record<string, number[]>
}

export function sentLearner(learner: Learner): SentLearner {
  const { model, objective, gradientCheckpointing, graphs } = learner
  const { params, ...lora } = learner.lora ?? { params: {} }
  const shapes = Object.entries(trainedParams(learner)).map(([name, { shape }]) => [name, shape])
  const plain = learner.lora ? (lora as Omit<Lora, "params">) : null
  const how = { objective, gradientCheckpointing, graphs }
  return { config: model.config, lora: plain, shapes: Object.fromEntries(shapes), ...how }
}

/** The parameters of which `vector` is `flatten`. */
export function receivedParams(vector: Tensor1D, shapes: SentLearner["shapes"]): Params {
  const like = Object.values(shapes).map((shape) => ({ shape, size: shape.reduce((a, b) => a * b, 1) }))
  const made = unflatten(vector, like)
  return Object.fromEntries(Object.keys(shapes).map((name, i) => [name, made[i]!]))
}
