import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { CheckpointError, StoppedError } from "../../lib/errors"
import { evenBatches, microBatches } from "../../lib/model/batch"
import { initLora, type Lora } from "../../lib/model/lora"
import type { Model, Params } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { rng } from "../../lib/rng"
import { epochs, type StepLog, type TrainOptions, train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import { type PairItem, type PreferenceObjective, type SftObjective, tokensOf } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { preferring, stepGradients } from "../support/step"
import { largestGap, randomIds, tensorsLeft, tinyConfig } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "loop-"))
let model: Model
let items: PairItem[]

beforeAll(async () => {
  await useBackend()
  model = initModel(tinyConfig(), 3, 0.2)
  const random = rng("lengths")
  const pairs = Array.from({ length: 8 }, (_, i): PairItem => {
    const [chosen, rejected] = [randomIds(2 + random.int(6), i, "c"), randomIds(2 + random.int(6), i, "r")]
    const weights = (ids: number[]) => ids.map((_, t) => (t % 3) / 2)
    return {
      prompt: randomIds(3 + random.int(8), i, "p"),
      chosen,
      rejected,
      chosenWeights: weights(chosen),
      rejectedWeights: weights(rejected),
    }
  })
  items = await withReference(model, pairs, 4096)
})
afterAll(() => rmSync(dir, { recursive: true }))

const freshLora = () => initLora(model.config, { rank: 4, alpha: 8, seed: 5 })
const objective = preferring({ ...preferenceDefaults, beta: 1 })
const values = (params: Params) =>
  Object.fromEntries(Object.entries(params).map(([name, p]) => [name, [...p.dataSync()]]))

/** A run of six steps of four pairs: its log and the adapter that it ends with. */
async function run(changes: Partial<TrainOptions<PreferenceObjective>> = {}, lora: Lora = freshLora()) {
  const logs: StepLog[] = []
  await train({
    model,
    lora,
    ...objective,
    batches: epochs(items, { epochs: 3, batchSize: 4, seed: 7 }),
    lr: 0.01,
    onStep: (log) => void logs.push(log),
    ...changes,
  })
  const end = values(lora.params)
  tf.dispose(lora.params)
  return { losses: logs.map(({ loss }) => loss), end, logs }
}

const furthest = (a: Record<string, number[]>, b: Record<string, number[]>) =>
  Math.max(...Object.keys(a).map((name) => largestGap(a[name]!, b[name]!)))

describe("a step", () => {
  it.each([
    ["the adapter", () => freshLora()],
    ["all weights", () => undefined],
  ])("in eight micro-batches of one has the loss and gradients of one batch of eight, training %s", async (_, make) => {
    const lora = make()
    const step = (tokenBudget: number) => stepGradients({ model, lora, ...objective, tokenBudget }, items)
    const [whole, parts] = [await step(Number.POSITIVE_INFINITY), await step(1)]
    expect(Math.abs(whole.loss - parts.loss)).toBeLessThan(1e-6)
    const [a, b] = [values(whole.grads), values(parts.grads)]
    const largest = Math.max(...Object.values(a).flatMap((g) => g.map(Math.abs)))
    expect(largest).toBeGreaterThan(0.01)
    expect(furthest(a, b) / largest).toBeLessThan(1e-5)
    expect(whole.logs.margin).toBeCloseTo(parts.logs.margin!, 5)
    tf.dispose([whole.grads, parts.grads, lora?.params ?? []])
  })

  it("counts padded tokens", async () => {
    const lengths = items.map(tokensOf)
    const lora = freshLora()
    const step = (tokenBudget: number) => stepGradients({ model, lora, ...objective, tokenBudget }, items)
    const [whole, parts] = [await step(Number.POSITIVE_INFINITY), await step(1)]
    expect(whole.tokens).toBe(8 * Math.max(...lengths))
    expect(parts.tokens).toBe(lengths.reduce((a, b) => a + b))
    tf.dispose([whole.grads, parts.grads, lora.params])
  })
})

