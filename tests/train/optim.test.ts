import { readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import type { Params } from "../../lib/model/transformer"
import { flatten } from "../../lib/ops/optimizer"
import { adamDefaults, adamInit, adamStep, schedule } from "../../lib/train/optim"
import { backends, largestGap } from "../support/tensors"

// torch.optim.AdamW with clipping and transformers' cosine schedule: see tests/reference/make_optim.py.
const { settings, problem, trajectory } = JSON.parse(
  readFileSync(join(__dirname, "../fixtures/optim/expected.json"), "utf8"),
)

const part = (name: string, what: string) => tf.tensor(problem[name][what].data, problem[name][what].shape)
const names = Object.keys(problem)

describe.each(backends)("AdamW on %s", (backend) => {
  beforeAll(async () => {
    await useBackend(backend)
  })

  it("walks PyTorch's trajectory, with weight decay, clipped gradients and a warmed-up cosine", async () => {
    const options = {
      beta1: settings.beta1,
      beta2: settings.beta2,
      eps: settings.epsilon,
      weightDecay: settings.weight_decay,
      maxGradNorm: settings.max_norm,
    }
    const rate = schedule("cosine", settings.warmup_steps / settings.steps)
    const params: Params = Object.fromEntries(names.map((name) => [name, part(name, "start")]))
    let state = adamInit(params)
    const before = tf.memory().numTensors
    for (const [step, expected] of trajectory.entries()) {
      const lr = settings.lr * rate(step, settings.steps)
      expect(lr).toBeCloseTo(expected.lr, 12)
      // the loss Σ a/2 (w - c)² has the gradient a (w - c)
      const gradient = tf.tidy(() =>
        flatten(names.map((name) => tf.mul(part(name, "curvature"), tf.sub(params[name]!, part(name, "centre"))))),
      )
      const updated = await adamStep(params, gradient, state, lr, options)
      state = updated.state
      expect(updated.gradNorm / expected.gradient_norm).toBeCloseTo(1, 5)
      for (const name of names) expect(largestGap(params[name]!.dataSync(), expected.weights[name])).toBeLessThan(2e-6)
    }
    expect(state.step).toBe(settings.steps)
    expect(tf.memory().numTensors).toBe(before)
  })

  it("moves every parameter by the learning rate against its gradient in the first step", async () => {
    // m = .1 g, v = .001 g², both divided by 1 - beta: g / |g|
    const params: Params = { w: tf.tensor1d([1, 1, 1]) }
    const gradient = tf.tensor1d([4, -0.5, 0])
    const { state, gradNorm } = await adamStep(params, gradient, adamInit(params), 0.25, {
      ...adamDefaults,
      maxGradNorm: Infinity,
    })
    expect(largestGap(params.w!.dataSync(), [0.75, 1.25, 1])).toBeLessThan(1e-6)
    expect(gradNorm).toBeCloseTo(Math.sqrt(16.25), 5)
    tf.dispose([params, state.m, state.v])
  })
})

describe("A step of AdamW", () => {
  beforeAll(async () => {
    await useBackend()
  })

  it("keeps neither tensors nor memory", async () => {
    const size = 2 ** 22
    const params: Params = { w: tf.zeros([size]) }
    let state = adamInit(params)
    const step = async () => {
      ;({ state } = await adamStep(params, tf.ones([size]), state, 0.25, adamDefaults))
    }
    for (let i = 0; i < 3; i++) await step()
    const [tensors, resident] = [tf.memory().numTensors, process.memoryUsage.rss()]
    for (let i = 0; i < 20; i++) await step()
    expect(tf.memory().numTensors).toBe(tensors)
    // three vectors a step would be 20 · 3 · 16 MiB
    expect(process.memoryUsage.rss() - resident).toBeLessThan(300 * 2 ** 20)
    tf.dispose([params, state.m, state.v])
  })
})

describe("a schedule", () => {
  it("rises from 0 in equal steps and reaches the peak when the warm-up is over", () => {
    for (const shape of ["cosine", "linear", "constant", "plateau"] as const) {
      const rate = schedule(shape, 0.1)
      expect([0, 1, 5, 9, 10].map((step) => rate(step, 100))).toEqual([0, 0.1, 0.5, 0.9, 1])
    }
  })

  it("rounds the warm-up's steps up, as transformers does", () => {
    // .1 · 25 = 2.5 -> 3 steps
    expect([0, 1, 2, 3].map((step) => schedule("constant", 0.1)(step, 25))).toEqual([0, 1 / 3, 2 / 3, 1])
  })

  it("starts at the peak without a warm-up", () => {
    for (const shape of ["cosine", "linear", "constant", "plateau"] as const) expect(schedule(shape, 0)(0, 50)).toBe(1)
  })

  it("falls to 0 at the end, by half a cosine, in a line, or not at all", () => {
    const at = (shape: "cosine" | "linear" | "constant") =>
      [20, 40, 60, 80, 100].map((step) => schedule(shape, 0.2)(step, 100))
    // a quarter of the way down a cosine from 1 to 0 is (1 + cos 45°) / 2
    const quarter = (1 + Math.SQRT1_2) / 2
    expect(largestGap(at("cosine"), [1, quarter, 0.5, 1 - quarter, 0])).toBeLessThan(1e-12)
    expect(at("linear")).toEqual([1, 0.75, 0.5, 0.25, 0])
    expect(at("constant")).toEqual([1, 1, 1, 1, 1])
  })

  it("on a plateau stays at the peak for four fifths and falls in a line over the last", () => {
    const rate = schedule("plateau", 0.1)
    expect([10, 50, 80, 90, 95, 100].map((step) => rate(step, 100))).toEqual([1, 1, 1, 0.5, 0.25, 0])
    expect(rate(99, 100)).toBeGreaterThan(0)
  })
})
