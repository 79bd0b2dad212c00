import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { show } from "../data/json-file"
import { currentDevice } from "../device/device"
import { tf, valuesOf } from "../device/tf"
import { CheckpointError } from "../errors"
import { canFreeze, type Frozen, floatsOf, floatTable, freeze, isFrozen } from "../ops/frozen"
import { writeRows } from "../ops/table"
import type { ModelConfig } from "./config"
import { keepsBf16 } from "./executor"
import { floatBytes } from "./floats"
import { type LoraTarget, loraTargets, targetShape } from "./lora"
import { openCheckpoint, type TensorData, type TensorFile, writeSafetensors } from "./safetensors"
import type { Model, ModelParams, Params } from "./transformer"

/**
 * One parameter here and the checkpoint tensors that it is made of. Hugging Face matrices are [out, in]; ours are
 * [in, out], with queries and keys side by side, and Gemma's norm weights hold 1 + w.
 */
interface Slot {
  name: string
  sources: { name: string; shape: number[] }[]
  load(parts: Tensor[]): Tensor
  store(param: Tensor): Tensor[]
  /** A matrix, or the table of a vocabulary, which a model may keep as bf16. */
  kind?: "matrix" | "table"
}

/** Every parameter that a model of this shape has. */
function slots(config: ModelConfig): Slot[] {
  const { vocabSize: V, dim: D, tiedHead, layers } = config
  return [
    tableSlot("embed", embeddingName, [V, D]),
    ...(tiedHead ? [] : [tableSlot("head", headName, [V, D])]),
    normSlot(config, "norm", "model.norm.weight", D),
    ...Array.from({ length: layers }, (_, i) => layerSlots(config, i)).flat(),
  ]
}

function layerSlots(config: ModelConfig, i: number): Slot[] {
  const { dim: D, heads: N, kvHeads: K, headDim: H, ffn: F, postNorms, qkNorm } = config
  const { attentionBias, outputBias, mlpBias } = config
  const norm = (name: string, source: string, size: number) =>
    normSlot(config, `layers.${i}.${name}`, `model.layers.${i}.${source}.weight`, size)
  const matrix = (name: string, ...targets: readonly LoraTarget[]) =>
    matrixSlot(
      `layers.${i}.${name}`,
      targets.map((target) => {
        const [inputs, outputs] = targetShape(config, target)
        return { name: `model.layers.${i}.${loraTargets[target]}.weight`, shape: [outputs, inputs] }
      }),
    )
  const bias = (name: string, ...sources: readonly (readonly [string, number])[]) =>
    biasSlot(
      `layers.${i}.${name}Bias`,
      sources.map(([source, size]) => ({ name: `model.layers.${i}.${source}.bias`, shape: [size] })),
    )
  return [
    norm("norm1", "input_layernorm", D),
    matrix("qk", "q", "k"),
    matrix("v", "v"),
    matrix("o", "o"),
    norm("norm2", postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm", D),
    matrix("gate", "gate"),
    matrix("up", "up"),
    matrix("down", "down"),
    ...(postNorms
      ? [norm("postNorm1", "post_attention_layernorm", D), norm("postNorm2", "post_feedforward_layernorm", D)]
      : []),
    ...(qkNorm ? [norm("qNorm", "self_attn.q_norm", H), norm("kNorm", "self_attn.k_norm", H)] : []),
    ...(attentionBias
      ? [bias("qk", ["self_attn.q_proj", N * H], ["self_attn.k_proj", K * H]), bias("v", ["self_attn.v_proj", K * H])]
      : []),
    ...(outputBias ? [bias("o", ["self_attn.o_proj", D])] : []),
    ...(mlpBias
      ? [bias("gate", ["mlp.gate_proj", F]), bias("up", ["mlp.up_proj", F]), bias("down", ["mlp.down_proj", D])]
      : []),
  ]
}

const tableSlot = (name: string, source: string, shape: number[]): Slot => ({
  name,
  kind: "table",
  sources: [{ name: source, shape }],
  load: ([x]) => x!,
  store: (x) => [x],
})

const normSlot = ({ normOffset }: ModelConfig, name: string, source: string, size: number): Slot => ({
  name,
  sources: [{ name: source, shape: [size] }],
  load: ([w]) => (normOffset ? tf.add(w!, normOffset) : w!),
  store: (w) => [normOffset ? tf.sub(w, normOffset) : w],
})

/** Matrices [out, in] of the checkpoint side by side in one [in, out]. */
const matrixSlot = (name: string, sources: Slot["sources"]): Slot => ({
  name,
  kind: "matrix",
  sources,
  load: (parts) => tf.transpose(tf.concat(parts, 0)),
  store: (x) => partsOf(tf.transpose(x), sources),
})

const biasSlot = (name: string, sources: Slot["sources"]): Slot => ({
  name,
  sources,
  load: (parts) => tf.concat(parts, 0),
  store: (x) => partsOf(x, sources),
})

const partsOf = (x: Tensor, sources: Slot["sources"]): Tensor[] =>
  tf.split(
    x,
    sources.map(({ shape }) => shape[0]!),
    0,
  )

/** Number of weights that a model of this shape has. */
export const parameterCount = (config: ModelConfig): number =>
  slots(config)
    .flatMap(({ sources }) => sources)
    .reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)

