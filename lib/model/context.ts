import type { Tensor1D, Tensor2D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import type { AttentionBlock, AttentionInputs, RopeTable } from "../ops/attention"
import { operation } from "../ops/operation"
import type { ModelConfig, Rope } from "./config"

/**
 * Who stands where and sees whom, made ready for the layers of a pass.
 *
 * B batch, T time (tokens given now), S keys, N query heads, K key/value heads, H head size.
 */

/**
 * Where tokens stand: `positions` count from 0 in each answer's own context; `segments` say what a token belongs to: 0
 * the shared prompt, 1, 2, … the answers after it (which see the prompt and themselves, never each other), -1 padding.
 */
export interface Places {
  rows: number // B
  length: number // T
  positions: Int32Array // [B · T]
  segments: Int32Array // [B · T]
  /**
   * Where several sequences lie end to end in a single row, without padding: the first token of each, and T. They do
   * not see each other. For kernels of our own alone.
   */
  bounds?: Int32Array // [sequences + 1]
}

/** The first token of each sequence in B · T, and the end of the last. */
export const boundsOf = ({ rows, length, bounds }: Pick<Places, "rows" | "length" | "bounds">): Int32Array =>
  bounds ?? Int32Array.from({ length: rows + 1 }, (_, b) => b * length)

/** Rows of one width, or sequences of these widths end to end in a single row. */
export function extentOf(widths: readonly number[], paddingFree: boolean): Pick<Places, "rows" | "length" | "bounds"> {
  if (!paddingFree) return { rows: widths.length, length: widths[0]! }
  const bounds = new Int32Array(widths.length + 1)
  for (const [b, width] of widths.entries()) bounds[b + 1] = bounds[b]! + width
  return { rows: 1, length: bounds.at(-1)!, bounds }
}

/** What layers of one kind (same rope, same window) share. */
export interface Context {
  /** for our own kernel where there is one, else for operations of tfjs */
  attention: AttentionInputs | Blocks
  /** First queries of the blocks that attend together, from the first query t0 that attends. */
  starts: readonly number[]
  /** The tokens with which a layer continues after attention, where not with all: [M] each. */
  selected?: {
    tokens: Tensor1D // into B · T
    attended: Tensor1D // into B · (T - t0)
  }
}

/** Tables and masks for a block of queries after another. */
export interface Blocks {
  rope: RopeTable // cos, sin [B, N + K, T, H]
  blocks: AttentionBlock[]
}

export interface ContextOptions {
  /** places of the cached keys; those of the queries if not given */
  keys?: Places
  /** places in B · T whose final states are wanted, [M]; all if not given */
  selected?: Int32Array
  /** first queries of the blocks that attend together; every 128th if not given, every 512th on a GPU */
  starts?: readonly number[]
  /**
   * Cut blocks so that a row's values do not depend on the length of the others: two at least, as TensorFlow does
   * something else with the graph of a single one, and all keys from the first on for each, whatever a window hides.
   */
  batchInvariant?: boolean
}

/**
 * One context a layer; layers of one kind get the same object, but for the last one where some tokens are asked for.
 */
export function contexts(config: ModelConfig, queries: Places, options: ContextOptions = {}): Context[] {
  const { selected } = options
  const byKind = new Map<string, Context>()
  const perLayer = config.rope.map((rope, i) => {
    const window = config.window[i]!
    const key = JSON.stringify([rope, window])
    const context = byKind.get(key) ?? contextOf(config, i, queries, options)
    byKind.set(key, context)
    return context
  })
  if (selected) perLayer.push(lastLayerContext(perLayer.pop()!, selected, queries))
  return perLayer
}

type ContextOf = (config: ModelConfig, i: number, queries: Places, options: ContextOptions) => Context

const contextOf = operation<ContextOf>(({ kernels }) => (kernels === "none" ? blockedContext : fusedContext))

/** The context of layer `i` for our own kernel, which takes care of blocks by itself. */
function fusedContext(config: ModelConfig, i: number, queries: Places, { keys = queries }: ContextOptions): Context {
  const { cos, sin } = turns(config, config.rope[i]!, queries)
  const placesOf = ({ positions, segments, rows, length }: Places) => {
    const both = new Int32Array(2 * rows * length)
    both.set(positions)
    both.set(segments, rows * length)
    return tf.tensor3d(both, [2, rows, length])
  }
  const places = placesOf(queries)
  const inputs: AttentionInputs = {
    cos,
    sin,
    queryScale: tf.scalar(config.queryScale),
    queries: places,
    keys: keys === queries ? places : placesOf(keys),
    bounds: tf.tensor1d(boundsOf(queries)),
    from: tf.scalar(0, "int32"),
    window: config.window[i] ?? 0,
  }
  return { attention: inputs, starts: [0] }
}

/** The context of layer `i` for operations of tfjs. */
function blockedContext(config: ModelConfig, i: number, queries: Places, options: ContextOptions): Context {
  const { keys = queries, batchInvariant = false } = options
  const { starts = blockStarts(queries.length, batchInvariant) } = options
  if (queries.bounds) throw new Error("context: sequences without padding need kernels of our own")
  const blocks = attention(queries, keys, config.window[i]!, starts, batchInvariant)
  return { attention: { rope: ropeTable(config, config.rope[i]!, queries), blocks }, starts }
}

/**
 * Nobody looks at what the last layer makes of a token whose final state is not asked for, so that there it needs to
 * give keys and values alone: of a prompt to be trained on, all but its last token.
 */
function lastLayerContext(context: Context, selected: Int32Array, { length: T, bounds }: Places): Context {
  // Sequences without padding have no first query in common, so all of their queries attend.
  const first = bounds ? 0 : selected.reduce((least, at) => Math.min(least, at % T), T - 1)
  const attending = (attention: AttentionInputs | Blocks): Pick<Context, "attention" | "starts"> => {
    if ("from" in attention) return { attention: { ...attention, from: tf.scalar(first, "int32") }, starts: [first] }
    const blocks = attention.blocks.filter(({ queries: [from, count] }) => from + count > first)
    return { attention: { ...attention, blocks }, starts: blocks.map(({ queries: [from] }) => from) }
  }
  const narrow = attending(context.attention)
  const start = narrow.starts[0]!
  const attended = selected.map((at) => Math.floor(at / T) * (T - start) + (at % T) - start)
  return { ...narrow, selected: { tokens: tf.tensor1d(selected), attended: tf.tensor1d(attended) } }
}

const hidden = -1e9
/** Queries that attend together: on a GPU starting an operation costs more than what small blocks spare. */
const queryBlock = operation(
  ({ gpu }) =>
    () =>
      gpu ? 512 : 128,
)
function blockStarts(length: number, batchInvariant: boolean): number[] {
  const n = queryBlock()
  if (batchInvariant && length > 1 && length <= n) return [0, length >> 1]
  return Array.from({ length: Math.ceil(length / n) }, (_, i) => i * n)
}

/**
 * Who looks at whom, a block of queries after another, each with the keys from the first that it needs on. Padding
 * looks at padding, so that its softmax stays finite.
 */
function attention(
  queries: Places,
  keys: Places,
  window: number | null,
  starts: readonly number[],
  batchInvariant: boolean,
): AttentionBlock[] {
  const { rows: B, length: T } = queries
  const S = keys.length
  // Tokens of one call look at themselves and at what is left of them; cached keys stay in one piece.
  const same = queries === keys
  return starts.map((from, i) => {
    const n = (starts[i + 1] ?? T) - from
    const end = same ? from + n : S
    const scores = new Float32Array(B * n * end).fill(hidden)
    let first = same && !batchInvariant ? end - 1 : 0
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

/** cos and sin of position · frequency, computed once for each position. */
export class Turns {
  private known = { cos: new Float32Array(), sin: new Float32Array() }

  constructor(private readonly frequencies: readonly number[]) {}

  /** [positions, H / 2] each */
  at(positions: Int32Array): { cos: Float32Array; sin: Float32Array } {
    const half = this.frequencies.length
    const last = positions.reduce((most, position) => Math.max(most, position), 0)
    if ((last + 1) * half > this.known.cos.length) this.extend(Math.ceil((last + 1) / 64) * 64)
    const spread = (from: Float32Array) => {
      const out = new Float32Array(positions.length * half)
      positions.forEach((position, i) => {
        out.set(from.subarray(position * half, (position + 1) * half), i * half)
      })
      return out
    }
    return { cos: spread(this.known.cos), sin: spread(this.known.sin) }
  }

  private extend(positions: number): void {
    const half = this.frequencies.length
    const table = (f: (angle: number) => number) =>
      Float32Array.from({ length: positions * half }, (_, i) => f(Math.floor(i / half) * this.frequencies[i % half]!))
    this.known = { cos: table(Math.cos), sin: table(Math.sin) }
  }
}

/** cos and sin of position · frequency, [B T, H / 2]. */
function turns({ headDim }: ModelConfig, rope: Rope, { positions }: Places): Pick<AttentionInputs, "cos" | "sin"> {
  const { cos, sin } = new Turns(ropeFrequencies(rope, headDim)).at(positions)
  const shape: [number, number] = [positions.length, headDim / 2]
  return { cos: tf.tensor2d(cos, shape), sin: tf.tensor2d(sin, shape) }
}

/** The same for each head, both halves alike. Queries' rows also carry the factor of q·k, which then costs nothing. */
function ropeTable(config: ModelConfig, rope: Rope, places: Places): RopeTable {
  const { heads: N, kvHeads: K, headDim: H } = config
  const { rows: B, length: T } = places
  const half = H / 2
  const { cos, sin } = turns(config, rope, places)
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
  const table = (x: Tensor2D) => tf.mul(tf.reshape(tf.concat([x, x], 1), [B, 1, T, H]), scale) as Tensor4D
  return { cos: table(cos), sin: table(sin), rotation: tf.tensor2d(rotation, [H, H]) }
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
