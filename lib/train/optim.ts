import type { Tensor, Tensor1D } from "@tensorflow/tfjs"
import { flatten, unflatten } from "../backend/flat"
import { tf } from "../backend/tf"
import type { Params } from "../model/transformer"

/** AdamW over all parameters as one flat vector: a few large operations instead of ten small ones for each tensor. */
export interface AdamState {
  step: number
  m: Tensor1D // [P]
  v: Tensor1D // [P]
}

export interface AdamOptions {
  beta1: number
  beta2: number
  eps: number
  /** decoupled weight decay (Loshchilov & Hutter 2019), on every parameter as torch.optim.AdamW does */
  weightDecay: number
  /** gradients are scaled down to this global norm; Infinity leaves them */
  maxGradNorm: number
}

export const adamDefaults: AdamOptions = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 }

export function adamInit(params: Params): AdamState {
  const size = Object.values(params).reduce((n, p) => n + p.size, 0)
  return { step: 0, m: tf.zeros([size]), v: tf.zeros([size]) }
}

/**
 * One step. Consumes `params` (disposed and replaced in place, so that holders of the record see the new tensors) and
 * `state`; borrows `gradient`, which is `flatten` of those of all parameters.
 * @returns the new state and the global norm of the gradients before clipping
 */
export async function adamStep(params: Params, gradient: Tensor1D, state: AdamState, lr: number, options: AdamOptions) {
  const { beta1, beta2, eps, weightDecay, maxGradNorm } = options
  const names = Object.keys(params)
  const step = state.step + 1
  const [next, m, v, norm] = tf.tidy(() => {
    const norm = tf.sqrt(tf.sum(tf.square(gradient)))
    // torch.nn.utils.clip_grad_norm_: factor max / (norm + 1e-6), at most 1
    const factor = Number.isFinite(maxGradNorm) ? tf.minimum(1, tf.div(maxGradNorm, tf.add(norm, 1e-6))) : 1
    const g = tf.mul(gradient, factor)
    const m = tf.add(tf.mul(state.m, beta1), tf.mul(g, 1 - beta1)) as Tensor1D
    const v = tf.add(tf.mul(state.v, beta2), tf.mul(tf.square(g), 1 - beta2)) as Tensor1D
    const denominator = tf.add(tf.mul(tf.sqrt(v), 1 / Math.sqrt(1 - beta2 ** step)), eps)
    const update = tf.mul(tf.div(m, denominator), lr / (1 - beta1 ** step))
    const p = flatten(Object.values(params))
    const next = tf.sub(weightDecay ? tf.mul(p, 1 - lr * weightDecay) : p, update)
    return [next, m, v, norm] as [Tensor1D, Tensor1D, Tensor1D, Tensor]
  })
  const old = names.map((name) => params[name]!)
  unflatten(next, old).forEach((tensor, i) => {
    params[names[i]!] = tensor
  })
  tf.dispose(old)
  const gradNorm = (await norm.data())[0]!
  tf.dispose([next, norm, state.m, state.v])
  return { state: { step, m, v }, gradNorm }
}

export const scheduleShapes = ["cosine", "linear", "constant", "plateau"] as const
export type ScheduleShape = (typeof scheduleShapes)[number]

/**
 * Share of the peak learning rate at a step in [0, total): linear warm-up over `warmup` · total steps, then the shape.
 * `plateau` stays at the peak and falls linearly to 0 over the last fifth.
 */
export function schedule(shape: ScheduleShape, warmup: number): (step: number, total: number) => number {
  return (step, total) => {
    // transformers' get_cosine_schedule_with_warmup, warm-up steps rounded up
    const warm = Math.ceil(warmup * total)
    if (step < warm) return step / Math.max(1, warm)
    const progress = (step - warm) / Math.max(1, total - warm)
    if (shape === "constant") return 1
    if (shape === "plateau") return Math.min(1, (total - step) / (total / 5))
    return shape === "cosine" ? 0.5 * (1 + Math.cos(Math.PI * progress)) : 1 - progress
  }
}
