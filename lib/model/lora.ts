import type { Tensor, Tensor1D, Tensor2D, Tensor3D } from "@tensorflow/tfjs"
import { flatten, unflatten } from "../backend/flat"
import { runsGraphs } from "../backend/graph"
import { type LowRank, matMul } from "../backend/ops"
import { tf, valuesOf } from "../backend/tf"
import { rng } from "../rng"
import type { Adapter, Matrix } from "./adapter"
import type { ModelConfig } from "./config"
import { effectiveLayer, type Joined } from "./effective-graph"
import type { Bound, Layer, Model, Params, Projection } from "./transformer"

/** Projections that LoRA can be put on, by their name here, and their Hugging Face name. */
export const loraTargets = {
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.o_proj",
  gate: "mlp.gate_proj",
  up: "mlp.up_proj",
  down: "mlp.down_proj",
} as const
export type LoraTarget = keyof typeof loraTargets

/** Low-rank updates W + scale · A · B (Hu 2021): `params` holds `layers.{i}.{target}.A` [in, r] and `.B` [r, out]. */
export interface Lora {
  rank: number
  alpha: number
  /** alpha / rank, or alpha / sqrt(rank) for rsLoRA. */
  scale: number
  targets: readonly LoraTarget[]
  params: Params
}

/** [in, out] of a target's matrix. */
export function targetShape(
  { dim: D, heads: N, kvHeads: K, headDim: H, ffn: F }: ModelConfig,
  target: LoraTarget,
): [number, number] {
  return (
    { q: [D, N * H], k: [D, K * H], v: [D, K * H], o: [N * H, D], gate: [D, F], up: [D, F], down: [F, D] } as const
  )[target] as [number, number]
}

/** A fresh adapter: A uniform in ±1/sqrt(in) as in PEFT (Kaiming with a = sqrt 5), B zero, so it changes nothing yet. */
export function initLora(
  config: ModelConfig,
  {
    rank,
    alpha,
    seed,
    targets = Object.keys(loraTargets) as LoraTarget[],
  }: { rank: number; alpha: number; seed: number; targets?: readonly LoraTarget[] },
): Lora {
  const params: Params = {}
  for (let i = 0; i < config.layers; i++) {
    for (const target of targets) {
      const [inputs, outputs] = targetShape(config, target)
      const name = `layers.${i}.${target}`
      const random = rng(seed, "lora", name)
      const bound = 1 / Math.sqrt(inputs)
      const values = Float32Array.from({ length: inputs * rank }, () => (2 * random.next() - 1) * bound)
      params[`${name}.A`] = tf.tensor2d(values, [inputs, rank])
      params[`${name}.B`] = tf.zeros([rank, outputs])
    }
  }
  return { rank, alpha, scale: alpha / rank, targets, params }
}

export interface BindOptions {
  lora?: Lora | null
  trainAll?: boolean
  recompute?: boolean
  graphs?: boolean
  /** Done for every step of a training: effective matrices are made by a graph too. */
  often?: boolean
}

/**
 * Makes a model ready for a step. With `lora`, effective matrices W + scale · A · B are made here, once, outside any
 * gradient tape: the caller runs this in a `tf.tidy` or disposes what `bound` owns with `release`.
 */
