import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { onGpu, tf } from "../device/tf"
import { fused, fusedOnlineSoftmax, type Running } from "./fused"
import { isTaped, withGradient } from "./gradient"
import { cappedLogits, matMul, targetLogProbs } from "./ops"

/** Words from which on a vocabulary is taken in blocks. */
const wide = 2 ** 13

/**
 * Words and rows of a vocabulary of V taken at once: as many as keep a block of logits in the cache, and many more on a GPU,
 * which has no use for small pieces. Fewer rows make the products with the table slower (32 a third, 8 three times). The words
 * are the same for any number of rows, and so are sums over them.
 */
export const blocksOf = (V: number, gpu = onGpu()) => {
  const words = Math.min(V, gpu ? 2 ** 15 : 2 ** 13)
  return { words, rows: 32 * Math.ceil(2 ** (gpu ? 26 : 21) / words / 32) }
}

/**
 * log p(target) under logits = h · tableᵀ, as `targetLogProbs`, in memory that does not grow with the vocabulary: the
 * words of a large one are taken block by block, with a running maximum and sum (online softmax, Milakov & Gimelshein
 * 2018), and so is the gradient by h, which is a mean of the table's rows under p. h [M, D], table [V, D], targets [M]
 * -> [M], in nats.
 */
export function headLogProbs(
  h: Tensor2D,
  table: Tensor2D,
  targets: Tensor1D,
  options: { trainTable?: boolean; softcap?: number | null; block?: number } = {},
): Tensor1D {
  const { trainTable = false, softcap = null } = options
  if (trainTable || (table.shape[0] < wide && !options.block)) return targetLogProbs(h, table, targets, options)
  const { rows, words } = { ...blocksOf(table.shape[0]), ...(options.block && { words: options.block }) }
  const taped = isTaped()
  const starts = Array.from({ length: Math.ceil(h.shape[0] / rows) }, (_, i) => i * rows)
  return withGradient(
    [h],
    (save) => {
      const parts = starts.map((at) => {
        const some = <T extends Tensor>(x: T) => tf.slice(x, at, Math.min(rows, h.shape[0] - at)) as T
        return rowLogProbs(some(h), table, some(targets), softcap, words, taped)
      })
      save(taped ? [tf.concat(parts.map(({ slope }) => slope!))] : [])
      return tf.concat(parts.map(({ logp }) => logp)) as Tensor1D
    },
    (dy, [slope]) => [tf.mul(slope!, tf.expandDims(dy, 1))],
  )
}

/** As `fusedOnlineSoftmax`, by operations of tfjs. */
function onlineSoftmax(logits: Tensor2D, former: Running) {
  const top = tf.maximum(former.top, tf.max(logits, 1, true)) as Tensor2D
  const odds = tf.exp(tf.sub(logits, top)) as Tensor2D
  const decay = tf.exp(tf.sub(former.top, top)) as Tensor2D
  return { top, total: tf.add(tf.mul(former.total, decay), tf.sum(odds, 1, true)) as Tensor2D, decay, odds }
}

/** log p(target) [m] of a few rows, and its slope by h [m, D] if it is wanted. */
function rowLogProbs(
  h: Tensor2D, // [m, D]
  table: Tensor2D, // [V, D]
  targets: Tensor1D, // [m]
  softcap: number | null,
  words: number,
  wanted: boolean,
): { logp: Tensor1D; slope?: Tensor2D } {
  return tf.tidy(() => {
    const [V, D] = table.shape
    let top = tf.fill([h.shape[0], 1], -1e30) as Tensor2D // largest logit so far
    let total = tf.zeros([h.shape[0], 1]) as Tensor2D // Σ exp(logit - top)
    let mean = wanted ? (tf.zeros([h.shape[0], D]) as Tensor2D) : null // Σ exp(logit - top) · row of the table
    const backend = fused()
    for (let at = 0; at < V; at += words) {
      const [newTop, newTotal, newMean] = tf.tidy((): Tensor2D[] => {
        const rows = tf.slice(table, [at, 0], [Math.min(words, V - at), D])
        const { logits, slope } = cappedLogits(h, rows, softcap)
        const former = { top, total }
        const next = backend ? fusedOnlineSoftmax(backend, logits, former, wanted) : onlineSoftmax(logits, former)
        const { odds, decay } = next
        const pull = mean && matMul(slope ? tf.mul(odds, slope) : odds, rows)
        return [next.top, next.total, ...(pull ? [tf.add(tf.mul(mean!, decay), pull) as Tensor2D] : [])]
      })
      tf.dispose([top, total, mean ?? []])
      ;[top, total, mean] = [newTop!, newTotal!, newMean ?? null]
    }
    const own = tf.gather(table, targets) // [m, D]
    const raw = tf.sum(tf.mul(h, own), 1, true)
    const t = softcap ? tf.tanh(tf.div(raw, softcap)) : null
    const logp = tf.sub(t ? tf.mul(t, softcap!) : raw, tf.add(top, tf.log(total)))
    const ownSlope = t ? tf.mul(own, tf.sub(1, tf.square(t))) : own
    return {
      logp: tf.reshape(logp, [-1]) as Tensor1D,
      slope: mean ? (tf.sub(ownSlope, tf.div(mean, total)) as Tensor2D) : undefined,
    }
  })
}
