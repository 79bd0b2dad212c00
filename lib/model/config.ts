import { join } from "node:path"
import { isJsonObject, type JsonObject, readJsonFile, show } from "../data/json-file"
import { CheckpointError } from "../errors"
import { checkFields, fieldReader } from "./fields"
import { type Rope, readRopes } from "./rope-config"

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

const families = ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"] as const
export type Family = (typeof families)[number]

/** What a class of transformers assumes where config.json says nothing. */
const defaults: Record<
  Family,
  { kvHeads?: number; headDim?: number; normEps: number; maxPositions: number; theta: number }
> = {
  llama: { normEps: 1e-6, maxPositions: 2048, theta: 1e4 },
  mistral: { kvHeads: 8, normEps: 1e-6, maxPositions: 131072, theta: 1e4 },
  qwen2: { kvHeads: 32, normEps: 1e-6, maxPositions: 32768, theta: 1e4 },
  qwen3: { kvHeads: 32, headDim: 128, normEps: 1e-6, maxPositions: 32768, theta: 1e4 },
  gemma3_text: { kvHeads: 4, headDim: 256, normEps: 1e-6, maxPositions: 131072, theta: 1e6 },
}

/** What transformers assumes in a `text_config` of Gemma 3, which names only what differs (4B names five fields). */
const gemmaText = {
  vocab_size: 262_208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  ...{ eos_token_id: 1, bos_token_id: 2, pad_token_id: 0 },
}

/**
 * The fields of the text model. A Gemma 3 folder from 4B on is `gemma3`, with images, and has them in `text_config`;
 * token ids and the tied head stand beside it.
 */
function textFields(json: JsonObject, file: string): JsonObject {
  if (json.model_type !== "gemma3") return json
  const { text_config: text } = json
  if (!isJsonObject(text))
    throw new CheckpointError(file, [`text_config must be an object in a gemma3 model, got ${show(text)}`])
  const inner = Object.fromEntries(Object.entries(text).filter(([, value]) => value !== null))
  const family = { model_type: text.model_type ?? "gemma3_text", tie_word_embeddings: json.tie_word_embeddings ?? true }
  const outside = ["eos_token_id", "bos_token_id", "pad_token_id", "architectures", ...Object.keys(mustBe)]
  const outer = Object.fromEntries(outside.filter((key) => json[key] != null).map((key) => [key, json[key]]))
  return { ...gemmaText, ...inner, ...outer, ...family }
}

/**
 * Fields that would change the maths in a way that we do not compute, with the values that leave it alone (absent and
 * null always do). Other unknown fields are ignored, as the family's class in transformers ignores them.
 */
