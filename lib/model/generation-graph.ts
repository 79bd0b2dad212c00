import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { type CompiledGraph, GraphBuilder, type GraphNode, type GraphType } from "../ops/builder"
import { choicesOf, type Draw } from "../ops/draw"
import { type Frozen, inBf16, isFrozen } from "../ops/frozen"
import { productOp } from "../ops/matmul"
import type { KVCache } from "./cache"
import type { ModelConfig } from "./config"
import { ropeFrequencies, Turns } from "./context"
import type { Plan } from "./executor"
import { type Layer, type Projection, type ProjectionName, projectionNames } from "./layer"
import type { Bound } from "./transformer"

const T = "float32"

/** What a graph does: a pass over prompts, or so many steps of one new token a row each. */
type Part = "prompts" | number

/** Where the tokens of a pass or a step stand. */
interface At {
  /** cos and sin for each kind of rope, [M, H / 2] each */
  turns: readonly (readonly [GraphNode, GraphNode])[]
  /** where the keys of a step go, [B] */
  columns?: GraphNode
}

/**
 * Generation as graphs: what `forward` does for a pass over prompts, or with the head and the drawing for new tokens,
 * in one call instead of some thirty a layer. Weights, caches and places are inputs, so a graph serves every model and
 * adapter of one configuration.
 *
 * Letters as in transformer.ts; M tokens, one a row in a step.
 */
class GenerationBuilder {
  private readonly g = new GraphBuilder()
  private readonly own = productOp() === "MuscProduct"
  private readonly eps: GraphNode
  private readonly scale: GraphNode
  private readonly kinds: readonly string[]
  private readonly bf16 = inBf16()

  constructor(
    private readonly config: ModelConfig,
    private readonly plan: Plan,
    private readonly forms: Forms,
    private readonly shared: boolean,
    private readonly part: Part,
  ) {
    this.eps = this.g.number(config.normEps)
    this.scale = this.g.number(config.queryScale)
    this.kinds = ropeKinds(config)
  }

  build(): CompiledGraph {
    const output = this.part === "prompts" ? this.prompts() : this.steps(this.part)
    return this.g.compile([output], { oneThread: true })
  }

  /** States behind the last token of each prompt, after the last norm: [B, D]. */
  private prompts(): GraphNode {
    const { g } = this
    const turns = this.kinds.map((_, kind) => [g.input(`cos.${kind}`), g.input(`sin.${kind}`)] as const)
    return this.norm(this.layers(this.embedded(g.input("ids", "int32")), { turns }), g.input("norm"))
  }

  /** Tokens of some steps one after another: [steps, B]. */
  private steps(count: number): GraphNode {
    const { g } = this
    const apart = (name: string, type: GraphType) =>
      g.outputs("Unpack", [g.input(name, type)], { T: type, num: count, axis: 0 }, count)
    const [columns, choices] = [apart("columns", "int32"), apart("choices", "int32")]
    const turns = this.kinds.map((_, kind) => [apart(`cos.${kind}`, T), apart(`sin.${kind}`, T)] as const)
    let ids = g.input("ids", "int32")
    const drawn = columns.map((column, s) => {
      const at: At = { turns: turns.map(([cos, sin]) => [cos[s]!, sin[s]!]), columns: column }
      const logits = this.capped(this.logits(this.layers(this.embedded(ids), at)))
      const tokens = this.ours("MuscDraw", [logits, choices[s]!], 0)
      // -1, where logits are no numbers, is for the caller to see.
      ids = g.op("Maximum", [tokens, g.ints(0)], { T: "int32" })
      return tokens
    })
    return g.op("Pack", drawn, { T: "int32", N: count, axis: 0 })
  }

  private layers(x: GraphNode, at: At): GraphNode {
    for (let i = 0; i < this.config.layers; i++) x = this.layer(x, i, at)
    return x
  }

