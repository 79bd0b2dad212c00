import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Message } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import { describeModel } from "../../lib/engine/description"
import type { GenerateRequest, ScoreRequest } from "../../lib/engine/engine"
import { type LocalModel, openLocal, usualSlots } from "../../lib/engine/local"
import { CUT_IN_THOUGHTS, withoutThoughts } from "../../lib/engine/reply"
import { StoppedError } from "../../lib/errors"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig, type ModelConfig } from "../../lib/model/config"
import { generate } from "../../lib/model/generate"
import { contrast, pack, responseLogProbs } from "../../lib/model/logprobs"
import { bind, fromAdapter, type Lora, release } from "../../lib/model/lora"
import { floatParams } from "../../lib/model/transformer"
import { loadModel, saveModel } from "../../lib/model/weights"
import { chatStop, encodeChat, encodePrompt } from "../../lib/text/chat"
import { cuda, fixture, largestGap, tensorsLeft } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "local-"))
let local: LocalModel
let lora: Lora

beforeAll(async () => {
  await useBackend()
  local = openLocal(fixture("llama"))
  lora = fromAdapter(readAdapter(join(fixture("llama"), "adapter"), local.config))
})
afterAll(() => rmSync(dir, { recursive: true }))

const user = (content: string): Message[] => [{ role: "user", content }]
const request = (i: number, changes: Partial<GenerateRequest> = {}): GenerateRequest => ({
  messages: user("Write ".repeat(1 + ((3 * i) % 7)) + i),
  seed: 100 + i,
  temperature: 0.7,
  maxTokens: 6 + ((5 * i) % 11),
  ...changes,
})
const scoreRequest = (i: number): ScoreRequest => ({
  clean: user(`Write ${"very ".repeat(i)}well`),
  noised: user("Write"),
  empty: user(""),
  responses: [`An answer ${i}`, "Näh"],
})

describe("generation by a local model", () => {
  it("gives each request the same answer in any batch, order and number at once", async () => {
    const requests = Array.from({ length: 12 }, (_, i) => request(i))
    const alone = local.engine(null, { batchSize: 1 })
    const expected = []
    for (const one of requests) expected.push(await alone.generate(one))
    expect(new Set(expected.map(({ text }) => text)).size).toBeGreaterThan(8)
    for (const batchSize of [3, 16]) {
      const engine = local.engine(null, { batchSize })
      expect(engine.concurrency).toBe(4 * batchSize)
      expect(await Promise.all(requests.map(engine.generate))).toEqual(expected)
      const backwards = await Promise.all([...requests].reverse().map(engine.generate))
      expect([...backwards].reverse()).toEqual(expected)
      engine.dispose()
    }
    alone.dispose()
  })

  it("answers behind demonstrations as if each prompt had been read whole", async () => {
    // six lists of demonstrations, more than are kept, and none
    const shown = (i: number): Message[] =>
      i % 7 === 6
        ? []
        : [0, 1].flatMap((k): Message[] => [
            { role: "user", content: `Example ${i % 7} of ${k}: ${"words and ".repeat(6)}` },
            { role: "assistant", content: `That is ${i % 7}.` },
          ])
    const requests = Array.from({ length: 16 }, (_, i) => {
      const one = request(i)
      return { ...one, messages: [...shown(i), ...one.messages] }
    })
    const bound = bind(local.model)
    const whole = requests.map((one) => ({ ...one, prompt: encodePrompt(local.tokenizer, one.messages) }))
    const expected = await generate(bound, whole, { eosIds: chatStop(local.tokenizer).ids })
    release(bound)
    const texts = expected.map(({ ids }) => local.tokenizer.decode(ids, { skipSpecial: true }))
    for (const batchSize of [1, 16]) {
      const engine = local.engine(null, { batchSize })
      const answers = await Promise.all(requests.map(engine.generate))
      expect(answers.map(({ text }) => text)).toEqual(texts)
      engine.dispose()
    }
  })

  it("counts tokens and says why an answer ended", async () => {
    const engine = local.engine()
    const made: number[] = []
    const counting = local.engine(null, { onTokens: (n) => made.push(n) })
    const answers = await Promise.all([0, 1, 2, 3].map((i) => counting.generate(request(i))))
    expect(made.reduce((a, b) => a + b)).toBe(answers.reduce((n, { tokens }) => n + tokens, 0))
    const [long] = await Promise.all([engine.generate(request(0, { maxTokens: 5 }))])
    expect([long!.tokens <= 5, long!.finish === "length" ? long!.tokens : 5]).toEqual([true, 5])
    engine.dispose()
    counting.dispose()
  })

  it("cuts an answer at the first stop text and makes no more tokens than it needs", async () => {
    const engine = local.engine()
    const free = await engine.generate(request(4, { maxTokens: 60, temperature: 1 }))
    // a piece from the middle, and one behind it, given in the wrong order
    const [first, second] = [free.text.slice(12, 15), free.text.slice(20, 23)]
    const cut = await engine.generate(request(4, { maxTokens: 60, temperature: 1, stop: [second, first] }))
    expect(cut.text).toBe(free.text.slice(0, free.text.indexOf(first)))
    expect(cut.finish).toBe("stop")
    expect(cut.tokens).toBeLessThan(free.tokens)
    engine.dispose()
  })

  it("stops as soon as a stop text is complete whose characters take several tokens each", async () => {
    // A model that can only count in a circle: E3 80 82 E3 80 82 …, the bytes of "。". Attention and mlp add nothing
    // (o and down are 0), so the newest token alone decides, and the head answers each embedding with its successor.
    const to = mkdtempSync(join(dir, "circle-"))
    cpSync(fixture("llama"), to, { recursive: true })
    const circle = local.tokenizer.encode("。")
    expect(circle).toHaveLength(3)
    const model = loadModel(fixture("llama"), loadConfig(fixture("llama")))
    const embed = floatParams(model).embed!.arraySync() as number[][]
    const head = embed.map((row) => row.map(() => 0))
    const last = encodePrompt(local.tokenizer, user("Go")).at(-1)!
    for (const [from, next] of [
      [last, 0],
      [circle[0], 1],
      [circle[1], 2],
      [circle[2], 0],
    ] as const) {
      embed[from!]!.forEach((x, d) => {
        head[circle[next]!]![d]! += 100 * x
      })
    }
    for (const name of Object.keys(model.params)) {
      if (!/\.(o|down)$/.test(name)) continue
      model.params[name] = tf.zeros(model.params[name]!.shape)
    }
    await saveModel(
      join(to, "model.safetensors"),
      { ...model, params: { ...model.params, head: tf.tensor2d(head) } },
      "F32",
    )
    const counting = openLocal(to)
    const engine = counting.engine()
    const go = { messages: user("Go"), seed: 1, temperature: 0, maxTokens: 30 }
    expect(await engine.generate(go)).toEqual({ text: "。".repeat(10), tokens: 30, finish: "length" })
    expect(await engine.generate({ ...go, stop: ["。。"] })).toEqual({ text: "", tokens: 6, finish: "stop" })
    engine.dispose()
    tf.dispose([model.params, counting.model.params])
  })

  it("rejects what is under way when the signal comes, with StoppedError", async () => {
    const stop = new AbortController()
    const engine = local.engine(null, { batchSize: 2, signal: stop.signal, onTokens: () => stop.abort() })
    const results = await Promise.allSettled([0, 1, 2].map((i) => engine.generate(request(i))))
    for (const result of results) expect(result.status === "rejected" && result.reason).toBeInstanceOf(StoppedError)
    engine.dispose()
  })

  it("differs with an adapter", async () => {
    const [base, tuned] = [local.engine(), local.engine(lora)]
    const greedy = request(1, { temperature: 0, maxTokens: 30 })
    expect(await tuned.generate(greedy)).not.toEqual(await base.generate(greedy))
    base.dispose()
    tuned.dispose()
  })
})

