import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { backThrough, type FrozenRows, floatTable, logitsOf, rowsOf, type Table, tableRows, tableShape } from "./frozen"
import { withGradient } from "./gradient"
import { kernelOutputs, kernelPair, tensorflowOps } from "./kernel"
import { gradientMatMul } from "./matmul"
import { operation } from "./operation"

/** Log-probs of tokens, by hidden states and the table of the head. Letters: M tokens, D width, V vocabulary. */

/** Size from which on a vocabulary is taken in blocks. */
const wide = 2 ** 13

/**
 * Entries of a vocabulary of V, and rows, taken at once: as many as keep a block of logits in the cache, and many more
 * on a GPU, which has no use for small pieces. Fewer rows make the products with the table slower (32 a third, 8 three
 * times). The entries are the same for any number of rows, and so are sums over them.
 */
export const blocksOn = (V: number, gpu: boolean) => {
  const entries = Math.min(V, gpu ? 2 ** 15 : 2 ** 13)
  return { entries, rows: 32 * Math.ceil(2 ** (gpu ? 26 : 21) / entries / 32) }
}
/** Those of this device. */
export const blocksOf = operation(
  ({ gpu }) =>
    (V: number) =>
      blocksOn(V, gpu),
)

/**
 * log p(target) under logits = h · tableᵀ, as `targetLogProbs`, in memory that does not grow with the vocabulary: the
 * entries of a large one are taken block by block, with a running maximum and sum (online softmax, Milakov & Gimelshein
 * 2018), and so is the gradient by h, which is a mean of the table's rows under p. h [M, D], table [V, D], targets [M]
 * -> [M], in nats.
 */
export function headLogProbs(
  h: Tensor2D,
  table: Table,
  targets: Tensor1D,
  options: { trainTable?: boolean; softcap?: number | null; block?: number } = {},
): Tensor1D {
  const { trainTable = false, softcap = null } = options
  const [V] = tableShape(table)
  if (trainTable || (V < wide && !options.block)) return targetLogProbs(h, floatTable(table), targets, options)
  const { rows, entries } = { ...blocksOf(V), ...(options.block && { entries: options.block }) }
  const starts = Array.from({ length: Math.ceil(h.shape[0] / rows) }, (_, i) => i * rows)
  return withGradient(
    [h],
    (save, taped) => {
      const parts = starts.map((at) => {
        const some = <T extends Tensor>(x: T) => tf.slice(x, at, Math.min(rows, h.shape[0] - at)) as T
        return rowLogProbs(some(h), table, some(targets), softcap, entries, taped)
      })
      save(taped ? [tf.concat(parts.map(({ slope }) => slope!))] : [])
      return tf.concat(parts.map(({ logp }) => logp)) as Tensor1D
    },
    (dy, [slope]) => [tf.mul(slope!, tf.expandDims(dy, 1))],
  )
}

/** A softmax so far, over some entries: the largest logit and Σ e^(logit - largest), [M, 1] each. */
interface Running {
  top: Tensor2D
  total: Tensor2D
}

/** What sums before must be multiplied by, and e^(logit - largest) [M, n] where it is wanted. */
type OnlineSoftmax = (
  logits: Tensor2D,
  former: Running,
  oddsWanted: boolean,
) => Running & { decay: Tensor2D; odds: Tensor2D }

/** `former` with a block of entries (online softmax). */
const onlineSoftmax = operation<OnlineSoftmax>(({ kernels }) =>
  kernels === "none"
    ? (logits, former) => {
        const top = tf.maximum(former.top, tf.max(logits, 1, true)) as Tensor2D
        const odds = tf.exp(tf.sub(logits, top)) as Tensor2D
        const decay = tf.exp(tf.sub(former.top, top)) as Tensor2D
        return { top, total: tf.add(tf.mul(former.total, decay), tf.sum(odds, 1, true)) as Tensor2D, decay, odds }
      }
    : (logits, former, oddsWanted) => {
        const inputs = [logits, former.top, former.total]
        const outputs = kernelOutputs("MuscOnlineSoftmax", [Number(oddsWanted)], inputs, 4) as Tensor2D[]
        const [top, total, decay, odds] = outputs as [Tensor2D, Tensor2D, Tensor2D, Tensor2D]
        return { top, total, decay, odds }
      },
)

