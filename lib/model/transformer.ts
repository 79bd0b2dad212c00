import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { InputError } from "../errors"
import { type AttentionInputs, attend, type Cached, fusedAttention, fusedRotate, rotate } from "../ops/attention"
import { type Frozen, isFrozen, rowsOf, type Table } from "../ops/frozen"
import { type Activation, gated, gatedProduct } from "../ops/gated"
import { recomputed } from "../ops/gradient"
import { linear } from "../ops/linear"
import { rmsNorm } from "../ops/norm"
import { lookup } from "../ops/table"
import type { ModelConfig } from "./config"
import { type Blocks, type Context, contexts, type Places } from "./context"
import type { Plan } from "./executor"
import type { Layer, LayerCache, PassCache, Projection } from "./layer"
import { type LayersInput, type LayersRun, layersByGraph } from "./layer-graph"

/**
 * The whole decoder, for every family: they differ by the values in `ModelConfig` only. One `forward` serves training,
 * scoring, prefill and decoding.
 *
 * B batch, T time (tokens given now), S keys, N query heads, K key/value heads, H head size, D model width, F mlp
 * width, V vocabulary.
 */

/** Tensors by name: `embed` [V, D], `head` [V, D] if untied, `norm` [D], and `layers.{i}.{name}` as in `Layer`. */
export type Params = Record<string, Tensor>

/** Those of a model, whose matrices may be frozen: see `keepsBf16`. */
export type ModelParams = Record<string, Tensor | Frozen>

/** Values of all tensors. */
export const sizeOf = (params: ModelParams): number => Object.values(params).reduce((n, { size }) => n + size, 0)

/**
 * Weights as trained and stored, and the shape that they make up. Matrices are [in, out]; norms hold what they multiply
 * by.
 */
export interface Model {
  config: ModelConfig
  params: ModelParams
}

/** The weights of a model that keeps them as floats. @throws InputError where matrices are kept as bf16 */
export function floatParams({ params }: Model): Params {
  if (!Object.values(params).some(isFrozen)) return params as Params
  throw new InputError("weights: must be floats to be trained or read, got matrices in bf16; take `withFloats(model)`")
}

/** A model made ready for a step: effective matrices, and which of them are trained. See `bind` in lora.ts. */
export interface Bound {
  config: ModelConfig
  embed: Table // [V, D]
  head: Table // [V, D]
  norm: Tensor1D // [D]
  layers: Layer[]
  /** All weights are trained, the embedding included. */
  trainAll: boolean
  /** how it is run */
  plan: Plan
}

/**
 * Hidden states of tokens `ids` [B · T] after the last norm -> [B · T, D], or [M, D] where `perLayer` asks for M of
 * them. With a cache, keys and values are kept there.
 */
export function forward(
  model: Bound,
  ids: Tensor1D,
  places: Places,
  perLayer: readonly Context[],
  cache?: PassCache,
): Tensor2D {
  const { layers, gradient, xla } = model.plan
  const byGraph = layers === "graph" && (!cache || cache.isFresh)
  const first = embedded(model, ids)
  const all = { x: first, layers: model.layers, contexts: perLayer }
  // XLA compiles one layer for all, which takes less than all layers at once.
  const isWhole = byGraph && !cache && !gradient && !xla
  const whole = isWhole ? layersByGraph([all], [places], layersOf(model, 0)) : null
  const last =
    whole ??
    model.layers.reduce((x, layer, i) => {
      const input = { x, layers: [layer], contexts: [perLayer[i]!] }
      const run = layersOf(model, i, cache?.layer(i))
      const plain = (input: LayersInput) => run.run(input, places, run.cache)
      const byOne = byGraph ? layersByGraph([input], [places], run) : null
      if (byOne) return byOne
      return model.plan.recompute ? recomputed(input, plain) : plain(input)
    }, first)
  return rmsNorm(last, model.norm, model.config.normEps, model.trainAll)
}

/** What `forward` is given. */
export interface Pass {
  ids: Tensor1D
  places: Places
  perLayer: readonly Context[]
}

/**
 * As `forward` of each, one after another in one tensor; threads compute them side by side where a graph can be made.
 */
export function forwardTogether(model: Bound, passes: readonly Pass[]): Tensor2D {
  const states = model.plan.layers === "graph" && passes.length > 1 ? togetherByGraphs(model, passes) : null
  if (!states) return tf.concat(passes.map(({ ids, places, perLayer }) => forward(model, ids, places, perLayer)))
  return rmsNorm(states, model.norm, model.config.normEps, model.trainAll)
}

/** States after the last layer: by one graph, or one a layer where between layers alone states are to be kept. */
function togetherByGraphs(model: Bound, passes: readonly Pass[]): Tensor2D | null {
  const places = passes.map(({ places }) => places)
  let each = passes.map(({ ids }) => embedded(model, ids))
  let joined: Tensor2D | null = null
  for (let from = 0; from < model.layers.length; ) {
    const to: number = model.plan.recompute ? from + 1 : model.layers.length
    const layers = model.layers.slice(from, to)
    const inputs = passes.map(({ perLayer }, i) => ({ x: each[i]!, layers, contexts: perLayer.slice(from, to) }))
    joined = layersByGraph(inputs, places, layersOf(model, from))
    if (!joined) return null
    const rows = each.map(({ shape }) => shape[0])
    if (to < model.layers.length) each = tf.split(joined, rows)
    from = to
  }
  return joined
}