const mustBe: Record<string, readonly unknown[]> = {
  quantization_config: [],
  auto_map: [],
  is_encoder_decoder: [false],
  add_cross_attention: [false],
  partial_rotary_factor: [1],
  rope_interleaved: [false],
  use_bidirectional_attention: [false],
  num_experts: [],
  num_local_experts: [],
  attention_multiplier: [],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  logits_scaling: [1],
  no_rope_layers: [],
  attention_chunk_size: [],
  attn_logit_softcapping: [], // Gemma 2's; the class of Gemma 3 has the field and does not use it
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
  const multimodal = source.model_type === "gemma3"
  const json = textFields(source, file)
  const family = families.find((name) => name === json.model_type)
  if (family === undefined || (multimodal && family !== "gemma3_text")) {
    const rule = multimodal
      ? "text_config.model_type must be gemma3_text"
      : `model_type must be one of ${families.join(", ")}`
    throw new CheckpointError(file, [`${rule}, got ${show(json.model_type)}; use such a model`])
  }
  const problems: string[] = []
  const { int, number, flag } = fieldReader(json, problems)
  const architectures = Array.isArray(json.architectures) ? json.architectures : []
  for (const name of architectures) {
    if (!show(name).endsWith('ForCausalLM"') && !(multimodal && name === "Gemma3ForConditionalGeneration")) {
      problems.push(`architectures must be a ...ForCausalLM, got ${show(name)}; use a language model checkpoint`)
    }
  }
  checkFields(json, mustBe, "this model computes something that is not supported", problems)

  const gemma = family === "gemma3_text"
  const qwen = family === "qwen2" || family === "qwen3"
  const preset = defaults[family]
  const dim = int("hidden_size", 1 << 20)
  const layers = int("num_hidden_layers", 1024)
  const heads = int("num_attention_heads", 4096)
  const kvHeads = int("num_key_value_heads", 4096, preset.kvHeads ?? heads)
  const headDim = int("head_dim", 1 << 14, preset.headDim ?? Math.floor(dim / heads))
  if (heads % kvHeads) problems.push(`num_key_value_heads must divide num_attention_heads ${heads}, got ${kvHeads}`)
  if (headDim % 2) problems.push(`head_dim must be even for rotary embeddings, got ${headDim}`)
  if (json.head_dim == null && preset.headDim === undefined && dim % heads) {
    problems.push(`num_attention_heads must divide hidden_size ${dim} where head_dim is not given, got ${heads}`)
  }
  // The biases of the Qwen 2 and Mistral classes are fixed in code; the others read `attention_bias`.
  const anyBias = family === "qwen2" || family === "mistral" ? false : flag("attention_bias", false)
  const local = localLayers(json, family, layers, problems)
  const window = local.some(Boolean)
    ? int("sliding_window", 1 << 30, family === "gemma3_text" || family === "mistral" ? 4096 : undefined)
    : null
  const rope = readRopes(json, gemma, preset.theta, problems)
  const softcap = (field: string) => {
    if (json[field] == null) return null
    if (!gemma) problems.push(`${field} must be absent in a ${family} model, got ${show(json[field])}`)
    return number(field)
  }

  const config: ModelConfig = {
    family,
    vocabSize: int("vocab_size", 1 << 24),
    dim,
    layers,
    heads,
    kvHeads,
    headDim,
    ffn: int("intermediate_size", 1 << 22),
    normEps: number("rms_norm_eps", preset.normEps),
    normOffset: gemma ? 1 : 0,
    tiedHead: flag("tie_word_embeddings", gemma),
    attentionBias: family === "qwen2" || anyBias,
    outputBias: anyBias,
    mlpBias: family === "llama" && flag("mlp_bias", false),
    qkNorm: gemma || family === "qwen3",
    activation: activation(json, gemma, problems),
    embedScale: gemma ? Math.sqrt(dim) : 1,
    queryScale: (gemma ? number("query_pre_attn_scalar", 256) : headDim) ** -0.5,
    postNorms: gemma,
    rope: local.map((isLocal) => (isLocal && gemma ? rope.local : rope.global)),
    window: local.map((isLocal) => (isLocal ? window : null)),
    logitSoftcap: softcap("final_logit_softcapping"),
    maxPositions: int("max_position_embeddings", 1 << 30, preset.maxPositions),
    eosIds: tokenIds(json, "eos_token_id", problems),
    bosId: tokenIds(json, "bos_token_id", problems)[0] ?? null,
    padId: tokenIds(json, "pad_token_id", problems)[0] ?? null,
    ...(multimodal && { multimodal }),
  }
  if (qwen && !flag("use_sliding_window", false) && local.some(Boolean)) {
    problems.push(
      "layer_types must have no sliding_attention where use_sliding_window is not true; correct one of them",
    )
  }
  if (qwen && flag("use_sliding_window", false) && json.sliding_window == null) {
    problems.push("sliding_window must be given where use_sliding_window is true")
  }
  if (problems.length) throw new CheckpointError(file, [...new Set(problems)])
  return config
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

/** Which layers attend within the sliding window. */
function localLayers(json: JsonObject, family: Family, layers: number, problems: string[]): boolean[] {
  const all = Array.from({ length: Math.min(layers, 1024) }, (_, i) => i)
  const { layer_types: types } = json
  if (types != null && !Array.isArray(types)) problems.push(`layer_types must be a list or null, got ${show(types)}`)
  // The class of Mistral has one kind of layer, whatever layer_types says.
  if (family === "mistral") {
    const kind = json.sliding_window === null ? "full_attention" : "sliding_attention"
    if (Array.isArray(types) && types.some((type) => type !== kind))
      problems.push(`layer_types must be ${kind} alone, by sliding_window, in a mistral model, got ${show(types)}`)
    return all.map(() => json.sliding_window !== null)
  }
  if (Array.isArray(types) && family !== "llama") {
    const odd: unknown = types.find((type) => type !== "full_attention" && type !== "sliding_attention")
    if (odd !== undefined) {
      problems.push(
        `layer_types must be full_attention or sliding_attention, got ${show(odd)}; this layer is not supported`,
      )
    }
    if (types.length !== layers) problems.push(`layer_types must have ${layers} entries, got ${types.length}`)
    return all.map((i) => types[i] === "sliding_attention")
  }
  const { int, flag } = fieldReader(json, problems)
  if (family === "gemma3_text") {
    const pattern = int("sliding_window_pattern", 1024, 6)
    return all.map((i) => (i + 1) % pattern !== 0)
  }
  if ((family === "qwen2" || family === "qwen3") && flag("use_sliding_window", false)) {
    const first = json.max_window_layers === 0 ? 0 : int("max_window_layers", 1024, 28)
    return all.map((i) => i >= first)
  }
  return all.map(() => false)
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
