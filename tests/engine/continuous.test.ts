import { beforeAll, describe, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { ContinuousWriter } from "../../lib/engine/continuous"
import { Prefixes } from "../../lib/engine/prefixes"
import { StoppedError } from "../../lib/errors"
import { type GenerateItem, generate } from "../../lib/model/generate"
import { bind } from "../../lib/model/lora"
import type { Bound } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { rng } from "../../lib/rng"
import { scoring } from "../support/plans"
import { randomIds, tensorsLeft, tinyConfig } from "../support/tensors"

let model: Bound
beforeAll(async () => {
  await useBackend()
  model = bind(initModel(tinyConfig({}), 11, 0.4), { plan: scoring() })
})

/** Lengths of answers as they come from models: most are short, some are long. */
const random = rng(3, "lengths")
const normal = () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
const items = Array.from(
  { length: 120 },
  (_, i): GenerateItem => ({
    prompt: randomIds(1 + ((i * 5) % 13), "prompt", i),
    seed: i,
    temperature: 0.8,
    maxTokens: Math.max(1, Math.min(60, Math.round(Math.exp(2.2 + 0.8 * normal())))),
  }),
)

const writing = (slots: number, signal?: AbortSignal) => {
  const prefixes = new Prefixes(model)
  return { prefixes, writer: new ContinuousWriter(model, prefixes, { slots, eosIds: [], signal }) }
}

describe("continuous batching", () => {
  it("writes what rows written together get, keeps more than nine slots of ten busy, and leaves no tensors behind", async () => {
    const wanted = await generate(model, items, { eosIds: [] })
    const left = await tensorsLeft(async () => {
      const { writer, prefixes } = writing(16)
      // Half of the calls come at once, the others as answers come.
      const all = items
        .slice(0, 60)
        .map((item, i) => writer.write("", item).then(async (first) => [first, await writer.write("", items[60 + i]!)]))
      const answers = await Promise.all(all)
      expect(answers.map(([first]) => first)).toEqual(wanted.slice(0, 60))
      expect(answers.map(([, second]) => second)).toEqual(wanted.slice(60))
      const { rows, steps } = writer.totals
      // The last rows end alone, whatever is done: a batch of 16 has at most 60 steps of that.
      const full = rows / (16 * (steps - 60))
      expect(full).toBeGreaterThan(0.9)
      prefixes.dispose()
    })
    expect(left).toBe(0)
  })

  it("lets rows with and without demonstrations take turns", async () => {
    const shared = randomIds(40, "shared")
    const some = items.slice(0, 12).map((item, i) => (i % 2 ? { ...item, prompt: [...shared, ...item.prompt] } : item))
    const wanted = await generate(model, some, { eosIds: [] })
    const { writer, prefixes } = writing(4)
    const answers = await Promise.all(some.map((item, i) => writer.write(i % 2 ? shared.join() : "", item)))
    expect(answers).toEqual(wanted)
    prefixes.dispose()
  })

  it("stops all calls on a signal", async () => {
    const stop = new AbortController()
    const { writer, prefixes } = writing(4, stop.signal)
    const calls = items.slice(0, 12).map((item) => writer.write("", item))
    const ended = Promise.allSettled(calls)
    stop.abort()
    const reasons = (await ended).map((end) => end.status === "rejected" && end.reason)
    expect(reasons.every((reason) => reason instanceof StoppedError)).toBe(true)
    prefixes.dispose()
  })

  it("fails the rows of a batch that fails, and goes on with others", async () => {
    const broken = bind(initModel(tinyConfig({}), 11, Number.NaN), { plan: scoring() })
    const prefixes = new Prefixes(broken)
    const writer = new ContinuousWriter(broken, prefixes, { slots: 4, eosIds: [] })
    for (let i = 0; i < 2; i++) await expect(writer.write("", items[0]!)).rejects.toThrow("logits must be numbers")
    prefixes.dispose()
  })
})
