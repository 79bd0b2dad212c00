import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from "@tensorflow/tfjs"
import {
  type AttentionBlock,
  attend,
  gated,
  type LowRank,
  linear,
  lookup,
  type RopeTable,
  rmsNorm,
  rotate,
} from "../backend/ops"
import { recomputed } from "../backend/recompute"
import { onGpu, tf } from "../backend/tf"
import type { KVCache } from "./cache"
import type { ModelConfig, Rope } from "./config"
import { type LayerInput, layerByGraph } from "./layer-graph"

/**
 * The whole decoder, for every family: they differ by the values in `ModelConfig` only. One `forward` serves training,
 * scoring, prefill and decoding.
 *
 * B batch, T time (tokens given now), S keys, N query heads, K key/value heads, H head size, D model width, F mlp width,
 * V vocabulary.
 */

/** Tensors by name: `embed` [V, D], `head` [V, D] if untied, `norm` [D], and `layers.{i}.{name}` as in `Layer`. */
export type Params = Record<string, Tensor>

/** Weights as trained and stored, and the shape that they make up. Matrices are [in, out]; norms hold what they multiply by. */
export interface Model {
  config: ModelConfig
  params: Params
}

/** A matrix ready for use: LoRA, if any, is already added to `weight`. */
export interface Projection {
  weight: Tensor2D // [in, out]
  bias?: Tensor1D // [out]
  lora: LowRank[]
  train: boolean
  /** What it is applied to depends on nothing that is trained: the first layer's input under an adapter. */
  constantInput?: boolean
}

export interface Layer {
  norm1: Tensor1D // [D]
  qk: Projection // [D, (N + K) H]: queries, then keys
  v: Projection // [D, K H]
  qkNorm?: Tensor3D // [N + K, 1, H]
  o: Projection // [N H, D]
  postNorm1?: Tensor1D // [D]
  norm2: Tensor1D // [D]
  gate: Projection // [D, F]
  up: Projection // [D, F]
  down: Projection // [F, D]
  postNorm2?: Tensor1D // [D]
}

/** A model made ready for a step: effective matrices, and which of them are trained. See `bind` in lora.ts. */
export interface Bound {
  config: ModelConfig
  embed: Tensor2D // [V, D]
  head: Tensor2D // [V, D]
  norm: Tensor1D // [D]
  layers: Layer[]
  /** All weights are trained, the embedding included. */
  trainAll: boolean
  /** Training computes each layer twice instead of keeping what its gradient needs. */
  recompute: boolean
  /** Training and scoring run each layer as a graph, where they can: see layer-graph.ts. */
  graphs: boolean
}

/**
 * Where tokens stand: `positions` count from 0 in each answer's own context; `segments` say what a token belongs to: 0
 * the shared prompt, 1, 2, … the answers after it (which see the prompt and themselves, never each other), -1 padding.
 */
export interface Places {
  rows: number // B
  length: number // T
  positions: Int32Array // [B · T]
  segments: Int32Array // [B · T]
}

/** Tables that layers of one kind (same rope, same window) share. */
export interface Context {
  rope: RopeTable // cos, sin [B, N + K, T, H]
  attention: AttentionBlock[]
  /** The tokens with which a layer goes on after attention, where not with all: [M] each. */
  asked?: {
    tokens: Tensor1D // into B · T
    attended: Tensor1D // into B · (T - t0), t0 being the first query of `attention`
  }
}

export interface ContextOptions {
  /** places of the cached keys; those of the queries if not given */
  keys?: Places
  /** places in B · T whose final states are wanted, [M]; all if not given */
  asked?: Int32Array
  /** first queries of the blocks that attend together; every 64th if not given, every 512th on a GPU */
  starts?: readonly number[]
  /**
   * Cut blocks so that a row's values do not depend on the length of the others: two at least, as TensorFlow does something
   * else with the graph of a single one, and all keys from the first on for each, whatever a window hides.
   */
  steady?: boolean
}

/** One context a layer; layers of one kind get the same object, but for the last one where some tokens are asked for. */
export function contexts(config: ModelConfig, queries: Places, options: ContextOptions = {}): Context[] {
  const { keys = queries, asked, steady = false } = options
  const { starts = blockStarts(queries.length, steady) } = options
  const made = new Map<string, Context>()
  const perLayer = config.rope.map((rope, i) => {
    const window = config.window[i]!
    const key = JSON.stringify([rope, window])
    const context = made.get(key) ?? {
      rope: ropeTable(config, rope, queries),
      attention: attention(queries, keys, window, starts, steady),
    }
    made.set(key, context)
    return context
  })
  if (asked) perLayer.push(narrowed(perLayer.pop()!, asked, queries))
  return perLayer
}

