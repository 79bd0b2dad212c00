import type { Tensor, Tensor2D } from "@tensorflow/tfjs"
import { type CompiledGraph, GraphBuilder, GraphCache, type GraphNode } from "../backend/graph"
import { tf } from "../backend/tf"
import type { KVCache } from "./cache"
import type { ModelConfig } from "./config"
import { ropeFrequencies } from "./context"
import type { Bound, Layer, Projection } from "./transformer"

/**
 * One decoding step as a graph: what `forward` and the head do for one new token a row, in one call instead of some fifty a
 * layer. Weights, caches and places are inputs, so a graph serves every model and adapter of one configuration.
 *
 * Letters as in transformer.ts; S columns of the cache.
 */
function build(config: ModelConfig): CompiledGraph {
  const { heads: N, kvHeads: K, headDim: H } = config
  const g = new GraphBuilder()
  const T = "float32"
  const binary = (type: "Mul" | "AddV2" | "RealDiv") => (a: GraphNode, b: GraphNode) => g.op(type, [a, b], { T })
  const [mul, add, div] = [binary("Mul"), binary("AddV2"), binary("RealDiv")]
  const unary = (type: "Square" | "Rsqrt" | "Sigmoid" | "Tanh" | "Softmax") => (x: GraphNode) => g.op(type, [x], { T })
  const [square, rsqrt, sigmoid, tanh, softmax] = [
    unary("Square"),
    unary("Rsqrt"),
    unary("Sigmoid"),
    unary("Tanh"),
    unary("Softmax"),
  ]
  const reshape = (x: GraphNode, shape: GraphNode) => g.op("Reshape", [x, shape], { T, Tshape: "int32" })
  const matMul = (a: GraphNode, b: GraphNode, transposed = false) =>
    g.op("MatMul", [a, b], { T, transpose_a: false, transpose_b: transposed })
  const batchMatMul = (a: GraphNode, b: GraphNode, transposed = false) =>
    g.op("BatchMatMulV2", [a, b], { T, adj_x: false, adj_y: transposed })
  const zero = g.ints(0)
  const gather = (table: GraphNode, at: GraphNode) =>
    g.op("GatherV2", [table, at, zero], { Tparams: T, Tindices: "int32", Taxis: "int32", batch_dims: 0 })
  const last = g.ints([-1])
  const mean = (x: GraphNode) => g.op("Mean", [x, last], { T, Tidx: "int32", keep_dims: true })
  const [eps, one] = [g.number(config.normEps), g.number(1)]
  const norm = (x: GraphNode, weight: GraphNode) => mul(mul(x, rsqrt(add(mean(square(x)), eps))), weight)

  const weight = (i: number, name: string) => g.input(`layers.${i}.${name}`)
  const project = (x: GraphNode, i: number, name: ProjectionName, biased: boolean) => {
    const y = matMul(x, weight(i, name))
    return biased ? add(y, weight(i, `${name}Bias`)) : y
  }
  const gated = (gate: GraphNode, up: GraphNode) => {
    if (config.activation === "silu") return mul(mul(gate, sigmoid(gate)), up)
    const inner = mul(gate, add(mul(square(gate), g.number(0.044715)), one))
    const half = mul(add(tanh(mul(inner, g.number(Math.sqrt(2 / Math.PI)))), one), g.number(0.5))
    return mul(mul(gate, half), up)
  }

  const perHead = g.ints([-1, N + K, H])
  const [rows, grouped, flat] = [g.ints([-1, H]), g.ints([-1, K, N / K, H]), g.ints([-1, N * H])]
  const kinds = ropeKinds(config)
  const table = (name: string) => mul(g.input(name), g.input("scale"))
  const ropes = kinds.map((_, kind) => ({ cos: table(`cos.${kind}`), sin: table(`sin.${kind}`) })) // [B, N + K, H]
  const rotation = g.input("rotation") // [H, H]
  const slice = (x: GraphNode, from: number, count: number) =>
    g.op("Slice", [x, g.ints([0, from, 0]), g.ints([-1, count, -1])], { T, Index: "int32" })
  const store = (buffer: GraphNode, added: GraphNode) =>
    reshape(
      g.op("InplaceUpdate", [buffer, g.input("at", "int32"), reshape(added, rows)], { T }),
      g.input("shape", "int32"),
    )

  const attention = (x: GraphNode, i: number) => {
    let qk = reshape(project(x, i, "qk", config.attentionBias), perHead) // [B, N + K, H]
    const v = project(x, i, "v", config.attentionBias)
    if (config.qkNorm) qk = norm(qk, reshape(weight(i, "qkNorm"), perHead))
    const { cos, sin } = ropes[kinds.indexOf(ropeKind(config, i))]!
    qk = add(mul(qk, cos), mul(reshape(matMul(reshape(qk, rows), rotation), perHead), sin))
    const keys = store(g.input(`k.${i}`), slice(qk, N, K)) // [B, K, S, H]
    const values = store(g.input(`v.${i}`), v)
    const scores = batchMatMul(reshape(slice(qk, 0, N), grouped), keys, true) // [B, K, N / K, S]
    const p = softmax(add(scores, g.input(`mask.${config.window[i] ?? "all"}`)))
    return project(reshape(batchMatMul(p, values), flat), i, "o", config.outputBias)
  }

  let x = gather(g.input("embed"), g.input("ids", "int32")) // [B, D]
  if (config.embedScale !== 1) x = mul(x, g.number(config.embedScale))
  for (let i = 0; i < config.layers; i++) {
    const after = (y: GraphNode, name: string) => (config.postNorms ? norm(y, weight(i, name)) : y)
    const y = add(x, after(attention(norm(x, weight(i, "norm1")), i), "postNorm1"))
    const z = norm(y, weight(i, "norm2"))
    const inner = gated(project(z, i, "gate", config.mlpBias), project(z, i, "up", config.mlpBias))
    x = add(y, after(project(inner, i, "down", config.mlpBias), "postNorm2"))
  }
  // A third less time than by MatMul for few rows and a large vocabulary.
  const logits = (isWide(config) ? batchMatMul : matMul)(norm(x, g.input("norm")), g.input("head"), true) // [B, V]
  const cap = config.logitSoftcap
  return g.compile([cap ? mul(tanh(div(logits, g.number(cap))), g.number(cap)) : logits])
}