/** log p(target) [m] of a few rows, and its slope by h [m, D] if it is wanted. */
function rowLogProbs(
  h: Tensor2D, // [m, D]
  table: Table, // [V, D]
  targets: Tensor1D, // [m]
  softcap: number | null,
  entries: number,
  wanted: boolean,
): { logp: Tensor1D; slope?: Tensor2D } {
  return tf.tidy(() => {
    const [V, D] = tableShape(table)
    let top = tf.fill([h.shape[0], 1], -1e30) as Tensor2D // largest logit so far
    let total = tf.zeros([h.shape[0], 1]) as Tensor2D // Σ exp(logit - top)
    let mean = wanted ? (tf.zeros([h.shape[0], D]) as Tensor2D) : null // Σ exp(logit - top) · row of the table
    for (let at = 0; at < V; at += entries) {
      const [newTop, newTotal, newMean] = tf.tidy((): Tensor2D[] => {
        const some = [table, at, Math.min(entries, V - at)] as const
        const rows = tableRows(...some)
        const { logits, slope } = cappedLogits(h, rows, softcap)
        const next = onlineSoftmax(logits, { top, total }, wanted)
        const { odds, decay } = next
        const pull = mean && backThrough(slope ? tf.mul(odds, slope) : odds, rows)
        return [next.top, next.total, ...(pull ? [tf.add(tf.mul(mean!, decay), pull) as Tensor2D] : [])]
      })
      tf.dispose([top, total, mean ?? []])
      ;[top, total, mean] = [newTop!, newTotal!, newMean ?? null]
    }
    const own = rowsOf(table, targets) // [m, D]
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

/**
 * Log-probability of `targets` [M] (token ids) under logits = h · tableᵀ, h [M, D], table [V, D] -> [M], in nats.
 * Never holds [M, V]: works on `chunk` tokens at a time and recomputes in the backward pass. `softcap` c bounds the
 * logits as c · tanh(logits / c).
 */
export function targetLogProbs(
  h: Tensor2D,
  table: Tensor2D,
  targets: Tensor1D,
  options: { trainTable?: boolean; softcap?: number | null; chunk?: number } = {},
): Tensor1D {
  const softcap = options.softcap ?? null
  // The gradient of a trained table is as large as the logits of D tokens, so those of half as many do not matter.
  const chunk = options.chunk ?? Math.max(chunkOf(table), options.trainTable ? table.shape[1] >> 1 : 0)
  const starts = startsOf(h, chunk)
  const rows = (x: Tensor, at: number) => rowsAt(x, at, chunk)
  // dh for dy = -1 costs one matmul while the logits are available. A trained table needs dy first: a single chunk
  // keeps its gradient by the logits until then, several compute theirs again.
  let unit: Tensor2D[] | null = null
  let keep = false
  return withGradient(
    options.trainTable ? [h, table] : [h],
    (save, taped) => {
      unit = options.trainTable || !taped ? null : []
      keep = (options.trainTable ?? false) && taped && starts.length === 1
      const logps = starts.map((at) => {
        const some = [rows(h, at) as Tensor2D, table, rows(targets, at) as Tensor1D] as const
        const { logp, slope } = scoreRows(...some, softcap, taped)
        if (slope) unit?.push(gradientMatMul(slope, table))
        if (keep) save([h, slope!])
        else slope?.dispose()
        return logp
      })
      if (!keep) save(unit ? [tf.concat(unit)] : [h, targets])
      return tf.concat(logps) as Tensor1D
    },
    (dy, [saved, second]) => {
      if (unit) return [tf.mul(saved!, tf.neg(tf.expandDims(dy, 1)))]
      const parts = starts.map((at) =>
        tf.tidy(() => {
          const hs = rows(saved!, at) as Tensor2D
          const someTargets = () => rows(second!, at) as Tensor1D
          const slope = (keep ? second : scoreRows(hs, table, someTargets(), softcap, true).slope) as Tensor2D
          // d logits = slope · by, and it takes less to multiply what it is multiplied with.
          const by = tf.neg(tf.expandDims(rows(dy, at), 1))
          const scaled = tf.mul(hs, by) as Tensor2D
          return [tf.mul(gradientMatMul(slope, table), by), gradientMatMul(slope, scaled, true)] as [Tensor2D, Tensor2D]
        }),
      )
      return [tf.concat(parts.map(([dh]) => dh)), tf.addN(parts.map(([, dTable]) => dTable))]
    },
  )
}

/** log p(target) [m] of a few rows, and the slope -d log p / d (h · tableᵀ) [m, V] if it is wanted. */
function scoreRows(
  h: Tensor2D,
  table: Tensor2D,
  targets: Tensor1D,
  softcap: number | null,
  slopeWanted: boolean,
): { logp: Tensor1D; slope?: Tensor2D } {
  return tf.tidy(() => {
    const { logits, slope: cap } = cappedLogits(h, table, softcap)
    const { logp, slope } = logProbOf(logits, targets, slopeWanted)
    if (!slope) return { logp }
    return { logp, slope: cap ? (tf.mul(slope, cap) as Tensor2D) : slope }
  })
}

/** Tokens whose logits are held at once, for a table [V, D]. */
export const chunkOf = operation(
  ({ gpu }) =>
    (table: Tensor2D) =>
      Math.max(64, Math.floor(2 ** (gpu ? 26 : 24) / table.shape[0])),
)
/** Where the chunks of rows [M, …] begin, and the rows of one. */
export const startsOf = ({ shape: [M] }: Tensor2D, chunk: number) =>
  Array.from({ length: Math.ceil(M / chunk) }, (_, i) => i * chunk)
export const rowsAt = <T extends Tensor>(x: T, at: number, chunk: number): T =>
  tf.slice(x, at, Math.min(chunk, x.shape[0]! - at)) as T

/** Logits [M, V] with the soft cap, and the cap's slope (null without one). Without a gradient. */
export function cappedLogits(h: Tensor2D, entries: Table | FrozenRows, softcap: number | null) {
  if (!softcap) return { logits: logitsOf(h, entries), slope: null }
  return tf.tidy(() => {
    const t = tf.tanh(tf.div(logitsOf(h, entries), softcap))
    return { logits: tf.mul(t, softcap) as Tensor2D, slope: tf.sub(1, tf.square(t)) as Tensor2D }
  })
}

type LogProbOf = (logits: Tensor2D, targets: Tensor1D, slopeWanted: boolean) => { logp: Tensor1D; slope?: Tensor2D }

/** log p(target) [m] for logits [m, V], and p - onehot(target) [m, V], which may be missing where it is not wanted. */
export const logProbOf = operation<LogProbOf>(({ kernels, backend }) => {
  if (kernels !== "none") return kernelLogProb
  return backend === "tensorflow" ? tensorflowLogProb : plainLogProb
})

const kernelLogProb: LogProbOf = (logits, targets, slopeWanted) => {
  const [logp, slope] = kernelPair("MuscTargetLogProb", [Number(slopeWanted)], [logits, targets])
  if (slopeWanted) return { logp: logp as Tensor1D, slope: slope as Tensor2D }
  slope.dispose()
  return { logp: logp as Tensor1D }
}

const tensorflowLogProb: LogProbOf = (logits, targets) => {
  const attrs = { T: "float32", Tlabels: "int32" } as const
  const [loss, slope] = tensorflowOps("SparseSoftmaxCrossEntropyWithLogits", attrs, [logits, targets], 2)
  return { logp: tf.neg(loss as Tensor1D), slope: slope as Tensor2D }
}

const plainLogProb: LogProbOf = (logits, targets) => {
  const p = tf.softmax(logits)
  const hot = tf.cast(tf.oneHot(targets, logits.shape[1]), "float32")
  // p is 1 / Σ exp(logit - largest) where the logit is the largest: log p = logit - largest + log(largest p)
  const above = tf.sub(tf.sum(tf.mul(logits, hot), 1), tf.max(logits, 1))
  return { logp: tf.add(above, tf.log(tf.max(p, 1))) as Tensor1D, slope: tf.sub(p, hot) as Tensor2D }
}
