import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { CheckpointError } from "../../lib/errors"
import { readAdapter, writeAdapter } from "../../lib/model/adapter"
import { loadConfig, type ModelConfig } from "../../lib/model/config"
import { pack, responseLogProbs } from "../../lib/model/logprobs"
import { bind, fromAdapter, initLora, merge, release, toAdapter } from "../../lib/model/lora"
import { openSafetensors, type TensorData, writeSafetensors } from "../../lib/model/safetensors"
import { type Bound, floatParams, type Model, type Params } from "../../lib/model/transformer"
import { initModel, loadModel, saveModel } from "../../lib/model/weights"
import { fixture, largestGap, randomIds, randomValues, tensorsLeft, tinyConfig } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "weights-"))
afterAll(() => rmSync(dir, { recursive: true }))
beforeAll(async () => {
  await useBackend()
})

const folder = () => mkdtempSync(join(dir, "model-"))
const values = (params: Params) => Object.fromEntries(Object.entries(params).map(([name, p]) => [name, p.dataSync()]))

/** A model of numbers at random, norms and biases too. */
function randomModel(config: ModelConfig): Model & { params: Params } {
  const { params } = initModel(config, 1)
  for (const [name, old] of Object.entries(params)) {
    const centre = /norm/i.test(name) ? 1 : 0
    params[name] = tf.tidy(() => tf.add(tf.tensor(randomValues(old.size, 0.4, name), old.shape), centre))
    old.dispose()
  }
  return { config, params }
}

const shapes: [string, Partial<ModelConfig>][] = [
  ["llama, tied", {}],
  ["llama, own head, every bias", { tiedHead: false, attentionBias: true, outputBias: true, mlpBias: true }],
  ["qwen3, norms on queries and keys", { family: "qwen3", qkNorm: true, headDim: 12 }],
  [
    "gemma3, norms that hold w - 1",
    { family: "gemma3_text" as ModelConfig["family"], normOffset: 1, postNorms: true, qkNorm: true },
  ],
]

describe("a saved model", () => {
  it.each(shapes)("of %s comes back exactly in F32", async (_, changes) => {
    const [to, model] = [folder(), randomModel(tinyConfig(changes))]
    await saveModel(join(to, "model.safetensors"), model, "F32")
    const loaded = loadModel(to, model.config)
    const [got, expected] = [values(floatParams(loaded)), values(model.params)]
    expect(Object.keys(got)).toEqual(Object.keys(expected))
    for (const name of Object.keys(got)) {
      expect(loaded.params[name]!.shape).toEqual(model.params[name]!.shape)
      // Gemma's norms are stored less 1, which rounds
      const offset = model.config.normOffset && /norm/i.test(name)
      expect(largestGap(got[name]!, expected[name]!), name).toBeLessThanOrEqual(offset ? 2 ** -24 : 0)
    }
    tf.dispose([model.params, loaded.params])
  })

  it("comes back from BF16 rounded to 8 binary digits, and is then saved without further loss", async () => {
    const [to, again, model] = [folder(), folder(), randomModel(tinyConfig())]
    await saveModel(join(to, "model.safetensors"), model)
    const loaded = loadModel(to, model.config)
    const [got, expected] = [values(floatParams(loaded)), values(model.params)]
    let changed = 0
    for (const name of Object.keys(got)) {
      expected[name]!.forEach((x, i) => {
        if (Math.abs(got[name]![i]! - x) > Math.abs(x) * 2 ** -8)
          throw new Error(`${name}[${i}]: ${x} became ${got[name]![i]}`)
        if (got[name]![i] !== x) changed++
      })
    }
    expect(changed).toBeGreaterThan(1000)
    await saveModel(join(again, "model.safetensors"), loaded)
    const bytes = [to, again].map((where) => readFileSync(join(where, "model.safetensors")))
    expect(bytes[0]!.equals(bytes[1]!)).toBe(true)
    tf.dispose([model.params, loaded.params])
  })

  it("holds the names and shapes of the checkpoint that it was loaded from", async () => {
    for (const name of ["llama", "gemma3", "qwen2", "qwen3"]) {
      const to = folder()
      const model = loadModel(fixture(name), loadConfig(fixture(name)))
      await saveModel(join(to, "model.safetensors"), model, "F32")
      const [ours, theirs] = [to, fixture(name)].map((where) => openSafetensors(join(where, "model.safetensors")))
      expect([...ours!.tensors.keys()].sort()).toEqual([...theirs!.tensors.keys()].sort())
      for (const [tensor, { shape }] of theirs!.tensors) {
        expect(ours!.tensors.get(tensor)!.shape).toEqual(shape)
        expect(largestGap(ours!.read(tensor), theirs!.read(tensor)), tensor).toBeLessThan(1e-6)
      }
      ours!.close()
      theirs!.close()
      tf.dispose(model.params)
    }
  })
})