/** Names that a checkpoint may hold without our using them. */
const ignorable = /(^lm_head\.weight$)|(rotary_emb\.inv_freq$)/
const visionTower = /^(model\.)?(vision_tower|multi_modal_projector)\./

const headName = "lm_head.weight"
const embeddingName = "model.embed_tokens.weight"

/**
 * The name of a tensor in a folder of the text model alone. With a vision tower beside it the text model lies under
 * `model.language_model.` (transformers from 4.52 on) or `language_model.model.` (before).
 */
export const textName = (name: string): string =>
  name
    .replace(/^(model\.language_model|language_model\.model)\./, "model.")
    .replace(/^language_model\.lm_head\./, "lm_head.")

/** Checked weights of a model folder, under the names that a folder of the text model alone has. */
export interface Weights extends TensorFile {
  /** As given, but with a head of its own where the stored one differs from the embedding. */
  config: ModelConfig
  /** What a user should know about them, e.g. that the head is not tied. */
  notes: readonly string[]
}

/**
 * The weights of a Hugging Face folder, checked against its config; close after use. Where config.json says that the
 * head is the embedding, the files decide, as in transformers 5: two stored matrices that differ are both used, and one
 * alone serves as both.
 * @throws CheckpointError listing all missing, surplus and mis-shaped tensors at once
 */
export function openWeights(dir: string, declared: ModelConfig): Weights {
  const stored = openCheckpoint(dir)
  try {
    const problems: string[] = []
    const checkpoint = declared.multimodal ? renamed(stored, dir) : stored
    const { config, ...tied } = resolveHead(checkpoint, declared, dir)
    const known = new Set<string>()
    for (const { name, shape } of slots(config).flatMap(({ sources }) => sources)) {
      known.add(name)
      const entry = tied.tensors.get(name)
      if (!entry) problems.push(`tensor ${name} [${shape}] is missing`)
      else if (entry.shape.join() !== shape.join()) {
        problems.push(`tensor ${name} must be [${shape}] by config.json, got [${entry.shape}]`)
      } else if (!(entry.dtype in floatBytes)) {
        problems.push(`tensor ${name} must be F32, F16 or BF16, got ${entry.dtype}; convert the checkpoint`)
      }
    }
    for (const name of tied.tensors.keys()) {
      if (known.has(name) || ignorable.test(name) || (config.multimodal && visionTower.test(name))) continue
      problems.push(`tensor ${show(name)} is not part of a ${config.family} model`)
    }
    if (problems.length) throw new CheckpointError(dir, problems)
    return { config, ...tied }
  } catch (error) {
    stored.close()
    throw error
  }
}

/** A checkpoint with the text model's names. */
function renamed(stored: TensorFile, dir: string): TensorFile {
  const names = new Map<string, string>()
  for (const name of stored.tensors.keys()) {
    const text = textName(name)
    if (names.has(text)) {
      const both = `${names.get(text)} and ${name}`
      throw new CheckpointError(dir, [`${both} are the same tensor under two names; save the model again`])
    }
    names.set(text, name)
  }
  const tensors = new Map([...names].map(([text, name]) => [text, stored.tensors.get(name)!]))
  return { ...stored, tensors, read: (name, begin, end) => stored.read(names.get(name) ?? name, begin, end) }
}

/** What the head of a tied model is by the tensors that are stored. */
function resolveHead(checkpoint: TensorFile, config: ModelConfig, dir: string): Weights {
  const [embedding, head] = [checkpoint.tensors.get(embeddingName), checkpoint.tensors.get(headName)]
  if (!config.tiedHead || !head) return { ...checkpoint, config, notes: [] }
  if (!embedding) {
    const tensors = new Map(
      [...checkpoint.tensors].map(([name, entry]) => [name === headName ? embeddingName : name, entry]),
    )
    const read: TensorFile["read"] = (name, begin, end) =>
      checkpoint.read(name === embeddingName ? headName : name, begin, end)
    return { ...checkpoint, tensors, read, config, notes: [] }
  }
  if (equalTensors(checkpoint, embeddingName, headName)) return { ...checkpoint, config, notes: [] }
  const note =
    `${dir}: config.json says tie_word_embeddings, but the stored lm_head differs from the embedding; both are used, ` +
    "as transformers does; set tie_word_embeddings to false to silence this"
  return { ...checkpoint, config: { ...config, tiedHead: false }, notes: [note] }
}

/**
 * Whether two stored tensors hold the same values; two files that cannot be compared (shape, dtype) are not the same.
 */
function equalTensors(file: TensorFile, one: string, other: string): boolean {
  const [a, b] = [file.tensors.get(one)!, file.tensors.get(other)!]
  if (a.shape.join() !== b.shape.join() || !(a.dtype in floatBytes) || !(b.dtype in floatBytes)) return false
  const size = a.shape.reduce((product, n) => product * n, 1)
  for (let begin = 0; begin < size; begin += hostValues) {
    const [x, y] = [file.read(one, begin, begin + hostValues), file.read(other, begin, begin + hostValues)]
    if (x.some((value, i) => !Object.is(value, y[i]) && value !== y[i])) return false
  }
  return true
}

