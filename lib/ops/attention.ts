import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "./gradient"
import { kernel, kernelPair } from "./kernel"
import { matMul } from "./matmul"

/**
 * Rotary positions and attention, each in two forms: by our own kernels, for what `AttentionInputs` say, and by
 * operations of TensorFlow.js, a block of queries at a time. Letters: M tokens (B T), B batch, N query heads, K
 * key/value heads, T queries, S keys, H head size.
 */

/** Where tokens stand and who sees whom, for layers of one kind. */
export interface AttentionInputs {
  /** by positions, as the rope of the layer has them: [M, H / 2] */
  cos: Tensor2D
  sin: Tensor2D
  /** factor of q · k */
  queryScale: Scalar
  /**
   * positions, then segments: a query sees keys of its own segment and of segment 0, which padding (-1) does not see
   */
  queries: Tensor3D // [2, B, T], int32
  keys: Tensor3D // [2, B, S], int32
  /** the first token of each sequence among all M, and M */
  bounds: Tensor1D // [sequences + 1], int32
  /** the first query of a sequence that attends */
  from: Scalar // int32
  /** positions back to which a query sees, its own included; 0 for all */
  window: number
}

/**
 * Queries and keys [B T, (N + K) H] rotated by their positions (Su 2021, Hugging Face's halves), queries scaled as
 * well.
 */
export function fusedRotate(qk: Tensor2D, { cos, sin, queryScale }: AttentionInputs, N: number): Tensor2D {
  return withGradient(
    [qk],
    (save) => {
      save([cos, sin, queryScale])
      return kernel("MuscRotate", [N, 0], [qk, cos, sin, queryScale]) as Tensor2D
    },
    (dy, saved) => [kernel("MuscRotate", [N, 1], [dy, ...saved])],
  )
}

/** Keys and values of all tokens so far, [B, K, S, H] each. */
export interface Cached {
  k: Tensor4D
  v: Tensor4D
}

/**
 * Keys [K, H, P'] and values [K, P, H] of P tokens that all sequences begin with; P' is a multiple of 16, with zeros
 * behind P.
 */
export interface SharedKeys {
  transposed: Tensor3D
  v: Tensor3D
}

/**
 * softmax(q kᵀ) v of all queries that attend -> [their number, N H], for rotated qk [M, (N + K) H] and v [M, K H]. Keys
 * and values may follow on shared ones, or be those of a cache. In each sequence the queries from `from` on attend.
 * Scores are never held: the gradient computes them again (Dao 2022).
 */
export function fusedAttention(
  qk: Tensor2D,
  v: Tensor2D,
  { queries, keys, from, bounds, window }: AttentionInputs,
  [N, K]: readonly [number, number],
  known?: Cached | SharedKeys,
): Tensor2D {
  const settings = [N, K, window]
  const forward = (k: Tensor, values: Tensor, ...shared: Tensor[]) =>
    kernelPair(shared.length ? "MuscSharedAttention" : "MuscAttention", settings, [
      ...[qk, k, values, queries, keys, from, bounds],
      ...shared,
    ]) as [Tensor2D, Tensor]
  if (known) {
    const [out, sums] = "transposed" in known ? forward(qk, v, known.transposed, known.v) : forward(known.k, known.v)
    sums.dispose()
    return out
  }
  return withGradient(
    [qk, v],
    (save) => {
      const [out, sums] = forward(qk, v)
      save([qk, v, queries, from, bounds, out, sums])
      return out
    },
    (dy, saved) => kernelPair("MuscAttentionGradient", settings, [dy, ...saved]),
  )
}

/**
 * cos and sin of every position, [B or 1, N or 1, T, H], halves repeated; `rotation` is the [H, H] signed half swap.
 */
export interface RopeTable {
  cos: Tensor4D
  sin: Tensor4D
  rotation: Tensor2D
}

/** Rotary position embedding (Su 2021) in Hugging Face's half-split form: x · cos + swap(x) · sin. */
export function rotate(x: Tensor4D, { cos, sin, rotation }: RopeTable): Tensor4D {
  const swap = (y: Tensor, matrix: Tensor2D, back: boolean) =>
    tf.reshape(matMul(tf.reshape(y, [-1, matrix.shape[0]]), matrix, false, back), y.shape)
  return withGradient(
    [x],
    (save) => {
      save([cos, sin, rotation])
      return tf.add(tf.mul(x, cos), tf.mul(swap(x, rotation, false), sin)) as Tensor4D
    },
    (dy, [c, s, r]) => [tf.add(tf.mul(dy, c!), swap(tf.mul(dy, s!), r as Tensor2D, true))],
  )
}

