import type { Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { fused, fusedEffective } from "./fused"
import { type LowRank, matMul } from "./ops"

/** An update of columns [offset, …) of a matrix [D, O]: A [D, r], B [r, o]. */
export type Update = Pick<LowRank, "A" | "B" | "offset">

/** W + (scale A) B for all updates of a matrix, and each update with what is scaled. The caller disposes what is new. */
export function effective(
  weight: Tensor2D,
  updates: readonly Update[],
  scale: number,
): { weight: Tensor2D; lora: Required<LowRank>[] } {
  const backend = fused()
  if (backend) return fusedEffective(backend, weight, updates, scale)
  const lora = updates.map((update) => ({
    ...update,
    scaled: { A: tf.mul(update.A, scale), B: tf.mul(update.B, scale) },
  }))
  const sum = tf.tidy(() => {
    const deltas = lora.map(({ A, offset, scaled: { B } }) => {
      const delta = matMul(A, B as Tensor2D)
      const after = weight.shape[1] - offset - delta.shape[1]
      return offset || after
        ? tf.pad(delta, [
            [0, 0],
            [offset, after],
          ])
        : delta
    })
    return tf.addN([weight, ...deltas])
  })
  return { weight: sum, lora: lora as Required<LowRank>[] }
}