  private op(type: "Mul" | "AddV2" | "RealDiv", a: GraphNode, b: GraphNode): GraphNode {
    return this.g.op(type, [a, b], { T })
  }
  private ours(type: string, inputs: readonly GraphNode[], ...settings: number[]): GraphNode {
    return this.g.op(type, inputs, { settings })
  }
  private norm(x: GraphNode, weight: GraphNode): GraphNode {
    return this.ours("MuscRmsNorm", [x, weight, this.eps], 0)
  }
  private weight(i: number, name: string): GraphNode {
    return this.g.input(`layers.${i}.${name}`)
  }
  private matMul(a: GraphNode, b: GraphNode, transposed = false): GraphNode {
    return this.own
      ? this.ours("MuscProduct", [a, b], 0, Number(transposed), 3)
      : this.g.op("MatMul", [a, b], { T, transpose_a: false, transpose_b: transposed })
  }
  private batchMatMul(a: GraphNode, b: GraphNode, transposed = false): GraphNode {
    return this.g.op("BatchMatMulV2", [a, b], { T, adj_x: false, adj_y: transposed })
  }

  /** x · W, with LoRA beside a W that is frozen. */
  private product(x: GraphNode, i: number, name: ProjectionName): GraphNode {
    const { frozen, lora } = this.forms.forms[i]![name]
    if (frozen === null) {
      const W = this.weight(i, name)
      // MatMul knows no bf16.
      return this.plan.precision === "bf16" ? this.batchMatMul(x, W) : this.matMul(x, W)
    }
    const packed = this.packed(i, name)
    if (!lora) return this.ours("MuscFrozenProduct", [x, packed], ...frozen, 0, frozen[1], 0, this.bf16)
    const factors = [this.weight(i, `${name}Down`), this.weight(i, `${name}Up`)]
    return this.ours("MuscFrozenLora", [x, packed, ...factors], ...frozen, 0, this.bf16)
  }
  private withBias(y: GraphNode, i: number, name: ProjectionName, biased: boolean): GraphNode {
    return biased ? this.op("AddV2", y, this.weight(i, `${name}Bias`)) : y
  }
  private packed(i: number, name: ProjectionName): GraphNode {
    return this.g.input(`layers.${i}.${name}`, "int32")
  }
  /** Columns of matrices that are frozen and have no LoRA, or null where one is otherwise. */
  private frozenAlone(i: number, names: readonly ProjectionName[]): number[] | null {
    const forms = names.map((name) => this.forms.forms[i]![name])
    return forms.every(({ frozen, lora }) => frozen !== null && !lora) ? forms.map(({ frozen }) => frozen![1]) : null
  }

  /** norm(x) · W, with bias if any, for several matrices. */
  private normedProjections(
    x: GraphNode,
    i: number,
    norm: "norm1" | "norm2",
    names: readonly ProjectionName[],
    biased: boolean,
  ): GraphNode[] {
    const columns = this.frozenAlone(i, names)
    const weight = this.weight(i, norm)
    let products: GraphNode[]
    if (columns) {
      const inputs = [x, weight, this.eps, ...names.map((name) => this.packed(i, name))]
      products = this.g.outputs(
        "MuscNormedProducts",
        inputs,
        { settings: [...columns, this.bf16], N: names.length },
        names.length,
      )
    } else {
      const normed = this.norm(x, weight)
      products = names.map((name) => this.product(normed, i, name))
    }
    return names.map((name, n) => this.withBias(products[n]!, i, name, biased))
  }

  /** residual + x · W, with bias and norm if any. */
  private added(
    residual: GraphNode,
    x: GraphNode,
    i: number,
    name: "o" | "down",
    { biased, norm }: { biased: boolean; norm: string },
  ): GraphNode {
    const { postNorms } = this.config
    const columns = biased || postNorms ? null : this.frozenAlone(i, [name])
    if (columns) return this.ours("MuscFrozenSum", [x, this.packed(i, name), residual], ...columns, this.bf16)
    const y = this.withBias(this.product(x, i, name), i, name, biased)
    return this.op("AddV2", residual, postNorms ? this.norm(y, this.weight(i, norm)) : y)
  }

  /** Some rows, by number. */
  private rows(x: GraphNode, numbers: GraphNode): GraphNode {
    const types = { Tparams: T, Tindices: "int32", Taxis: "int32", batch_dims: 0 } as const
    return this.g.op("GatherV2", [x, numbers, this.g.ints(0)], types)
  }

  /** [M, D] */
  private embedded(ids: GraphNode): GraphNode {
    const { g, config } = this
    const x = this.forms.frozenTables
      ? this.ours("MuscFrozenRows", [g.input("embed", "int32"), ids], config.dim, config.vocabSize)
      : this.rows(g.input("embed"), ids)
    return config.embedScale === 1 ? x : this.op("Mul", x, g.number(config.embedScale))
  }

