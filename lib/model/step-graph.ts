import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { type CompiledGraph, GraphBuilder, type GraphNode } from "../graph/builder"
import { type Frozen, isFrozen } from "../ops/frozen"
import { productOp } from "../ops/matmul"
import type { KVCache } from "./cache"
import type { ModelConfig } from "./config"
import { ropeFrequencies } from "./context"
import type { Plan } from "./executor"
import { type Layer, type Projection, type ProjectionName, projectionNames } from "./layer"
import type { Bound } from "./transformer"

/**
 * One decoding step as a graph: what `forward` and the head do for one new token a row, in one call instead of some
 * thirty a layer. Weights, caches and places are inputs, so a graph serves every model and adapter of one
 * configuration.
 *
 * Letters as in transformer.ts; S columns of the cache.
 */
function build(config: ModelConfig, { precision, threads }: Plan, { forms, frozenTables }: Forms): CompiledGraph {
  const { heads: N, kvHeads: K } = config
  const g = new GraphBuilder()
  const T = "float32"
  const binary = (type: "Mul" | "AddV2" | "RealDiv") => (a: GraphNode, b: GraphNode) => g.op(type, [a, b], { T })
  const [mul, add, div] = [binary("Mul"), binary("AddV2"), binary("RealDiv")]
  const ours = (type: string, inputs: readonly GraphNode[], ...settings: number[]) => g.op(type, inputs, { settings })
  const own = productOp() === "MuscProduct"
  const matMul = (a: GraphNode, b: GraphNode, transposed = false) =>
    own
      ? ours("MuscProduct", [a, b], 0, Number(transposed), 3)
      : g.op("MatMul", [a, b], { T, transpose_a: false, transpose_b: transposed })
  const batchMatMul = (a: GraphNode, b: GraphNode, transposed = false) =>
    g.op("BatchMatMulV2", [a, b], { T, adj_x: false, adj_y: transposed })
  const eps = g.number(config.normEps)
  const norm = (x: GraphNode, weight: GraphNode) => ours("MuscRmsNorm", [x, weight, eps], 0)

  const weight = (i: number, name: string) => g.input(`layers.${i}.${name}`)
  const product = (x: GraphNode, i: number, name: ProjectionName) => {
    const { frozen, lora } = forms[i]![name]
    // MatMul knows no bf16.
    if (frozen === null) return (precision === "bf16" ? batchMatMul : matMul)(x, weight(i, name))
    const packed = g.input(`layers.${i}.${name}`, "int32")
    if (!lora) return ours("MuscFrozenProduct", [x, packed], frozen, 0, frozen, 0)
    return ours("MuscFrozenLora", [x, packed, weight(i, `${name}Down`), weight(i, `${name}Up`)], frozen, 0)
  }
  const project = (x: GraphNode, i: number, name: ProjectionName, biased: boolean) => {
    const y = product(x, i, name)
    return biased ? add(y, weight(i, `${name}Bias`)) : y
  }
  const scale = g.number(config.queryScale)
  const columns = g.input("columns", "int32")
  const kinds = ropeKinds(config)
  const attention = (x: GraphNode, i: number) => {
    const projected = project(x, i, "qk", config.attentionBias)
    const qk = config.qkNorm ? norm(projected, weight(i, "qkNorm")) : projected
    const v = project(x, i, "v", config.attentionBias)
    const kind = kinds.indexOf(ropeKind(config, i))
    const turns = [g.input(`cos.${kind}`), g.input(`sin.${kind}`), scale]
    const cached = [g.input(`k.${i}`), g.input(`v.${i}`)]
    const shared = [g.input(`sharedK.${i}`), g.input(`sharedV.${i}`)]
    const attended = ours("MuscDecode", [qk, v, ...turns, ...cached, columns, ...shared], N, K, config.window[i] ?? 0)
    return project(attended, i, "o", config.outputBias)
  }
  const gelu = Number(config.activation !== "silu")

  const types = { Tparams: T, Tindices: "int32", Taxis: "int32", batch_dims: 0 } as const
  const V = config.vocabSize
  const ids = g.input("ids", "int32")
  let x = frozenTables // [B, D]
    ? ours("MuscFrozenRows", [g.input("embed", "int32"), ids], V)
    : g.op("GatherV2", [g.input("embed"), ids, g.ints(0)], types)
  if (config.embedScale !== 1) x = mul(x, g.number(config.embedScale))
  for (let i = 0; i < config.layers; i++) {
    const after = (y: GraphNode, name: string) => (config.postNorms ? norm(y, weight(i, name)) : y)
    const y = add(x, after(attention(norm(x, weight(i, "norm1")), i), "postNorm1"))
    const z = norm(y, weight(i, "norm2"))
    const parts = [project(z, i, "gate", config.mlpBias), project(z, i, "up", config.mlpBias)]
    x = add(y, after(project(ours("MuscGated", parts, gelu), i, "down", config.mlpBias), "postNorm2"))
  }
  const last = norm(x, g.input("norm"))
  const headProduct = isWide(config) && !own ? batchMatMul : matMul // MatMul takes half as long again for few rows
  const logits = frozenTables // [B, V]
    ? ours("MuscFrozenProduct", [last, g.input("head", "int32")], V, 0, V, 0)
    : headProduct(last, g.input("head"), true)
  const cap = config.logitSoftcap
  const bounded = (c: number) => mul(g.op("Tanh", [div(logits, g.number(c))], { T }), g.number(c))
  return g.compile([cap ? bounded(cap) : logits], { oneThread: threads === 1 })
}

