import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { rowsOf, type Table, tableRows, tableShape } from "./frozen"
import { blocksOf, cappedLogits } from "./head"
import { kernel } from "./kernel"
import { operation } from "./operation"

/**
 * Compares the next-token distributions p = softmax(hp · tableᵀ) and q = softmax(hq · tableᵀ), hp and hq [M, D], table
 * [V, D], targets [M] -> [6, M] in nats: log p and log q of the targets, entropies of p and q, KL(p || q), KL(q || p).
 * The vocabulary is taken in blocks of entries, so that [M, V] is never held: sums go with a running maximum (online
 * softmax, Milakov & Gimelshein 2018). Without a gradient.
 */
export function contrastOf(
  [hp, hq]: readonly [Tensor2D, Tensor2D],
  table: Table,
  targets: Tensor1D,
  { softcap = null, ...options }: { softcap?: number | null; entries?: number; rows?: number } = {},
): Tensor2D {
  const { entries, rows } = { ...blocksOf(tableShape(table)[0]), ...options }
  const [M] = hp.shape
  const parts = Array.from({ length: Math.ceil(M / rows) }, (_, i) =>
    tf.tidy(() => {
      const some = <T extends Tensor>(x: T) => tf.slice(x, i * rows, Math.min(rows, M - i * rows)) as T
      return contrastOfRows([some(hp), some(hq)], table, some(targets), softcap, entries)
    }),
  )
  const whole = tf.concat(parts, 1)
  tf.dispose(parts)
  return whole as Tensor2D
}

/** Sums over the entries so far, [m, 1] each, of one distribution; x = logit - top. */
type Sums = {
  /** largest logit */
  top: Tensor2D
  /** Σ exp(x) */
  odds: Tensor2D
  /** Σ exp(x) · x */
  own: Tensor2D
  /** Σ exp(x) · x of the other distribution */
  cross: Tensor2D
}

function contrastOfRows(
  states: readonly [Tensor2D, Tensor2D],
  table: Table,
  targets: Tensor1D,
  softcap: number | null,
  entries: number,
): Tensor2D {
  const [V] = tableShape(table)
  let sums: Tensor2D | null = null
  for (let at = 0; at < V; at += entries) {
    const block = tableRows(table, at, Math.min(entries, V - at))
    const former: Tensor2D | null = sums
    sums = tf.tidy(() => added(former, states.map((h) => cappedLogits(h, block, softcap).logits) as Pair))
    former?.dispose()
  }
  const [p, q] = parted(sums!)
  const own = rowsOf(table, targets)
  const logits = states.map((h) => {
    const raw = tf.sum(tf.mul(h, own), 1, true)
    return softcap ? tf.mul(tf.tanh(tf.div(raw, softcap)), softcap) : raw
  })
  const [logP, logQ] = [p, q].map(({ odds }) => tf.log(odds)) as Pair // log Σ exp(x)
  const entropy = ({ own, odds }: Sums, log: Tensor2D) => tf.sub(log, tf.div(own, odds))
  const kl = ({ own, cross, odds }: Sums, log: Tensor2D, other: Tensor2D) =>
    tf.add(tf.div(tf.sub(own, cross), odds), tf.sub(other, log))
  const lines = [
    tf.sub(logits[0]!, tf.add(p.top, logP)),
    tf.sub(logits[1]!, tf.add(q.top, logQ)),
    entropy(p, logP),
    entropy(q, logQ),
    kl(p, logP, logQ),
    kl(q, logQ, logP),
  ]
  return tf.transpose(tf.concat(lines, 1)) as Tensor2D
}

type Pair = [Tensor2D, Tensor2D]

/** Sums of p and of q, as their columns lie side by side: [m, 8]. */
function parted(sums: Tensor2D): [Sums, Sums] {
  const columns = tf.split(sums, 8, 1)
  return [0, 4].map((i) => {
    const [top, odds, own, cross] = columns.slice(i, i + 4) as [Tensor2D, Tensor2D, Tensor2D, Tensor2D]
    return { top, odds, own, cross }
  }) as [Sums, Sums]
}

/** The sums [m, 8] with those of a block of logits [m, entries] added. */
const added = operation<(before: Tensor2D | null, logits: Pair) => Tensor2D>(({ kernels }) =>
  kernels === "none"
    ? plainAdded
    : (before, [p, q]) => kernel("MuscContrast", [0], [p, q, before ?? tf.zeros([0, 8])]) as Tensor2D,
)

function plainAdded(before: Tensor2D | null, logits: Pair): Tensor2D {
  const former = before && parted(before)
  const top = logits.map((x, i) => {
    const most = tf.max(x, 1, true)
    return former ? tf.maximum(former[i]!.top, most) : most
  }) as Pair
  const x = logits.map((l, i) => tf.sub(l, top[i]!)) as Pair
  const odds = x.map((one) => tf.exp(one)) as Pair
  const total = (a: Tensor2D, b: Tensor2D) => tf.sum(tf.mul(a, b), 1, true) as Tensor2D
  const risen = former && (top.map((t, i) => tf.sub(former[i]!.top, t)) as Pair) // ≤ 0
  const sums = [0, 1].map((i): Sums => {
    const [mine, theirs] = [odds[i]!, x[1 - i]!]
    const fresh = {
      odds: tf.sum(mine, 1, true) as Tensor2D,
      own: total(mine, x[i]!),
      cross: total(mine, theirs),
    }
    if (!former || !risen) return { top: top[i]!, ...fresh }
    // Under the new maximum x is less by what that has risen: Σ exp(x + r)(x + r) = exp(r) (Σ exp(x) x + r Σ exp(x)).
    const old = former[i]!
    const decay = tf.exp(risen[i]!)
    const moved = (sum: Tensor2D, r: Tensor2D) => tf.mul(decay, tf.add(sum, tf.mul(r, old.odds)))
    return {
      top: top[i]!,
      odds: tf.add(fresh.odds, tf.mul(decay, old.odds)) as Tensor2D,
      own: tf.add(fresh.own, moved(old.own, risen[i]!)) as Tensor2D,
      cross: tf.add(fresh.cross, moved(old.cross, risen[1 - i]!)) as Tensor2D,
    }
  })
  return tf.concat(
    sums.flatMap(({ top, odds, own, cross }) => [top, odds, own, cross]),
    1,
  ) as Tensor2D
}
