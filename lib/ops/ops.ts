import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from "@tensorflow/tfjs-core"
import { maths, onGpu, tf } from "../device/tf"
import {
  type Beside,
  fused,
  fusedBesideGradient,
  fusedGated,
  fusedLoraGradient,
  fusedNorm,
  fusedTargetLogProb,
  tiled,
  tiledLowRank,
  tiledProduct,
} from "./fused"
import { isTaped, withGradient } from "./gradient"
import { flag, floatType, intType, native } from "./kernels"

/**
 * The few operations that a decoder needs, each with a hand-written gradient: fewer passes over memory and fewer tape
 * entries than tfjs' own. Letters: M tokens, D and O widths, B batch, N heads, T queries, S keys, H head size.
 *
 * On `tensorflow`, kernels that tfjs does not expose are called by name, and on its CPU those of fused.ts.
 */

/** a · b for matrices, either one transposed first. Without a gradient: for use inside an op that brings its own. */
export function matMul(a: Tensor2D, b: Tensor2D, transposeA = false, transposeB = false): Tensor2D {
  const tiles = tiled()
  if (tiles) return tiledProduct(tiles, a, b, transposeA, transposeB)
  const backend = native()
  // tfjs sends every product to BatchMatMulV2, which costs .1 ms more a call than MatMul. But MatMul knows no bf16.
  if (backend && maths() === "f32") {
    const attrs = [
      floatType(backend, "T"),
      flag(backend, "transpose_a", transposeA),
      flag(backend, "transpose_b", transposeB),
    ]
    return backend.executeSingleOutput("MatMul", attrs, [a, b]) as Tensor2D
  }
  return tf.matMul(a, b, transposeA, transposeB)
}

/** One low-rank update of a block of a projection's outputs: columns [offset, offset + O) get scale · A · B. */
export interface LowRank {
  /** [D, r] */
  A: Tensor2D
  /** [r, O] */
  B: Tensor2D
  offset: number
  /** scale · A and scale · B, where the matrix holds the update */
  scaled?: { A: Tensor2D; B: Tensor2D }
}

/**
 * x · weight, with gradients only for what is trained, and for x unless it is constant: x [M, D], weight [D, O] -> [M, O].
 * With `lora`, `weight` already holds the updates (W + scale · A · B, made once a step) unless they are `beside` it, so forward
 * and dx cost one matmul each and dA = xᵀ(dy (scale B)ᵀ), dB = (x scale A)ᵀ dy are small products.
 */
export function linear(
  x: Tensor2D,
  weight: Tensor2D,
  options: { trainWeight?: boolean; lora?: readonly LowRank[]; beside?: Beside; constantInput?: boolean } = {},
): Tensor2D {
  const { lora = [], beside, trainWeight, constantInput } = options
  if (beside) return linearBeside(x, weight, lora, beside, constantInput)
  const inputs: Tensor[] = lora.flatMap(({ A, B }) => [A, B])
  if (!constantInput) inputs.unshift(x)
  if (trainWeight) inputs.push(weight)
  return withGradient(
    inputs,
    (save) => {
      save([x])
      return matMul(x, weight)
    },
    (dy: Tensor2D, saved) => {
      const input = saved[0] as Tensor2D
      const grads: Tensor[] = constantInput ? [] : [matMul(dy, weight, false, true)]
      const backend = fused()
      for (const { scaled, offset } of lora) {
        grads.push(
          ...(backend
            ? fusedLoraGradient(backend, input, dy, scaled!, offset)
            : loraGradient(input, dy, scaled!, offset)),
        )
      }
      if (trainWeight) grads.push(matMul(input, dy, true))
      return grads
    },
  )
}

/** As `linear` with `lora`, for a weight that does not hold the updates. */
function linearBeside(
  x: Tensor2D,
  weight: Tensor2D,
  lora: readonly LowRank[],
  { down, up, scale, places }: Beside,
  constantInput = false,
): Tensor2D {
  const backend = tiled()!
  return withGradient(
    [...(constantInput ? [] : [x]), ...lora.flatMap(({ A, B }) => [A, B])],
    (save) => {
      const [y, through] = tiledLowRank(backend, x, weight, down, up, false)
      save([x, through])
      return y
    },
    (dy: Tensor2D, [input, through]) => {
      const [dx, back] = constantInput
        ? [null, matMul(dy, up, false, true)]
        : tiledLowRank(backend, dy, weight, up, down, true)
      const grads = fusedBesideGradient(backend, [input!, dy, through!, back, scale], places)
      return dx ? [dx, ...grads] : grads
    },
  )
}

/** As `fusedLoraGradient`. */
function loraGradient(x: Tensor2D, dy: Tensor2D, { A, B }: Pick<LowRank, "A" | "B">, offset: number): [Tensor, Tensor] {
  const O = B.shape[1]
  const part = O === dy.shape[1] ? dy : tf.slice(dy, [0, offset], [-1, O])
  return [matMul(x, matMul(part, B, false, true), true), matMul(matMul(x, A), part, true)]
}

