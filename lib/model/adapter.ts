import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { writeAtomic } from "../data/files"
import { type JsonObject, readJsonFile, show } from "../data/json-file"
import { CheckpointError } from "../errors"
import type { ModelConfig } from "./config"
import { checkFields } from "./fields"
import type { FloatDtype } from "./floats"
import { openSafetensors, type TensorData, writeSafetensors } from "./safetensors"

/** The linear layers of a block; the head is never adapted. */
export const linearNames = [
  ...(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] as const),
  ...(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"] as const),
]
export type LinearName = (typeof linearNames)[number]

/** A matrix of an adapter. */
export interface Matrix {
  shape: readonly [number, number]
  /** row-major */
  data: Float32Array
}

/** A LoRA: the linear layer W becomes W + scale · B A. */
export interface Adapter {
  rank: number
  alpha: number
  /** alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA */
  scale: number
  /** names of adapted layers within a block */
  targets: readonly LinearName[]
  /** keyed `layers.{i}.self_attn.q_proj`; A [rank, in], B [out, rank] */
  tensors: Map<string, { A: Matrix; B: Matrix }>
  /**
   * its base has a vision tower beside the text model (`ModelConfig.multimodal`), which changes the names in the file
   */
  multimodal?: true
}

/** [out, in] of every linear layer of a block. */
export function linearShapes(config: ModelConfig): Record<LinearName, readonly [number, number]> {
  const { dim, ffn } = config
  const q = config.heads * config.headDim
  const kv = config.kvHeads * config.headDim
  return {
    "self_attn.q_proj": [q, dim],
    "self_attn.k_proj": [kv, dim],
    "self_attn.v_proj": [kv, dim],
    "self_attn.o_proj": [dim, q],
    "mlp.gate_proj": [ffn, dim],
    "mlp.up_proj": [ffn, dim],
    "mlp.down_proj": [dim, ffn],
  }
}

const each = (fields: string, allowed: readonly unknown[]) =>
  Object.fromEntries(fields.split(" ").map((field) => [field, allowed]))

/** Fields of adapter_config.json that change the maths in a way that we do not compute, with the values that do not. */
const mustBe: Record<string, readonly unknown[]> = {
  peft_type: ["LORA"],
  task_type: ["CAUSAL_LM"],
  bias: ["none"],
  // The other ways of starting (PiSSA, OLoRA, CorDA, LoftQ) change the base weights too.
  init_lora_weights: [true, false, "gaussian", "eva", "orthogonal"],
  ...each("use_dora fan_in_fan_out lora_bias use_qalora use_bdlora ensure_weight_tying", [false]),
  ...each("rank_pattern alpha_pattern modules_to_save target_parameters trainable_token_indices layer_replication", []),
  ...each("megatron_config arrow_config alora_invocation_tokens velora_config kasa_config monteclora_config", []),
}

/** Before transformers 4.52 the text model of a multimodal one was `language_model.model`. */
const tensorName =
  /^base_model\.model\.(model|model\.language_model|language_model\.model)\.(layers\.(\d{1,4})\.([a-z_]+\.[a-z_]+))\.lora_([AB])\.weight$/

/**
 * Reads a PEFT LoRA folder: `adapter_config.json` and `adapter_model.safetensors`. With `config` the shapes are checked
 * against the model.
 * @throws CheckpointError with every problem at once: DoRA and other unsupported fields, unknown or missing tensors,
 * shapes; InputError where adapter_config.json is missing or broken.
 */