  /** [M, N H] */
  private attention(x: GraphNode, i: number, { turns, columns }: At): GraphNode {
    const { g, config } = this
    const { heads: N, kvHeads: K } = config
    const [projected, v] = this.normedProjections(x, i, "norm1", ["qk", "v"], config.attentionBias)
    const qk = config.qkNorm ? this.norm(projected!, this.weight(i, "qkNorm")) : projected!
    const turn = [...turns[this.kinds.indexOf(ropeKind(config, i))]!, this.scale]
    const cached = [g.input(`k.${i}`), g.input(`v.${i}`)]
    const shared = this.shared ? [g.input(`sharedK.${i}`), g.input(`sharedV.${i}`)] : []
    const settings = [N, K, config.window[i] ?? 0]
    if (columns) {
      const before = this.shared ? shared : Array(2).fill(g.input("none"))
      return this.ours("MuscDecode", [qk, v!, ...turn, ...cached, columns, ...before], ...settings)
    }
    const turned = this.ours("MuscRotate", [qk, ...turn], N, 0)
    const at = g.input("at", "int32")
    const written = [turned, v!].map((rows, n) => `^${this.ours("MuscWriteRows", [cached[n]!, at, rows], K)}`)
    const places = g.input("places", "int32")
    const inputs = [turned, turned, v!, places, places, g.ints(0), g.input("bounds", "int32"), ...shared, ...written]
    return this.ours(this.shared ? "MuscSharedAttention" : "MuscAttention", inputs, ...settings)
  }

  private gated(x: GraphNode, i: number): GraphNode {
    const { mlpBias, activation } = this.config
    const gelu = Number(activation !== "silu")
    const columns = mlpBias ? null : this.frozenAlone(i, ["gate", "up"])
    if (columns) {
      const inputs = [x, this.weight(i, "norm2"), this.eps, this.packed(i, "gate"), this.packed(i, "up")]
      return this.ours("MuscNormedGated", inputs, columns[0]!, gelu, this.bf16)
    }
    return this.ours("MuscGated", this.normedProjections(x, i, "norm2", ["gate", "up"], mlpBias), gelu)
  }

  private layer(x: GraphNode, i: number, at: At): GraphNode {
    const { outputBias, mlpBias, layers } = this.config
    // Of a prompt, the last layer continues with the last token alone.
    const some = (all: GraphNode) =>
      this.part === "prompts" && i === layers - 1 ? this.rows(all, this.g.input("last", "int32")) : all
    const y = this.added(some(x), some(this.attention(x, i, at)), i, "o", { biased: outputBias, norm: "postNorm1" })
    return this.added(y, this.gated(y, i), i, "down", { biased: mlpBias, norm: "postNorm2" })
  }

  /** [B, V] */
  private logits(x: GraphNode): GraphNode {
    const { g, config } = this
    const weight = g.input("norm")
    if (this.forms.frozenTables) {
      const inputs = [x, weight, this.eps, g.input("head", "int32")]
      return g.op("MuscNormedProducts", inputs, { settings: [config.vocabSize, this.bf16], N: 1 })
    }
    const head = g.input("head")
    const last = this.norm(x, weight)
    // MatMul takes half as long again for few rows.
    return isWide(config) && !this.own ? this.batchMatMul(last, head, true) : this.matMul(last, head, true)
  }

  private capped(logits: GraphNode): GraphNode {
    const c = this.config.logitSoftcap
    if (!c) return logits
    const share = this.op("RealDiv", logits, this.g.number(c))
    return this.op("Mul", this.g.op("Tanh", [share], { T }), this.g.number(c))
  }
}

/** How the matrices of a model are kept: the shape of one that is frozen, and whether LoRA stands beside it. */
interface Forms {
  forms: Record<ProjectionName, { frozen: [number, number] | null; lora: boolean }>[]
  frozenTables: boolean
}