export function bind(model: Model, options: BindOptions = {}): Bound {
  const { config, params } = model
  const lora = options.lora ?? null
  const trainAll = options.trainAll ?? false
  const made = lora && options.graphs && options.often ? effectiveByGraph(model, lora) : null
  const scaled = made?.scaled ?? (lora ? times(lora.params, lora.scale) : {})
  const projection = (i: number, name: string, targets: readonly LoraTarget[]): Projection => {
    const base = params[`layers.${i}.${name}`] as Tensor2D
    const bias = params[`layers.${i}.${name}Bias`] as Tensor1D | undefined
    const starts = targets.map((_, at) => targets.slice(0, at).reduce((sum, t) => sum + targetShape(config, t)[1], 0))
    const pair = (of: Params, target: LoraTarget) => ({
      A: of[`layers.${i}.${target}.A`] as Tensor2D,
      B: of[`layers.${i}.${target}.B`] as Tensor2D,
    })
    const updates = targets.flatMap((target, at): LowRank[] =>
      `layers.${i}.${target}.A` in scaled
        ? [{ ...pair(lora!.params, target), scaled: pair(scaled, target), offset: starts[at]! }]
        : [],
    )
    if (!updates.length) return { weight: base, bias, lora: [], train: trainAll }
    const weight =
      (made?.weights[`layers.${i}.${name}`] as Tensor2D) ??
      tf.tidy(() => {
        const deltas = targets.map((target, at) => {
          const update = updates.find(({ offset }) => offset === starts[at])
          return update ? matMul(update.A, update.scaled.B) : (tf.zeros(targetShape(config, target)) as Tensor2D)
        })
        return tf.add(base, deltas.length > 1 ? tf.concat(deltas, 1) : deltas[0]!) as Tensor2D
      })
    return { weight, bias, lora: updates, train: false, constantInput: i === 0 && (name === "qk" || name === "v") }
  }
  const layers = Array.from({ length: config.layers }, (_, i): Layer => {
    const vector = (name: string) => params[`layers.${i}.${name}`] as Tensor1D
    return {
      norm1: vector("norm1"),
      qk: projection(i, "qk", ["q", "k"]),
      v: projection(i, "v", ["v"]),
      qkNorm: config.qkNorm ? headNorms(vector("qNorm"), vector("kNorm"), config) : undefined,
      o: projection(i, "o", ["o"]),
      postNorm1: vector("postNorm1"),
      norm2: vector("norm2"),
      gate: projection(i, "gate", ["gate"]),
      up: projection(i, "up", ["up"]),
      down: projection(i, "down", ["down"]),
      postNorm2: vector("postNorm2"),
    }
  })
  const embed = params.embed as Tensor2D
  return {
    config,
    embed,
    head: (params.head as Tensor2D | undefined) ?? embed,
    norm: params.norm as Tensor1D,
    layers,
    trainAll,
    recompute: options.recompute ?? false,
    graphs: (options.graphs ?? false) && runsGraphs(),
  }
}

/** The targets of each matrix that a layer has. */
const joinedTargets: Joined = [
  ["qk", ["q", "k"]],
  ...(["v", "o", "gate", "up", "down"] as const).map((name) => [name, [name]] as const),
]

/** Effective matrices and scaled updates of all layers by graph; null where none runs, or one matrix lacks some of its targets. */
function effectiveByGraph({ config, params }: Model, lora: Lora): { weights: Params; scaled: Params } | null {
  const has = (i: number, target: LoraTarget) => `layers.${i}.${target}.A` in lora.params
  const perLayer = Array.from({ length: config.layers }, (_, i) =>
    joinedTargets.filter(([, targets]) => targets.some((target) => has(i, target))),
  )
  if (perLayer.some((joined, i) => joined.some(([, targets]) => !targets.every((target) => has(i, target)))))
    return null
  const made = { weights: {} as Params, scaled: {} as Params }
  for (const [i, joined] of perLayer.entries()) {
    if (!joined.length) continue
    const inputs: Params = {}
    for (const [name, targets] of joined) {
      inputs[name] = params[`layers.${i}.${name}`]!
      for (const target of targets) {
        for (const side of ["A", "B"]) inputs[`${target}.${side}`] = lora.params[`layers.${i}.${target}.${side}`]!
      }
    }
    const values = effectiveLayer(joined, lora.scale, inputs)
    if (!values) {
      tf.dispose(made)
      return null
    }
    for (const [name, tensor] of Object.entries(values))
      made[name.includes(".") ? "scaled" : "weights"][`layers.${i}.${name}`] = tensor
  }
  return made
}