/**
 * Hidden states of tokens `ids` [B · T] after the last norm -> [B · T, D], or [M, D] where `perLayer` asks for M of them. With
 * a cache, keys and values are kept there.
 */
export function forward(
  model: Bound,
  ids: Tensor1D,
  places: Places,
  perLayer: readonly Context[],
  cache?: KVCache,
): Tensor2D {
  const { config } = model
  let x = lookup(model.embed, ids) // [B T, D]
  if (config.embedScale !== 1) x = tf.mul(x, config.embedScale)
  const byGraph = model.graphs && (!cache || cache.isFresh)
  model.layers.forEach((layer, i) => {
    const input = { x, layer, context: perLayer[i]! }
    const kept = cache?.layer(i)
    const run = ({ x, layer, context }: LayerInput, at = places, into = kept) =>
      block(x, layer, model, at, context, into)
    const contextAt = (at: Places, options: ContextOptions) => contexts(config, at, options)[i]!
    if (model.recompute) x = recomputed(input, run)
    else if (byGraph) x = layerByGraph(input, { config, places, cache: kept, run, contextAt })
    // Frees what the gradient does not need as soon as a layer is done.
    else x = tf.tidy(() => run(input))
  })
  return rmsNorm(x, model.norm, config.normEps, model.trainAll)
}

/**
 * Nobody looks at what the last layer makes of a token whose final state is not asked for, so that there it needs to give keys
 * and values alone: of a prompt to be trained on, all but its last token.
 */
function narrowed(context: Context, asked: Int32Array, { length: T }: Places): Context {
  const first = asked.reduce((least, at) => Math.min(least, at % T), T - 1)
  const attention = context.attention.filter(({ queries: [from, count] }) => from + count > first)
  const start = attention[0]!.queries[0]
  const attended = asked.map((at) => Math.floor(at / T) * (T - start) + (at % T) - start)
  return { ...context, attention, asked: { tokens: tf.tensor1d(asked), attended: tf.tensor1d(attended) } }
}

/** x + attention(norm(x)), then x + mlp(norm(x)); some families norm the outputs as well. */
function block(
  x: Tensor2D,
  layer: Layer,
  model: Bound,
  places: Places,
  context: Context,
  cache?: LayerCache,
): Tensor2D {
  const { config, trainAll } = model
  const norm = (y: Tensor2D, weight?: Tensor) => (weight ? rmsNorm(y, weight, config.normEps, trainAll) : y)
  const { asked } = context
  const attended = selfAttention(norm(x, layer.norm1), layer, model, places, context, cache)
  const attention = project(asked ? lookup(attended, asked.attended) : attended, layer.o)
  const y = tf.add(asked ? lookup(x, asked.tokens) : x, norm(attention, layer.postNorm1)) as Tensor2D
  const z = norm(y, layer.norm2)
  const mlp = project(gated(project(z, layer.gate), project(z, layer.up), config.activation), layer.down)
  return tf.add(y, norm(mlp, layer.postNorm2))
}

/** Keys and values of one layer, kept between calls. */
export interface LayerCache {
  /** Adds keys and values [B, K, T, H] of new tokens; gives all so far [B, K, S, H], or null when these are the first. */
  append(k: Tensor4D, v: Tensor4D): { k: Tensor4D; v: Tensor4D } | null
}

/** [B T, D] -> [B T, N H], or [B (T - t0), N H] where only queries from t0 on attend. */
function selfAttention(
  x: Tensor2D,
  layer: Layer,
  { config, trainAll }: Bound,
  { rows: B, length: T }: Places,
  { rope, attention }: Context,
  cache?: LayerCache,
): Tensor2D {
  const { heads: N, kvHeads: K, headDim: H } = config
  const split = (y: Tensor2D, n: number) => tf.transpose(tf.reshape(y, [B, T, n, H]), [0, 2, 1, 3]) as Tensor4D
  let qk = split(project(x, layer.qk), N + K) // [B, N + K, T, H]
  const v = split(project(x, layer.v), K) // [B, K, T, H]
  if (layer.qkNorm) qk = rmsNorm(qk, layer.qkNorm, config.normEps, trainAll)
  qk = rotate(qk, rope)
  const stored = cache?.append(tf.slice(qk, [0, N, 0, 0], [B, K, T, H]), v)
  const out = stored
    ? attend(tf.slice(qk, [0, 0, 0, 0], [B, N, T, H]), stored.v, attention, K, stored.k)
    : attend(qk, v, attention, K)
  return tf.reshape(tf.transpose(out, [0, 2, 1, 3]), [-1, N * H])
}