describe("loading", () => {
  /** The llama fixture with changed tensors. */
  async function changed(change: (tensors: TensorData[]) => TensorData[]): Promise<string> {
    const to = folder()
    cpSync(fixture("llama"), to, { recursive: true })
    const file = openSafetensors(join(fixture("llama"), "model.safetensors"))
    const tensors = [...file.tensors].map(
      ([name, { shape }]): TensorData => ({ name, shape, dtype: "F32", data: file.read(name) }),
    )
    file.close()
    await writeSafetensors(join(to, "model.safetensors"), change(tensors))
    return to
  }
  const q = "model.layers.1.self_attn.q_proj.weight"
  const up = "model.layers.0.mlp.up_proj.weight"

  it("lists every missing, surplus and mis-shaped tensor at once, and leaves no tensors behind", async () => {
    const broken = await changed((tensors) => [
      ...tensors
        .filter(({ name }) => name !== q && name !== "model.norm.weight")
        .map((tensor) => (tensor.name === up ? { ...tensor, shape: [...tensor.shape].reverse() } : tensor)),
      { name: "model.layers.0.self_attn.q_norm.weight", shape: [8], dtype: "F32", data: new Float32Array(8) },
    ])
    const left = await tensorsLeft(() => {
      let problems: readonly string[] = []
      try {
        loadModel(broken, loadConfig(broken))
      } catch (error) {
        expect(error).toBeInstanceOf(CheckpointError)
        problems = (error as CheckpointError).problems
      }
      expect([...problems].sort()).toEqual(
        [
          `tensor ${up} must be [48,32] by config.json, got [32,48]`,
          `tensor ${q} [32,32] is missing`,
          'tensor "model.layers.0.self_attn.q_norm.weight" is not part of a llama model',
          "tensor model.norm.weight [32] is missing",
        ].sort(),
      )
    })
    expect(left).toBe(0)
  })

  it("names tensors of a type that it cannot read, before it reads any", async () => {
    const to = await changed((tensors) => tensors)
    const file = join(to, "model.safetensors")
    const bytes = readFileSync(file)
    // The same length, so that the offsets of the header stay right: two 32-bit types.
    bytes.write(bytes.subarray(0, 20_000).toString("latin1").replaceAll('"F32"', '"I32"'), "latin1")
    writeFileSync(file, bytes)
    expect(() => loadModel(to, loadConfig(to))).toThrow(
      /tensor model.norm.weight must be F32, F16 or BF16, got I32; convert/,
    )
  })

  it("brings a large embedding over in parts, to the same values", async () => {
    const [to, config] = [folder(), tinyConfig({ vocabSize: 132_000 })] // above 4 Mi values of 32 columns
    const values = randomValues(config.vocabSize * config.dim, 1, "large")
    const model = initModel(config, 1)
    model.params.embed!.dispose()
    model.params.embed = tf.tensor(values, [config.vocabSize, config.dim])
    expect(values.length).toBeGreaterThan(2 ** 22)
    await saveModel(join(to, "model.safetensors"), model, "F32")
    const loaded = loadModel(to, config)
    expect(largestGap(floatParams(loaded).embed!.dataSync(), values)).toBe(0)
    tf.dispose([model.params, loaded.params])
  })

  it("passes over frequencies, which some checkpoints hold", async () => {
    const extra = await changed((tensors) => [
      ...tensors,
      { name: "model.layers.0.self_attn.rotary_emb.inv_freq", shape: [4], dtype: "F32", data: new Float32Array(4) },
    ])
    const model = loadModel(extra, loadConfig(extra))
    expect(Object.keys(model.params)).not.toContain("inv_freq")
    tf.dispose(model.params)
  })

  describe("a tied head", () => {
    const [embedding, head] = ["model.embed_tokens.weight", "lm_head.weight"]
    const tied = { ...loadConfig(fixture("llama")), tiedHead: true }
    const rows = (model: Model, name: string) => floatParams(model)[name]?.dataSync()

    // transformers: "both are present in the checkpoints with different values, so we will NOT tie them"
    it("that is stored and differs from the embedding is used, and said", async () => {
      const notes: string[] = []
      const to = await changed((tensors) => tensors)
      const model = loadModel(to, tied, { onNote: (note) => notes.push(note) })
      expect(model.config.tiedHead).toBe(false)
      expect(notes.join()).toMatch(/tie_word_embeddings, but the stored lm_head differs/)
      const own = loadModel(fixture("llama"), loadConfig(fixture("llama")))
      expect(rows(model, "head")).toEqual(rows(own, "head"))
      tf.dispose([model.params, own.params])
    })

    it("that is stored as a copy of the embedding is passed over", async () => {
      const to = await changed((tensors) => {
        const { data, shape } = tensors.find(({ name }) => name === embedding)!
        return [...tensors.filter(({ name }) => name !== head), { name: head, dtype: "BF16", data, shape }]
      })
      // bf16 rounds, so this copy differs; one of the same type does not
      expect(loadModel(to, tied).config.tiedHead).toBe(false)
      const copy = await changed((tensors) => {
        const same = tensors.find(({ name }) => name === embedding)!
        return [...tensors.filter(({ name }) => name !== head), { ...same, name: head }]
      })
      const model = loadModel(copy, tied)
      expect(model.config.tiedHead).toBe(true)
      expect(Object.keys(model.params)).not.toContain("head")
    })

    it("that alone is stored is the embedding too", async () => {
      const to = await changed((tensors) => tensors.filter(({ name }) => name !== embedding))
      const model = loadModel(to, tied)
      const own = loadModel(fixture("llama"), loadConfig(fixture("llama")))
      expect(rows(model, "embed")).toEqual(rows(own, "head"))
      expect(() => loadModel(to, loadConfig(to))).toThrow(/model.embed_tokens.weight .* is missing/)
      tf.dispose([model.params, own.params])
    })
  })

  // The names that transformers' conversion table of gemma3 takes: those before and since 4.52.
  it.each([
    ["language_model.model.", "vision_tower."],
    ["model.language_model.", "model.vision_tower."],
  ])("of Gemma 3 with images gives the text model, whose tensors begin with %s", async (text, vision) => {
    const to = folder()
    const file = openSafetensors(join(fixture("gemma3"), "model.safetensors"))
    const tensors = [...file.tensors].map(([name, { shape }]): TensorData => {
      const renamed = name.startsWith("model.") ? name.replace("model.", text) : name
      return { name: renamed, shape, dtype: "F32", data: file.read(name) }
    })
    const image: TensorData = { name: `${vision}encoder.weight`, shape: [2], dtype: "F32", data: new Float32Array(2) }
    await writeSafetensors(join(to, "model.safetensors"), [...tensors, image])
    file.close()
    const text_config = JSON.parse(readFileSync(join(fixture("gemma3"), "config.json"), "utf8"))
    const { tie_word_embeddings } = text_config
    writeFileSync(join(to, "config.json"), JSON.stringify({ model_type: "gemma3", text_config, tie_word_embeddings }))
    const [loaded, plain] = [to, fixture("gemma3")].map((from) => loadModel(from, loadConfig(from)))
    expect(values(floatParams(loaded!))).toEqual(values(floatParams(plain!)))
    expect({ ...loaded!.config, multimodal: undefined }).toEqual({ ...plain!.config, multimodal: undefined })
    tf.dispose([loaded!.params, plain!.params])
    await writeSafetensors(join(to, "model.safetensors"), [...tensors, { ...image, name: "audio_tower.weight" }])
    expect(() => loadModel(to, loadConfig(to))).toThrow(/"audio_tower.weight" is not part of/)
  })

  it("tells how far it is", () => {
    const told: number[] = []
    let total = 0
    const model = loadModel(fixture("llama"), loadConfig(fixture("llama")), {
      onTensor(done, of) {
        told.push(done)
        total = of
      },
    })
    expect(told).toEqual(Array.from({ length: total }, (_, i) => i + 1))
    expect(total).toBe(Object.keys(model.params).length)
    tf.dispose(model.params)
  })
})

