import { beforeAll, describe, expect, it } from "vitest"
import { currentDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import type { ModelConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { type Plan, planFor } from "../../lib/model/executor"
import { type GenerateItem, generate } from "../../lib/model/generate"
import { batchInvariantPadding, contrast, pack, responseLogProbs, type Sequence } from "../../lib/model/logprobs"
import { bind, initLora } from "../../lib/model/lora"
import type { Model } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { type Learner, stepGradient } from "../../lib/train/gradients"
import { preferenceDefaults } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { backends, cuda, largestGap, randomIds, randomValues, tinyConfig } from "../support/tensors"

const shapes: [string, Partial<ModelConfig>][] = [
  ["grouped heads", {}],
  ["a window and norms on queries and keys", { window: [5, null], qkNorm: true, tiedHead: false }],
  ["a vocabulary in blocks", { vocabSize: 9001 }],
]
const forms = ["graph", "eager"] as const

/** Prompts and answers of very different lengths, one answer empty. */
const sequences: Sequence[] = [1, 40, 7, 19, 3].map((n, i) => ({
  prompt: randomIds(n, "prompt", i),
  responses: [randomIds(5 + 7 * i, i, "a"), i === 2 ? [] : randomIds(2, i, "b")],
}))

describe.skipIf(!backends.includes("tensorflow") || cuda).each(shapes)("sequences end to end: %s", (_, changes) => {
  let model: Model
  beforeAll(async () => {
    await useBackend("tensorflow")
    model = initModel(tinyConfig(changes), 1, 0.4)
  })
  const score = (form: Plan["layers"]): Plan => ({ ...planFor(1e9, { kind: "score" }), layers: form, step: form })

  it.each(forms)("have the log-probs of padded ones, to the last bit (%s)", (form) => {
    const bound = bind(model, { plan: score(form) })
    const logProbs = (paddingFree: boolean) =>
      tf.tidy(() => responseLogProbs(bound, pack(sequences, batchInvariantPadding(), { paddingFree })).dataSync())
    const padded = logProbs(false)
    expect(padded.every(Number.isFinite)).toBe(true)
    expect(Array.from(logProbs(true))).toEqual(Array.from(padded))
  })

  it("have the signals of padded ones, to the last bit", async () => {
    const others = sequences.map(({ responses }, i) => ({ prompt: randomIds(4 + 3 * i, "other", i), responses }))
    const bound = bind(model, { plan: score("graph") })
    const signals = (paddingFree: boolean) => {
      const packed = (some: readonly Sequence[]) => pack(some, batchInvariantPadding(), { paddingFree })
      return contrast(bound, packed(sequences), packed(others))
    }
    expect(await signals(true)).toEqual(await signals(false))
  })

  it.each(forms)("get the answers of padded ones (%s)", async (form) => {
    const items = sequences.map(
      ({ prompt }, i): GenerateItem => ({ prompt, seed: i, temperature: i % 2 ? 0.8 : 0, maxTokens: 12 }),
    )
    const answers = (paddingFree: boolean) =>
      generate(bind(model, { plan: { ...score(form), paddingFree } }), items, { eosIds: [] })
    expect(await answers(true)).toEqual(await answers(false))
  })

  it.each(["adapter", "all weights"])("have the gradient of padded ones (%s)", async (trained) => {
    const adapter = trained === "adapter"
    const lora = initLora(model.config, { rank: 2, alpha: 4, seed: 3 })
    for (const [name, { shape, size }] of Object.entries(lora.params))
      lora.params[name] = tf.tensor(randomValues(size, 0.2, name), shape)
    const items = sequences.map(({ prompt, responses }, i): PairItem => {
      const [chosen, rejected] = [responses[0]!, responses[1]!.length ? responses[1]! : randomIds(3, "r", i)]
      const ones = (ids: readonly number[]) => ids.map(() => 1)
      const sides = { chosenWeights: ones(chosen), rejectedWeights: ones(rejected) }
      const reference = (ids: readonly number[]) => ids.map(() => -4)
      return {
        ...{ prompt, chosen, rejected, ...sides },
        ...{ chosenReference: reference(chosen), rejectedReference: reference(rejected) },
      }
    })
    const step = async (paddingFree: boolean) => {
      const learner: Learner = {
        ...{ model, lora: adapter ? lora : undefined },
        objective: { kind: "preference", preference: { ...preferenceDefaults } },
        plan: { ...planFor(1e9, { kind: "train", adapter, tokens: Infinity }), frozen: false, paddingFree },
      }
      const { loss, gradient } = await stepGradient(learner, items)
      return { loss, gradient: gradient.dataSync() as Float32Array }
    }
    const [padded, joined] = [await step(false), await step(true)]
    expect(joined.loss).toBeCloseTo(padded.loss, 6)
    const largest = padded.gradient.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
    expect(largest).toBeGreaterThan(0)
    expect(largestGap(joined.gradient, padded.gradient) / largest).toBeLessThan(1e-5)
  })
})

describe("a plan without padding", () => {
  it("is for devices with kernels of ours", async () => {
    await useBackend("cpu")
    expect(currentDevice().kernels).toBe("none")
    expect(planFor(1e9, { kind: "score" }).paddingFree).toBe(false)
    const places = pack(sequences, undefined, { paddingFree: true })
    expect(() => contexts(tinyConfig(), places)).toThrow(/need kernels/)
  })
})
