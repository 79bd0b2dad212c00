import { isJsonObject, type JsonObject, show } from "../data/json-file"
import { CheckpointError } from "../errors"

const families = ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"] as const
export type Family = (typeof families)[number]

/** What a class of transformers assumes where config.json says nothing. */
export interface Preset {
  kvHeads?: number
  headDim?: number
  normEps: number
  maxPositions: number
  theta: number
}

export const presets: Readonly<Record<Family, Preset>> = {
  llama: { normEps: 1e-6, maxPositions: 2048, theta: 1e4 },
  mistral: { kvHeads: 8, normEps: 1e-6, maxPositions: 131072, theta: 1e4 },
  qwen2: { kvHeads: 32, normEps: 1e-6, maxPositions: 32768, theta: 1e4 },
  qwen3: { kvHeads: 32, headDim: 128, normEps: 1e-6, maxPositions: 32768, theta: 1e4 },
  gemma3_text: { kvHeads: 4, headDim: 256, normEps: 1e-6, maxPositions: 131072, theta: 1e6 },
}

/**
 * Fields that would change the maths in a way that we do not compute, with the values that leave it alone (absent and
 * null always do). Other unknown fields are ignored, as the family's class in transformers ignores them.
 */
export const mustBe: Readonly<Record<string, readonly unknown[]>> = {
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
  per_layer_config: [], // any field of any layer otherwise
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
 * The fields of the text model in a Gemma 3 folder from 4B on, which is `gemma3`, with images: they stand in
 * `text_config`, token ids and the tied head beside it.
 */
function textFields(json: JsonObject, file: string): JsonObject {
  const { text_config: text } = json
  if (!isJsonObject(text))
    throw new CheckpointError(file, [`text_config must be an object in a gemma3 model, got ${show(text)}`])
  const isSaid = ([key, value]: [string, unknown]) => value !== null || !(key in gemmaText)
  const inner = Object.fromEntries(Object.entries(text).filter(isSaid))
  const tied = json.tie_word_embeddings === null ? false : (json.tie_word_embeddings ?? true)
  const family = { model_type: text.model_type ?? "gemma3_text", tie_word_embeddings: tied }
  const outside = ["eos_token_id", "bos_token_id", "pad_token_id", "architectures", ...Object.keys(mustBe)]
  const outer = Object.fromEntries(outside.filter((key) => json[key] != null).map((key) => [key, json[key]]))
  return { ...gemmaText, ...inner, ...outer, ...family }
}

/** The fields of the language model that a config.json describes, and its family. @throws CheckpointError for another */
export function textModel(json: JsonObject, file: string): { json: JsonObject; family: Family; multimodal: boolean } {
  const multimodal = json.model_type === "gemma3"
  const text = multimodal ? textFields(json, file) : json
  const family = families.find((name) => name === text.model_type)
  if (family && (!multimodal || family === "gemma3_text")) return { json: text, family, multimodal }
  const rule = multimodal
    ? "text_config.model_type must be gemma3_text"
    : `model_type must be one of ${families.join(", ")}`
  throw new CheckpointError(file, [`${rule}, got ${show(text.model_type)}; use such a model`])
}