describe("scoring by a local model", () => {
  it("gives each pair the signals of its own rows, the same to the last digit whatever it is scored with", async () => {
    const engine = local.engine(lora, { batchSize: 16 })
    const requests = [0, 1, 2, 3, 4].map(scoreRequest)
    const scored = await Promise.all(requests.map(engine.score))
    if (!cuda) for (const [i, request] of requests.entries()) expect(await engine.score(request)).toEqual(scored[i])
    const bound = bind(local.model, { lora })
    for (const [i, one] of requests.entries()) {
      for (const [r, response] of one.responses.entries()) {
        const row = (messages: readonly Message[]) => {
          const { promptIds, responseIds } = encodeChat(local.tokenizer, messages, response)
          return pack([{ prompt: promptIds, responses: [responseIds] }])
        }
        const expected = await contrast(bound, row(one.clean), row(one.noised))
        const empty = tf.tidy(() => responseLogProbs(bound, row(one.empty)).dataSync())
        const got = scored[i]![r]!
        expect(got.tokens.join("")).toMatch(response)
        expect(largestGap(got.logprob, expected.logprob)).toBeLessThan(2e-5)
        expect(largestGap(got.logprob_noised, expected.logprobOther)).toBeLessThan(2e-5)
        expect(largestGap(got.logprob_empty, empty)).toBeLessThan(2e-5)
        expect(largestGap(got.entropy, expected.entropy)).toBeLessThan(2e-5)
        expect(largestGap(got.entropy_noised, expected.entropyOther)).toBeLessThan(2e-5)
        expect(largestGap(got.kl, expected.kl)).toBeLessThan(2e-5)
        expect(largestGap(got.kl_reverse, expected.klReverse)).toBeLessThan(2e-5)
      }
    }
    engine.dispose()
  })

  it("of equal prompts has no contrast, and entropies at most log V", async () => {
    const engine = local.engine()
    const [signals] = await engine.score({ ...scoreRequest(2), noised: scoreRequest(2).clean })
    expect(
      largestGap(
        signals!.kl,
        signals!.kl.map(() => 0),
      ),
    ).toBeLessThan(1e-5)
    expect(signals!.logprob_noised).toEqual(signals!.logprob)
    for (const h of signals!.entropy) expect(h).toBeLessThanOrEqual(Math.log(local.config.vocabSize) + 1e-5)
    engine.dispose()
  })
})