describe("a run", () => {
  it("gives the same with the same seed, however it is cut into micro-batches", async () => {
    const [a, b, c] = [await run(), await run(), await run({ tokenBudget: 1 })]
    expect(a.logs.map(({ step, steps }) => [step, steps])).toEqual([1, 2, 3, 4, 5, 6].map((step) => [step, 6]))
    expect(largestGap(a.losses, b.losses)).toBeLessThan(1e-6)
    expect(furthest(a.end, b.end)).toBeLessThan(1e-6)
    expect(largestGap(a.losses, c.losses)).toBeLessThan(1e-4)
    expect(furthest(a.end, c.end)).toBeLessThan(1e-4)
    expect(a.losses[5]).toBeLessThan(a.losses[0]! - 0.01)
  })

  it("with another seed deals the pairs in another order", async () => {
    const [a, b] = [await run(), await run({ batches: epochs(items, { epochs: 3, batchSize: 4, seed: 8 }) })]
    expect(furthest(a.end, b.end)).toBeGreaterThan(1e-3)
  })

  it("goes on after a stop as if nothing had happened", async () => {
    const whole = await run()
    const checkpoint = { file: join(dir, "stopped.safetensors"), every: 100, key: "a" }
    const stop = new AbortController()
    const losses: number[] = []
    const onStep = (log: StepLog) => {
      losses.push(log.loss)
      if (log.step === 4) stop.abort()
    }
    const lora = freshLora()
    await expect(run({ checkpoint, onStep, signal: stop.signal }, lora)).rejects.toThrow(StoppedError)
    tf.dispose(lora.params)
    const rest = await run({ checkpoint })
    expect(rest.logs.map(({ step }) => step)).toEqual([5, 6])
    expect(largestGap([...losses, ...rest.losses], whole.losses)).toBeLessThan(1e-6)
    expect(furthest(rest.end, whole.end)).toBeLessThan(1e-6)
  })

  it("repeats what was lost when it was killed after a checkpoint, and ends the same", async () => {
    const whole = await run()
    const checkpoint = { file: join(dir, "killed.safetensors"), every: 2, key: "a" }
    const seen = join(dir, "as-after-step-4.safetensors")
    // at step 5 the file on disk is that of step 4; a kill would leave it so
    const onStep = ({ step }: StepLog) => {
      expect(existsSync(checkpoint.file)).toBe(step > 2)
      if (step === 5) copyFileSync(checkpoint.file, seen)
    }
    await run({ checkpoint, onStep })
    copyFileSync(seen, checkpoint.file)
    const rest = await run({ checkpoint })
    expect(rest.logs.map(({ step }) => step)).toEqual([5, 6])
    expect(largestGap(rest.losses, whole.losses.slice(4))).toBeLessThan(1e-6)
    expect(furthest(rest.end, whole.end)).toBeLessThan(1e-6)
    // and a finished run has nothing left to do, but gives its result
    const again = await run({ checkpoint })
    expect(again.logs).toEqual([])
    expect(again.end).toEqual(rest.end)
  })

  it("keeps no checkpoint when it fails for another reason than a stop", async () => {
    const checkpoint = { file: join(dir, "failed.safetensors"), every: 100, key: "a" }
    const lora = freshLora()
    const onStep = () => {
      throw new RangeError("a defect")
    }
    await expect(run({ checkpoint, onStep }, lora)).rejects.toThrow("a defect")
    expect(existsSync(checkpoint.file)).toBe(false)
    tf.dispose(lora.params)
  })

  it("ends where the loss is no longer a number, and keeps the last good checkpoint", async () => {
    const checkpoint = { file: join(dir, "diverged.safetensors"), every: 1, key: "a" }
    const lora = freshLora()
    const broken = { ...items[0]!, chosenWeights: items[0]!.chosen.map(() => Number.NaN) }
    const batches = { steps: 3, at: (step: number) => [step < 2 ? items[0]! : broken] }
    const left = await tensorsLeft(async () => {
      await expect(run({ checkpoint, batches }, lora)).rejects.toThrow(/got NaN at step 3; lower lr/)
    })
    expect(left).toBe(0)
    tf.dispose(lora.params)
    const steps = (await run({ checkpoint, batches: { steps: 3, at: () => [items[0]!] } })).logs.map(({ step }) => step)
    expect(steps).toEqual([3])
  })

  it("refuses the checkpoint of a run with other settings and leaves the adapter as it was", async () => {
    const file = join(dir, "other.safetensors")
    await run({ checkpoint: { file, every: 100, key: "rank 4" } })
    const lora = freshLora()
    const start = values(lora.params)
    const left = await tensorsLeft(async () => {
      const failed = run({ checkpoint: { file, every: 100, key: "rank 8" } }, lora)
      await expect(failed).rejects.toThrow(CheckpointError)
      await expect(failed).rejects.toThrow(/other settings or another version; delete it/)
    })
    expect(left).toBe(0)
    expect(values(lora.params)).toEqual(start)
    tf.dispose(lora.params)
  })

  it("leaves as many tensors as there were, also when it is stopped", async () => {
    const left = await tensorsLeft(async () => {
      await run()
      const lora = freshLora()
      await expect(run({ signal: AbortSignal.abort() }, lora)).rejects.toThrow(StoppedError)
      tf.dispose(lora.params)
    })
    expect(left).toBe(0)
  })

  it("of three hundred steps leaves as many tensors as there were", async () => {
    const tiny = initModel(
      tinyConfig({ layers: 1, rope: [{ theta: 10000, scaling: { type: "none" } }], window: [null] }),
      3,
    )
    const losses: number[] = []
    const left = await tensorsLeft(() =>
      train<SftObjective>({
        model: tiny,
        objective: { kind: "sft", weighting: "even" },
        batches: { steps: 300, at: () => [{ prompt: [1], responses: [[2, 3]] }] },
        lr: 0.05,
        onStep: ({ loss }) => void losses.push(loss),
      }),
    )
    expect(left).toBe(0)
    expect(losses.at(-1)).toBeLessThan(1e-3)
    tf.dispose(tiny.params)
  })

  it("of supervised training has the mean cross-entropy of the step's tokens as its loss", async () => {
    // a model whose weights are all 0 gives every token 1 / 40
    const zero: Model = { config: model.config, params: {} }
    for (const [name, p] of Object.entries(model.params)) zero.params[name] = tf.zeros(p.shape)
    const lora = freshLora()
    const losses: number[] = []
    const examples = items.map(({ prompt, chosen }) => ({ prompt, responses: [chosen] }))
    await train<SftObjective>({
      model: zero,
      lora,
      objective: { kind: "sft", weighting: "even" },
      batches: epochs(examples, { epochs: 1, batchSize: 3, seed: 1 }),
      lr: 0.01,
      tokenBudget: 20,
      onStep: ({ loss }) => void losses.push(loss),
    })
    expect(largestGap(losses, [Math.log(40), Math.log(40), Math.log(40)])).toBeLessThan(1e-5)
    tf.dispose([zero.params, lora.params])
  })
})

