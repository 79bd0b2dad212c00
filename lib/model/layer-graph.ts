import type { Tensor, Tensor2D, Tensor4D } from "@tensorflow/tfjs"
import { isTaped } from "../backend/gradient"
import { runsGraphs } from "../backend/graph"
import { tf } from "../backend/tf"
import { replayed, type Sizes, type Traced, trace } from "../backend/trace"
import type { ModelConfig } from "./config"
import type { Context, ContextOptions, Places } from "./context"
import type { Layer, LayerCache } from "./transformer"

/**
 * Layers as graphs, with their gradients in training: a quarter of a small model's time goes into calling kernels one by one
 * and into fresh memory for each. A graph is made by watching a layer on three tiny batches, and serves all layers of its
 * kind and batches of all sizes.
 */

export interface LayerInput {
  x: Tensor2D
  layer: Layer
  context: Context
}

export interface LayerRun {
  config: ModelConfig
  places: Places
  /** Gets the layer's first keys and values, if they are to be kept. */
  cache?: LayerCache
  run(input: LayerInput, places: Places, cache?: LayerCache): Tensor2D
  /** The context that the layer would have at other places. */
  contextAt(places: Places, options: ContextOptions): Context
}

/** `run(input, places)` by graph; one by one where a window keeps the first tokens out of sight, and where no graph can be made. */
export function layerByGraph(input: LayerInput, layer: LayerRun): Tensor2D {
  const { attention, asked } = input.context
  const whole = "from" in attention || attention.blocks.every(({ keys: [from] }) => from === 0)
  const graph = whole ? graphOf(input, layer) : null
  const { places, cache } = layer
  if (!graph) return tf.tidy(() => layer.run(input, places, cache))
  const sizes = { rows: places.rows, asked: asked?.tokens.size ?? 0, cuts: cutsOf(input.context, places.length) }
  return tf.tidy(() => {
    const [y, k, v] = replayed(input, graph, sizes)
    cache?.append(k as Tensor4D, v as Tensor4D)
    return y as Tensor2D
  })
}

/** First queries of all blocks, from 0 to the row's length, whether or not queries from 0 on attend. */
const cutsOf = ({ starts }: Context, length: number) => [...new Set([0, ...starts, length])]

/** Projections of a layer, in the order of its inputs. */
const projectionsOf = ({ qk, v, o, gate, up, down }: Layer) => [qk, v, o, gate, up, down]

/** What is trained of a layer: its adapter, or all that it has. */
function trainedOf(layer: Layer): Tensor[] {
  const projections = projectionsOf(layer)
  const { norm1, qkNorm, postNorm1, norm2, postNorm2 } = layer
  if (!layer.qk.train) return projections.flatMap(({ lora }) => lora.flatMap(({ A, B }) => [A, B]))
  const all = [norm1, qkNorm, postNorm1, norm2, postNorm2, ...projections.flatMap(({ weight, bias }) => [weight, bias])]
  return all.filter((tensor) => tensor !== undefined)
}

/** By what decides which kernels a layer calls; null where none can be made. */
const graphs = new Map<string, Traced | null>()

function graphOf(input: LayerInput, layer: LayerRun): Traced | null {
  const { attention, starts, asked } = input.context
  const late = starts[0]! > 0
  const window = "from" in attention && attention.window
  const projections = projectionsOf(input.layer).map(({ lora, beside, bias, constantInput, train }) => [
    lora.map(({ offset }) => offset),
    beside !== undefined,
    bias !== undefined,
    constantInput ?? false,
    train,
  ])
  const kind = [window, starts.length, late, asked !== undefined, isTaped(), layer.cache !== undefined]
  const key = JSON.stringify([layer.config, projections, ...kind])
  const known = graphs.get(key)
  if (known !== undefined) return known
  let made: Traced | null = null
  if (runsGraphs()) {
    try {
      tf.tidy(() => {
        made = trace([2, 3, 5].map((rows) => exampleOf(input, layer, rows, late)))
      })
    } catch {
      // No room for a temporary file, or a layer that differs between sizes in more than lengths: one by one, then.
    }
  }
  graphs.set(key, made)
  return made
}

/** The layer on a tiny batch of as many blocks; batches of 2, 3 and 5 rows agree in no length. */
function exampleOf(
  { layer, context }: LayerInput,
  { config, run, cache, contextAt }: LayerRun,
  rows: number,
  late: boolean,
) {
  const blocks = context.starts.length
  const first = late ? 5 + rows * rows : 0
  const cut = (i: number) => first + i * i + i * rows
  const starts = Array.from({ length: blocks }, (_, i) => cut(i))
  const length = cut(blocks)
  const positions = Int32Array.from({ length: rows * length }, (_, i) => i % length)
  const places: Places = { rows, length, positions, segments: new Int32Array(rows * length) }
  const asked = context.asked && positions.map((_, i) => i).filter((i) => i > first && i % length >= first)
  const input: LayerInput = {
    x: tf.ones([rows * length, config.dim]),
    layer,
    context: contextAt(places, { asked, starts: late ? [0, ...starts] : starts, steady: !isTaped() }),
  }
  const sizes: Sizes = { rows, asked: asked?.length ?? 0, cuts: cutsOf(input.context, length) }
  const dy = tf.ones([asked?.length ?? rows * length, config.dim])
  const by = isTaped() ? [input.x, ...trainedOf(layer)] : []
  const watched = (): Tensor[] => {
    const kept: Tensor[] = []
    const append = (k: Tensor4D, v: Tensor4D) => {
      kept.push(k, v)
      return null
    }
    return [run(input, places, cache && { append }), ...kept]
  }
  return { sizes, input, by, dy, run: watched }
}

/**
 * First queries of blocks that attend together, for graphs: few numbers of blocks, so that few graphs serve all batches.
 * Blocks are the same parts of a row, and one begins where the first asked token is. Smaller ones spare what no query of theirs
 * looks at, larger ones spare operations.
 */
export function evenStarts({ length: T }: Places, asked: Int32Array): number[] {
  const first = asked.reduce((least, at) => Math.min(least, at % T), T - 1)
  const parts = (from: number, to: number, n: number) =>
    Array.from({ length: n }, (_, i) => from + Math.round((i * (to - from)) / n))
  const factor = 2 ** Math.max(0, Math.ceil(Math.log2(T / 640)))
  const [before, after, all] = T <= 128 ? [1, 1, 2] : [2 * factor, 3 * factor, 4 * factor]
  const narrow = Math.min(first, T - first) >= 4 * factor
  const starts = narrow ? [...parts(0, first, before), ...parts(first, T, after)] : parts(0, T, all)
  return [...new Set(starts)]
}
