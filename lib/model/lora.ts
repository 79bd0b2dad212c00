import type { Tensor1D, Tensor2D, Tensor3D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { floatsOf, isFrozen, type Table, type Matrix as Weight } from "../ops/frozen"
import { effective, type LowRank, loraFactors, type Update } from "../ops/linear"
import { rng } from "../rng"
import { type Adapter, linearShapes, type Matrix } from "./adapter"
import type { ModelConfig } from "./config"
import type { Plan } from "./executor"
import { type Layer, type Projection, type ProjectionName, projectionNames } from "./layer"
import type { Bound, Model, ModelParams, Params } from "./transformer"

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
export function targetShape(config: ModelConfig, target: LoraTarget): [number, number] {
  const [outputs, inputs] = linearShapes(config)[loraTargets[target]]
  return [inputs, outputs]
}

/**
 * A fresh adapter: A uniform in ±1/sqrt(in) as in PEFT (Kaiming with a = sqrt 5), B zero, so it changes nothing yet.
 */
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
  /** how it will be run; by operations one at a time and with a gradient, if not given */
  plan?: Plan
}

const eager: Plan = {
  gradient: true,
  layers: "eager",
  step: "eager",
  prompts: "layers",
  microBatches: 1,
  together: 1,
  paddingFree: false,
  recompute: false,
  lora: "merged",
  frozen: false,
  precision: "f32",
  threads: 1,
}

/**
 * Makes a model ready for a step. With `lora`, effective matrices W + scale · A · B are made here, once, outside any
 * gradient tape: the caller runs this in a `tf.tidy` or disposes what `bound` owns with `release`.
 */
export function bind(model: Model, options: BindOptions = {}): Bound {
  const { config, params } = model
  const lora = options.lora ?? null
  const { trainAll = false, plan = eager } = options
  const projection = (i: number, name: ProjectionName): Projection => {
    const weight = params[`layers.${i}.${name}`] as Weight
    const bias = params[`layers.${i}.${name}Bias`] as Tensor1D | undefined
    const updates = lora ? updatesOf(lora, config, i, name) : []
    if (!updates.length) return { weight, bias, lora: [], train: trainAll }
    const constantInput = i === 0 && (name === "qk" || name === "v")
    const ready =
      isFrozen(weight) || plan.lora === "separate"
        ? { weight, lora: updates, factors: loraFactors(weight.shape[1]!, updates, lora!.scale) }
        : effective(weight, updates, lora!.scale)
    return { ...ready, bias, train: false, constantInput }
  }
  const layers = Array.from({ length: config.layers }, (_, i): Layer => {
    const vector = (name: string) => params[`layers.${i}.${name}`] as Tensor1D
    return {
      norm1: vector("norm1"),
      qk: projection(i, "qk"),
      v: projection(i, "v"),
      qkNorm: config.qkNorm ? headNorms(vector("qNorm"), vector("kNorm"), config) : undefined,
      o: projection(i, "o"),
      postNorm1: vector("postNorm1"),
      norm2: vector("norm2"),
      gate: projection(i, "gate"),
      up: projection(i, "up"),
      down: projection(i, "down"),
      postNorm2: vector("postNorm2"),
    }
  })
  const embed = params.embed as Table
  return {
    config,
    embed,
    head: (params.head as Table | undefined) ?? embed,
    norm: params.norm as Tensor1D,
    layers,
    trainAll,
    plan,
  }
}

/** The updates of a layer's projection, which queries and keys share. */
function updatesOf(lora: Lora, config: ModelConfig, i: number, name: ProjectionName): Update[] {
  let offset = 0
  return (name === "qk" ? (["q", "k"] as const) : [name]).flatMap((target): Update[] => {
    const at = offset
    offset += targetShape(config, target)[1]
    const [A, B] = ["A", "B"].map((side) => lora.params[`layers.${i}.${target}.${side}`] as Tensor2D | undefined)
    return A && B ? [{ A, B, offset: at }] : []
  })
}

/** Norm weights of all heads, queries then keys: [H], [H] -> [N + K, 1, H]. */
function headNorms(q: Tensor1D, k: Tensor1D, { heads: N, kvHeads: K, headDim: H }: ModelConfig): Tensor3D {
  const repeat = (w: Tensor1D, n: number) => tf.tile(tf.reshape(w, [1, 1, H]), [n, 1, 1])
  return tf.tidy(() => tf.concat([repeat(q, N), repeat(k, K)], 0)) as Tensor3D
}

/** Disposes what `bind` made; the model's own weights and the adapter's stay. */
export function release(bound: Bound): void {
  for (const layer of bound.layers) {
    layer.qkNorm?.dispose()
    for (const name of projectionNames) {
      const { weight, lora, factors } = layer[name]
      if (factors) tf.dispose([factors.down, factors.up, factors.scale])
      else if (lora.length) tf.dispose([weight, ...scaledOf(lora)])
    }
  }
}

const scaledOf = (lora: readonly LowRank[]) => lora.flatMap(({ scaled }) => (scaled ? [scaled.A, scaled.B] : []))

/** The model with the adapter added into its matrices permanently; a new set of tensors for the changed ones. */
export function merge(model: Model, lora: Lora): Model {
  const params: ModelParams = { ...model.params }
  for (let i = 0; i < model.config.layers; i++)
    for (const name of projectionNames) {
      const updates = updatesOf(lora, model.config, i, name)
      if (!updates.length) continue
      const at = `layers.${i}.${name}`
      params[at] = tf.tidy(() => effective(floatsOf(params[at] as Weight), updates, lora.scale).weight)
    }
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
  return {
    rank: lora.rank,
    alpha: lora.alpha,
    scale: lora.scale,
    targets,
    tensors,
    ...(config.multimodal && { multimodal: true }),
  }
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
  const targets = names
    .filter(([, name]) => adapter.targets.some((adapted) => adapted === name))
    .map(([target]) => target)
  return { rank: adapter.rank, alpha: adapter.alpha, scale: adapter.scale, targets, params }
}
