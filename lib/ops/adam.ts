import type { Tensor1D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { fused, fusedAdam, fusedVectorNorm } from "./fused"

/** Parameters and the running means of their gradient and of its square, as vectors [P]. */
export interface AdamVectors {
  p: Tensor1D
  m: Tensor1D
  v: Tensor1D
}

export interface AdamRates {
  lr: number
  beta1: number
  beta2: number
  eps: number
  /** 1 for the first one */
  step: number
  /** what the gradient is multiplied by */
  clip: number
  /** decoupled weight decay (Loshchilov & Hutter 2019) */
  weightDecay: number
}

/**
 * One step of Adam (Kingma & Ba 2015) along the gradient `g` [P], as torch.optim.AdamW takes it. Consumes the vectors. A
 * kernel of our own goes over memory once and writes in place; elsewhere it is a dozen operations.
 *
 * p -= lr' m / (sqrt(v) + eps'), where lr' = lr sqrt(1 - beta2^t) / (1 - beta1^t) and eps' = eps sqrt(1 - beta2^t), which are
 * reckoned in double precision, for 1 - .999 has four digits in f32.
 */
export function adam(vectors: AdamVectors, g: Tensor1D, rates: AdamRates): AdamVectors {
  const { lr, beta1, beta2, eps, step, clip, weightDecay } = rates
  const root = Math.sqrt(1 - beta2 ** step)
  const [rate, floor, kept] = [(lr * root) / (1 - beta1 ** step), eps * root, 1 - lr * weightDecay]
  const backend = fused()
  if (backend) {
    const numbers = tf.tensor1d([clip, 1 - beta1, 1 - beta2, rate, floor, kept])
    fusedAdam(backend, [vectors.p, vectors.m, vectors.v], g, numbers)
    numbers.dispose()
    return vectors
  }
  const { p, m, v } = vectors
  const next = tf.tidy(() => {
    const slope = clip === 1 ? g : tf.mul(g, clip)
    const mean = tf.add(tf.mul(m, beta1), tf.mul(slope, 1 - beta1)) as Tensor1D
    const square = tf.add(tf.mul(v, beta2), tf.mul(tf.square(slope), 1 - beta2)) as Tensor1D
    const update = tf.mul(tf.div(mean, tf.add(tf.sqrt(square), floor)), rate)
    return { p: tf.sub(kept === 1 ? p : tf.mul(p, kept), update) as Tensor1D, m: mean, v: square }
  })
  tf.dispose([p, m, v])
  return next
}

/** sqrt(Σ x²) */
export async function vectorNorm(x: Tensor1D): Promise<number> {
  const backend = fused()
  const made = () => (backend ? fusedVectorNorm(backend, x) : tf.sqrt(tf.sum(tf.square(x))))
  return (await valuesOf(made))[0]!
}