const projections = ["qk", "v", "o", "gate", "up", "down"] as const
type ProjectionName = (typeof projections)[number]

const ropeKind = (config: ModelConfig, i: number) => JSON.stringify(config.rope[i])
const ropeKinds = (config: ModelConfig) => [...new Set(config.rope.map((_, i) => ropeKind(config, i)))]

const graphs = new GraphCache()

/** Whether a vocabulary is so large that its logits take most of a decoding step. */
export const isWide = (config: ModelConfig): boolean => config.vocabSize > 2 ** 15

/** Decoding steps of one batch by graph. */
export interface StepGraph {
  /** Logits [B, V] after token `ids[b]` at `positions[b]` of each row; the cache has made room for them. */
  logits(ids: Int32Array, positions: Int32Array, cache: KVCache): Tensor2D
  dispose(): void
}

/** The graph of a bound model; null where there is none (`GraphCache`). */
export function stepGraph(model: Bound): StepGraph | null {
  const { config } = model
  const graph = graphs.get(config, () => build(config))
  if (!graph) return null
  const { heads: N, kvHeads: K, headDim: H } = config
  const fixed: Record<string, Tensor> = Object.assign(
    { embed: model.embed, head: model.head, norm: model.norm },
    ...model.layers.map(layerInputs),
  )
  const made: Record<string, Tensor> = {
    // Queries also carry the factor of q·k.
    scale: tf.tensor3d(
      Array.from({ length: N + K }, (_, n) => (n < N ? config.queryScale : 1)),
      [1, N + K, 1],
    ),
    rotation: tf.tensor2d(halfSwap(H), [H, H]),
  }
  const frequencies = ropeKinds(config).map((rope) => ropeFrequencies(JSON.parse(rope), H))
  return {
    logits(ids, positions, cache) {
      const passing: Record<string, Tensor> = {
        ids: tf.tensor1d(ids),
        shape: tf.tensor1d(Int32Array.of(ids.length, K, cache.columns, H)),
      }
      for (const [kind, turns] of frequencies.entries()) {
        passing[`cos.${kind}`] = turned(positions, turns, Math.cos)
        passing[`sin.${kind}`] = turned(positions, turns, Math.sin)
      }
      for (const window of new Set(config.window)) {
        passing[`mask.${window ?? "all"}`] = mask(positions, cache, window)
      }
      const [logits] = graph.run({ ...fixed, ...made, ...passing, ...cache.inputs })
      tf.dispose(passing)
      return logits as Tensor2D
    },
    dispose: () => tf.dispose(made),
  }
}

function layerInputs(layer: Layer, i: number): Record<string, Tensor> {
  const inputs: Record<string, Tensor> = {}
  for (const name of projections) {
    const { weight, bias }: Projection = layer[name]
    inputs[`layers.${i}.${name}`] = weight
    if (bias) inputs[`layers.${i}.${name}Bias`] = bias
  }
  for (const name of ["norm1", "postNorm1", "norm2", "postNorm2", "qkNorm"] as const) {
    if (layer[name]) inputs[`layers.${i}.${name}`] = layer[name]
  }
  return inputs
}

/** 0 for the keys that a row's newest token looks at, its own included, else -1e9: [B, 1, 1, S]. */
function mask(positions: Int32Array, cache: KVCache, window: number | null): Tensor {
  const [B, S] = [positions.length, cache.columns]
  const out = new Float32Array(B * S).fill(-1e9)
  positions.forEach((position, b) => {
    const seen = Math.min(position + 1, window ?? Number.POSITIVE_INFINITY)
    out.fill(0, b * S + cache.length - seen, b * S + cache.length)
  })
  return tf.tensor4d(out, [B, 1, 1, S])
}

/** `f` of position · frequency, both halves alike: [B, 1, H]. */
function turned(positions: Int32Array, frequencies: readonly number[], f: (angle: number) => number): Tensor {
  const half = frequencies.length
  const out = new Float32Array(positions.length * 2 * half)
  positions.forEach((position, b) => {
    frequencies.forEach((frequency, h) => {
      out[2 * b * half + h] = f(position * frequency)
    })
    out.copyWithin((2 * b + 1) * half, 2 * b * half, (2 * b + 1) * half)
  })
  return tf.tensor3d(out, [positions.length, 1, 2 * half])
}

/** x · halfSwap = [-x2, x1] */
function halfSwap(H: number): Float32Array {
  const out = new Float32Array(H * H)
  for (let h = 0; h < H / 2; h++) {
    out[(h + H / 2) * H + h] = -1
    out[h * H + h + H / 2] = 1
  }
  return out
}
