import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { JsonObject } from "../../lib/data/json-file"
import { type ModelConfig, parseConfig } from "../../lib/model/config"
import { type LoraTarget, loraTargets, targetShape } from "../../lib/model/lora"
import { writeSafetensors } from "../../lib/model/safetensors"
import { decomposePrompt } from "../../lib/musc/decompose"
import { decomposeDemos } from "../../lib/musc/demos"
import { rng } from "../../lib/rng"
import { worldTokenizer, worldVocabulary } from "../../lib/world/tokenizer"

/** What every config.json here has. */
const common = {
  attention_bias: false,
  attention_dropout: 0,
  tie_word_embeddings: true,
  pad_token_id: 0,
  bos_token_id: null,
}

const llama = {
  ...common,
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  mlp_bias: false,
}

/** Shapes of published models, by name; their checkpoints here are random. */
const shapes: Readonly<Record<string, JsonObject>> = {
  "smollm2-135m": {
    ...llama,
    ...{ vocab_size: 49_152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
    ...{ num_attention_heads: 9, num_key_value_heads: 3, head_dim: 64, rms_norm_eps: 1e-5 },
    ...{ max_position_embeddings: 8192, rope_theta: 1e5 },
  },
  "qwen2.5-0.5b": {
    ...common,
    ...{ architectures: ["Qwen2ForCausalLM"], model_type: "qwen2", hidden_act: "silu" },
    ...{ vocab_size: 151_936, hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24 },
    ...{ num_attention_heads: 14, num_key_value_heads: 2, rms_norm_eps: 1e-6 },
    ...{ max_position_embeddings: 32_768, rope_theta: 1e6, use_sliding_window: false },
  },
  "gemma-3-270m": {
    ...common,
    ...{ architectures: ["Gemma3ForCausalLM"], model_type: "gemma3_text", hidden_activation: "gelu_pytorch_tanh" },
    ...{ vocab_size: 262_144, hidden_size: 640, intermediate_size: 2048, num_hidden_layers: 18 },
    ...{ num_attention_heads: 4, num_key_value_heads: 1, head_dim: 256, rms_norm_eps: 1e-6 },
    ...{ max_position_embeddings: 32_768, rope_theta: 1e6, rope_local_base_freq: 1e4, query_pre_attn_scalar: 256 },
    ...{ sliding_window: 512 },
    layer_types: Array.from({ length: 18 }, (_, i) => ((i + 1) % 6 ? "sliding_attention" : "full_attention")),
  },
  // for GPUs
  "llama-1b": {
    ...llama,
    ...{ vocab_size: 128_256, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 64, rms_norm_eps: 1e-5 },
    ...{ max_position_embeddings: 8192, rope_theta: 5e5 },
  },
}

export const shapeNames = Object.keys(shapes)

function shapeJson(name: string): JsonObject {
  const shape = shapes[name]
  if (!shape) throw new Error(`--shape: must be one of ${shapeNames.join(", ")}, got ${name}`)
  return shape
}

/** What the library reads of a shape. */
export const shapeOf = (name: string): ModelConfig => parseConfig(shapeJson(name))

/**
 * A folder with a random bf16 checkpoint in the shape of a published model, made at the first call and kept with the
 * temporary files. Its tokenizer knows the words of the embedded world and of the few-shot examples; the rest of the
 * vocabulary is filled up.
 */
export async function shapeFolder(name: string): Promise<string> {
  shapeJson(name)
  const made = createHash("sha256").update(readFileSync(__filename)).digest("hex").slice(0, 8)
  const dir = join(tmpdir(), `musc-bench-shapes-${made}`, name)
  if (!existsSync(join(dir, "config.json"))) {
    process.stderr.write(`making a random checkpoint in the shape of ${name}: ${dir}\n`)
    mkdirSync(dir, { recursive: true })
    await writeShape(dir, name)
  }
  return dir
}

/**
 * Writes weights and tokenizer, and config.json last: a folder that has it is whole. `changes` are other values of
 * config.json, for a smaller model of the family; undefined leaves a field out.
 */
export async function writeShape(
  dir: string,
  name: string,
  changes: Record<string, JsonObject[string] | undefined> = {},
): Promise<void> {
  const shape: JsonObject = JSON.parse(JSON.stringify({ ...shapeJson(name), ...changes }))
  const tokenizer = worldTokenizer(words(Number(shape.vocab_size)))
  const { eos_token_id: end } = tokenizer["generation_config.json"] as { eos_token_id: number }
  const json = { ...shape, eos_token_id: end, dtype: "bfloat16", torch_dtype: "bfloat16" }
  const config = parseConfig(json)
  const table = normals()
  const tensors = tensorShapes(config).map(({ name, shape, std }, i) => ({
    ...{ name, shape, dtype: "BF16" as const },
    data: () => {
      const size = shape.reduce((a, b) => a * b)
      // Gemma's norms are stored less one.
      return std === null ? new Float32Array(size).fill(1 - config.normOffset) : noise(size, std, table, i)
    },
  }))
  await writeSafetensors(join(dir, "model.safetensors"), tensors)
  // A random model would hardly ever end. One entry of 50 ends a text, so that lengths differ as those of real texts.
  const ends = Array.from({ length: Math.floor(config.vocabSize / 50) }, (_, i) => config.vocabSize - 1 - i)
  const files = {
    ...tokenizer,
    "tokenizer_config.json": { ...tokenizer["tokenizer_config.json"], model_max_length: config.maxPositions },
    "generation_config.json": { eos_token_id: [end, ...ends], pad_token_id: 0 },
    "config.json": json,
  }
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), `${JSON.stringify(content)}\n`)
}