/** All of `params` times `factor`. */
function times(params: Params, factor: number): Params {
  const tensors = Object.values(params)
  const scaled = tf.tidy(() => unflatten(tf.mul(flatten(tensors), factor), tensors))
  return Object.fromEntries(Object.keys(params).map((name, i) => [name, scaled[i]!]))
}

/** Norm weights of all heads, queries then keys: [H], [H] -> [N + K, 1, H]. */
function headNorms(q: Tensor1D, k: Tensor1D, { heads: N, kvHeads: K, headDim: H }: ModelConfig): Tensor3D {
  const repeat = (w: Tensor1D, n: number) => tf.tile(tf.reshape(w, [1, 1, H]), [n, 1, 1])
  return tf.tidy(() => tf.concat([repeat(q, N), repeat(k, K)], 0)) as Tensor3D
}

/** Disposes what `bind` made; the model's own weights and the adapter's stay. */
export function release(bound: Bound): void {
  for (const layer of bound.layers) {
    for (const part of projectionsOf(layer)) if (part.lora.length) part.weight.dispose()
  }
  releaseParts(bound)
}

/** Disposes what `bind` made but for the effective matrices. */
function releaseParts(bound: Bound): void {
  for (const layer of bound.layers) {
    layer.qkNorm?.dispose()
    for (const { lora } of projectionsOf(layer)) tf.dispose(lora.map(({ scaled }) => [scaled.A, scaled.B]))
  }
}

const projections = ["qk", "v", "o", "gate", "up", "down"] as const
const projectionsOf = (layer: Layer) => projections.map((name) => layer[name])

/** The model with the adapter added into its matrices for good; a new set of tensors for the changed ones. */
export function merge(model: Model, lora: Lora): Model {
  const bound = bind(model, { lora })
  const params: Params = { ...model.params }
  releaseParts(bound)
  bound.layers.forEach((layer, i) => {
    for (const name of projections) {
      const part = layer[name]
      if (part.lora.length) params[`layers.${i}.${name}`] = part.weight as Tensor
    }
  })
  return { config: model.config, params }
}

/** The adapter in PEFT's form: A [r, in], B [out, r], on the host. */
export async function toAdapter(lora: Lora, config: ModelConfig): Promise<Adapter> {
  const transposed = async (name: string): Promise<Matrix> => {
    const [rows, columns] = lora.params[name]!.shape as [number, number]
    return { shape: [columns, rows], data: await valuesOf(() => tf.transpose(lora.params[name]!)) }
  }
  const tensors: Adapter["tensors"] = new Map()
  for (let i = 0; i < config.layers; i++) {
    for (const target of lora.targets) {
      const name = `layers.${i}.${target}`
      const parts = { A: await transposed(`${name}.A`), B: await transposed(`${name}.B`) }
      tensors.set(`layers.${i}.${loraTargets[target]}`, parts)
    }
  }
  const targets = lora.targets.map((target) => loraTargets[target])
  return { rank: lora.rank, alpha: lora.alpha, scale: lora.scale, targets, tensors }
}

/** An adapter read from a PEFT folder, as tensors. Layers that it leaves out stay as they are. */
export function fromAdapter(adapter: Adapter): Lora {
  const names = Object.entries(loraTargets) as [LoraTarget, string][]
  const params: Params = {}
  for (const [key, { A, B }] of adapter.tensors) {
    const [, layer, linear] = /^layers\.(\d+)\.(.+)$/.exec(key)!
    const target = names.find(([, name]) => name === linear)![0]
    for (const [side, { shape, data }] of [
      ["A", A],
      ["B", B],
    ] as const) {
      params[`layers.${layer}.${target}.${side}`] = tf.tidy(() => tf.transpose(tf.tensor2d(data, [...shape])))
    }
  }
  const targets = names.filter(([, name]) => adapter.targets.some((held) => held === name)).map(([target]) => target)
  return { rank: adapter.rank, alpha: adapter.alpha, scale: adapter.scale, targets, params }
}
