import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { currentDevice, type Device, setDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { pack, padded, responseLogProbs, unpadded } from "../../lib/model/logprobs"
import { bind, fromAdapter, release } from "../../lib/model/lora"
import { loadModel, saveModel } from "../../lib/model/weights"
import { training } from "../support/plans"
import { backends, cuda, fixture, randomIds } from "../support/tensors"

const families = ["llama", "mistral", "qwen2", "qwen3", "gemma3"]
/** Those whose bf16 weights are tried with XLA too, which compiles for up to a minute. */
const byXla = ["llama", "qwen3"]

/** ‖a - b‖ / ‖a‖ */
function distance(a: Float32Array, b: Float32Array): number {
  const norm = (x: (i: number) => number) => Math.sqrt(a.reduce((sum, _, i) => sum + x(i) ** 2, 0))
  return norm((i) => a[i]! - b[i]!) / norm((i) => a[i]!)
}

/** Log-probs of a batch, and all gradients by the adapter in one list; of a folder with the weights if there is one. */
function computed(
  name: string,
  graphs: boolean,
  { weights = fixture(name), asBf16 = false } = {},
): [Float32Array, Float32Array] {
  const config = loadConfig(fixture(name))
  const model = loadModel(weights, config, { asBf16 })
  const lora = fromAdapter(readAdapter(join(fixture(name), "adapter"), config))
  const bound = bind(model, { lora, plan: training({ graphs }, { lora: "merged" }) })
  expect(bound.plan.layers).toBe(graphs ? "graph" : "eager")
  const batch = pack(
    [0, 1, 2].map((i) => ({
      prompt: randomIds(21 + i, i, "p"),
      responses: [randomIds(9 + 2 * i, i, "c"), randomIds(12, i, "r")],
    })),
    undefined,
    bound.plan,
  )
  const factors = padded(batch, [...batch.ids.keys()])
  const results = tf.tidy(() => {
    const logProbs = () => responseLogProbs(bound, batch)
    const loss = () => tf.sum(tf.mul(logProbs(), factors)).asScalar()
    const { grads } = tf.engine().gradients(loss, Object.values(lora.params))
    return [logProbs(), tf.concat(grads.map((grad) => tf.reshape(grad!, [-1])))]
  })
  const [values, grads] = results.map((tensor) => tensor.dataSync() as Float32Array)
  release(bound)
  tf.dispose([model.params, lora.params, results])
  return [unpadded(batch, values!), grads!]
}

describe.runIf(backends[0] === "tensorflow" && !cuda)("the graph of a family", () => {
  let device: Device
  beforeEach(async () => {
    await useBackend()
    device = currentDevice()
  })
  afterEach(() => setDevice(device))

  // Distances to the tape as norms. Kernels give the same bits. Plain operations attend in other blocks by graph than
  // by tape, which adds up in another order: gradients then differ by what two tapes differ by, that of kernels and
  // that of operations. Where a window hides the first tokens, as mistral's does here, operations are called one by one
  // instead. For XLA attention is whole, and lengths are in buckets.
  it.each(families)(
    "of %s gives what its tape gives, with our kernels and without, and compiled by XLA",
    (name) => {
      const byKernels = computed(name, false)
      expect(computed(name, true)).toEqual(byKernels)
      setDevice({ ...device, kernels: "none", products: "library" })
      const tape = computed(name, false)
      const gaps = (other: typeof tape) => tape.map((values, i) => distance(values, other[i]!))
      const [tapes, plain] = [gaps(byKernels), gaps(computed(name, true))]
      setDevice({ ...device, kernels: "none", products: "library", xla: true })
      const xla = gaps(computed(name, true))
      if (process.env.MUSC_SHOW) console.log(name, { tapes, plain, xla })
      expect(plain[0]).toBeLessThan(1e-6)
      expect(plain[1]).toBeLessThan(Math.max(1e-6, 2 * tapes[1]!))
      expect(xla[0]).toBeLessThan(1e-5)
      expect(xla[1]).toBeLessThan(Math.max(1e-5, 2 * tapes[1]!))
    },
    300_000,
  ) // XLA compiles for a minute

  // In f32 the same values are multiplied, but LoRA stands beside the matrices: one difference more between sums than
  // two tapes have. In bf16 a product rounds its factors and its result to 8 binary digits, by 2^-8 of themselves at
  // most, instead of 24: what f32 is off by then grows 2^16 times at most.
  it.each(families)(
    "of %s gives with weights in bf16 what it gives with floats of the same values",
    async (name) => {
      const weights = mkdtempSync(join(tmpdir(), "musc-families-"))
      try {
        const config = loadConfig(fixture(name))
        const model = loadModel(fixture(name), config)
        await saveModel(join(weights, "model.safetensors"), model, "BF16")
        tf.dispose(model.params)
        const before = tf.memory().numTensors
        const byKernels = computed(name, false, { weights })
        const plain: Device = { ...device, kernels: "none", products: "library" }
        setDevice(plain)
        const floats = computed(name, false, { weights })
        const gaps = (other: typeof floats) => floats.map((values, i) => distance(values, other[i]!))
        const inBf16 = (graphs: boolean, changes: Partial<Device> = {}) => {
          setDevice({ ...plain, ...changes })
          return gaps(computed(name, graphs, { weights, asBf16: true }))
        }
        const tapes = gaps(byKernels)
        const ways = (changes: Partial<Device>) => [
          inBf16(false, changes),
          inBf16(true, changes),
          ...(byXla.includes(name) ? [inBf16(true, { ...changes, xla: true })] : []),
        ]
        const [wholes, halves] = [ways({}), ways({ precision: "bf16" })]
        if (process.env.MUSC_SHOW) console.log(name, { tapes, wholes, halves })
        wholes.forEach(([value, gradient], i) => {
          expect(value).toBeLessThan(1e-6)
          expect(gradient).toBeLessThan(Math.max(1e-5, 4 * tapes[1]!))
          const [half, halfGradient] = halves[i]!
          expect(half).toBeGreaterThan(2 ** -12) // it is bf16 that multiplies
          expect(half).toBeLessThan(2 ** 16 * Math.max(2e-7, value!))
          expect(halfGradient).toBeLessThan(2 ** 16 * Math.max(1e-6, gradient!))
        })
        expect(tf.memory().numTensors - before).toBe(0)
      } finally {
        rmSync(weights, { recursive: true })
      }
    },
    300_000,
  )
})