describe("a fresh model", () => {
  it("is the same with the same seed, and another with another", () => {
    const [a, b, c] = [initModel(tinyConfig(), 1), initModel(tinyConfig(), 1), initModel(tinyConfig(), 2)]
    expect(values(a.params)).toEqual(values(b.params))
    expect(largestGap(a.params.embed!.dataSync(), c.params.embed!.dataSync())).toBeGreaterThan(0.01)
    tf.dispose([a.params, b.params, c.params])
  })

  it("has norms of 1 and matrices of the wanted spread, residual outputs narrower by √(2 layers)", () => {
    const model = initModel(tinyConfig({ layers: 2, ffn: 512 }), 1, 0.1)
    const spread = (name: string) => {
      const x = [...model.params[name]!.dataSync()]
      return Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length)
    }
    // 16,384 numbers: the spread of the sample is within 2 % (3.6 σ)
    expect(spread("layers.0.gate") / 0.1).toBeCloseTo(1, 1)
    expect(spread("layers.1.down") / (0.1 / 2)).toBeCloseTo(1, 1)
    expect(spread("norm")).toBe(1)
    expect(spread("layers.0.norm1")).toBe(1)
    tf.dispose(model.params)
  })
})

describe("an adapter", () => {
  const batch = pack([{ prompt: randomIds(5, "p"), responses: [randomIds(9, "r")] }])
  const logProbs = (bound: Bound) => tf.tidy(() => responseLogProbs(bound, batch).dataSync())

  function adapted() {
    const model = initModel(tinyConfig(), 3, 0.3)
    const lora = initLora(model.config, { rank: 3, alpha: 6, seed: 1, targets: ["q", "v", "o", "down"] })
    for (const [name, old] of Object.entries(lora.params)) {
      if (!name.endsWith(".B")) continue
      lora.params[name] = tf.tensor(randomValues(old.size, 0.3, name), old.shape)
      old.dispose()
    }
    return { model, lora }
  }

  it("fresh, changes nothing: B is zero, A within 1/√inputs", () => {
    const model = initModel(tinyConfig(), 3, 0.3)
    const lora = initLora(model.config, { rank: 4, alpha: 8, seed: 1 })
    const [without, within] = [bind(model), bind(model, { lora })]
    expect(logProbs(within)).toEqual(logProbs(without))
    const a = lora.params["layers.1.down.A"]!.dataSync() // 48 inputs
    expect(Math.max(...a.map(Math.abs))).toBeLessThanOrEqual(1 / Math.sqrt(48))
    expect(Math.max(...a.map(Math.abs))).toBeGreaterThan(0.9 / Math.sqrt(48))
    release(within)
    tf.dispose([model.params, lora.params])
  })

  it("keeps its numbers on the way to PEFT's form, into a folder, and back", async () => {
    const { model, lora } = adapted()
    const to = folder()
    await writeAdapter(to, await toAdapter(lora, model.config), "tiny")
    const back = fromAdapter(readAdapter(to, model.config))
    expect({ ...back, params: values(back.params) }).toEqual({ ...lora, params: values(lora.params) })
    tf.dispose([model.params, lora.params, back.params])
  })

  it("of PEFT's gives the same folder's numbers after a round trip", async () => {
    const config = loadConfig(fixture("llama"))
    const adapter = readAdapter(join(fixture("llama"), "adapter"), config)
    const lora = fromAdapter(adapter)
    expect(await toAdapter(lora, config)).toEqual(adapter)
    tf.dispose(lora.params)
  })

  it("merged, is the model with the adapter on; the model itself stays", () => {
    const { model, lora } = adapted()
    const [off, on] = [bind(model), bind(model, { lora })]
    const before = logProbs(off)
    const merged = merge(model, lora)
    const whole = logProbs(bind(merged))
    expect(largestGap(whole, logProbs(on))).toBeLessThan(1e-5)
    expect(largestGap(whole, before)).toBeGreaterThan(0.05)
    expect(logProbs(off)).toEqual(before)
    release(on)
    tf.dispose([model.params, lora.params, merged.params])
  })

  it("bound and released, or merged and disposed, leaves no tensors behind", async () => {
    const model = initModel(tinyConfig({ qkNorm: true }), 3, 0.3)
    const lora = initLora(model.config, { rank: 2, alpha: 2, seed: 1, targets: ["k", "gate"] })
    const left = await tensorsLeft(() => {
      release(bind(model, { lora }))
      release(bind(model))
      const merged = merge(model, lora)
      for (const [name, tensor] of Object.entries(merged.params)) if (tensor !== model.params[name]) tf.dispose(tensor)
    })
    expect(left).toBe(0)
    tf.dispose([model.params, lora.params])
  })
})