export function readAdapter(dir: string, config?: ModelConfig): Adapter {
  const configFile = join(dir, "adapter_config.json")
  const json = readJsonFile(configFile, { missing: "give a folder that PEFT's save_pretrained wrote" })
  const { rank, alpha, scale } = parseAdapterConfig(json, configFile)
  const file = join(dir, "adapter_model.safetensors")
  if (!existsSync(file) && existsSync(join(dir, "adapter_model.bin"))) {
    const cure = "save it again with PEFT: PeftModel.from_pretrained(base, dir).save_pretrained(dir)"
    throw new CheckpointError(file, [`must be here, got only adapter_model.bin, a Python pickle; ${cure}`])
  }
  const source = openSafetensors(file)
  try {
    const shapes = config && linearShapes(config)
    const tensors = new Map<string, Partial<{ A: Matrix; B: Matrix }>>()
    const targets = new Set<LinearName>()
    const problems: string[] = []
    let multimodal = config?.multimodal ?? false
    for (const [name, { shape }] of source.tensors) {
      const [, place, key, layer, linear, side] = (tensorName.exec(name) ?? []) as (string | undefined)[]
      const target = linearNames.find((known) => known === linear)
      if (!key || !target || (side !== "A" && side !== "B")) {
        problems.push(`${show(name)} is not a LoRA tensor of attention or mlp; train the adapter on these layers only`)
        continue
      }
      if (config && Number(layer) >= config.layers) problems.push(`${name}: the model has only ${config.layers} layers`)
      const [out, input] = shapes?.[target] ?? shape
      const wanted = side === "A" ? [rank, shapes ? input : shape[1]] : [shapes ? out : shape[0], rank]
      if (shape.length !== 2 || shape[0] !== wanted[0] || shape[1] !== wanted[1]) {
        problems.push(
          `${name} must be [${wanted.join(", ")}], got [${shape.join(", ")}]; use the adapter's own base model`,
        )
        continue
      }
      targets.add(target)
      if (place !== "model") multimodal = true
      const pair = tensors.get(key) ?? {}
      tensors.set(key, { ...pair, [side]: { shape: [shape[0]!, shape[1]!], data: source.read(name) } })
    }
    if (!problems.length) {
      const halves = [...tensors].filter(([, pair]) => !pair.A !== !pair.B)
      problems.push(...halves.map(([key]) => `${key} must have both lora_A and lora_B`))
    }
    if (!source.tensors.size) problems.push("must hold LoRA tensors, got none")
    if (problems.length) throw new CheckpointError(file, problems.slice(0, 20))
    return {
      rank,
      alpha,
      scale,
      targets: linearNames.filter((name) => targets.has(name)),
      tensors: tensors as Adapter["tensors"],
      ...(multimodal && { multimodal }),
    }
  } finally {
    source.close()
  }
}

/**
 * Writes a folder that Python PEFT loads (`PeftModel.from_pretrained`). `baseModel` is the name or path of the model
 * that the adapter belongs to. adapter_config.json comes last, so a folder that has one is complete.
 */
export async function writeAdapter(
  dir: string,
  adapter: Adapter,
  baseModel: string,
  dtype: FloatDtype = "F32",
): Promise<void> {
  mkdirSync(dir, { recursive: true })
  const tensors: TensorData[] = []
  const prefix = `base_model.model.${adapter.multimodal ? "model.language_model" : "model"}.`
  for (const [key, { A, B }] of adapter.tensors) {
    tensors.push(
      { name: `${prefix}${key}.lora_A.weight`, dtype, ...A },
      { name: `${prefix}${key}.lora_B.weight`, dtype, ...B },
    )
  }
  await writeSafetensors(join(dir, "adapter_model.safetensors"), tensors)
  const names = adapter.targets.map((name) => name.split(".")[1]!)
  const json = {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: baseModel,
    r: adapter.rank,
    lora_alpha: adapter.alpha,
    use_rslora: isRankStabilised(adapter),
    // A list would also name layers of the vision tower.
    target_modules: adapter.multimodal ? `.*language_model.*\\.(${names.join("|")})` : names,
    lora_dropout: 0,
    bias: "none",
    use_dora: false,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    modules_to_save: null,
  }
  await writeAtomic(join(dir, "adapter_config.json"), `${JSON.stringify(json, null, 2)}\n`)
}

function isRankStabilised({ rank, alpha, scale }: Adapter): boolean {
  if (rank === 1 || scale === alpha / rank) return false
  if (scale === alpha / Math.sqrt(rank)) return true
  throw new CheckpointError("adapter", [
    `scale must be alpha / rank or alpha / sqrt(rank), got ${scale}; PEFT knows no other`,
  ])
}

function parseAdapterConfig(json: JsonObject, file: string): { rank: number; alpha: number; scale: number } {
  const problems: string[] = []
  checkFields(json, mustBe, "train a plain LoRA", problems)
  if (json.peft_type == null) problems.push("peft_type must be LORA, got nothing")
  const { r: rank, lora_alpha: alpha, use_rslora: stabilised = false, target_modules: modules } = json
  if (!Number.isInteger(rank) || (rank as number) < 1)
    problems.push(`r must be a whole number from 1, got ${show(rank)}`)
  if (typeof alpha !== "number" || !(alpha > 0))
    problems.push(`lora_alpha must be a positive number, got ${show(alpha)}`)
  if (typeof stabilised !== "boolean") problems.push(`use_rslora must be true or false, got ${show(stabilised)}`)
  // A list names layers, a text is "all-linear" or a pattern: then the tensors alone tell what is adapted.
  if (typeof modules !== "string" && !(Array.isArray(modules) && modules.every((name) => typeof name === "string"))) {
    problems.push(`target_modules must be a list of names or a text, got ${show(modules)}`)
  }
  if (problems.length) throw new CheckpointError(file, problems)
  const divisor = stabilised ? Math.sqrt(rank as number) : (rank as number)
  return { rank: rank as number, alpha: alpha as number, scale: (alpha as number) / divisor }
}
