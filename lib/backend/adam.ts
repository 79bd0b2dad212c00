import type { Tensor1D } from "@tensorflow/tfjs"
import { flag, floatType, heldBy, type NativeBackend, native, variableOf } from "./kernels"
import { tf } from "./tf"

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
}

/**
 * One step of Adam (Kingma & Ba 2015) along the gradient `g` [P], as torch.optim.Adam takes it. Consumes the vectors. On
 * `tensorflow` a single kernel goes over memory once and writes in place; elsewhere it is a dozen operations.
 */
export function adam(vectors: AdamVectors, g: Tensor1D, rates: AdamRates): AdamVectors {
  const backend = native()
  return backend ? fused(backend, vectors, g, rates) : plain(vectors, g, rates)
}

function plain({ p, m, v }: AdamVectors, g: Tensor1D, { lr, beta1, beta2, eps, step }: AdamRates): AdamVectors {
  const next = tf.tidy(() => {
    const mean = tf.add(tf.mul(m, beta1), tf.mul(g, 1 - beta1)) as Tensor1D
    const square = tf.add(tf.mul(v, beta2), tf.mul(tf.square(g), 1 - beta2)) as Tensor1D
    const denominator = tf.add(tf.mul(tf.sqrt(square), 1 / Math.sqrt(1 - beta2 ** step)), eps)
    const update = tf.mul(tf.div(mean, denominator), lr / (1 - beta1 ** step))
    return { p: tf.sub(p, update) as Tensor1D, m: mean, v: square }
  })
  tf.dispose([p, m, v])
  return next
}

/**
 * ResourceApplyAdam: p -= lr' m / (sqrt(v) + eps'). With lr' = lr sqrt(1 - beta2^t) / (1 - beta1^t) and eps' = eps
 * sqrt(1 - beta2^t) that is torch's step. The kernel could reckon lr' itself, but in f32, where 1 - .999 has four digits.
 */
function fused(backend: NativeBackend, vectors: AdamVectors, g: Tensor1D, rates: AdamRates): AdamVectors {
  const { lr, eps, step } = rates
  const [beta1, beta2] = [Math.fround(rates.beta1), Math.fround(rates.beta2)] // as the kernel has them
  const root = Math.sqrt(1 - beta2 ** step)
  const scalars = [0, 0, (lr * root) / (1 - beta1 ** step), beta1, beta2, eps * root].map((x) => tf.scalar(x))
  const [p, m, v] = [vectors.p, vectors.m, vectors.v].map((vector) => variableOf(backend, vector))
  const attrs = [floatType(backend, "T"), flag(backend, "use_locking", false), flag(backend, "use_nesterov", false)]
  backend.executeMultipleOutputs("ResourceApplyAdam", attrs, [p!, m!, v!, ...scalars, g], 0)
  tf.dispose(scalars)
  return { p: heldBy(backend, p!), m: heldBy(backend, m!), v: heldBy(backend, v!) }
}
