import type { Tensor, Tensor2D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { replayed, type Traced, trace, traceFailed } from "../graph/trace"
import { type Sizes, tensorsOf } from "../graph/watch"
import { isFrozen } from "../ops/frozen"
import type { ModelConfig } from "./config"
import type { Context, ContextOptions, Places } from "./context"
import type { Plan } from "./executor"
import { type Layer, type LayerCache, projectionNames } from "./layer"

/**
 * Layers as graphs, with their gradients in training: a quarter of a small model's time goes into calling kernels one
 * by one and into fresh memory for each. A graph is made by watching layers on three tiny batches, and serves all
 * layers of their kind and batches of all sizes: one layer for one batch, or all layers of a model for several batches,
 * which threads compute side by side.
 */

/** Some layers in a row and what they are given: states [B T, D], and a context each. */
export interface LayersInput {
  x: Tensor2D
  layers: readonly Layer[]
  contexts: readonly Context[]
}

/** How layers are run. */
export interface LayersRun {
  config: ModelConfig
  /** Gets a layer's first keys and values, if they are to be kept. */
  cache?: LayerCache
  plan: Plan
  run(input: LayersInput, places: Places, cache?: LayerCache): Tensor2D
  /** The contexts that the layers would have at other places. */
  contextsAt(places: Places, options: ContextOptions): readonly Context[]
}

/**
 * `run(input, places)` of some batches by a graph, one after another in one tensor. Null where a window keeps the first
 * tokens out of sight, where batches are cut into different blocks, and where no graph can be made.
 */
export function layersByGraph(
  inputs: readonly LayersInput[],
  places: readonly Places[],
  run: LayersRun,
): Tensor2D | null {
  const graph = graphOf(inputs, run)
  if (!graph) return null
  const sizes = inputs.map(({ contexts }, i): Sizes => {
    const { rows, length } = places[i]!
    return { rows, selected: selectedOf(contexts)?.tokens.size ?? 0, cuts: cutsOf(contexts, length) }
  })
  return tf.tidy(() => {
    const outputs = replayed(inputs, graph, sizes)
    const [[, k, v]] = outputs as [Tensor[]]
    run.cache?.append(k as Tensor4D, v as Tensor4D)
    const states = outputs.map(([y]) => y as Tensor2D)
    return states.length > 1 ? (tf.concat(states) as Tensor2D) : states[0]!
  })
}

/** Only the last layer continues with some tokens alone. */
const selectedOf = (contexts: readonly Context[]) => contexts.at(-1)!.selected

/** First queries of all blocks, from 0 to the row's length, whether or not queries from 0 on attend. */
const cutsOf = (contexts: readonly Context[], length: number) =>
  [...new Set([0, ...contexts.flatMap(({ starts }) => starts), length])].sort((a, b) => a - b)

const projectionsOf = (layer: Layer) => projectionNames.map((name) => layer[name])

/** What is trained of a layer: its adapter, or all that it has. */
function trainedOf(layer: Layer): Tensor[] {
  const projections = projectionsOf(layer)
  const { norm1, qkNorm, postNorm1, norm2, postNorm2 } = layer
  if (!layer.qk.train) return projections.flatMap(({ lora }) => lora.flatMap(({ A, B }) => [A, B]))
  const all = [norm1, qkNorm, postNorm1, norm2, postNorm2, ...projections.flatMap(({ weight, bias }) => [weight, bias])]
  return all.filter((tensor) => tensor !== undefined) as Tensor[]
}

/** By what decides which kernels layers call; null where none can be made. */
const graphs = new Map<string, Traced | null>()

function graphOf(inputs: readonly LayersInput[], { config, cache, plan, ...run }: LayersRun): Traced | null {
  const kinds = inputs.map(({ contexts }) => contexts.map(kindOf))
  const [first] = kinds as [(Kind | null)[]]
  if (kinds.some((kind) => kind.includes(null) || JSON.stringify(kind) !== JSON.stringify(first))) return null
  const { layers } = inputs[0]!
  const projections = layers
    .flatMap(projectionsOf)
    .map(({ weight, lora, factors, bias, constantInput, train }) => [
      isFrozen(weight),
      lora.map(({ offset }) => offset),
      factors !== undefined,
      bias !== undefined,
      constantInput ?? false,
      train,
    ])
  const kind = [plan.gradient, cache !== undefined, plan.recompute, plan.xla ?? false, plan.precision, inputs.length]
  const key = JSON.stringify([config, projections, first, ...kind])
  const known = graphs.get(key)
  if (known !== undefined) return known
  let traced: Traced | null = null
  try {
    tf.tidy(() => {
      const examples = [2, 3, 5].map((rows) => exampleOf(inputs[0]!, { config, cache, plan, ...run }, rows))
      traced = trace(examples, { recompute: plan.recompute, xla: plan.xla })
      traced.graphs(inputs.length)
    })
  } catch (error) {
    traceFailed("layers", error)
    traced = null
  }
  graphs.set(key, traced)
  return traced
}

/**
 * What of a context decides which kernels a layer calls: its window, its blocks, whether late ones alone attend, and
 * whether only selected tokens continue.
 */
type Kind = readonly [window: number | boolean, blocks: number, late: boolean, selected: boolean]

/** Null where a window keeps the first tokens out of sight. */
function kindOf({ attention, starts, selected }: Context): Kind | null {
  const whole = "from" in attention || attention.blocks.every(({ keys: [from] }) => from === 0)
  return whole ? ["from" in attention && attention.window, starts.length, starts[0]! > 0, selected !== undefined] : null
}

/** The layers on a tiny batch that is cut as often; batches of 2, 3 and 5 rows agree in no length. */
function exampleOf(
  { layers, contexts }: LayersInput,
  { config, plan, run, cache, contextsAt }: LayersRun,
  rows: number,
) {
  const last = contexts.at(-1)!
  const cuts = new Set([0, ...contexts.flatMap(({ starts }) => starts)]).size
  // Few tokens, for all layers are computed on them; more blocks need more lengths that differ.
  const cut = (i: number) => (i ? 3 + rows + (cuts > 2 ? rows * rows : 0) + (i - 1) ** 2 + (i - 1) * rows : 0)
  const length = cut(cuts)
  const first = cut(cuts - last.starts.length)
  const starts = Array.from({ length: cuts }, (_, i) => cut(i))
  const positions = Int32Array.from({ length: rows * length }, (_, i) => i % length)
  const places: Places = { rows, length, positions, segments: new Int32Array(rows * length) }
  const selected = last.selected && positions.map((_, i) => i).filter((i) => i > first && i % length >= first)
  const input: LayersInput = {
    x: tf.ones([rows * length, config.dim]),
    layers,
    contexts: contextsAt(places, { selected, starts, batchInvariant: !plan.gradient }).slice(0, layers.length),
  }
  const sizes: Sizes = { rows, selected: selected?.length ?? 0, cuts: cutsOf(input.contexts, length) }
  const dy = tf.ones([selected?.length ?? rows * length, config.dim])
  const shared = tensorsOf(layers)
  const by = plan.gradient ? [input.x, ...layers.flatMap(trainedOf)] : []
  const watched = (): Tensor[] => {
    const keysAndValues: Tensor[] = []
    const append = (k: Tensor4D, v: Tensor4D) => {
      keysAndValues.push(k, v)
      return null
    }
    return [run(input, places, cache && { append }), ...keysAndValues]
  }
  return { sizes, input, shared, by, dy, run: watched }
}

/**
 * First queries of blocks that attend together, for graphs: few numbers of blocks, so that few graphs serve all
 * batches. Blocks are the same parts of a row, and one begins at the first selected token. Smaller ones spare what
 * no query of theirs looks at, larger ones spare operations.
 */
export function evenStarts({ length: T }: Places, selected: Int32Array): number[] {
  const first = selected.reduce((least, at) => Math.min(least, at % T), T - 1)
  const parts = (from: number, to: number, n: number) =>
    Array.from({ length: n }, (_, i) => from + Math.round((i * (to - from)) / n))
  const factor = 2 ** Math.max(0, Math.ceil(Math.log2(T / 640)))
  const [before, after, all] = T <= 128 ? [1, 1, 2] : [2 * factor, 3 * factor, 4 * factor]
  const narrow = Math.min(first, T - first) >= 4 * factor
  const starts = narrow ? [...parts(0, first, before), ...parts(first, T, after)] : parts(0, T, all)
  return [...new Set(starts)]
}