/** How the matrices of a model are kept: columns of one that is frozen, and whether LoRA stands beside it. */
interface Forms {
  forms: Record<ProjectionName, { frozen: number | null; lora: boolean }>[]
  frozenTables: boolean
}

function formsOf({ layers, embed }: Bound): Forms {
  const formOf = ({ weight, factors }: Projection) => ({
    frozen: isFrozen(weight) ? weight.shape[1] : null,
    lora: factors !== undefined,
  })
  const forms = layers.map((layer) => Object.fromEntries(projectionNames.map((name) => [name, formOf(layer[name])])))
  return { forms: forms as Forms["forms"], frozenTables: isFrozen(embed) }
}

const tensorOf = (matrix: Tensor | Frozen): Tensor => (isFrozen(matrix) ? matrix.packed : matrix)

const ropeKind = (config: ModelConfig, i: number) => JSON.stringify(config.rope[i])
const ropeKinds = (config: ModelConfig) => [...new Set(config.rope.map((_, i) => ropeKind(config, i)))]

const graphs = new Map<string, CompiledGraph>()

/** Whether a vocabulary is so large that its logits take most of a decoding step. */
export const isWide = (config: ModelConfig): boolean => config.vocabSize > 2 ** 15

/** Decoding steps of one batch by graph. */
export interface StepGraph {
  /**
   * Logits [B, V] behind token `ids[b]` at `positions[b]` of each row; the cache has made room in `columns[b]`, -1 for
   * a free row.
   */
  logits(ids: Int32Array, positions: Int32Array, columns: Int32Array, cache: KVCache): Tensor2D
}

/** The graph of a bound model; null where the plan has none. */
export function stepGraph(model: Bound): StepGraph | null {
  const { config } = model
  if (model.plan.step === "eager") return null
  const forms = formsOf(model)
  const key = JSON.stringify([config, model.plan.precision, model.plan.threads, forms])
  const graph = graphs.get(key) ?? build(config, model.plan, forms)
  graphs.set(key, graph)
  const fixed: Record<string, Tensor> = Object.assign(
    { embed: tensorOf(model.embed), head: tensorOf(model.head), norm: model.norm },
    ...model.layers.map(layerInputs),
  )
  const frequencies = ropeKinds(config).map((rope) => ropeFrequencies(JSON.parse(rope), config.headDim))
  return {
    logits(ids, positions, columns, cache) {
      const passing: Record<string, Tensor> = {
        ids: tf.tensor1d(ids),
        columns: tf.tensor1d(columns),
      }
      for (const [kind, turns] of frequencies.entries()) {
        passing[`cos.${kind}`] = rotation(positions, turns, Math.cos)
        passing[`sin.${kind}`] = rotation(positions, turns, Math.sin)
      }
      const [logits] = graph.run({ ...fixed, ...passing, ...cache.inputs })
      tf.dispose(passing)
      return logits as Tensor2D
    },
  }
}

function layerInputs(layer: Layer, i: number): Record<string, Tensor> {
  const inputs: Record<string, Tensor> = {}
  for (const name of projectionNames) {
    const { weight, bias, factors }: Projection = layer[name]
    inputs[`layers.${i}.${name}`] = tensorOf(weight)
    if (factors) {
      inputs[`layers.${i}.${name}Down`] = factors.down
      inputs[`layers.${i}.${name}Up`] = factors.up
    }
    if (bias) inputs[`layers.${i}.${name}Bias`] = bias
  }
  for (const name of ["norm1", "postNorm1", "norm2", "postNorm2", "qkNorm"] as const) {
    if (layer[name]) inputs[`layers.${i}.${name}`] = layer[name]
  }
  return inputs
}

/** `f` of position · frequency: [B, H / 2]. */
function rotation(positions: Int32Array, frequencies: readonly number[], f: (angle: number) => number): Tensor {
  const half = frequencies.length
  const out = new Float32Array(positions.length * half)
  positions.forEach((position, b) => {
    frequencies.forEach((frequency, h) => {
      out[b * half + h] = f(position * frequency)
    })
  })
  return tf.tensor2d(out, [positions.length, half])
}