/** Rows of `table` [V, D] by index `ids` [M] -> [M, D]. */
export function lookup(table: Tensor2D, ids: Tensor1D): Tensor2D {
  if (tf.getBackend() !== "wasm") return tf.gather(table, ids)
  return withGradient(
    [table],
    (save) => {
      save([ids])
      return tf.gather(table, ids)
    },
    (dy: Tensor2D, [at]) => [tf.scatterND(tf.expandDims(at!, 1), dy, table.shape)],
  )
}

/** x / sqrt(mean(x²) + eps) · weight over the last axis; weight has the shape of the last axes (Zhang & Sennrich 2019). */
export function rmsNorm<T extends Tensor>(x: T, weight: Tensor, eps: number, trainWeight = false): T {
  const backend = fused()
  if (backend && weight.shape.every((n, i) => n === x.shape[x.rank - weight.rank + i]))
    return fusedNorm(backend, x, weight, eps, trainWeight)
  return withGradient(
    trainWeight ? [x, weight] : [x],
    (save) => {
      // Not rsqrt, whose last digit depends on where in the batch a row stands: vectors of 16 are reckoned otherwise than the rest.
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

export type Activation = "silu" | "gelu_tanh"

/** act(gate) · up, elementwise: SwiGLU or GeGLU with the tanh form of GELU (Shazeer 2020). */
export function gated(gate: Tensor2D, up: Tensor2D, activation: Activation): Tensor2D {
  const backend = fused()
  if (backend) return fusedGated(backend, gate, up, activation !== "silu")
  return activation === "silu" ? swiglu(gate, up) : geglu(gate, up)
}

function swiglu(gate: Tensor2D, up: Tensor2D): Tensor2D {
  return withGradient(
    [gate, up],
    (save) => {
      const s = tf.sigmoid(gate)
      const gs = tf.mul(gate, s)
      const y = tf.mul(gs, up) as Tensor2D
      save([up, s, gs, y])
      return y
    },
    (dy, [u, s, gs, y]) => {
      // silu' = s + g s (1 - s), so silu' u = y + s (u - y)
      const slope = tf.add(y!, tf.mul(s!, tf.sub(u!, y!)))
      return [tf.mul(dy, slope), tf.mul(dy, gs!)]
    },
  )
}

function geglu(gate: Tensor2D, up: Tensor2D): Tensor2D {
  const c = Math.sqrt(2 / Math.PI)
  return withGradient(
    [gate, up],
    (save) => {
      const t = tf.tanh(tf.mul(tf.mul(gate, tf.add(tf.mul(tf.square(gate), 0.044715), 1)), c))
      const half = tf.mul(tf.add(t, 1), 0.5) // gelu = gate · half
      save([gate, up, half])
      return tf.mul(tf.mul(gate, half), up) as Tensor2D
    },
    (dy, [g, u, half]) => {
      // d gelu = half + gate · (1 - t²)/2 · c (1 + 3 · 0.044715 gate²), with (1 - t²)/2 = 2 half (1 - half)
      const inner = tf.mul(tf.add(tf.mul(tf.square(g!), 3 * 0.044715), 1), 2 * c)
      const slope = tf.add(half!, tf.mul(tf.mul(g!, tf.mul(half!, tf.sub(1, half!))), inner))
      return [tf.mul(tf.mul(dy, u!), slope), tf.mul(dy, tf.mul(g!, half!))]
    },
  )
}

/** cos and sin of every position, [B or 1, N or 1, T, H], halves repeated; `rotation` is the [H, H] signed half swap. */
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
 * softmax(q kᵀ + mask) v for q [B, N, T, H] (already scaled), k and v [B, K, S, H], a block of queries at a time: what no
 * query of a block may look at costs nothing. The blocks go on to the last query from a first one, t0, and so does the result
 * [B, N, T - t0, H]. Grouped queries: N is a multiple of K, and heads of a group are consecutive.
 * `qk` is q and k stacked along axis 1 in training (S = T); with a cache, keys come from `cached` and `qk` holds the queries
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
  /** All that the gradient of a block needs, queries of a group one after another: q, k, v, p [B, K, N/K t, s] and p v. */
  const forward = (q: Tensor4D, k: Tensor4D, { queries, keys, mask }: AttentionBlock) => {
    const asked = grouped(along(q, queries))
    const [named, values] = [along(k, keys), along(v, keys)]
    const scores = heads(tf.matMul(asked, named, false, true))
    const p = grouped(tf.softmax(tf.add(scores, mask) as Tensor4D))
    return [asked, named, values, p, tf.matMul(p, values) as Tensor4D] as const
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
  // dh for dy = -1 costs one matmul while the logits are at hand. A trained table needs dy first: a single chunk keeps its
  // gradient by the logits until then, several compute theirs again.
  const taped = isTaped()
  const unit = options.trainTable || !taped ? null : ([] as Tensor2D[])
  const keep = options.trainTable && taped && starts.length === 1
  return withGradient(
    options.trainTable ? [h, table] : [h],
    (save) => {
      const logps = starts.map((at) => {
        const some = [rows(h, at) as Tensor2D, table, rows(targets, at) as Tensor1D] as const
        const { logp, slope } = scoreRows(...some, softcap, taped)
        if (slope) unit?.push(matMul(slope, table))
        if (keep) save([h, slope!])
        else slope?.dispose()
        return logp
      })
      if (!keep) save(unit ? [tf.concat(unit)] : [h, targets])
      return tf.concat(logps) as Tensor1D
    },
    (dy, [saved, kept]) => {
      if (unit) return [tf.mul(saved!, tf.neg(tf.expandDims(dy, 1)))]
      const parts = starts.map((at) =>
        tf.tidy(() => {
          const hs = rows(saved!, at) as Tensor2D
          const asked = () => rows(kept!, at) as Tensor1D
          const slope = (keep ? kept : scoreRows(hs, table, asked(), softcap, true).slope) as Tensor2D
          // d logits = slope · by, and it takes less to multiply what it is multiplied with.
          const by = tf.neg(tf.expandDims(rows(dy, at), 1))
          const scaled = tf.mul(hs, by) as Tensor2D
          return [tf.mul(matMul(slope, table), by), matMul(slope, scaled, true)] as [Tensor2D, Tensor2D]
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
export const chunkOf = (table: Tensor2D) => Math.max(64, Math.floor(2 ** (onGpu() ? 26 : 24) / table.shape[0]))
/** Where the chunks of rows [M, …] begin, and the rows of one. */
export const startsOf = ({ shape: [M] }: Tensor2D, chunk: number) =>
  Array.from({ length: Math.ceil(M / chunk) }, (_, i) => i * chunk)
export const rowsAt = <T extends Tensor>(x: T, at: number, chunk: number): T =>
  tf.slice(x, at, Math.min(chunk, x.shape[0]! - at)) as T

/** Logits [M, V] with the soft cap, and the cap's slope (null without one). Without a gradient. */
export function cappedLogits(h: Tensor2D, table: Tensor2D, softcap: number | null) {
  if (!softcap) return { logits: matMul(h, table, false, true), slope: null }
  return tf.tidy(() => {
    const t = tf.tanh(tf.div(matMul(h, table, false, true), softcap))
    return { logits: tf.mul(t, softcap) as Tensor2D, slope: tf.sub(1, tf.square(t)) as Tensor2D }
  })
}

/** log p(target) [m] for logits [m, V], and p - onehot(target) [m, V], which may be missing where it is not wanted. */
function logProbOf(logits: Tensor2D, targets: Tensor1D, slopeWanted: boolean): { logp: Tensor1D; slope?: Tensor2D } {
  const own = fused()
  if (own) return fusedTargetLogProb(own, logits, targets, slopeWanted)
  const backend = native()
  if (backend) {
    const attrs = [floatType(backend, "T"), intType(backend, "Tlabels")]
    const op = "SparseSoftmaxCrossEntropyWithLogits"
    const [loss, slope] = backend.executeMultipleOutputs(op, attrs, [logits, targets], 2)
    return { logp: tf.neg(loss as Tensor1D), slope: slope as Tensor2D }
  }
  const p = tf.softmax(logits)
  const hot = tf.cast(tf.oneHot(targets, logits.shape[1]), "float32")
  // p is 1 / Σ exp(logit - largest) where the logit is the largest: log p = logit - largest + log(largest p)
  const above = tf.sub(tf.sum(tf.mul(logits, hot), 1), tf.max(logits, 1))
  return { logp: tf.add(above, tf.log(tf.max(p, 1))) as Tensor1D, slope: tf.sub(p, hot) as Tensor2D }
}

/**
 * Writes `rows` [R, H] into `buffer` [P, H] at row numbers `at` [R] and returns the result; `buffer` is consumed. On
 * `tensorflow` nothing is copied, elsewhere a new buffer is made.
 */
export function writeRows(buffer: Tensor2D, at: Tensor1D, rows: Tensor2D): Tensor2D {
  const backend = native()
  const out = backend
    ? (backend.executeSingleOutput("InplaceUpdate", [floatType(backend, "T")], [buffer, at, rows]) as Tensor2D)
    : tf.tidy(() => tf.tensorScatterUpdate(buffer, tf.expandDims(at, 1), rows) as Tensor2D)
  buffer.dispose()
  return out
}