export interface LoadOptions {
  onTensor?: (done: number, total: number) => void
  /** called with what a user should know about the weights */
  onNote?: (line: string) => void
  /** whether matrices stored in bf16 stay so; by default as the device has it */
  asBf16?: boolean
}

/**
 * Loads the weights of a Hugging Face folder, tensor by tensor. Weights become f32; matrices that the checkpoint stores
 * in bf16 can stay so (`asBf16`). The model's own `config` says what was loaded: its head may not be tied although
 * config.json says so (`openWeights`).
 * @throws CheckpointError as `openWeights`
 */
export function loadModel(
  dir: string,
  declared: ModelConfig,
  { onTensor, onNote, asBf16 = keepsBf16(currentDevice(), parameterCount(declared)) }: LoadOptions = {},
): Model {
  const checkpoint = openWeights(dir, declared)
  const { config, notes } = checkpoint
  const params: ModelParams = {}
  try {
    for (const note of notes) onNote?.(note)
    const wanted = slots(config)
    const isBf16 = ({ name, shape }: Slot["sources"][number]) =>
      checkpoint.tensors.get(name)!.dtype === "BF16" && canFreeze(shape.at(-1)!)
    wanted.forEach((slot, done) => {
      params[slot.name] = tf.tidy((): Tensor | Frozen => {
        const loaded = slot.load(slot.sources.map(({ name, shape }) => readTensor(checkpoint, name, shape)))
        const frozen = asBf16 && slot.kind && slot.sources.every(isBf16)
        return frozen ? freeze(loaded as Tensor2D, slot.kind === "table") : loaded.clone()
      })
      onTensor?.(done + 1, wanted.length)
    })
    return { config, params }
  } catch (error) {
    tf.dispose(params)
    throw error
  } finally {
    checkpoint.close()
  }
}

/** The same model with all matrices as floats, in tensors of its own: for training all weights. */
export function withFloats({ config, params }: Model): Model & { params: Params } {
  const floats = slots(config).map(({ name, kind }) => [name, tf.tidy(() => asFloats(params[name]!, kind).clone())])
  return { config, params: Object.fromEntries(floats) }
}

function asFloats(param: Tensor | Frozen, kind: Slot["kind"]): Tensor {
  if (!isFrozen(param)) return param
  return kind === "table" ? floatTable(param) : floatsOf(param)
}

/** Values that are on the host at a time while a large tensor is loaded. */
const hostValues = 2 ** 20

/**
 * A tensor of a file. The native backend would hold an embedding twice, on the host until it is first used and then as
 * its own copy, so there it is written row by row into its place.
 */
function readTensor(checkpoint: TensorFile, name: string, shape: number[]): Tensor {
  const [rows = 1, width = 1] = shape
  if (shape.length !== 2 || rows * width <= hostValues || tf.getBackend() !== "tensorflow")
    return tf.tensor(checkpoint.read(name), shape, "float32")
  const step = Math.max(1, Math.floor(hostValues / width))
  let filled = tf.fill([rows, width], 0) as Tensor2D
  for (let row = 0; row < rows; row += step) {
    const n = Math.min(step, rows - row)
    const values = checkpoint.read(name, row * width, (row + n) * width)
    filled = tf.tidy(() =>
      writeRows(filled, tf.range(row, row + n, 1, "int32") as Tensor1D, tf.tensor2d(values, [n, width], "float32")),
    )
  }
  return filled
}

/** Writes `model.safetensors` under Hugging Face names, one tensor in memory at a time. */
export async function saveModel(file: string, model: Model, dtype: TensorData["dtype"] = "BF16"): Promise<void> {
  const tensors = slots(model.config).flatMap((slot) =>
    slot.sources.map(
      (source, i): TensorData => ({
        ...source,
        dtype,
        data: () => valuesOf(() => slot.store(asFloats(model.params[slot.name]!, slot.kind))[i]!.clone()),
      }),
    ),
  )
  await writeSafetensors(file, tensors)
}

/** A fresh model: normal(0, std), residual outputs scaled by 1/sqrt(2 layers) as in GPT-2, norms 1, biases 0. */
export function initModel(config: ModelConfig, seed: number, std = 0.02): Model & { params: Params } {
  const params: Params = {}
  slots(config).forEach((slot, index) => {
    params[slot.name] = tf.tidy(() => {
      const parts = slot.sources.map(({ name, shape }, part) => {
        if (name.endsWith("norm.weight")) return tf.fill(shape, 1 - config.normOffset)
        if (name.endsWith(".bias")) return tf.zeros(shape)
        const scale = /(o_proj|down_proj)/.test(name) ? std / Math.sqrt(2 * config.layers) : std
        return tf.randomNormal(shape, 0, scale, "float32", seed * 10007 + index * 4 + part + 1)
      })
      return slot.load(parts).clone()
    })
  })
  return { config, params }
}
