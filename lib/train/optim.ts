import type { Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { type Params, sizeOf } from "../model/transformer"
import { adam, flatten, unflatten, vectorNorm } from "../ops/optimizer"

/** AdamW over all parameters as one flat vector: a few large operations instead of ten small ones for each tensor. */
export interface AdamState {
  step: number
  m: Tensor1D // [P]
  v: Tensor1D // [P]
}

/** Settings of AdamW. */
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

/** Moments of zero for these parameters. The caller disposes them. */
export function adamInit(params: Params): AdamState {
  const size = sizeOf(params)
  return { step: 0, m: tf.zeros([size]), v: tf.zeros([size]) }
}

/**
 * One step. Consumes `gradient`, which is `flatten` of those of all parameters, and the tensors of `params` and
 * `state`, and puts the new parameters into their record, so that its holders see them.
 * @returns the new state and the global norm of the gradients before clipping
 */
export async function adamStep(params: Params, gradient: Tensor1D, state: AdamState, lr: number, options: AdamOptions) {
  const { maxGradNorm, ...rates } = options
  const gradNorm = await vectorNorm(gradient)
  // torch.nn.utils.clip_grad_norm_: factor max / (norm + 1e-6), at most 1
  const clip = Math.min(1, maxGradNorm / (gradNorm + 1e-6))
  const names = Object.keys(params)
  const old = Object.values(params)
  const vector = flatten(old)
  tf.dispose(old)
  const step = state.step + 1
  const { p, m, v } = adam({ p: vector, m: state.m, v: state.v }, gradient, { ...rates, lr, step, clip })
  gradient.dispose()
  unflatten(p, old).forEach((tensor, i) => {
    params[names[i]!] = tensor
  })
  p.dispose()
  const next: AdamState = { step, m, v }
  return { state: next, gradNorm }
}

const scheduleShapes = ["cosine", "linear", "constant", "plateau"] as const
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
