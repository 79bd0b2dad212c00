import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { fromAdapter, type Lora } from "../../lib/model/lora"
import type { Model, Params } from "../../lib/model/transformer"
import { initModel, loadModel } from "../../lib/model/weights"
import { recomputed } from "../../lib/ops/gradient"
import { preferenceDefaults } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { training } from "../support/plans"
import { preferring, stepGradients } from "../support/step"
import { fixture, largestGap, randomIds, tensorsLeft, tinyConfig } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

const objective = preferring({ ...preferenceDefaults, beta: 1 })
const pairs = (n: number, length: number): PairItem[] =>
  Array.from({ length: n }, (_, i) => {
    const [prompt, chosen, rejected] = ["p", "c", "r"].map((side) => randomIds(length, i, side)) as [
      number[],
      number[],
      number[],
    ]
    return { prompt, chosen, rejected, chosenWeights: chosen.map(() => 1), rejectedWeights: rejected.map(() => 0.5) }
  })
const values = (params: Params) => Object.values(params).flatMap((p) => [...p.dataSync()])

describe("gradient checkpointing", () => {
  // gemma3 has norms on queries, keys and behind its blocks, windows, GeGLU; qwen2 has biases
  it.each([
    ["llama", "the adapter"],
    ["gemma3", "the adapter"],
    ["qwen2", "the adapter"],
    ["llama", "all weights"],
    ["gemma3", "all weights"],
    ["qwen2", "all weights"],
  ])("gives %s the loss and gradients that it has without, training %s", async (name, what) => {
    const dir = fixture(name)
    const config = loadConfig(dir)
    const model = loadModel(dir, config)
    const lora: Lora | undefined =
      what === "the adapter" ? fromAdapter(readAdapter(join(dir, "adapter"), config)) : undefined
    const items = await withReference(model, pairs(3, 7), 4096)
    const step = (checkpointing: boolean) =>
      stepGradients({ model, lora, ...objective, plan: training({ adapter: !!lora, checkpointing }) }, items)
    const [plain, again] = [await step(false), await step(true)]
    expect(Object.keys(again.grads)).toEqual(Object.keys(plain.grads))
    expect(again.loss).toBeCloseTo(plain.loss, 6)
    const [a, b] = [values(plain.grads), values(again.grads)]
    const largest = Math.max(...a.map(Math.abs))
    expect(largest).toBeGreaterThan(1e-3)
    expect(largestGap(a, b) / largest).toBeLessThan(1e-5)
    tf.dispose([plain.grads, again.grads, model.params, lora?.params ?? []])
  })

  it("holds less than a quarter as much for each further layer, and leaves no tensors behind", async () => {
    const items = pairs(8, 32).map((pair) => ({
      ...pair,
      chosenReference: Array(32).fill(0),
      rejectedReference: Array(32).fill(0),
    }))
    /** Bytes of a step at its highest, above what the model takes. */
    const peak = async (layers: number, checkpointing: boolean): Promise<number> => {
      const plain = { theta: 10000, scaling: { type: "none" as const } }
      const kinds = { rope: Array(layers).fill(plain), window: Array(layers).fill(null) }
      const model: Model = initModel(tinyConfig({ layers, ...kinds }), 3, 0.2)
      const before = tf.memory().numBytes
      const { peakBytes, result } = await tf.profile(async () => {
        tf.dispose(
          (await stepGradients({ model, ...objective, plan: training({ adapter: false, checkpointing }) }, items))
            .grads,
        )
        return tf.scalar(0)
      })
      tf.dispose([model.params, result])
      return peakBytes - before
    }
    const left = await tensorsLeft(async () => {
      const [kept, computed] = [await peak(6, false), await peak(6, true)]
      const [keptByTwo, computedByTwo] = [await peak(2, false), await peak(2, true)]
      expect(computed - computedByTwo).toBeLessThan((kept - keptByTwo) / 4)
    })
    expect(left).toBe(0)
  })
})

describe("recomputed", () => {
  it("gives the gradient of x² + 3x by the tensors in a tree", () => {
    const x = tf.tensor1d([1, -2, 0.5])
    const { value, grads } = tf.valueAndGrads((a) =>
      tf.sum(
        recomputed({ deep: [a!], frozen: tf.ones([3]), n: 3 }, ({ deep: [b], n }) =>
          tf.add(tf.square(b!), tf.mul(b!, n)),
        ),
      ),
    )([x])
    expect(value.dataSync()[0]).toBeCloseTo(1 + 4 + 0.25 + 3 - 6 + 1.5, 6)
    expect(largestGap(grads[0]!.dataSync(), [5, -1, 4])).toBeLessThan(1e-6)
  })
})