/** As many words as fill a vocabulary of `size`: those of the world and of the few-shot examples first. */
function words(size: number): string[] {
  const shown = decomposeDemos.map((demo) => decomposePrompt(demo, true) + demo.questions.join(" ")).join(" ")
  const known = new Set(worldVocabulary({ seed: 1, examples: 3000 }))
  for (const [word] of `▁${shown.replace(/\s/g, "▁")}`.matchAll(/▁?[A-Za-z]+/g)) if (word.length > 1) known.add(word)
  const { vocab } = (worldTokenizer([])["tokenizer.json"] as { model: { vocab: object } }).model
  const room = size - Object.keys(vocab).length
  const fill = Array.from({ length: Math.max(0, room - known.size) }, (_, i) => `▁fill${i}`)
  return [...known, ...fill].slice(0, room)
}

interface Drawn {
  name: string
  shape: number[]
  /** standard deviation of its values; of norms, which multiply by one, there is none */
  std: number | null
}

/** Tensors of a checkpoint by their Hugging Face names. */
function tensorShapes(config: ModelConfig): Drawn[] {
  const { dim: D, layers, headDim: H, vocabSize: V } = config
  // Outputs into the residual stream are smaller, as in GPT-2.
  const std = (target: LoraTarget) => (target === "o" || target === "down" ? 0.02 / Math.sqrt(2 * layers) : 0.02)
  const layer = (i: number): Drawn[] => {
    const at = `model.layers.${i}`
    const matrices = (Object.keys(loraTargets) as LoraTarget[]).map((target) => ({
      name: `${at}.${loraTargets[target]}.weight`,
      shape: targetShape(config, target).reverse(),
      std: std(target),
    }))
    const biases = (config.attentionBias ? (["q", "k", "v"] as const) : []).map((target) => ({
      name: `${at}.${loraTargets[target]}.bias`,
      shape: [targetShape(config, target)[1]],
      std: 0.02,
    }))
    const norm = (name: string, size: number) => ({ name: `${at}.${name}.weight`, shape: [size], std: null })
    const outer = ["input_layernorm", "post_attention_layernorm"]
    if (config.postNorms) outer.push("pre_feedforward_layernorm", "post_feedforward_layernorm")
    const inner = config.qkNorm ? ["self_attn.q_norm", "self_attn.k_norm"] : []
    return [...matrices, ...biases, ...outer.map((name) => norm(name, D)), ...inner.map((name) => norm(name, H))]
  }
  return [
    { name: "model.embed_tokens.weight", shape: [V, D], std: 0.02 },
    { name: "model.norm.weight", shape: [D], std: null },
    ...Array.from({ length: layers }, (_, i) => layer(i)).flat(),
  ]
}

/**
 * 2^16 values of a normal distribution, which tensors draw from: hundreds of millions of fresh ones would take minutes.
 */
function normals(): Float32Array {
  const random = rng(1, "bench-shapes")
  return Float32Array.from(
    { length: 2 ** 16 },
    () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next()),
  )
}

/** Values of one tensor, the same ones for the same `seed`. */
function noise(size: number, std: number, table: Float32Array, seed: number): Float32Array {
  const values = new Float32Array(size)
  let state = (seed + 1) * 0x9e3779b9 // xorshift32 (Marsaglia 2003)
  for (let i = 0; i < size; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    values[i] = std * table[state & 0xffff]!
  }
  return values
}
