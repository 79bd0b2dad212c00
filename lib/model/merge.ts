import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { copyFinished, finish, removeTemporaries, writeAtomic } from "../data/files"
import { jsonText } from "../data/json"
import { readJsonFile } from "../data/json-file"
import { tf, valuesOf } from "../device/tf"
import { CheckpointError, InputError } from "../errors"
import { defaultTemplate } from "../text/chat-template"
import { type Adapter, linearNames, readAdapter } from "./adapter"
import { loadConfig } from "./config"
import type { FloatDtype } from "./floats"
import { openCheckpoint, type TensorData, type TensorFile, writeSafetensors } from "./safetensors"
import type { Model } from "./transformer"
import { openWeights, saveModel, textName } from "./weights"

/** The name of a model folder: `org/name` for one in the hub's cache, else the folder's own. */
export function modelName(dir: string): string {
  const path = resolve(dir)
  const [, org, name] = /models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\][0-9a-f]{40}$/.exec(path) ?? []
  return org ? `${org}/${name}` : basename(path)
}

/** How an adapter names its base, so that PEFT finds it: by its name on the hub, else by its folder. */
export function baseName(dir: string): string {
  const name = modelName(dir)
  return name.includes("/") ? name : resolve(dir)
}

/**
 * What speaks against a model as the base of an adapter, or undefined: adapter_config.json names another one. Names are
 * compared without organisation, folder and case, as a copy on disk rarely lies where it was trained.
 */
export function baseMismatch(adapterDir: string, modelDir: string): string | undefined {
  const recorded = readJsonFile(join(adapterDir, "adapter_config.json")).base_model_name_or_path
  if (typeof recorded !== "string" || !recorded) return undefined
  const last = (name: string) => name.split("/").at(-1)!.toLowerCase()
  const [wanted, got] = [modelName(recorded), modelName(modelDir)]
  return last(wanted) === last(got) ? undefined : `the adapter was trained on ${recorded}, got the model ${got}`
}

/** How transformers names the types in config.json. */
const dtypeNames: Record<FloatDtype, string> = { F32: "float32", F16: "float16", BF16: "bfloat16" }

