import { join } from "node:path"
import { isJsonObject, type JsonObject, readJsonFile, show } from "../data/json-file"
import { CheckpointError } from "../errors"
import { type Family, mustBe, type Preset, presets, textModel } from "./family"
import { checkFields, fieldReader } from "./fields"
import { type Rope, readRopes } from "./rope-config"
import { readWindows } from "./windows"

export type { Rope, RopeScaling } from "./rope-config"

/** A model family is nothing but these values: the transformer reads them and never asks for the family. */
export interface ModelConfig {
  /** `model_type` of config.json; for messages and files only. */
  family: Family
  /** V */
  vocabSize: number
  /** D */
  dim: number
  layers: number
  /** N */
  heads: number
  /** K, a divisor of `heads` */
  kvHeads: number
  /** H; N · H need not be D */
  headDim: number
  /** width of the gated mlp */
  ffn: number
  normEps: number
  /** norms multiply by `normOffset + w`: 0, or Gemma's 1 */
  normOffset: 0 | 1
  /** the head is the embedding matrix */
  tiedHead: boolean
  /** bias on q, k and v */
  attentionBias: boolean
  /** bias on the output projection of attention */
  outputBias: boolean
  /** bias on gate, up and down */
  mlpBias: boolean
  /** RMSNorm over H on queries and keys, before rope, weight [H] */
  qkNorm: boolean
  activation: "silu" | "gelu_tanh"
  /** embeddings are multiplied by this: 1, or Gemma's sqrt(D) */
  embedScale: number
  /** multiplies q·k */
  queryScale: number
  /** norms on the outputs of attention and mlp as well, before the residual sum (Gemma) */
  postNorms: boolean
  /** one a layer */
  rope: readonly Rope[]
  /** one a layer: a query sees itself and `window - 1` tokens before it; null sees all */
  window: readonly (number | null)[]
  /** logits become c · tanh(logits / c) */
  logitSoftcap: number | null
  maxPositions: number
  eosIds: readonly number[]
  bosId: number | null
  padId: number | null
  /** A folder with a vision tower beside the text model (`gemma3`): tensors lie under `language_model`. */
  multimodal?: true
}

/**
 * Reads `config.json` of a model folder.
 * @throws InputError where the file is missing or not JSON; CheckpointError as `parseConfig`.
 */
export function loadConfig(dir: string): ModelConfig {
  const file = join(dir, "config.json")
  return parseConfig(readJsonFile(file, { missing: "give a Hugging Face model folder" }), file)
}

/**
 * The model that a Hugging Face config.json describes, of transformers 4 or 5 (`rope_theta`, `rope_scaling`,
 * `rope_local_base_freq`, `sliding_window_pattern`, or `rope_parameters`, `layer_types`).
 * @throws CheckpointError with every problem at once: unsupported family, rope type or field, values out of range.
 */
export function parseConfig(source: unknown, file = "config.json"): ModelConfig {
  if (!isJsonObject(source))
    throw new CheckpointError(file, ["must hold a JSON object; give a Hugging Face config.json"])
  const { json, family, multimodal } = textModel(source, file)
  const problems: string[] = []
  const { int, number, flag } = fieldReader(json, problems)
  checkArchitectures(json, multimodal, problems)
  checkFields(json, mustBe, "this model computes something that is not supported", problems)
  // Any decoder of transformers sees what follows as well where this is false or null.
  if ("is_causal" in json && json.is_causal !== true)
    problems.push(`is_causal must be true or absent, got ${show(json.is_causal)}; use a model that reads from the left`)
  const gemma = family === "gemma3_text"
  const preset = presets[family]
  const heads = readHeads(json, preset, problems)
  const layers = int("num_hidden_layers", 1024)
  const windows = readWindows(json, family, layers, problems)
  const rope = readRopes(json, gemma, preset.theta, problems)
  // The biases of the Qwen 2 and Mistral classes are fixed in code; the others read `attention_bias`.
  const anyBias = family === "qwen2" || family === "mistral" ? false : flag("attention_bias", false)
  const config: ModelConfig = {
    family,
    vocabSize: int("vocab_size", 1 << 24),
    layers,
    ...heads,
    ffn: int("intermediate_size", 1 << 22),
    normEps: number("rms_norm_eps", preset.normEps),
    normOffset: gemma ? 1 : 0,
    tiedHead: flag("tie_word_embeddings", gemma),
    attentionBias: family === "qwen2" || anyBias,
    outputBias: anyBias,
    mlpBias: family === "llama" && flag("mlp_bias", false),
    qkNorm: gemma || family === "qwen3",
    activation: activation(json, gemma, problems),
    embedScale: gemma ? Math.sqrt(heads.dim) : 1,
    queryScale: (gemma ? number("query_pre_attn_scalar", 256) : heads.headDim) ** -0.5,
    postNorms: gemma,
    rope: windows.map((window) => (gemma && window !== null ? rope.local : rope.global)),
    window: windows,
    logitSoftcap: softcap(json, multimodal ? "gemma3" : family, problems),
    maxPositions: int("max_position_embeddings", 1 << 30, preset.maxPositions),
    eosIds: tokenIds(json, "eos_token_id", problems),
    bosId: tokenIds(json, "bos_token_id", problems)[0] ?? null,
    padId: tokenIds(json, "pad_token_id", problems)[0] ?? null,
    ...(multimodal && { multimodal }),
  }
  if (problems.length) throw new CheckpointError(file, [...new Set(problems)])
  return config
}