function formsOf({ layers, embed }: Bound): Forms {
  const formOf = ({ weight, factors }: Projection) => ({
    frozen: isFrozen(weight) ? weight.shape : null,
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

/** Prompts of new rows, their tokens end to end. */
export interface PromptTokens {
  /** [M] */
  ids: Int32Array
  positions: Int32Array
  /** the first token of each prompt, and M */
  bounds: Int32Array
  /** where the cache keeps them, by head and token: see `KVCache.roomFor` */
  at: Int32Array
}

/** The newest token of each row, and how those that follow are drawn. */
export interface NewestTokens {
  /** [B] each; `columns` of the cache, which has made room for all steps, -1 for a free row */
  ids: Int32Array
  positions: Int32Array
  columns: Int32Array
  /** for each step and row */
  draws: readonly (readonly Draw[])[]
}

/** Generation with one batch by graphs. */
export interface GenerationGraphs {
  /** States [B, D] behind the last token of each prompt, after the last norm; null where the plan has no such graph. */
  prompts: ((tokens: PromptTokens, cache: KVCache) => Tensor2D) | null
  /** The next tokens of each row, [steps, B], for one step or `severalSteps`; -1 where logits are not numbers. */
  steps(tokens: NewestTokens, cache: KVCache): Tensor2D
}

/** Steps of one call, where no row waits for a slot: a call itself takes an eighth of a step of SmolLM2-135M's size. */
export const severalSteps = 4

/** The graphs of a bound model, for rows that share their first keys or do not; null where the plan has none. */
export function generationGraphs(model: Bound, shared: boolean): GenerationGraphs | null {
  const { config, plan } = model
  if (plan.step === "eager") return null
  const kinds = ropeKinds(config).map((rope) => new Turns(ropeFrequencies(JSON.parse(rope), config.headDim)))
  /** Runs a part with cos and sin of positions, [...shape, H / 2]. */
  const runOf = (part: Part) => {
    const run = partOf(model, shared, part)
    return (inputs: Record<string, Tensor>, positions: Int32Array, shape: readonly number[], cache: KVCache) => {
      for (const [kind, turns] of kinds.entries())
        for (const [name, values] of Object.entries(turns.at(positions)))
          inputs[`${name}.${kind}`] = tf.tensor(values, [...shape, config.headDim / 2])
      const output = run(inputs, cache)
      tf.dispose(inputs)
      return output as Tensor2D
    }
  }
  const [one, several] = [runOf(1), runOf(severalSteps)]
  const prompts = plan.prompts === "graph" ? runOf("prompts") : null
  return {
    prompts:
      prompts &&
      (({ ids, positions, bounds, at }, cache) => {
        const M = positions.length
        const places = new Int32Array(2 * M)
        places.set(positions)
        const inputs = { ids: tf.tensor1d(ids), bounds: tf.tensor1d(bounds), at: tf.tensor1d(at) }
        const last = tf.tensor1d(bounds.subarray(1).map((end) => end - 1))
        return prompts({ ...inputs, last, places: tf.tensor3d(places, [2, 1, M]) }, positions, [M], cache)
      }),
    steps({ ids, positions, columns, draws }, cache) {
      const shape: [number, number] = [draws.length, ids.length]
      const each = (values: Int32Array, next: (value: number, s: number) => number) => {
        const all = new Int32Array(shape[0] * shape[1])
        for (let s = 0; s < shape[0]; s++)
          for (const [b, value] of values.entries()) all[s * shape[1] + b] = next(value, s)
        return all
      }
      const inputs = {
        ids: tf.tensor1d(ids),
        columns: tf.tensor2d(
          each(columns, (column, s) => (column < 0 ? column : column + s)),
          shape,
        ),
        choices: tf.tensor3d(choicesOf(draws.flat()), [...shape, 8]),
      }
      const run = draws.length > 1 ? several : one
      return run(
        inputs,
        each(positions, (position, s) => position + s),
        shape,
        cache,
      )
    },
  }
}

/** A graph with the weights of a model. Tensors of the cache are looked up when they have changed. */
function partOf(model: Bound, shared: boolean, part: Part) {
  const { config, plan } = model
  const forms = formsOf(model)
  const key = JSON.stringify([config, plan.precision, forms, shared, part])
  const graph = graphs.get(key) ?? new GenerationBuilder(config, plan, forms, shared, part).build()
  graphs.set(key, graph)
  const weights: Record<string, Tensor> = Object.assign(
    { embed: tensorOf(model.embed), head: tensorOf(model.head), norm: model.norm },
    ...model.layers.map(layerInputs),
  )
  let cached: Readonly<Record<string, Tensor>> = {}
  let run = graph.with(weights)
  return (inputs: Record<string, Tensor>, cache: KVCache): Tensor => {
    if (cache.inputs !== cached) {
      cached = cache.inputs
      run = graph.with({ ...weights, ...cached })
    }
    return run(inputs)[0]!
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