function embedded({ config, embed }: Bound, ids: Tensor1D): Tensor2D {
  const x = isFrozen(embed) ? rowsOf(embed, ids) : lookup(embed, ids)
  return config.embedScale === 1 ? x : tf.mul(x, config.embedScale)
}

/** The layers of a model from layer `first` on. */
const layersOf = (model: Bound, first: number, cache?: LayerCache): LayersRun => ({
  config: model.config,
  cache,
  plan: model.plan,
  // Frees what no gradient needs, layer by layer: a graph of all layers is watched on all of them.
  run: ({ x, layers, contexts }, places, into) =>
    layers.reduce((x, layer, i) => tf.tidy(() => block(x, layer, model, places, contexts[i]!, into)), x),
  contextsAt: (places, options) => contexts(model.config, places, options).slice(first),
})

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
  const { selected } = context
  const attended = selfAttention(norm(x, layer.norm1), layer, model, places, context, cache)
  const attention = project(selected ? lookup(attended, selected.attended) : attended, layer.o)
  const y = tf.add(selected ? lookup(x, selected.tokens) : x, norm(attention, layer.postNorm1)) as Tensor2D
  const z = norm(y, layer.norm2)
  const mlp = project(gatedProjection(z, layer, model), layer.down)
  return tf.add(y, norm(mlp, layer.postNorm2))
}

/** [B T, D] -> [B T, N H], or [B (T - t0), N H] where only queries from t0 on attend. */
function selfAttention(
  x: Tensor2D,
  layer: Layer,
  model: Bound,
  places: Places,
  { attention }: Context,
  cache?: LayerCache,
): Tensor2D {
  const [qk, v] = [project(x, layer.qk), project(x, layer.v)]
  const projected = { qk, v, norm: layer.qkNorm }
  return "from" in attention
    ? attendFused(projected, model, places, attention, cache)
    : attendByBlocks(projected, model, places, attention, cache)
}

/** Queries and keys [B T, (N + K) H] and values [B T, K H] as projected. */
interface Projected {
  qk: Tensor2D
  v: Tensor2D
  norm?: Tensor3D // [N + K, 1, H]
}

function attendFused(
  { qk, v, norm }: Projected,
  { config, trainAll }: Bound,
  { rows: B, length: T }: Places,
  inputs: AttentionInputs,
  cache?: LayerCache,
): Tensor2D {
  const { heads: N, kvHeads: K, headDim: H } = config
  const normed = norm
    ? rmsNorm(tf.reshape(qk, [B * T, N + K, H]), tf.reshape(norm, [N + K, H]), config.normEps, trainAll)
    : qk
  const turned = fusedRotate(tf.reshape(normed, [B * T, (N + K) * H]), inputs, N)
  const byHead = (x: Tensor2D, from: number) =>
    tf.transpose(tf.reshape(tf.slice(x, [0, from * H], [-1, K * H]), [B, T, K, H]), [0, 2, 1, 3]) as Tensor4D
  const stored = cache?.append(byHead(turned, N), byHead(v, 0))
  return fusedAttention(turned, v, inputs, [N, K], stored ?? undefined)
}

function attendByBlocks(
  projected: Projected,
  { config, trainAll }: Bound,
  { rows: B, length: T }: Places,
  { rope, blocks }: Blocks,
  cache?: LayerCache,
): Tensor2D {
  const { heads: N, kvHeads: K, headDim: H } = config
  const split = (y: Tensor2D, n: number) => tf.transpose(tf.reshape(y, [B, T, n, H]), [0, 2, 1, 3]) as Tensor4D
  let qk = split(projected.qk, N + K) // [B, N + K, T, H]
  const v = split(projected.v, K) // [B, K, T, H]
  if (projected.norm) qk = rmsNorm(qk, projected.norm, config.normEps, trainAll)
  qk = rotate(qk, rope)
  // Shared keys are for kernels alone.
  const stored = cache?.append(tf.slice(qk, [0, N, 0, 0], [B, K, T, H]), v) as Cached | null | undefined
  const out = stored
    ? attend(tf.slice(qk, [0, 0, 0, 0], [B, N, T, H]), stored.v, blocks, K, stored.k)
    : attend(qk, v, blocks, K)
  return tf.reshape(tf.transpose(out, [0, 2, 1, 3]), [-1, N * H])
}

/** act(x · gate) · (x · up) -> [M, F] */
function gatedProjection(x: Tensor2D, { gate, up }: Layer, { config, plan }: Bound): Tensor2D {
  const activation: Activation = config.activation
  const plain = [gate, up].every(({ factors, bias }) => !factors && !bias)
  return plain && !plan.gradient && !isFrozen(gate.weight) && !isFrozen(up.weight)
    ? gatedProduct(x, gate.weight, up.weight, activation)
    : gated(project(x, gate), project(x, up), activation)
}

function project(x: Tensor2D, { weight, bias, lora, factors, train, constantInput }: Projection): Tensor2D {
  const y = linear(x, weight, { trainWeight: train, lora, factors, constantInput })
  return bias ? (tf.add(y, bias) as Tensor2D) : y
}
