import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "./gradient"
import { kernelPair } from "./kernel"
import { operation } from "./operation"

type RmsNorm = <T extends Tensor>(x: T, weight: Tensor, eps: number, trainWeight?: boolean) => T

/**
 * x / sqrt(mean(x²) + eps) · weight over the last axis; weight has the shape of the last axes (Zhang & Sennrich 2019).
 */
export const rmsNorm: RmsNorm = operation<RmsNorm>(({ kernels }) => (kernels === "none" ? plainNorm : kernelNorm))

/** By a kernel, which takes weight [P, D] for P rows of x in turn, and so none whose axes are repeated. */
function kernelNorm<T extends Tensor>(x: T, weight: Tensor, eps: number, trainWeight = false): T {
  if (weight.shape.some((n, i) => n !== x.shape[x.rank - weight.rank + i]))
    return plainNorm(x, weight, eps, trainWeight)
  return withGradient(
    trainWeight ? [x, weight] : [x],
    (save) => {
      const [y, scale] = kernelPair("MuscRmsNorm", [0], [x, weight, tf.scalar(eps)])
      save([x, weight, scale])
      return y as T
    },
    (dy, saved) => {
      const [dx, dWeight] = kernelPair("MuscRmsNormGradient", [Number(trainWeight)], [dy, ...saved])
      return trainWeight ? [dx, dWeight] : [dx]
    },
  )
}

function plainNorm<T extends Tensor>(x: T, weight: Tensor, eps: number, trainWeight = false): T {
  return withGradient(
    trainWeight ? [x, weight] : [x],
    (save) => {
      // Not rsqrt, whose last digit depends on where in the batch a row stands: vectors of 16 are computed differently
      // from the rest.
      const r = tf.div(1, tf.sqrt(tf.add(tf.mean(tf.square(x), -1, true), eps)))
      const unit = tf.mul(x, r)
      save([unit, r, weight])
      return tf.mul(unit, weight) as T
    },
    (dy, [unit, r, w]) => {
      const g = tf.mul(dy, w!)
      const along = tf.mean(tf.mul(g, unit!), -1, true)
      const dx = tf.mul(r!, tf.sub(g, tf.mul(unit!, along)))
      if (!trainWeight) return [dx]
      const lead = Array.from({ length: dy.rank - w!.rank }, (_, i) => i)
      const broadcast = w!.shape.flatMap((n, i) =>
        n === 1 && dy.shape[lead.length + i] !== 1 ? [lead.length + i] : [],
      )
      const dw = tf.reshape(tf.sum(tf.mul(dy, unit!), [...lead, ...broadcast]), w!.shape)
      return [dx, dw]
    },
  )
}
