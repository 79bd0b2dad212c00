import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { MuscError } from "../../lib/errors"
import { configJson } from "../../lib/model/config"
import { floatParams } from "../../lib/model/transformer"
import { initModel, saveModel } from "../../lib/model/weights"
import { type Rng, rng } from "../../lib/rng"
import { fixture, tinyConfig } from "../support/tensors"

/** A checkpoint folder in memory. */
type Folder = Record<string, Buffer>
type Json = Record<string, unknown>
type Entry = Json & { data_offsets: [number, number] }

const root = mkdtempSync(join(tmpdir(), "fuzz-"))
afterAll(() => rmSync(root, { recursive: true }))
let base: Folder
beforeAll(async () => {
  await useBackend("cpu")
  const config = tinyConfig({ vocabSize: 300, dim: 8, ffn: 12, heads: 2, kvHeads: 1, headDim: 4, tiedHead: false })
  const model = initModel(config, 1)
  await saveModel(join(root, "model.safetensors"), model)
  tf.dispose(model.params)
  const copied = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
  for (const name of copied) copyFileSync(join(fixture("llama"), name), join(root, name))
  writeFileSync(join(root, "config.json"), JSON.stringify(configJson(config, "bfloat16")))
  const names = ["config.json", "model.safetensors", ...copied]
  base = Object.fromEntries(names.map((name) => [name, readFileSync(join(root, name))]))
})

const pick = <T>(random: Rng, list: readonly T[]): T => random.pick(list)
const below = (random: Rng, n: number) => random.int(n)
const deep = (open: string, close: string, n: number) => open.repeat(n) + close.repeat(n)

/** Values that no field expects. */
const odd = (random: Rng): unknown =>
  pick(random, [
    ...[0, -1, 1.5, 1e308, 2 ** 31, 2 ** 53, "x", "", null, true, false, [], {}, [null], [[]], { a: 1 }],
    ...["\u0000", "\ud800", "../../x", "__proto__", "9".repeat(400), Array(2000).fill(0), Array(3).fill("a")],
    ...[1e9, 7, 1, 3, "1", [1, 2], [-1, 5], [2 ** 40, 2 ** 40], { content: 5 }, { type: "Nothing" }],
  ])

/** Puts an odd value, or nothing, at a random place of a JSON value. */
function corruptJson(random: Rng, value: unknown): unknown {
  const inside = typeof value === "object" && value !== null && Object.keys(value).length > 0
  if (!inside || random.next() < 0.15) return odd(random)
  const copy = (Array.isArray(value) ? [...value] : { ...value }) as Json
  const key = pick(random, Object.keys(copy))
  if (random.next() < 0.1) delete copy[key]
  else copy[key] = corruptJson(random, copy[key])
  return copy
}

/** The header of a safetensors file and its data; `change` gives another header. */
function withHeader(folder: Folder, change: (header: Record<string, Entry>) => unknown): Folder {
  const file = folder["model.safetensors"]!
  const length = Number(file.readBigUInt64LE())
  const changed = change(JSON.parse(file.subarray(8, 8 + length).toString()))
  const json = Buffer.from(typeof changed === "string" ? changed : JSON.stringify(changed))
  const head = Buffer.alloc(8)
  head.writeBigUInt64LE(BigInt(json.length))
  return { ...folder, "model.safetensors": Buffer.concat([head, json, file.subarray(8 + length)]) }
}
const tensorOf = (random: Rng, header: Json) =>
  pick(
    random,
    Object.keys(header).filter((name) => name !== "__metadata__"),
  )