describe("epochs", () => {
  const numbers = Array.from({ length: 10 }, (_, i) => i)

  it("deals every item once an epoch, the last batch short, each epoch in another order", () => {
    const batches = epochs(numbers, { epochs: 3, batchSize: 4, seed: 1 })
    expect(batches.steps).toBe(9)
    const orders = [0, 1, 2].map((epoch) => [0, 1, 2].map((k) => batches.at(3 * epoch + k)))
    for (const order of orders) {
      expect(order.map(({ length }) => length)).toEqual([4, 4, 2])
      expect(order.flat().sort((a, b) => a - b)).toEqual(numbers)
    }
    expect(new Set(orders.map((order) => order.flat().join())).size).toBe(3)
  })

  it("gives a step the same items whichever steps were asked for before", () => {
    const make = () => epochs(numbers, { epochs: 3, batchSize: 4, seed: 1 })
    const forth = make()
    const steps = [0, 1, 2, 3, 4, 5, 6, 7, 8]
    const there = steps.map((step) => forth.at(step))
    const back = make()
    expect([...steps].reverse().map((step) => back.at(step))).toEqual([...there].reverse())
    expect(make().at(7)).toEqual(there[7])
  })

  it("may end within an epoch", () => {
    expect(epochs(numbers, { epochs: 0.5, batchSize: 4, seed: 1 }).steps).toBe(2)
  })
})

describe("microBatches", () => {
  const random = rng("micro")
  const lengths = Array.from({ length: 50 }, () => 1 + random.int(100))

  it("keep every item and stay within the budget, but for an item that alone exceeds it", () => {
    for (const budget of [1, 60, 150, 1000]) {
      const batches = microBatches(lengths, (n) => n, budget)
      expect(batches.flat().sort((a, b) => a - b)).toEqual([...lengths].sort((a, b) => a - b))
      for (const batch of batches) {
        if (batch.length > 1) expect(batch.length * Math.max(...batch)).toBeLessThanOrEqual(budget)
      }
    }
    expect(microBatches(lengths, (n) => n, 1)).toHaveLength(50)
    expect(microBatches(lengths, (n) => n, Number.POSITIVE_INFINITY)).toHaveLength(1)
  })

  it("put items of similar lengths together", () => {
    expect(microBatches([5, 1, 5, 1, 2], (n) => n, 10)).toEqual([
      [5, 5],
      [2, 1, 1],
    ])
  })
})

describe("evenBatches", () => {
  const random = rng("even")
  const lengths = Array.from({ length: 32 }, () => 60 + random.int(100))
  const padded = (batch: readonly number[]) => batch.length * Math.max(...batch)

  it("are a power of two, at least as many as asked for, of nearly one size and within the budget", () => {
    for (const [budget, parts, wanted] of [
      [Number.POSITIVE_INFINITY, 1, 1],
      [Number.POSITIVE_INFINITY, 2, 2],
      [2500, 2, 2],
      [1500, 2, 4],
      [700, 2, 8],
    ] as const) {
      const batches = evenBatches(lengths, (n) => n, budget, parts)
      expect(batches).toHaveLength(wanted)
      expect(batches.flat().sort((a, b) => a - b)).toEqual([...lengths].sort((a, b) => a - b))
      const sizes = batches.map(padded)
      expect(Math.max(...sizes)).toBeLessThanOrEqual(budget)
      expect(Math.min(...sizes) / Math.max(...sizes)).toBeGreaterThan(0.6)
    }
  })

  it("are no more than items", () => {
    expect(evenBatches([7], (n) => n, 4096, 2)).toEqual([[7]])
    expect(evenBatches([5, 5, 5], (n) => n, 1, 2)).toEqual([[5], [5], [5]])
  })
})