function project(x: Tensor2D, { weight, bias, lora, train, constantInput }: Projection): Tensor2D {
  const y = linear(x, weight, { trainWeight: train, lora, constantInput })
  return bias ? (tf.add(y, bias) as Tensor2D) : y
}

const hidden = -1e9
/** Queries that attend together: on a GPU starting an operation costs more than what small blocks spare. */
const queryBlock = () => (onGpu() ? 512 : 64)
function blockStarts(length: number, steady: boolean): number[] {
  const n = queryBlock()
  if (steady && length > 1 && length <= n) return [0, length >> 1]
  return Array.from({ length: Math.ceil(length / n) }, (_, i) => i * n)
}

/**
 * Who looks at whom, a block of queries after another, each with the keys from the first that it needs on. Padding looks at
 * padding, so that its softmax stays finite.
 */
function attention(
  queries: Places,
  keys: Places,
  window: number | null,
  starts: readonly number[],
  steady: boolean,
): AttentionBlock[] {
  const { rows: B, length: T } = queries
  const S = keys.length
  // Tokens of one call look at themselves and at what is left of them; cached keys stay in one piece.
  const same = queries === keys
  return starts.map((from, i) => {
    const n = (starts[i + 1] ?? T) - from
    const end = same ? from + n : S
    const scores = new Float32Array(B * n * end).fill(hidden)
    let first = same && !steady ? end - 1 : 0
    for (let row = 0; row < B * n; row++) {
      const b = Math.floor(row / n)
      const t = from + (row % n)
      const segment = queries.segments[b * T + t]!
      const position = queries.positions[b * T + t]!
      const oldest = window === null ? 0 : position - window + 1
      for (let s = 0; s < (same ? t + 1 : S); s++) {
        const k = b * S + s
        const keySegment = keys.segments[k]!
        if (keySegment !== segment && (keySegment !== 0 || segment < 0)) continue
        const keyPosition = keys.positions[k]!
        if (keyPosition > position || keyPosition < oldest) continue
        scores[row * end + s] = 0
        if (s < first) first = s
      }
    }
    const mask = tf.tensor4d(scores, [B, 1, n, end])
    const needed: Tensor4D = first ? tf.slice(mask, [0, 0, 0, first]) : mask
    return { queries: [from, n], keys: [first, end - first], mask: needed }
  })
}

/** Turns by position · frequency. Queries' rows also carry the factor of q·k, which then costs nothing. */
function ropeTable(config: ModelConfig, rope: Rope, { rows: B, length: T, positions }: Places): RopeTable {
  const { heads: N, kvHeads: K, headDim: H } = config
  const half = H / 2
  const frequencies = ropeFrequencies(rope, H)
  // Rows share most of their positions.
  const last = positions.reduce((most, position) => Math.max(most, position), 0)
  const spread = (f: (angle: number) => number) => {
    const at = Float32Array.from({ length: (last + 1) * H }, (_, i) => f(Math.floor(i / H) * frequencies[i % half]!))
    const out = new Float32Array(B * T * H)
    positions.forEach((position, i) => {
      out.set(at.subarray(position * H, (position + 1) * H), i * H)
    })
    return out
  }
  // swap(x) = [-x2, x1] as x · rotation
  const rotation = new Float32Array(H * H)
  for (let h = 0; h < half; h++) {
    rotation[(h + half) * H + h] = -1
    rotation[h * H + h + half] = 1
  }
  const scale = tf.tensor4d(
    Array.from({ length: N + K }, (_, n) => (n < N ? config.queryScale : 1)),
    [1, N + K, 1, 1],
  )
  const table = (values: Float32Array) => tf.mul(tf.tensor4d(values, [B, 1, T, H]), scale) as Tensor4D
  return { cos: table(spread(Math.cos)), sin: table(spread(Math.sin)), rotation: tf.tensor2d(rotation, [H, H]) }
}

/** theta^(-2i/H) for i in [0, H/2), stretched as the config says (Llama 3.1 keeps the short wavelengths). */
export function ropeFrequencies({ theta, scaling }: Rope, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim)
    if (scaling.type === "none") return frequency
    if (scaling.type === "linear") return frequency / scaling.factor
    const { factor, lowFreqFactor, highFreqFactor, originalPositions } = scaling
    const turns = (originalPositions * frequency) / (2 * Math.PI)
    const keep = Math.min(1, Math.max(0, (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)))
    return keep * frequency + ((1 - keep) * frequency) / factor
  })
}