describe("a local model", () => {
  it("frees what its engines took, and keeps its own weights", async () => {
    const left = await tensorsLeft(async () => {
      for (const adapter of [null, lora]) {
        const engine = local.engine(adapter)
        await Promise.all([engine.generate(request(0)), engine.generate(request(1)), engine.score(scoreRequest(0))])
        engine.dispose()
      }
    })
    expect(left).toBe(0)
    expect(Object.values(floatParams(local.model)).some(({ isDisposed }) => isDisposed)).toBe(false)
  })

  it("has a fingerprint of its files that changes with the weights", async () => {
    const copy = mkdtempSync(join(dir, "copy-"))
    cpSync(fixture("llama"), copy, { recursive: true })
    const same = openLocal(copy)
    expect(same.fingerprint).toBe(local.fingerprint)
    await saveModel(join(copy, "model.safetensors"), local.model, "BF16")
    const other = openLocal(copy)
    expect(other.fingerprint).not.toBe(local.fingerprint)
    expect(same.fingerprint).toMatch(/^[0-9a-f]{64}$/)
    const before = describeModel(copy).fingerprint
    writeFileSync(join(copy, "special_tokens_map.json"), '{"eos_token": "</s>"}') // an end of text beside the others
    const after = describeModel(copy).fingerprint
    expect(after).not.toBe(before)
    writeFileSync(join(copy, "added_tokens.json"), '{"<tool>": 300}')
    const added = describeModel(copy).fingerprint
    expect(added).not.toBe(after)
    mkdirSync(join(copy, "additional_chat_templates"))
    writeFileSync(join(copy, "additional_chat_templates/default.jinja"), "{{ messages[0].content }}")
    expect(describeModel(copy).fingerprint).not.toBe(added)
    tf.dispose([same.model.params, other.model.params])
  })
})

describe("a folder whose tokenizer has more tokens than the embedding has rows", () => {
  it("fails the rows that hold one, with the reason, and answers and scores the others of the batch", async () => {
    const folder = mkdtempSync(join(dir, "larger-"))
    cpSync(fixture("llama"), folder, { recursive: true })
    const file = join(folder, "tokenizer.json")
    const json = JSON.parse(readFileSync(file, "utf8"))
    json.added_tokens.push({ ...json.added_tokens[0], id: 300, content: "<|extra|>" })
    writeFileSync(file, JSON.stringify(json))
    const notes: string[] = []
    const larger = openLocal(folder, { onNote: (note) => notes.push(note) })
    expect(notes.join()).toMatch(/the embedding has 300 rows/)
    const [engine, plain] = [larger.engine(), local.engine()]
    const odd = "one <|extra|>"
    const settled = await Promise.allSettled([
      engine.generate(request(1)),
      (async () => engine.generate(request(2, { messages: user(odd) })))(),
      engine.score(scoreRequest(1)),
      engine.score({ ...scoreRequest(2), responses: ["fine", odd] }),
    ])
    expect(settled.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "rejected"])
    for (const result of settled.filter((one) => one.status === "rejected"))
      expect(result.reason).toMatchObject({ name: "RefusedError", message: expect.stringMatching(/<\|extra\|>/) })
    expect(settled[0]).toMatchObject({ value: await plain.generate(request(1)) })
    engine.dispose()
    plain.dispose()
    tf.dispose(larger.model.params)
  })
})

describe("a folder whose template opens thoughts", () => {
  it("gives them with their opening, so that a reply that ends inside them has no answer", async () => {
    const folder = mkdtempSync(join(dir, "thinking-"))
    cpSync(fixture("llama"), folder, { recursive: true })
    const template = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>\n{% endif %}"
    writeFileSync(join(folder, "chat_template.jinja"), template)
    const [thinking, plain] = [true, false].map((on) => openLocal(folder, { thinking: on }))
    expect(thinking!.fingerprint).not.toBe(plain!.fingerprint)
    const [one, other] = [thinking!, plain!].map((model) => model.engine())
    expect((await one!.generate(request(1))).text).toMatch(/^<think>\n/)
    expect((await other!.generate(request(1))).text).not.toContain("<think>")
    expect(withoutThoughts(await one!.generate(request(1)))).toMatchObject({ text: "", problem: CUT_IN_THOUGHTS })
    for (const engine of [one!, other!]) engine.dispose()
    for (const model of [thinking!, plain!]) tf.dispose(model.model.params)
  })
})

describe("answers under way at once", () => {
  const of = (layers: number, kvHeads: number, headDim: number) =>
    usualSlots({ layers, kvHeads, headDim } as ModelConfig)
  it("are as many as 1 GiB of keys and values holds, from 16 to 128", () => {
    expect(of(30, 3, 64)).toBe(40) // SmolLM2-135M: 45 KiB a token
    expect(of(24, 2, 64)).toBe(80) // Qwen2.5-0.5B: 24 KiB
    expect(of(32, 8, 128)).toBe(16) // Llama 3 8B: 256 KiB
    expect(of(4, 2, 32)).toBe(128) // a small one
  })
})
