import type { Tensor1D } from "@tensorflow/tfjs"
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

/** Values that are stepped at once, so that the dozen intermediate vectors stay below a gigabyte for any model. */
const chunk = 2 ** 24

/**
 * One step. Consumes `params` (disposed and replaced in place, so that holders of the record see the new tensors) and
 * `state`; borrows `gradient`, which is `flatten` of those of all parameters.
 * @returns the new state and the global norm of the gradients before clipping
 */
export async function adamStep(params: Params, gradient: Tensor1D, state: AdamState, lr: number, options: AdamOptions) {
  const { beta1, beta2, eps, weightDecay, maxGradNorm } = options
  const names = Object.keys(params)
  const old = names.map((name) => params[name]!)
  const step = state.step + 1
  const norm = tf.tidy(() => tf.sqrt(tf.sum(tf.square(gradient))))
  // torch.nn.utils.clip_grad_norm_: factor max / (norm + 1e-6), at most 1
  const factor = tf.tidy(() => tf.minimum(1, tf.div(maxGradNorm, tf.add(norm, 1e-6))))
  const flat = flatten(old)
  const stepped = chunksOf(gradient.size).map((cut) =>
    tf.tidy(() => {
      const g = Number.isFinite(maxGradNorm) ? tf.mul(cut(gradient), factor) : cut(gradient)
      const m = tf.add(tf.mul(cut(state.m), beta1), tf.mul(g, 1 - beta1))
      const v = tf.add(tf.mul(cut(state.v), beta2), tf.mul(tf.square(g), 1 - beta2))
      const denominator = tf.add(tf.mul(tf.sqrt(v), 1 / Math.sqrt(1 - beta2 ** step)), eps)
      const update = tf.mul(tf.div(m, denominator), lr / (1 - beta1 ** step))
      const p = weightDecay ? tf.mul(cut(flat), 1 - lr * weightDecay) : cut(flat)
      return { p: tf.sub(p, update), m, v } as Record<"p" | "m" | "v", Tensor1D>
    }),
  )
  tf.dispose([flat, factor, state.m, state.v])
  const [m, v, next] = (["m", "v", "p"] as const).map((name) => joined(stepped.map((part) => part[name])))
  unflatten(next!, old).forEach((tensor, i) => {
    params[names[i]!] = tensor
  })
  tf.dispose([next!, ...old])
  const gradNorm = (await norm.data())[0]!
  norm.dispose()
  return { state: { step, m: m!, v: v! }, gradNorm }
}

/** What takes each chunk in turn out of a vector of `size`. */
const chunksOf = (size: number): ((vector: Tensor1D) => Tensor1D)[] =>
  size <= chunk
    ? [(vector) => vector]
    : Array.from({ length: Math.ceil(size / chunk) }, (_, i) => (vector: Tensor1D) => {
        const start = i * chunk
        return tf.slice(vector, start, Math.min(chunk, size - start))
      })

/** The chunks as one vector; consumes them. */
function joined(parts: Tensor1D[]): Tensor1D {
  if (parts.length === 1) return parts[0]!
  const whole = tf.concat(parts)
  tf.dispose(parts)
  return whole
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