/** From where along an axis, and how many. */
export type Span = readonly [from: number, count: number]

/** Some queries, and the keys that one of them or more may look at. */
export interface AttentionBlock {
  queries: Span
  keys: Span
  /** [B, 1, queries, keys], added to the scores: 0, or -1e9 where a query may not look */
  mask: Tensor4D
}

/**
 * softmax(q kᵀ + mask) v for q [B, N, T, H] (already scaled), k and v [B, K, S, H], a block of queries at a time: what
 * no query of a block may look at costs nothing. The blocks continue to the last query from a first one, t0, and so
 * does the result [B, N, T - t0, H]. Grouped queries: N is a multiple of K, and heads of a group are consecutive. `qk`
 * is q and k stacked along axis 1 in training (S = T); with a cache, keys come from `cached` and `qk` holds the queries
 * alone.
 */
export function attend(
  qk: Tensor4D,
  v: Tensor4D,
  blocks: readonly AttentionBlock[],
  kvHeads: number,
  cached?: Tensor4D,
): Tensor4D {
  const [B, stacked, T, H] = qk.shape
  const N = cached ? stacked : stacked - kvHeads
  const grouped = (x: Tensor4D) => tf.reshape(x, [B, kvHeads, -1, x.shape[3]]) as Tensor4D
  const heads = (x: Tensor4D) => tf.reshape(x, [B, N, -1, x.shape[3]]) as Tensor4D
  const joined = (parts: Tensor4D[]) => (parts.length > 1 ? tf.concat(parts, 2) : parts[0]!) // [B, N, T - t0, H]
  const t0 = blocks[0]!.queries[0]
  /**
   * All that the gradient of a block needs, queries of a group one after another: q, k, v, p [B, K, N/K t, s] and p v.
   */
  const forward = (q: Tensor4D, k: Tensor4D, { queries, keys, mask }: AttentionBlock) => {
    const someQueries = grouped(along(q, queries))
    const [named, values] = [along(k, keys), along(v, keys)]
    const scores = heads(tf.matMul(someQueries, named, false, true))
    const p = grouped(tf.softmax(tf.add(scores, mask) as Tensor4D))
    return [someQueries, named, values, p, tf.matMul(p, values) as Tensor4D] as const
  }
  if (cached) return tf.tidy(() => joined(blocks.map((block) => heads(forward(qk, cached, block)[4]))))
  return withGradient(
    [qk, v],
    (save) => {
      const q = tf.slice(qk, [0, 0, 0, 0], [B, N, T, H])
      const k = tf.slice(qk, [0, N, 0, 0], [B, kvHeads, T, H])
      const parts = blocks.map((block) => forward(q, k, block))
      save(parts.flat())
      return joined(parts.map(([, , , , out]) => heads(out)))
    },
    (dy, saved) => {
      const grads = blocks.map(({ queries, keys }, i) => {
        const [q, k, values, p, out] = saved.slice(5 * i, 5 * i + 5) as [
          Tensor4D,
          Tensor4D,
          Tensor4D,
          Tensor4D,
          Tensor4D,
        ]
        const dOut = grouped(along(dy, [queries[0] - t0, queries[1]]))
        const dP = tf.matMul(dOut, values, false, true)
        // softmax: dS = P (dP - Σ_s dP P), and Σ_s dP P = Σ_h dO O
        const dS = tf.mul(p, tf.sub(dP, tf.sum(tf.mul(dOut, out), -1, true))) as Tensor4D
        const back = (x: Tensor4D) => padded(x, keys, T)
        return [heads(tf.matMul(dS, k)), back(tf.matMul(dS, q, true)), back(tf.matMul(p, dOut, true))] as const
      })
      const dq = padded(joined(grads.map(([dq]) => dq)), [t0, T - t0], T)
      const dk = total(grads.map(([, dk]) => dk))
      return [tf.concat([dq, dk], 1), total(grads.map(([, , dv]) => dv))]
    },
  )
}

const total = (parts: Tensor4D[]) => (parts.length > 1 ? tf.addN(parts) : parts[0]!)

/** Places `span` of the third axis. */
function along(x: Tensor4D, [from, count]: Span): Tensor4D {
  return count === x.shape[2] ? x : tf.slice(x, [0, 0, from, 0], [-1, -1, count, -1])
}

/** The opposite of `along`: zeros around, so that the third axis has `size` places. */
function padded(x: Tensor4D, [from, count]: Span, size: number): Tensor4D {
  const around: [number, number] = [from, size - from - count]
  return count === size ? x : (tf.pad(x, [[0, 0], [0, 0], around, [0, 0]]) as Tensor4D)
}