/** Ways of breaking a folder, each a clear error or harmless. */
const breaks: Record<string, (folder: Folder, random: Rng) => Folder> = {
  "a file cut short": (folder, random) => {
    const name = pick(random, Object.keys(folder))
    return { ...folder, [name]: folder[name]!.subarray(0, below(random, folder[name]!.length)) }
  },
  "a file missing": (folder, random) => {
    const { [pick(random, Object.keys(folder))]: _, ...rest } = folder
    return rest
  },
  "bytes changed": (folder, random) => {
    const name = pick(random, Object.keys(folder))
    const bytes = Buffer.from(folder[name]!)
    for (let n = 1 + below(random, 8); n > 0; n--) bytes[below(random, bytes.length)] = below(random, 256)
    return { ...folder, [name]: bytes }
  },
  "a file of other bytes": (folder, random) => {
    const name = pick(random, Object.keys(folder))
    const bytes = pick(random, [
      Buffer.alloc(0),
      Buffer.alloc(64),
      Buffer.from([0xff, 0xfe, 0x7b, 0x7d]),
      Buffer.from('{"a": "\xc3\x28"}', "latin1"),
      Buffer.from("[]"),
      Buffer.from("null"),
      Buffer.from("{}"),
      Buffer.from(deep("[", "]", 100_000)),
      Buffer.from(`${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`),
      Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
      Buffer.from(
        "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
      ),
      Buffer.from("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
      Buffer.from(`${"{% if true %}".repeat(3000)}`),
      Buffer.from("{{ messages[0].content.content.content }}{{ nothing() }}"),
    ])
    return { ...folder, [name]: bytes }
  },
  "a field of a settings file": (folder, random) => {
    const name = pick(
      random,
      Object.keys(folder).filter((file) => file.endsWith(".json")),
    )
    let json: unknown = JSON.parse(folder[name]!.toString())
    for (let n = 1 + below(random, 3); n > 0; n--) json = corruptJson(random, json)
    return { ...folder, [name]: Buffer.from(JSON.stringify(json)) }
  },
  "a field of config.json": (folder, random) => {
    const json = JSON.parse(folder["config.json"]!.toString())
    json[pick(random, Object.keys(json))] = odd(random)
    return { ...folder, "config.json": Buffer.from(JSON.stringify(json)) }
  },
  "another architecture": (folder, random) => {
    const json = JSON.parse(folder["config.json"]!.toString())
    const types = ["gpt2", "mixtral", "gemma3_text", "qwen2", "qwen3", "mistral", "gemma3", "", 5, null]
    return { ...folder, "config.json": Buffer.from(JSON.stringify({ ...json, model_type: pick(random, types) })) }
  },
  "huge counts": (folder, random) => {
    const json = JSON.parse(folder["config.json"]!.toString())
    const fields = [
      "vocab_size",
      "hidden_size",
      "num_hidden_layers",
      "intermediate_size",
      "num_attention_heads",
      "head_dim",
    ]
    for (const field of fields)
      if (random.next() < 0.5) json[field] = pick(random, [1024, 2 ** 20, 2 ** 24, 2 ** 30, 2 ** 53])
    return { ...folder, "config.json": Buffer.from(JSON.stringify(json)) }
  },
  "a tokenizer of another kind": (folder, random) => {
    const json = JSON.parse(folder["tokenizer.json"]!.toString())
    const part = pick(random, ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens"])
    const types = [
      "BPE",
      "Unigram",
      "WordPiece",
      "Sequence",
      "Split",
      "Replace",
      "Strip",
      "Metaspace",
      "ByteLevel",
      "None",
    ]
    json[part] = random.next() < 0.5 ? { type: pick(random, types) } : corruptJson(random, json[part])
    return { ...folder, "tokenizer.json": Buffer.from(JSON.stringify(json)) }
  },
  "a header that lies about its length": (folder, random) => {
    const bytes = Buffer.from(folder["model.safetensors"]!)
    bytes.writeBigUInt64LE(pick(random, [0n, 1n, 7n, 2n ** 31n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]))
    return { ...folder, "model.safetensors": bytes }
  },
  "a tensor's entry": (folder, random) =>
    withHeader(folder, (header) => {
      const entry = header[tensorOf(random, header)]!
      const field = pick(random, ["dtype", "shape", "data_offsets"])
      const shapes = [[0], [-1, 8], [2 ** 31, 2 ** 31], [2 ** 53, 0], [1.5, 2], Array(40).fill(1), [[8]], "8", [1e308]]
      const [begin, end] = entry.data_offsets
      const offsets = [
        [end, begin],
        [0, 0],
        [begin, end + 2],
        [begin + 2, end + 2],
        [0, 2 ** 60],
        [-8, end],
        [begin],
        "x",
        [0, 16],
      ]
      const dtypes = ["F32", "F16", "I64", "F8_E4M3", "F4", "BOOL", "__proto__", "toString", 5, null]
      entry[field] = pick<unknown>(random, field === "shape" ? shapes : field === "dtype" ? dtypes : offsets)
      return header
    }),
  "a header of other tensors": (folder, random) =>
    withHeader(folder, (header) => {
      const name = tensorOf(random, header)
      const { [name]: entry, ...rest } = header
      return pick<() => unknown>(random, [
        () => rest,
        () => ({ ...rest, [`${name}x`]: entry }),
        () => ({ ...header, [`${name}x`]: entry }),
        () => ({ ...header, "extra\u001b[31m": { dtype: "BF16", shape: [0], data_offsets: [0, 0] } }),
        () => ({ ...header, ...Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`t${i}`, entry])) }),
        () => ({ ...header, __metadata__: odd(random) }),
        () => JSON.stringify(header).replace("{", `{"__proto__":${JSON.stringify(entry)},`),
        () => odd(random),
        () => deep("[", "]", 50_000),
      ])()
    }),
  "numbers that are none": (folder, random) => {
    const bytes = Buffer.from(folder["model.safetensors"]!)
    const start = 8 + Number(bytes.readBigUInt64LE())
    const values = [0x7fc0, 0xffff, 0x7f80, 0xff80, 0x7f7f] // BF16: NaN, NaN, ∞, -∞, the largest
    const all = random.next() < 0.3
    for (let at = start; at + 1 < bytes.length; at += 2) {
      if (all || random.next() < 0.01) bytes.writeUInt16LE(pick(random, values), at)
    }
    return { ...folder, "model.safetensors": bytes }
  },
  "shards and their index": (folder, random) => {
    const { "model.safetensors": file, ...rest } = folder
    const header: Json = JSON.parse(file!.subarray(8, 8 + Number(file!.readBigUInt64LE())).toString())
    const shard = "model-00001-of-00001.safetensors"
    let weight_map: unknown = Object.fromEntries(
      Object.keys(header).flatMap((name) => (name === "__metadata__" ? [] : [[name, shard]])),
    )
    if (random.next() < 0.9) weight_map = corruptJson(random, weight_map)
    const index = random.next() < 0.8 ? { weight_map } : odd(random)
    return { ...rest, [shard]: file!, "model.safetensors.index.json": Buffer.from(JSON.stringify(index)) }
  },
}

