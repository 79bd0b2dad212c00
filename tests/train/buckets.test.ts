import type { Tensor } from "@tensorflow/tfjs-core"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { currentDevice, type Device, setDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { microBatches } from "../../lib/model/batch"
import type { ModelConfig } from "../../lib/model/config"
import type { Plan } from "../../lib/model/executor"
import { bucket, type Packed, padded, responseLogProbs, unpadded } from "../../lib/model/logprobs"
import { bind, initLora } from "../../lib/model/lora"
import { initModel } from "../../lib/model/weights"
import { rng } from "../../lib/rng"
import { stepGradient } from "../../lib/train/gradients"
import { preferenceDefaults, sumByResponse } from "../../lib/train/losses"
import { type Item, type Objective, type PairItem, packItems, tokensOf } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { training } from "../support/plans"
import { backends, cuda, largestGap, randomIds, randomValues, tensorsLeft, tinyConfig } from "../support/tensors"

const native = backends[0] === "tensorflow" && !cuda
const called = "executeMultipleOutputs"

/** A pair of answers of these lengths. */
function pairOf(prompt: number, chosen: number, rejected: number, key: number): PairItem {
  const weights = (n: number, side: string) => Array.from(randomValues(n, 1, side, key), Math.abs)
  return {
    prompt: randomIds(prompt, key, "prompt"),
    chosen: randomIds(chosen, key, "chosen"),
    rejected: randomIds(rejected, key, "rejected"),
    chosenWeights: weights(chosen, "c"),
    rejectedWeights: weights(rejected, "r"),
  }
}
/** Enough tokens for two micro-batches. */
const pairs = [1, 40, 7, 19, 3, 60, 2].map((n, i) => pairOf(n, 5 + 7 * i, 3 + i, i))

const objectives: [string, Objective][] = [
  ["DPO", { kind: "preference", preference: { ...preferenceDefaults } }],
  ["TDPO2", { kind: "preference", preference: { ...preferenceDefaults, loss: "tdpo2" } }],
  ["SFT", { kind: "sft", weighting: "root" }],
]
const shapes: [string, Partial<ModelConfig>][] = [
  ["grouped heads", {}],
  ["a window and norms on queries and keys", { window: [5, null], qkNorm: true, tiedHead: false }],
]

describe("lengths in buckets, for XLA", () => {
  let device: Device
  beforeAll(async () => {
    await useBackend()
    device = currentDevice()
    setDevice({ ...device, kernels: "none", products: "library" })
  })
  afterAll(() => setDevice(device))

  it("are powers of two and their midpoints", () => {
    const sizes = Array.from({ length: 20 }, (_, i) => bucket(i + 1))
    expect(sizes).toEqual([1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24, 24, 24, 24])
    expect([1, 64, 65, 97, 129].map((n) => bucket(n, 64))).toEqual([64, 64, 96, 128, 192])
  })

  it.each(
    shapes.flatMap(([shape, changes]) => objectives.map(([of, objective]) => [of, shape, objective, changes] as const)),
  )("give the loss and the gradient of %s without them: %s", async (_, _shape, objective, changes) => {
    const model = initModel(tinyConfig(changes), 1, 0.4)
    const lora = initLora(model.config, { rank: 2, alpha: 4, seed: 3 })
    for (const [name, { shape, size }] of Object.entries(lora.params))
      lora.params[name] = tf.tensor(randomValues(size, 0.2, name), shape)
    const known = await withReference(model, pairs, 4096)
    const items: Item[] =
      objective.kind === "sft"
        ? pairs.map(({ prompt, chosen, rejected }) => ({ prompt, responses: [chosen, rejected] }))
        : known
    const step = async (together: 1 | 2, xla: boolean) => {
      const plan: Plan = training({}, { together, ...(xla && { xla }) })
      const { loss, logs, gradient } = await stepGradient({ model, lora, objective, plan }, items)
      const values = gradient.dataSync() as Float32Array
      gradient.dispose()
      return { loss, logs, values }
    }
    for (const together of [1, 2] as const) {
      let plain: Awaited<ReturnType<typeof step>> | undefined
      let inBuckets: typeof plain
      expect(await tensorsLeft(async () => (plain = await step(together, false)))).toBe(0)
      expect(await tensorsLeft(async () => (inBuckets = await step(together, true)))).toBe(0)
      expect(inBuckets!.loss).toBeCloseTo(plain!.loss, 5)
      for (const [name, value] of Object.entries(plain!.logs)) expect(inBuckets!.logs[name]).toBeCloseTo(value, 5)
      const largest = plain!.values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
      expect(largest).toBeGreaterThan(0)
      expect(largestGap(inBuckets!.values, plain!.values) / largest).toBeLessThan(1e-5)
    }
    tf.dispose([model.params, lora.params])
  })

  it("give each response token its log-prob, and padding no owner, in several packs too", () => {
    const model = initModel(tinyConfig(), 1, 0.4)
    const logProbs = (xla: boolean) =>
      tf.tidy(() => {
        const parts = [pairs.slice(0, 2), pairs.slice(2)]
        const batch = packItems(parts, { ...training(), ...(xla && { xla }) })
        const values = responseLogProbs(bind(model), batch)
        const counts = sumByResponse(tf.onesLike(values), batch.owners, padded(batch, Array(999).fill(1)), 10)
        return [unpadded(batch, values.dataSync() as Float32Array), counts.dataSync()] as const
      })
    const [[plain, count], [inBuckets, counted]] = [logProbs(false), logProbs(true)]
    expect(largestGap(inBuckets, plain)).toBeLessThan(1e-5)
    expect(counted).toEqual(count)
    expect(sumByResponse(tf.tensor1d([1, 2, 4]), Int32Array.of(0, 1, 2), [1, 1, 1], 2).dataSync()).toEqual(
      Float32Array.of(1, 2),
    )
    tf.dispose(model.params)
  })

  it.runIf(native)("give the references of pairs", async () => {
    const model = initModel(tinyConfig(), 1, 0.4)
    const references = async (xla: boolean) => {
      setDevice({ ...currentDevice(), xla })
      const known = await withReference(model, pairs, 256)
      return known.flatMap(({ chosenReference, rejectedReference }) => [...chosenReference!, ...rejectedReference!])
    }
    // log-probs of down to -30, which XLA adds up in another order
    expect(largestGap(await references(true), await references(false))).toBeLessThan(5e-5)
    tf.dispose(model.params)
  })

  it.runIf(native)("let XLA compile nothing for others of the same buckets", async () => {
    const model = initModel(tinyConfig(), 1, 0.4)
    const lora = initLora(model.config, { rank: 2, alpha: 4, seed: 3 })
    const objective: Objective = { kind: "sft", weighting: "even" }
    const plan: Plan = training({ graphs: true }, { together: 1, microBatches: 1, xla: true })
    const spy = vi.spyOn(tf.backend() as unknown as { executeMultipleOutputs(...args: unknown[]): Tensor[] }, called)
    /** Graphs that a step calls, each with the shapes that it is called with. */
    const graphsOf = async (...lengths: [prompt: number, response: number][]) => {
      spy.mockClear()
      const items = lengths.map(([prompt, response], i) => ({
        prompt: randomIds(prompt, i),
        responses: [randomIds(response, i)],
      }))
      tf.dispose((await stepGradient({ model, lora, objective, plan }, items)).gradient)
      const calls = spy.mock.calls.filter(([name]) => /^MuscGraph/.test(name as string))
      return new Set(calls.map(([name, , inputs]) => JSON.stringify([name, (inputs as Tensor[]).map((x) => x.shape)])))
    }
    const five: [number, number][] = [
      [9, 24],
      [40, 20],
      [1, 30],
      [30, 30],
      [12, 7],
    ]
    await graphsOf(...five) // makes the graphs
    const known = await graphsOf(...five)
    expect(known.size).toBeGreaterThan(1)
    expect(await graphsOf(...five.slice(1), [31, 21], [3, 19])).toEqual(known)
    expect(await graphsOf(...five.slice(2), [31, 21])).not.toEqual(known)
    spy.mockRestore()
    tf.dispose([model.params, lora.params])
  })

  it("leave few shapes of many", () => {
    const shapesOf = (xla: boolean) => {
      const random = rng("steps")
      const shapes = new Set<string>()
      for (let step = 0; step < 200; step++) {
        const items = Array.from({ length: 8 }, (_, i) =>
          pairOf(20 + random.int(300), 10 + random.int(200), 10 + random.int(200), i),
        )
        for (const batch of microBatches<PairItem>(items, tokensOf, 4096)) {
          const { rows, length, predictors } = packItems([batch], { ...training(), ...(xla && { xla }) }) as Packed
          shapes.add([rows, length, predictors.length].join())
        }
      }
      return shapes.size
    }
    // 1 to 8 rows of at most 718 tokens are 6 times 8 buckets, of which most never meet.
    expect(shapesOf(true)).toBeLessThanOrEqual(6 * 8)
    expect(shapesOf(false)).toBeGreaterThan(300)
  })
})