function checkArchitectures(json: JsonObject, multimodal: boolean, problems: string[]): void {
  for (const name of Array.isArray(json.architectures) ? json.architectures : []) {
    if (show(name).endsWith('ForCausalLM"') || (multimodal && name === "Gemma3ForConditionalGeneration")) continue
    problems.push(`architectures must be a ...ForCausalLM, got ${show(name)}; use a language model checkpoint`)
  }
}

/** The sizes of attention. */
function readHeads(json: JsonObject, preset: Preset, problems: string[]) {
  const { int } = fieldReader(json, problems)
  const dim = int("hidden_size", 1 << 20)
  const heads = int("num_attention_heads", 4096)
  const usual = json.num_key_value_heads === null ? heads : (preset.kvHeads ?? heads)
  const kvHeads = int("num_key_value_heads", 4096, usual)
  const headDim = int("head_dim", 1 << 14, preset.headDim ?? Math.floor(dim / heads))
  if (heads % kvHeads) problems.push(`num_key_value_heads must divide num_attention_heads ${heads}, got ${kvHeads}`)
  if (headDim % 2) problems.push(`head_dim must be even for rotary embeddings, got ${headDim}`)
  if (json.head_dim == null && preset.headDim === undefined && dim % heads) {
    problems.push(`num_attention_heads must divide hidden_size ${dim} where head_dim is not given, got ${heads}`)
  }
  return { dim, heads, kvHeads, headDim }
}

/** The cap on the logits, which Gemma's class without images alone applies. */
function softcap(json: JsonObject, family: Family | "gemma3", problems: string[]): number | null {
  const field = "final_logit_softcapping"
  if (json[field] == null) return null
  if (family !== "gemma3_text") problems.push(`${field} must be absent in a ${family} model, got ${show(json[field])}`)
  return fieldReader(json, problems).number(field)
}

/**
 * config.json of a Llama model. Its rope fields are those of transformers 4, which 5 reads as well: with those of both,
 * a later change of one field would be lost on readers of the other.
 * @throws CheckpointError for another family; copy its own config.json instead.
 */
export function configJson(config: ModelConfig, dtype: "float32" | "bfloat16" | "float16" = "float32"): JsonObject {
  if (config.family !== "llama") {
    throw new CheckpointError("config.json", [
      `only llama is written, got ${config.family}; copy the model's own config.json`,
    ])
  }
  const { theta, scaling } = config.rope[0]!
  const scaled =
    scaling.type === "none"
      ? null
      : scaling.type === "linear"
        ? { rope_type: "linear", factor: scaling.factor }
        : {
            rope_type: "llama3",
            factor: scaling.factor,
            low_freq_factor: scaling.lowFreqFactor,
            high_freq_factor: scaling.highFreqFactor,
            original_max_position_embeddings: scaling.originalPositions,
          }
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: config.vocabSize,
    hidden_size: config.dim,
    intermediate_size: config.ffn,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    hidden_act: config.activation === "silu" ? "silu" : "gelu_pytorch_tanh",
    rms_norm_eps: config.normEps,
    max_position_embeddings: config.maxPositions,
    rope_theta: theta,
    rope_scaling: scaled,
    attention_bias: config.attentionBias,
    mlp_bias: config.mlpBias,
    attention_dropout: 0,
    tie_word_embeddings: config.tiedHead,
    bos_token_id: config.bosId,
    eos_token_id: config.eosIds.length > 1 ? [...config.eosIds] : (config.eosIds[0] ?? null),
    pad_token_id: config.padId,
    torch_dtype: dtype,
    dtype,
  }
}

/** The class of Gemma 3 reads `hidden_activation` alone, the others `hidden_act`. */
function activation(json: JsonObject, gemma: boolean, problems: string[]): "silu" | "gelu_tanh" {
  const field = gemma ? "hidden_activation" : "hidden_act"
  const name = json[field] ?? (gemma ? "gelu_pytorch_tanh" : "silu")
  if (name === "silu" || name === "swish") return "silu"
  if (name !== "gelu_pytorch_tanh" && name !== "gelu_new") {
    problems.push(`${field} must be silu or gelu_pytorch_tanh, got ${show(name)}; use a model with one of these`)
  }
  return "gelu_tanh"
}

/** The ids under a field that holds one id, a list, or nothing. */
function tokenIds(json: JsonObject, field: string, problems: string[]): number[] {
  const value = json[field] ?? []
  const ids: unknown[] = Array.isArray(value) ? value : [value]
  return ids.filter((id): id is number => {
    const good = Number.isInteger(id) && (id as number) >= 0
    // Some checkpoints write -1 for "none".
    if (!good && id !== -1) problems.push(`${field} must be a token id or a list of them, got ${show(id)}`)
    return good
  })
}
