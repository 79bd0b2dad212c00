import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { linearNames, linearShapes } from "../../lib/model/adapter"
import { configJson, loadConfig, parseConfig } from "../../lib/model/config"
import { readRopes } from "../../lib/model/rope-config"
import { openCheckpoint } from "../../lib/model/safetensors"

const models = join(__dirname, "../fixtures/models")
const llama = {
  model_type: "llama",
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
}
const gemma = { ...llama, model_type: "gemma3_text", num_hidden_layers: 7 }

describe("config.json", () => {
  it.each(readdirSync(models))("of %s has the shapes of its checkpoint", (name) => {
    const config = loadConfig(join(models, name))
    const { tensors, close } = openCheckpoint(join(models, name))
    const shape = (tensor: string) => tensors.get(tensor)?.shape
    for (let i = 0; i < config.layers; i++) {
      for (const linear of linearNames)
        expect(shape(`model.layers.${i}.${linear}.weight`)).toEqual(linearShapes(config)[linear])
    }
    expect(shape("model.embed_tokens.weight")).toEqual([config.vocabSize, config.dim])
    expect(tensors.has("lm_head.weight")).toBe(!config.tiedHead)
    expect(tensors.has("model.layers.0.self_attn.q_proj.bias")).toBe(config.attentionBias)
    expect(tensors.has("model.layers.0.self_attn.o_proj.bias")).toBe(config.outputBias)
    expect(tensors.has("model.layers.0.self_attn.q_norm.weight")).toBe(config.qkNorm)
    expect(tensors.has("model.layers.0.pre_feedforward_layernorm.weight")).toBe(config.postNorms)
    expect(tensors.has(`model.layers.${config.layers}.mlp.up_proj.weight`)).toBe(false)
    expect([config.eosIds, config.bosId, config.padId]).toEqual([[257, 259], 256, 258])
    close()
  })

  it("of transformers 4 and of transformers 5 mean the same", () => {
    const scaling = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 }
    const old = { ...llama, rope_theta: 5e5, rope_scaling: { rope_type: "llama3", ...scaling } }
    const now = { ...llama, rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...scaling } }
    expect(parseConfig(now)).toEqual(parseConfig(old))
    expect(parseConfig(now).rope[1]).toEqual({
      theta: 5e5,
      scaling: { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalPositions: 8192 },
    })
    const type = (i: number) => (i === 5 ? "full_attention" : "sliding_attention")
    const oldGemma = { ...gemma, sliding_window: 512, rope_scaling: { rope_type: "linear", factor: 8 } }
    const nowGemma = {
      ...gemma,
      sliding_window: 512,
      layer_types: [0, 1, 2, 3, 4, 5, 6].map(type),
      rope_parameters: {
        sliding_attention: { rope_type: "default", rope_theta: 1e4 },
        full_attention: { rope_type: "linear", rope_theta: 1e6, factor: 8 },
      },
    }
    expect(parseConfig(nowGemma)).toEqual(parseConfig(oldGemma))
    expect(parseConfig(nowGemma).window).toEqual([512, 512, 512, 512, 512, null, 512])
    expect(parseConfig(nowGemma).rope[5]).toEqual({ theta: 1e6, scaling: { type: "linear", factor: 8 } })
    expect(parseConfig(nowGemma).rope[6]).toEqual({ theta: 1e4, scaling: { type: "none" } })
  })

  const { sizes, rows } = JSON.parse(readFileSync(join(__dirname, "../fixtures/rope/expected.json"), "utf8"))
  interface RopeRow {
    family: string
    fields: { rope_scaling?: { type?: string }; rope_parameters?: object }
    rope: Record<string, never> | null
  }
  it.each(rows as RopeRow[])("with old and new rope fields is read as transformers 5 does: $family $fields", (row) => {
    const { family, fields, rope } = row
    const parse = () => parseConfig({ model_type: family, ...sizes, ...fields })
    const layered = fields.rope_parameters && "full_attention" in fields.rope_parameters
    const gemma = family === "gemma3_text"
    const ignored = gemma
      ? (fields.rope_parameters && !layered) || (fields.rope_scaling?.type && !layered)
      : layered && !Object.keys(fields.rope_scaling ?? {}).length
    // Where transformers ignores a field or ends with a KeyError, the folder is refused.
    if (ignored || !rope) return expect(parse).toThrow(/rope_/)
    const expected = ({
      rope_theta,
      rope_type,
      factor,
    }: {
      rope_theta: number
      rope_type: string
      factor: number
    }) => ({
      theta: rope_theta,
      scaling: rope_type === "linear" ? { type: "linear", factor } : { type: "none" },
    })
    const { global, local } = readRopes({ ...sizes, ...fields }, gemma, gemma ? 1e6 : 1e4, [])
    expect(global).toEqual(expected(gemma ? rope.full_attention! : (rope as never)))
    if (gemma) expect(local).toEqual(expected(rope.sliding_attention!))
    expect(parse().rope[0]).toEqual(gemma ? local : global)
  })

  it("is written with one pair of rope fields, which transformers 4 and 5 read alike", () => {
    const json = configJson(parseConfig({ ...llama, rope_scaling: { type: "linear", factor: 2 } }))
    expect(json).toMatchObject({ rope_theta: 1e4, rope_scaling: { rope_type: "linear", factor: 2 } })
    expect(json).not.toHaveProperty("rope_parameters")
  })

  it("of Gemma 3 with images gives the text model, with the defaults of transformers where text_config is silent", () => {
    // The fields that google/gemma-3-4b-it names; the others by Gemma3Config.from_dict of transformers 5.24.
    const text_config = {
      model_type: "gemma3_text",
      ...{ hidden_size: 2560, intermediate_size: 10240, num_hidden_layers: 34, sliding_window: 1024 },
      rope_scaling: { factor: 8, rope_type: "linear" },
    }
    const folder = { architectures: ["Gemma3ForConditionalGeneration"], model_type: "gemma3", eos_token_id: [1, 106] }
    const config = parseConfig({ ...folder, text_config, vision_config: { hidden_size: 1152 } })
    expect(config).toMatchObject({
      ...{ family: "gemma3_text", multimodal: true, vocabSize: 262208, dim: 2560, ffn: 10240, layers: 34 },
      ...{ heads: 8, kvHeads: 4, headDim: 256, maxPositions: 131072, normEps: 1e-6, queryScale: 1 / 16 },
      ...{ tiedHead: true, eosIds: [1, 106], bosId: 2, padId: 0 },
    })
    expect(config.rope[5]).toEqual({ theta: 1e6, scaling: { type: "linear", factor: 8 } })
    expect(config.rope[0]).toEqual({ theta: 1e4, scaling: { type: "none" } })
    expect(config.window.slice(0, 6)).toEqual([1024, 1024, 1024, 1024, 1024, null])
    expect(() => parseConfig({ ...folder, text_config: { model_type: "llama" } })).toThrow(/text_config.model_type/)
    expect(() => parseConfig(folder)).toThrow(/text_config must be an object/)
    expect(() => parseConfig({ ...folder, text_config, quantization_config: { bits: 4 } })).toThrow(/quantization/)
    // Gemma3ForConditionalGeneration does not cap its logits, whatever its text_config says.
    const capped = { ...folder, text_config: { ...text_config, final_logit_softcapping: 30 } }
    expect(() => parseConfig(capped)).toThrow(/final_logit_softcapping must be absent in a gemma3 model, got 30/)
    const bothWays = { ...folder, text_config: { ...text_config, is_causal: null } }
    expect(() => parseConfig(bothWays)).toThrow(/is_causal must be true or absent, got null/)
  })

  it("assumes what the class in transformers assumes where it says nothing", () => {
    expect(parseConfig(llama)).toMatchObject({
      kvHeads: 4,
      headDim: 16,
      normEps: 1e-6,
      tiedHead: false,
      queryScale: 0.25,
    })
    // Gemma: heads of 256, four of them shared, q·k over sqrt(256), embeddings times sqrt(64).
    expect(parseConfig(gemma)).toMatchObject({
      kvHeads: 4,
      headDim: 256,
      tiedHead: true,
      queryScale: 1 / 16,
      embedScale: 8,
    })
    const qwen = { ...llama, num_attention_heads: 32, model_type: "qwen2", sliding_window: 8, max_window_layers: 1 }
    expect(parseConfig(qwen)).toMatchObject({ attentionBias: true, outputBias: false, window: [null, null] })
    expect(parseConfig({ ...qwen, use_sliding_window: true }).window).toEqual([null, 8])
    // A null is not an absent field: the classes then take a key for each query.
    expect(parseConfig({ ...qwen, num_key_value_heads: null }).kvHeads).toBe(32)
    expect(parseConfig({ ...qwen, num_attention_heads: 4, num_key_value_heads: null }).kvHeads).toBe(4)
    const mistral = { ...llama, model_type: "mistral", num_attention_heads: 8 }
    expect(parseConfig(mistral).window).toEqual([4096, 4096])
    expect(parseConfig({ ...mistral, sliding_window: null }).window).toEqual([null, null])
  })

  it.each([
    ["linear", { rope_scaling: { type: "linear", factor: 2 } }],
    ["no", {}],
  ])("of Llama is written so that it reads back the same, with %s rope scaling", (_, extra) => {
    const config = parseConfig({
      ...llama,
      ...extra,
      num_key_value_heads: 2,
      mlp_bias: true,
      eos_token_id: [1, 2],
      bos_token_id: 0,
    })
    expect(parseConfig(configJson(config))).toEqual(config)
  })

  it("is not written for another family", () => {
    expect(() => configJson(parseConfig(gemma))).toThrow(/only llama is written, got gemma3_text/)
  })

  it.each([
    ["an unknown family", { model_type: "mamba" }, /model_type must be one of llama, .*got "mamba"/],
    ["a family with images", { model_type: "qwen2_vl" }, /got "qwen2_vl"/],
    ["another head", { architectures: ["LlamaForSequenceClassification"] }, /architectures must be a ...ForCausalLM/],
    [
      "sliding layers with the window switched off",
      {
        model_type: "qwen2",
        num_attention_heads: 32,
        sliding_window: 8,
        layer_types: ["sliding_attention", "full_attention"],
      },
      /layer_types must have no sliding_attention where use_sliding_window is not true/,
    ],
    ["NaN where a number counts", { rms_norm_eps: Number.NaN }, /rms_norm_eps must be a positive number, got NaN/],
    ["quantised weights", { quantization_config: { bits: 4 } }, /quantization_config must be absent/],
    ["code of its own", { auto_map: { AutoModel: "x.Y" } }, /auto_map must be absent/],
    [
      "an unsupported rope type",
      { rope_scaling: { rope_type: "yarn", factor: 2 } },
      /rope_scaling.rope_type must be .*"yarn"/,
    ],
    [
      "a rope type of transformers 5",
      { rope_parameters: { rope_type: "longrope" } },
      /rope_parameters.rope_type .*"longrope"/,
    ],
    [
      "partial rotation",
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      /partial_rotary_factor is not supported, got 0.5/,
    ],
    [
      "llama3 rope without its factors",
      { rope_scaling: { rope_type: "llama3", factor: 8 } },
      /rope_scaling.low_freq_factor must be/,
    ],
    ["another activation", { hidden_act: "relu" }, /hidden_act must be silu or gelu_pytorch_tanh, got "relu"/],
    [
      "two lengths of the original model",
      {
        original_max_position_embeddings: 4096,
        rope_scaling: {
          ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
          original_max_position_embeddings: 8192,
        },
      },
      /original_max_position_embeddings must be the same in rope_scaling and beside it, got 8192 and 4096/,
    ],
    [
      "a cap that Gemma 3's class does not apply",
      { ...gemma, attn_logit_softcapping: 50 },
      /attn_logit_softcapping must be absent, got 50/,
    ],
    ["a Gemma 2 field", { final_logit_softcapping: 30 }, /final_logit_softcapping must be absent in a llama model/],
    [
      "heads that do not divide",
      { num_key_value_heads: 3 },
      /num_key_value_heads must divide num_attention_heads 4, got 3/,
    ],
    ["an odd head size", { head_dim: 15 }, /head_dim must be even/],
    [
      "a size of the wrong type",
      { vocab_size: "100" },
      /vocab_size must be a whole number from 1 to 16777216, got "100"/,
    ],
    [
      "a size that would not fit memory",
      { num_hidden_layers: 1e9 },
      /num_hidden_layers must be a whole number from 1 to 1024/,
    ],
    ["a flag of the wrong type", { tie_word_embeddings: "yes" }, /tie_word_embeddings must be true or false/],
    ["an end of text that is no id", { eos_token_id: ["</s>"] }, /eos_token_id must be a token id/],
    [
      "layer types of another family",
      { model_type: "qwen3", layer_types: ["full_attention", "linear_attention"] },
      /"linear_attention"/,
    ],
    ["a rope that is no object", { rope_scaling: "linear" }, /rope_scaling must be an object or null, got "linear"/],
    [
      "layer types that are no list",
      { model_type: "qwen3", layer_types: "full" },
      /layer_types must be a list or null/,
    ],
    [
      "layer types that Mistral's class does not heed",
      { model_type: "mistral", num_attention_heads: 8, layer_types: ["full_attention", "sliding_attention"] },
      /layer_types must be sliding_attention alone, by sliding_window/,
    ],
    [
      "too few layer types",
      { model_type: "qwen3", layer_types: ["full_attention"] },
      /layer_types must have 2 entries, got 1/,
    ],
    [
      "attention both ways",
      { ...gemma, use_bidirectional_attention: true },
      /use_bidirectional_attention must be false, got true/,
    ],
    ["attention both ways in any family", { is_causal: false }, /is_causal must be true or absent, got false/],
    ["attention both ways by null", { is_causal: null }, /is_causal must be true or absent, got null/],
    ["layers of their own", { per_layer_config: { "1": { rms_norm_eps: 0.5 } } }, /per_layer_config must be absent/],
    [
      "a window that Llama's class does not read",
      { sliding_window: 8 },
      /sliding_window must be null in a llama model/,
    ],
    [
      "kinds of layers that Llama's class does not read",
      { layer_types: ["sliding_attention", "full_attention"] },
      /layer_types must be full_attention alone in a llama model/,
    ],
    ["no window where layers have one", { ...gemma, sliding_window: null }, /sliding_window must be a whole number/],
    [
      "an old rope field by layer type",
      { rope_scaling: { full_attention: { rope_type: "linear", factor: 2 } } },
      /rope_scaling must not be split by layer type/,
    ],
  ])("with %s is refused", (_, change, message) => {
    expect(() => parseConfig({ ...llama, ...change }, "config.json")).toThrow(message)
  })

  it("of Gemma 3 has the activation of its own field, as its class reads no other", () => {
    // modeling_gemma3.py of transformers 5.23: ACT2FN[config.hidden_activation], by default gelu_pytorch_tanh.
    expect(parseConfig({ ...gemma, hidden_activation: undefined, hidden_act: "silu" }).activation).toBe("gelu_tanh")
  })

  it("has all its problems reported together", () => {
    expect(() => parseConfig({ ...llama, vocab_size: 0, hidden_act: "relu" })).toThrow(/vocab_size.*; hidden_act/)
  })
})
