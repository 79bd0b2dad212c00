import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { StoppedError } from "../../lib/errors"
import type { ModelConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import {
  DecodingBatch,
  type Generated,
  type GenerateItem,
  type GenerateOptions,
  generate,
  readPrefix,
} from "../../lib/model/generate"
import { severalSteps } from "../../lib/model/generation-graph"
import { pack } from "../../lib/model/logprobs"
import { bind } from "../../lib/model/lora"
import { drawToken } from "../../lib/model/sampler"
import { type Bound, forward } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { cappedLogits } from "../../lib/ops/head"
import { rng, uniformAt } from "../../lib/rng"
import { scoring } from "../support/plans"
import { randomIds, tensorsLeft, tinyConfig } from "../support/tensors"

let plain: Bound
let windowed: Bound
/** The same, reading prompts by graphs where the backend runs them. */
let plainByGraphs: Bound
let windowedByGraphs: Bound

const bound = (changes: Partial<ModelConfig>, graphs = false) =>
  bind(initModel(tinyConfig(changes), 11, 0.4), { plan: scoring({ graphs }) })

beforeAll(async () => {
  await useBackend()
  plain = bound({})
  const changes: Partial<ModelConfig> = { window: [5, null], qkNorm: true, tiedHead: false }
  windowed = bound(changes)
  plainByGraphs = bound({}, true)
  windowedByGraphs = bound(changes, true)
})

const noEnd: GenerateOptions = { eosIds: [] }
const item = (i: number, changes: Partial<GenerateItem> = {}): GenerateItem => ({
  prompt: randomIds(1 + ((i * 5) % 13), "prompt", i),
  seed: 1000 + i,
  temperature: 0,
  maxTokens: 20,
  ...changes,
})
const idsOf = async (model: Bound, items: readonly GenerateItem[], options = noEnd) =>
  (await generate(model, items, options)).map(({ ids }) => ids)

/** The answer that a full pass over prompt and answer would have drawn: one row of logits a token, no cache. */
function withoutCache(model: Bound, { prompt, seed, ...sampling }: GenerateItem, answer: readonly number[]): number[] {
  return tf.tidy(() => {
    const { ids, ...places } = pack([{ prompt: [...prompt, ...answer], responses: [] }])
    const hidden = forward(model, tf.tensor1d(ids), places, contexts(model.config, places))
    const rows = cappedLogits(hidden, model.head, null).logits.arraySync()
    return answer.map((_, i) => {
      const logits = Float32Array.from(rows[prompt.length - 1 + i]!)
      return drawToken(logits, sampling, uniformAt(seed, i))
    })
  })
}

describe("a row", () => {
  it.each([0, 0.8])("never depends on its batch, at temperature %s", async (temperature) => {
    // lengths differ, so that rows leave the batch one by one
    const items = Array.from({ length: 16 }, (_, i) => item(i, { temperature, maxTokens: 4 + ((7 * i) % 23) }))
    const whole = await idsOf(plain, items)
    expect(await idsOf(plainByGraphs, items)).toEqual(whole)
    expect(whole.map(({ length }) => length)).toEqual(items.map(({ maxTokens }) => maxTokens))
    const order = rng("order").shuffle([...items.keys()])
    for (const size of [1, 2, 5, 16]) {
      const got: number[][] = []
      for (let at = 0; at < 16; at += size) {
        const some = order.slice(at, at + size)
        const answers = await idsOf(
          size < 5 ? plainByGraphs : plain,
          some.map((i) => items[i]!),
        )
        some.forEach((i, k) => {
          got[i] = answers[k]!
        })
      }
      expect(got, `batches of ${size}`).toEqual(whole)
    }
  })

  it("depends on its seed, and at temperature 0 on nothing but its prompt", async () => {
    const [warm, cold] = [0.8, 0].map((temperature) => [1, 2].map((seed) => ({ ...item(3), temperature, seed })))
    const [a, b] = await idsOf(plain, warm!)
    expect(a).not.toEqual(b)
    const [c, d] = await idsOf(plain, cold!)
    expect(c).toEqual(d)
  })

  it.each([0, 0.8])(
    "is what passes without a cache draw, with and without windows, at temperature %s",
    async (temperature) => {
      for (const model of [plain, windowed, plainByGraphs, windowedByGraphs]) {
        const items = [0, 1, 2].map((i) => item(i, { temperature, maxTokens: 30 }))
        const answers = await idsOf(model, items)
        expect(answers).toEqual(items.map((one, i) => withoutCache(model, one, answers[i]!)))
        expect(new Set(answers.flat()).size).toBeGreaterThan(5)
      }
    },
  )

  it("goes on past the first block of the cache, and past the second", async () => {
    // the cache starts with room for 64 new tokens and grows by 64
    const items = [0, 2].map((i) => item(i, { temperature: 0.8, maxTokens: 140 }))
    const answers = await idsOf(windowed, items)
    expect(answers.map(({ length }) => length)).toEqual([140, 140])
    expect(answers).toEqual(items.map((one, i) => withoutCache(windowed, one, answers[i]!)))
  })
})

describe("a prefix read before", () => {
  it.each([0, 0.8])("changes no answer, with and without windows, at temperature %s", async (temperature) => {
    const shared = randomIds(9, "shared")
    const items = Array.from({ length: 6 }, (_, i) => {
      const one = item(i, { temperature, maxTokens: 12 })
      return { ...one, prompt: [...shared, ...one.prompt] }
    })
    for (const model of [plain, windowed, plainByGraphs]) {
      const left = await tensorsLeft(async () => {
        const prefix = readPrefix(model, shared)
        const answers = await idsOf(model, items, { ...noEnd, prefix })
        expect(answers).toEqual(await idsOf(model, items))
        // it serves any number of batches, of any size
        for (const i of [0, 5]) expect(await idsOf(model, [items[i]!], { ...noEnd, prefix })).toEqual([answers[i]])
        prefix.dispose()
      })
      expect(left).toBe(0)
    }
  })

  it("is what the answers go by", async () => {
    const prefix = readPrefix(plain, randomIds(9, "other"))
    const one = item(1, { prompt: [...randomIds(9, "shared"), ...randomIds(3, "own")] })
    expect(await idsOf(plain, [one], { ...noEnd, prefix })).not.toEqual(await idsOf(plain, [one]))
    prefix.dispose()
  })
})

describe("an answer ends", () => {
  it("with the first end token, which it keeps, and says so", async () => {
    const [free] = await idsOf(plain, [item(1, { temperature: 0.8 })])
    const end = free![6]!
    const first = free!.indexOf(end)
    const [stopped] = await generate(plain, [item(1, { temperature: 0.8 })], { eosIds: [end] })
    expect(stopped).toEqual({ ids: free!.slice(0, first + 1), finish: "stop" })
  })

  it("after maxTokens, each row by its own", async () => {
    const got = await generate(plain, [item(1, { maxTokens: 1 }), item(1, { maxTokens: 7 })], noEnd)
    expect(got.map(({ ids, finish }) => [ids.length, finish])).toEqual([
      [1, "length"],
      [7, "length"],
    ])
    expect(got[1]!.ids[0]).toBe(got[0]!.ids[0])
  })

  it("when `done` says so, which sees the tokens so far", async () => {
    const seen: number[] = []
    const done = (ids: readonly number[]) => {
      seen.push(ids.length)
      return ids.length === 5
    }
    const [got] = await generate(plain, [item(1, { done })], noEnd)
    expect([got!.ids.length, got!.finish]).toEqual([5, "stop"])
    expect(seen).toEqual([1, 2, 3, 4, 5])
  })
})

describe("steps", () => {
  /** Answers to some items, and the steps and tokens of each call that takes up to `most` steps. */
  async function written(model: Bound, items: readonly GenerateItem[], most: number, options = noEnd) {
    const answers: Generated[] = []
    const calls: { steps: number; tokens: number }[] = []
    const batch = new DecodingBatch(model, options)
    const rows = items.map((item, i) => ({
      item,
      end: (answer: Generated) => {
        answers[i] = answer
      },
    }))
    await batch.join(rows)
    while (batch.active) calls.push(await batch.step(most))
    batch.dispose()
    return { answers, calls }
  }

  it("several in a call draw what single ones draw, whichever row ends between them", async () => {
    const items = [2, 5, 6, 13, 30].map((maxTokens, i) => item(i, { maxTokens, temperature: i % 2 ? 0.8 : 0 }))
    for (const model of [plainByGraphs, windowedByGraphs, plain]) {
      const [free] = await idsOf(model, [items[4]!])
      const options = { eosIds: [free![17]!] }
      const [single, several] = [await written(model, items, 1, options), await written(model, items, 99, options)]
      expect(several.answers).toEqual(single.answers)
      expect(single.calls.every(({ steps }) => steps === 1)).toBe(true)
      const tokens = several.answers.reduce((n, { ids }) => n + ids.length, 0)
      expect(several.calls.reduce((n, call) => n + call.tokens, 0)).toBe(tokens - items.length)
      const atOnce = new Set(several.calls.map(({ steps }) => steps))
      expect(atOnce.has(severalSteps)).toBe(model.plan.step === "graph")
    }
  })

  it("are no more than a row may still take", async () => {
    for (const maxTokens of [2, severalSteps, severalSteps + 1, 2 * severalSteps + 2]) {
      const { calls } = await written(plainByGraphs, [item(1, { maxTokens })], 99)
      expect(calls.reduce((n, { steps }) => n + steps, 0)).toBe(maxTokens - 1)
      expect(calls.every(({ steps, tokens }) => steps === tokens)).toBe(true)
    }
  })
})

describe("prompts", () => {
  it("read by one graph of all layers have the answers of prompts that layers read", async ({ skip }) => {
    const plan = scoring()
    if (plan.prompts === "layers") return skip()
    for (const changes of [{}, { window: [5, null], qkNorm: true, tiedHead: false, postNorms: true, embedScale: 2 }]) {
      const model = initModel(tinyConfig(changes), 11, 0.4)
      const [graph, layers] = [bind(model, { plan }), bind(model, { plan: { ...plan, prompts: "layers" } })]
      const shared = randomIds(9, "shared")
      const items = Array.from({ length: 6 }, (_, i) => item(i, { temperature: i % 2 ? 0.8 : 0, maxTokens: 12 }))
      const behind = items.map((one) => ({ ...one, prompt: [...shared, ...one.prompt] }))
      const answers = await idsOf(layers, items)
      expect(await idsOf(graph, items)).toEqual(answers)
      const prefix = readPrefix(graph, shared)
      expect(await idsOf(graph, behind, { ...noEnd, prefix })).toEqual(await idsOf(layers, behind))
      expect(await idsOf(layers, behind, { ...noEnd, prefix })).toEqual(await idsOf(layers, behind))
      prefix.dispose()
    }
  })
})

describe("a vocabulary of 40,000", () => {
  it("has the same greedy answers whether logits are read or compared where they are", async () => {
    const wide = bound({ vocabSize: 40_000 })
    const greedy = [0, 1, 2, 3].map((i) => item(i))
    const read = await idsOf(wide, [...greedy, item(4, { temperature: 1 })])
    expect(await idsOf(wide, greedy)).toEqual(read.slice(0, 4))
    expect(withoutCache(wide, greedy[3]!, read[3]!)).toEqual(read[3])
  })

  it("ends with a remedy where its logits are no numbers", async () => {
    const broken = bind(initModel(tinyConfig({ vocabSize: 40_000 }), 11, Number.NaN))
    await expect(idsOf(broken, [item(0)])).rejects.toThrow("logits must be numbers, got NaN; the weights have diverged")
  })
})

describe("generate", () => {
  it("counts the tokens of each step, rows that have ended left out", async () => {
    const counts: number[] = []
    const items = [1, 3, 3].map((maxTokens, i) => item(i, { maxTokens }))
    await generate(plain, items, { ...noEnd, onTokens: (n) => counts.push(n) })
    expect(counts).toEqual([3, 2, 2])
  })

  it("gives nothing for nothing", async () => {
    expect(await generate(plain, [], noEnd)).toEqual([])
  })

  it("leaves no tensors behind", async () => {
    const left = await tensorsLeft(() => generate(windowed, [item(0), item(1, { maxTokens: 80 }), item(2)], noEnd))
    expect(left).toBe(0)
  })

  it("stops on a signal with StoppedError and leaves no tensors behind", async () => {
    const stop = new AbortController()
    let steps = 0
    const onTokens = () => {
      if (++steps === 5) stop.abort()
    }
    const left = await tensorsLeft(async () => {
      const running = generate(plain, [item(0), item(1)], { ...noEnd, onTokens, signal: stop.signal })
      await expect(running).rejects.toThrow(StoppedError)
    })
    expect(steps).toBe(5)
    expect(left).toBe(0)
  })

  it("lets timers run while it works, so that a signal can come", async () => {
    const stop = new AbortController()
    setImmediate(() => setImmediate(() => stop.abort()))
    const running = generate(plain, [item(0, { maxTokens: 200 })], { ...noEnd, signal: stop.signal })
    await expect(running).rejects.toThrow(StoppedError)
  })
})
