import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "./gradient"
import { cappedLogits, chunkOf, rowsAt, startsOf } from "./head"
import { gradientMatMul } from "./matmul"

/** Whole next-token distributions. Letters: M tokens, D width, V vocabulary. */

/** p and log p [M, V] of logits. Without a gradient. */
function distribution(logits: Tensor2D): { p: Tensor2D; logp: Tensor2D } {
  const shifted = tf.sub(logits, tf.max(logits, 1, true))
  const odds = tf.exp(shifted)
  const total = tf.sum(odds, 1, true)
  return { p: tf.div(odds, total), logp: tf.sub(shifted, tf.log(total)) }
}

/**
 * KL(q || p) of next-token distributions, p at states `h` [M, D] and q at those of `reference` [M, D], under the same
 * frozen table [V, D] -> [M], in nats. Differentiable in h; `reference` is called outside the tape. Works on `chunk`
 * tokens at a time, so that [M, V] is never held.
 */
export function divergence(
  h: Tensor2D,
  reference: () => Tensor2D,
  table: Tensor2D,
  { softcap = null, chunk = chunkOf(table) }: { softcap?: number | null; chunk?: number } = {},
): Tensor1D {
  return withGradient(
    [h],
    (save) => {
      const states = reference()
      const parts = startsOf(h, chunk).map((at) =>
        tf.tidy(() => {
          const { logits, slope } = cappedLogits(rowsAt(h, at, chunk), table, softcap)
          const p = distribution(logits)
          const q = distribution(cappedLogits(rowsAt(states, at, chunk), table, softcap).logits)
          const away = tf.sub(p.p, q.p) as Tensor2D // d KL / d logits
          const unit = gradientMatMul(slope ? tf.mul(away, slope) : away, table)
          return [tf.sum(tf.mul(q.p, tf.sub(q.logp, p.logp)), 1), unit] as [Tensor1D, Tensor2D]
        }),
      )
      save([tf.concat(parts.map(([, unit]) => unit))])
      return tf.concat(parts.map(([kl]) => kl)) as Tensor1D
    },
    (dy, [unit]) => [tf.mul(unit!, tf.expandDims(dy, 1))],
  )
}