/** The first tensor of a file, read by this test alone: BF16 is the upper half of an f32. */
function embedding(folder: Folder): Float32Array | undefined {
  const file = folder["model.safetensors"]
  if (!file) return undefined
  const length = Number(file.readBigUInt64LE())
  const { dtype, data_offsets } = JSON.parse(file.subarray(8, 8 + length).toString())["model.embed_tokens.weight"]
  if (dtype !== "BF16") return undefined
  const words = new Uint32Array((data_offsets[1] - data_offsets[0]) / 2)
  for (let i = 0; i < words.length; i++) words[i] = file.readUInt16LE(8 + length + data_offsets[0] + 2 * i) << 16
  return new Float32Array(words.buffer)
}

/**
 * Opens a folder and lets it speak: "error" for one of ours, "loaded" for a right answer; throws for everything else.
 */
async function outcome(folder: Folder): Promise<"error" | "loaded"> {
  const dir = join(root, "variant")
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir)
  for (const [name, bytes] of Object.entries(folder)) writeFileSync(join(dir, name), bytes)
  try {
    const local = openLocal(dir)
    try {
      const expected = embedding(folder)
      if (expected)
        expect(Buffer.from(floatParams(local.model).embed!.dataSync().buffer)).toEqual(Buffer.from(expected.buffer))
      const engine = local.engine()
      try {
        const messages = [{ role: "user" as const, content: "Name a blue thing." }]
        await engine.generate({ messages, temperature: 0, maxTokens: 2, seed: 1 })
      } finally {
        engine.dispose()
      }
    } finally {
      tf.dispose(local.model.params)
    }
    return "loaded"
  } catch (error) {
    if (!(error instanceof MuscError)) throw error
    expect(error.message.length).toBeGreaterThan(20)
    expect(error.message.length).toBeLessThan(20_000)
    return "error"
  }
}

describe("a checkpoint folder", () => {
  it("that is whole loads and speaks", async () => expect(await outcome(base)).toBe("loaded"))

  it("broken in 1,000 ways gives an error of ours or loads rightly, fast and without leaving memory behind", async () => {
    const kinds = Object.keys(breaks)
    const counts = { error: 0, loaded: 0 }
    const wrong: string[] = []
    await outcome(base)
    const tensors = tf.memory().numTensors
    const memory = process.memoryUsage().rss
    for (let i = 0; i < 1000; i++) {
      const random = rng(1, "fuzz", i)
      const kind = kinds[i % kinds.length]!
      const began = performance.now()
      try {
        counts[await outcome(breaks[kind]!(base, random))]++
      } catch (error) {
        wrong.push(`${i}, ${kind}: ${`${(error as Error).stack}`.slice(0, 600)}`)
      }
      const seconds = (performance.now() - began) / 1000
      if (seconds > 5) wrong.push(`${i}, ${kind}: took ${seconds.toFixed(1)} s`)
    }
    expect(wrong.join("\n")).toBe("")
    expect(tf.memory().numTensors).toBe(tensors)
    expect((process.memoryUsage().rss - memory) / 2 ** 20).toBeLessThan(500)
    expect(counts.error).toBeGreaterThan(500)
    expect(counts.loaded).toBeGreaterThan(50)
  })
})
