import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { pack } from "../../lib/model/logprobs"
import { bind } from "../../lib/model/lora"
import { baseMismatch, mergeAdapter, modelName } from "../../lib/model/merge"
import { openCheckpoint, openSafetensors, type TensorData, writeSafetensors } from "../../lib/model/safetensors"
import { forward } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { cappedLogits } from "../../lib/ops/head"
import { fixture, largestGap, tensorsLeft } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "merge-"))
afterAll(() => rmSync(dir, { recursive: true }))
beforeAll(async () => {
  await useBackend()
})
const folder = () => mkdtempSync(join(dir, "m-"))

/** A copy of a fixture's adapter with changed settings. */
function adapterWith(name: string, settings: object): string {
  const to = folder()
  cpSync(join(fixture(name), "adapter"), to, { recursive: true })
  const file = join(to, "adapter_config.json")
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...settings }))
  return to
}

describe("a merged checkpoint", () => {
  // expected.json holds the logits that PEFT computes with the adapter beside the model.
  it.each(["llama", "llama3-rope", "gemma3", "qwen2", "qwen3", "mistral"])(
    "of %s, without its adapter, gives the logits that PEFT gives with it",
    async (name) => {
      const out = folder()
      await mergeAdapter(fixture(name), join(fixture(name), "adapter"), out, { dtype: "F32" })
      const { inputs, lora } = JSON.parse(readFileSync(join(fixture(name), "expected.json"), "utf8"))
      const config = loadConfig(out)
      const model = loadModel(out, config)
      const bound = bind(model)
      const { row, position, values } = lora.logits
      const { ids, ...places } = pack([{ prompt: inputs[row], responses: [] }])
      const logits = tf.tidy(() => {
        const hidden = forward(bound, tf.tensor1d(ids), places, contexts(config, places))
        return cappedLogits(tf.slice(hidden, position, 1), bound.head, config.logitSoftcap).logits.dataSync()
      })
      expect(largestGap(logits, values)).toBeLessThan(2e-4)
      tf.dispose(model.params)
    },
  )

  it("holds W + scale · B A in the linear layers and everything else as it was, in the types of the base", async () => {
    const out = folder()
    await mergeAdapter(fixture("mistral"), join(fixture("mistral"), "adapter"), out)
    const [before, after] = [openCheckpoint(fixture("mistral")), openCheckpoint(out)]
    const { tensors, scale } = readAdapter(join(fixture("mistral"), "adapter"))
    const { A, B } = tensors.get("layers.0.mlp.down_proj")!
    const at = (row: number, column: number) => {
      let sum = 0
      for (let r = 0; r < A.shape[0]; r++) sum += B.data[row * A.shape[0] + r]! * A.data[r * A.shape[1] + column]!
      return scale * sum
    }
    const name = "model.layers.0.mlp.down_proj.weight"
    const [columns] = before.tensors.get(name)!.shape.slice(1)
    const [old, now] = [before.read(name), after.read(name)]
    for (const [row, column] of [
      [0, 0],
      [3, 5],
      [31, 47],
    ] as const) {
      const i = row * columns! + column
      const exact = old[i]! + at(row, column)
      expect(Math.abs(now[i]! - exact)).toBeLessThanOrEqual(Math.abs(exact) * 2 ** -8) // stored as BF16
    }
    expect([...after.tensors].map(([key, { dtype, shape }]) => [key, dtype, shape])).toEqual(
      [...before.tensors].map(([key, { dtype, shape }]) => [key, dtype, shape]),
    )
    expect(after.read("model.norm.weight")).toEqual(before.read("model.norm.weight"))
    before.close()
    after.close()
  })

  it("is whole: config with the new type, tokenizer and template; no adapter", async () => {
    const out = folder()
    await mergeAdapter(fixture("llama"), join(fixture("llama"), "adapter"), out, { dtype: "BF16" })
    expect(readdirSync(out).sort()).toEqual(
      [
        ...["chat_template.jinja", "config.json", "generation_config.json"],
        ...["model.safetensors", "tokenizer.json", "tokenizer_config.json"],
      ].sort(),
    )
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).toMatchObject({
      dtype: "bfloat16",
      torch_dtype: "bfloat16",
      model_type: "llama",
    })
    const held = openSafetensors(join(out, "model.safetensors"))
    expect(new Set([...held.tensors.values()].map(({ dtype }) => dtype))).toEqual(new Set(["BF16"]))
    held.close()
  })

  it("keeps the template that counts, which may lie in a folder of its own", async () => {
    const base = folder()
    cpSync(fixture("llama"), base, { recursive: true })
    mkdirSync(join(base, "additional_chat_templates"))
    writeFileSync(join(base, "additional_chat_templates/default.jinja"), "{{ messages[0].content }}")
    const out = folder()
    await mergeAdapter(base, join(fixture("llama"), "adapter"), out, { force: true })
    expect(readFileSync(join(out, "chat_template.jinja"), "utf8")).toBe("{{ messages[0].content }}")
  })

  it("scales by alpha / √rank where the adapter is rank-stabilised", async () => {
    // rank 4: alpha / √4 is twice alpha / 4, so alpha 3 stabilised is alpha 6 plain
    const outs: Buffer[] = []
    for (const from of [adapterWith("llama", { use_rslora: true, lora_alpha: 3 }), join(fixture("llama"), "adapter")]) {
      const out = folder()
      await mergeAdapter(fixture("llama"), from, out)
      outs.push(readFileSync(join(out, "model.safetensors")))
    }
    expect(outs[0]!.equals(outs[1]!)).toBe(true)
  })

  it("leaves no tensors behind and tells how far it is", async () => {
    const told: number[] = []
    const left = await tensorsLeft(() =>
      mergeAdapter(fixture("llama"), join(fixture("llama"), "adapter"), folder(), {
        onTensor: (done) => told.push(done),
      }),
    )
    expect(left).toBe(0)
    const { tensors, close } = openCheckpoint(fixture("llama"))
    close()
    expect(told).toEqual(Array.from({ length: tensors.size }, (_, i) => i + 1))
  })
})

