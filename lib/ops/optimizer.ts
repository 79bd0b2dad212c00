import type { Tensor, Tensor1D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { kernel, kernelOutputs } from "./kernel"
import { operation } from "./operation"

/** Adam over one vector of all that is trained, and that vector. P: values in all. */

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

type Adam = (vectors: AdamVectors, g: Tensor1D, rates: AdamRates) => AdamVectors

/**
 * One step of Adam (Kingma & Ba 2015) along the gradient `g` [P], as torch.optim.AdamW takes it. Consumes the vectors.
 * A kernel of our own goes over memory once and writes in place; elsewhere it is a dozen operations.
 *
 * p -= lr' m / (sqrt(v) + eps'), where lr' = lr sqrt(1 - beta2^t) / (1 - beta1^t) and eps' = eps sqrt(1 - beta2^t),
 * which are computed in double precision, for 1 - .999 has four digits in f32.
 */
export const adam = operation<Adam>(({ kernels }) => {
  const update = kernels === "none" ? plainAdam : kernelAdam
  return (vectors, g, { lr, beta1, beta2, eps, step, clip, weightDecay }) => {
    const root = Math.sqrt(1 - beta2 ** step)
    const [rate, floor, decay] = [(lr * root) / (1 - beta1 ** step), eps * root, 1 - lr * weightDecay]
    return update(vectors, g, { clip, beta1, beta2, rate, floor, decay })
  }
})

/** Factor of g, decay of both means, learning rate lr' and eps' as above, and factor of p. */
interface Rates {
  clip: number
  beta1: number
  beta2: number
  rate: number
  floor: number
  decay: number
}

/** Writes p, m and v where they lie, which must be held by nobody else, as views of them would be. */
function kernelAdam(vectors: AdamVectors, g: Tensor1D, { clip, beta1, beta2, rate, floor, decay }: Rates): AdamVectors {
  const { p, m, v } = vectors
  const rates = tf.tensor1d([clip, 1 - beta1, 1 - beta2, rate, floor, decay])
  kernelOutputs("MuscAdam", [0], [p, m, v, g, rates], 0)
  rates.dispose()
  return vectors
}

function plainAdam({ p, m, v }: AdamVectors, g: Tensor1D, { clip, beta1, beta2, rate, floor, decay }: Rates) {
  const next = tf.tidy(() => {
    const slope = clip === 1 ? g : tf.mul(g, clip)
    const mean = tf.add(tf.mul(m, beta1), tf.mul(slope, 1 - beta1)) as Tensor1D
    const square = tf.add(tf.mul(v, beta2), tf.mul(tf.square(slope), 1 - beta2)) as Tensor1D
    const update = tf.mul(tf.div(mean, tf.add(tf.sqrt(square), floor)), rate)
    return { p: tf.sub(decay === 1 ? p : tf.mul(p, decay), update) as Tensor1D, m: mean, v: square }
  })
  tf.dispose([p, m, v])
  return next
}

const squareRootOfSum = operation<(x: Tensor1D) => Tensor>(({ kernels }) =>
  kernels === "none" ? (x) => tf.sqrt(tf.sum(tf.square(x))) : (x) => kernel("MuscNorm", [0], [x]),
)

/** sqrt(Σ x²) */
export const vectorNorm = async (x: Tensor1D): Promise<number> => (await valuesOf(() => squareRootOfSum(x)))[0]!

// Many small tensors as one vector and back. Those with rows of one shape lie together, so that a few joins serve all:
// a reshape of its own for each tensor costs more than the arithmetic between.

type Shaped = Pick<Tensor, "shape" | "size">

/** Values from which on a tensor lies alone: to join it with others first would be to copy it twice. */
const large = 2 ** 20

/** Places of tensors by the shape of their rows, in the order in which the vector holds them. */
function groups(tensors: readonly Shaped[]): number[][] {
  const byRow = new Map<string, number[]>()
  tensors.forEach(({ shape, size }, i) => {
    const row = size < large ? shape.slice(1).join() : `tensor ${i}`
    byRow.set(row, [...(byRow.get(row) ?? []), i])
  })
  return [...byRow.values()]
}

const rowsOf = ({ shape }: Shaped) => shape[0] ?? 1

/** All values of `tensors`, which have at least one axis. */
export const flatten = operation<(tensors: readonly Tensor[]) => Tensor1D>(({ kernels }) => {
  if (kernels === "none") return plainFlatten
  return (tensors) => {
    const ordered = groups(tensors).flatMap((group) => group.map((i) => tensors[i]!))
    return kernelOutputs("MuscFlatten", [0], ordered, 1, ordered.length)[0] as Tensor1D
  }
})

const plainFlatten = (tensors: readonly Tensor[]): Tensor1D =>
  tf.tidy(() => {
    const parts = groups(tensors).map((group) => tf.reshape(tf.concat(group.map((i) => tensors[i]!)), [-1]))
    return tf.concat(parts) as Tensor1D
  })

/** The tensors that `flatten` made `vector` of, in the shapes of `like`. */
export const unflatten = operation<(vector: Tensor1D, like: readonly Shaped[]) => Tensor[]>(({ kernels }) => {
  if (kernels === "none") return plainUnflatten
  return (vector, like) => {
    const order = groups(like).flat()
    const settings = order.flatMap((i) => [like[i]!.shape.length, ...like[i]!.shape])
    const tensors = kernelOutputs("MuscUnflatten", settings, [vector], order.length, order.length)
    return like.map((_, i) => tensors[order.indexOf(i)]!)
  }
})

function plainUnflatten(vector: Tensor1D, like: readonly Shaped[]): Tensor[] {
  return tf.tidy(() => {
    const grouped = groups(like)
    const sizes = grouped.map((group) => group.reduce((sum, i) => sum + like[i]!.size, 0))
    const out: Tensor[] = []
    tf.split(vector, sizes).forEach((part, g) => {
      const group = grouped[g]!
      const rows = group.map((i) => rowsOf(like[i]!))
      const whole = tf.reshape(part, [-1, ...like[group[0]!]!.shape.slice(1)])
      tf.split(whole, rows).forEach((tensor, j) => {
        out[group[j]!] = tensor
      })
    })
    return out
  })
}