/** What goes with the weights and config.json of a checkpoint. */
export const companions: readonly string[] = [
  ...["generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
  ...["added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "musc.json"],
]
const copied: readonly string[] = [...companions, "processor_config.json", "preprocessor_config.json"]

/** How an adapter is merged into its base model. */
export interface MergeOptions {
  /** type of all weights; by default each keeps its own */
  dtype?: FloatDtype
  /** merges although the adapter names another base model */
  force?: boolean
  /** called after each tensor with the number done and the total */
  onTensor?: (done: number, total: number) => void
  /** called with what a user should know about the weights */
  onNote?: (line: string) => void
}

/**
 * Writes a plain checkpoint whose linear layers are W + scale · B A, with config, tokenizer and template of the base:
 * it needs no adapter any more. One tensor is in memory at a time. The folder appears when it is whole.
 * @throws InputError: another base model, an `out` that holds files; CheckpointError: tensors that do not fit, values
 * that F16 cannot hold
 */
export async function mergeAdapter(
  modelDir: string,
  adapterDir: string,
  out: string,
  options: MergeOptions = {},
): Promise<void> {
  const { dtype, force = false, onTensor, onNote = () => {} } = options
  const config = loadConfig(modelDir)
  const adapter = readAdapter(adapterDir, config)
  const mismatch = baseMismatch(adapterDir, modelDir)
  if (mismatch && !force) {
    throw new InputError(`${mismatch}; give that model, or --force if it is the same under another name`, {
      file: join(adapterDir, "adapter_config.json"),
      field: "base_model_name_or_path",
    })
  }
  requireEmpty(out)
  const weights = openWeights(modelDir, config)
  const untied = config.tiedHead && !weights.config.tiedHead
  weights.close()
  for (const note of weights.notes) onNote(note)
  mkdirSync(dirname(resolve(out)), { recursive: true })
  removeTemporaries(dirname(resolve(out)), { of: basename(resolve(out)) })
  await finish(resolve(out), async (folder) => {
    mkdirSync(folder)
    await writeMerged(modelDir, adapter, join(folder, "model.safetensors"), {
      dtype,
      onTensor,
      multimodal: config.multimodal,
    })
    const named = dtype && { dtype: dtypeNames[dtype], torch_dtype: dtypeNames[dtype] }
    await writeCompanions(modelDir, folder, { ...named, ...(untied && { tie_word_embeddings: false }) })
  })
}

/** @throws InputError for a path at which something stands already */
function requireEmpty(out: string): void {
  const stat = statSync(out, { throwIfNoEntry: false })
  const files = stat?.isDirectory() ? readdirSync(out).length : 0
  if (!stat || (stat.isDirectory() && !files)) return
  const got = files ? "one with files" : "a file"
  throw new InputError(`must be a new or empty folder, got ${got}; choose another`, { file: out })
}

async function writeMerged(
  modelDir: string,
  adapter: Adapter,
  file: string,
  { dtype, onTensor, multimodal }: Pick<MergeOptions, "dtype" | "onTensor"> & { multimodal?: boolean },
): Promise<void> {
  // All that is stored is copied under its own name, a vision tower included.
  const checkpoint = openCheckpoint(modelDir)
  const lacksEmbedding = ![...checkpoint.tensors.keys()].some((name) => name.endsWith("embed_tokens.weight"))
  try {
    let done = 0
    const total = checkpoint.tensors.size
    const tensors = [...checkpoint.tensors].map(([name, entry]): TensorData => {
      const target = dtype ?? (entry.dtype as FloatDtype)
      return {
        name: lacksEmbedding ? asEmbedding(name, multimodal) : name,
        shape: entry.shape,
        dtype: target,
        async data() {
          const data = await mergedTensor(checkpoint, name, adapter)
          if (target === "F16" && data.some((x) => Math.abs(x) >= 65520)) {
            throw new CheckpointError(file, [`${name} must be below 65504 for f16, got more; use bf16`])
          }
          onTensor?.(++done, total)
          return data
        },
      }
    })
    await writeSafetensors(file, tensors)
  } finally {
    checkpoint.close()
  }
}

/**
 * Writes a model whose weights were all trained as a plain checkpoint in 32-bit floats (bf16 would lose small changes),
 * with tokenizer and template of the one that it started from.
 * @throws InputError for a model that also has a vision tower, which is not in memory
 */
export async function writeCheckpoint(modelDir: string, model: Model, out: string): Promise<void> {
  if (model.config.multimodal)
    throw new InputError("trained: must be lora for a model with a vision tower, got all; train a LoRA and merge it", {
      file: modelDir,
    })
  mkdirSync(out, { recursive: true })
  await saveModel(join(out, "model.safetensors"), model, "F32")
  const tied = { tie_word_embeddings: model.config.tiedHead }
  await writeCompanions(modelDir, out, { dtype: dtypeNames.F32, torch_dtype: dtypeNames.F32, ...tied })
}

/** Copies what belongs to a checkpoint beside its weights, and writes its config.json with `changes`, last. */
async function writeCompanions(modelDir: string, out: string, changes: Record<string, unknown>): Promise<void> {
  for (const name of readdirSync(modelDir))
    if (copied.includes(name)) await copyFinished(join(modelDir, name), join(out, name))
  const template = join(modelDir, defaultTemplate)
  if (existsSync(template)) await copyFinished(template, join(out, "chat_template.jinja"))
  const json = readJsonFile(join(modelDir, "config.json"))
  await writeAtomic(join(out, "config.json"), `${jsonText({ ...json, ...changes })}\n`)
}

/** The embedding's name instead of the head's: some readers look for a tied matrix under the first alone. */
const asEmbedding = (name: string, multimodal?: boolean): string =>
  name
    .replace(/^language_model\.lm_head\./, "language_model.model.embed_tokens.")
    .replace(/^lm_head\./, multimodal ? "model.language_model.embed_tokens." : "model.embed_tokens.")

const weightName = new RegExp(`^model\\.(layers\\.\\d+\\.(?:${linearNames.join("|")}))\\.weight$`)

/** A tensor of the base with what the adapter adds to it: both are [out, in] in the files, so nothing is transposed. */
async function mergedTensor(checkpoint: TensorFile, name: string, { tensors, scale }: Adapter): Promise<Float32Array> {
  const base = checkpoint.read(name)
  const pair = tensors.get(weightName.exec(textName(name))?.[1] ?? "")
  if (!pair) return base
  const { A, B } = pair
  const values = await valuesOf(() => tf.matMul(tf.tensor2d(B.data, [...B.shape]), tf.tensor2d(A.data, [...A.shape])))
  return base.map((w, i) => w + scale * values[i]!)
}