describe("merging refuses", () => {
  it("an adapter of another base model, unless forced", async () => {
    const other = adapterWith("llama", { base_model_name_or_path: "org/Another-1B" })
    await expect(mergeAdapter(fixture("llama"), other, folder())).rejects.toThrow(
      /base_model_name_or_path: the adapter was trained on org\/Another-1B, got the model llama; give that model, or --force/,
    )
    const out = folder()
    await mergeAdapter(fixture("llama"), other, out, { force: true })
    expect(existsSync(join(out, "config.json"))).toBe(true)
  })

  it("an adapter whose shapes do not fit, before it writes", async () => {
    const out = folder()
    await expect(
      mergeAdapter(fixture("gemma3"), join(fixture("llama"), "adapter"), out, { force: true }),
    ).rejects.toThrow(/lora_A.weight must be \[4, 64\], got \[4, 32\]/)
    expect(readdirSync(out)).toEqual([])
  })

  it("a folder that holds files", async () => {
    const out = folder()
    writeFileSync(join(out, "precious"), "")
    await expect(mergeAdapter(fixture("llama"), join(fixture("llama"), "adapter"), out)).rejects.toThrow(
      /new or empty folder/,
    )
  })

  it("values that F16 cannot hold, and leaves no file", async () => {
    const base = folder()
    cpSync(fixture("llama"), base, { recursive: true })
    const held = openSafetensors(join(fixture("llama"), "model.safetensors"))
    const tensors = [...held.tensors].map(([name, { shape }]): TensorData => {
      const data = held.read(name)
      if (name === "model.norm.weight") data[3] = 70000
      return { name, shape, dtype: "F32", data }
    })
    held.close()
    await writeSafetensors(join(base, "model.safetensors"), tensors)
    const out = folder()
    const merge = () => mergeAdapter(base, join(fixture("llama"), "adapter"), out, { dtype: "F16", force: true })
    await expect(merge()).rejects.toThrow(/model.norm.weight must be below 65504 for f16, got more; use bf16/)
    expect(readdirSync(out)).toEqual([])
  })
})

describe("the name of a base model", () => {
  const commit = "0123456789abcdef0123456789abcdef01234567"
  it("is that of the repository for a folder of the hub's cache, else the folder's", () => {
    expect(modelName(`/x/hub/models--org--Tiny-1B/snapshots/${commit}`)).toBe("org/Tiny-1B")
    expect(modelName("/x/models/Tiny-1B/")).toBe("Tiny-1B")
  })

  it("matches without organisation, folder and case; no name matches all", () => {
    const named = (base: string | null) => adapterWith("llama", { base_model_name_or_path: base })
    const cached = `/x/hub/models--org--Tiny-1B/snapshots/${commit}`
    expect(baseMismatch(named("org/tiny-1b"), cached)).toBeUndefined()
    expect(baseMismatch(named(cached), "/y/Tiny-1B")).toBeUndefined()
    expect(baseMismatch(named(null), cached)).toBeUndefined()
    expect(baseMismatch(named("org/Tiny-2B"), cached)).toBe(
      "the adapter was trained on org/Tiny-2B, got the model org/Tiny-1B",
    )
  })

  it("of a model whose head differs although it is called tied says so in config.json, as one model for every reader", async () => {
    const [base, out, notes] = [folder(), folder(), [] as string[]]
    cpSync(fixture("llama"), base, { recursive: true })
    const file = join(base, "config.json")
    const settings = { ...JSON.parse(readFileSync(file, "utf8")), tie_word_embeddings: true }
    writeFileSync(file, JSON.stringify(settings).replace("0.02", "NaN"))
    await mergeAdapter(base, join(base, "adapter"), out, { force: true, onNote: (note) => notes.push(note) })
    const text = readFileSync(join(out, "config.json"), "utf8")
    expect(text).toContain('"tie_word_embeddings": false')
    expect(text).toContain('"initializer_range": NaN')
    expect(notes.join()).toMatch(/lm_head differs/)
  })

  it("of a tied model that stores only its head has the matrix as the embedding", async () => {
    const [base, out] = [folder(), folder()]
    cpSync(fixture("qwen3"), base, { recursive: true })
    const source = openCheckpoint(fixture("qwen3"))
    const tensors = [...source.tensors].map(([name, { shape, dtype }]): TensorData => {
      const stored = name === "model.embed_tokens.weight" ? "lm_head.weight" : name
      return { name: stored, shape, dtype: dtype as "BF16", data: source.read(name) }
    })
    await writeSafetensors(join(base, "model.safetensors"), tensors)
    await mergeAdapter(base, join(base, "adapter"), out, { force: true })
    const merged = openSafetensors(join(out, "model.safetensors"))
    expect(merged.read("model.embed_tokens.weight")).toEqual(source.read("model.embed_tokens.weight"))
    expect(merged.tensors.has("lm_head.weight")).toBe(false)
    source.close()
    merged.close()
  })
})
