import type { Tensor1D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { pack, responseLogProbs } from "../../lib/model/logprobs"
import { bind, type Lora } from "../../lib/model/lora"
import { train } from "../../lib/train/loop"
import {
  type PreferenceOptions,
  preferenceDefaults,
  preferenceLoss,
  preferenceLosses,
  sftLoss,
  sumByResponse,
} from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { ln2, ln3, simpleOdds } from "../support/pair-scores"
import { free, setting } from "../support/setting"
import { preferring, stepGradients } from "../support/step"
import { largestGap, randomIds, randomValues, tensorsLeft } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

const { log, sqrt } = Math
const evaluate = (options: Partial<PreferenceOptions>) =>
  tf.tidy(() => {
    const result = preferenceLoss(simpleOdds(), { ...preferenceDefaults, beta: 0.5, ...options })
    return {
      losses: [...result.losses.dataSync()],
      chosen: [...result.chosenRewards.dataSync()],
      rejected: [...result.rejectedRewards.dataSync()],
    }
  })

describe("a preference loss", () => {
  it.each<[string, Partial<PreferenceOptions>, [number, number]]>([
    // -log σ
    ["dpo", { loss: "dpo" }, [log(4 / 3), ln3]],
    // a quarter of the pairs is taken the other way round: 3/4 · -log σ(x) + 1/4 · -log σ(-x)
    ["cDPO", { labelSmoothing: 0.25 }, [0.75 * log(4 / 3) + 0.25 * log(4), 0.75 * ln3 + 0.25 * log(1.5)]],
    // (s_c / tokens - s_r / tokens - 1 / 2β)², 1 / 2β = 1: ln 3 / 4 + ln 3 / 3, and -3/2 ln 2 + 1/2 ln 2
    ["ipo", { loss: "ipo" }, [((7 / 12) * ln3 - 1) ** 2, (ln2 + 1) ** 2]],
    // max(0, 1 - margin): ln 3 is beyond 1
    ["hinge", { loss: "hinge" }, [0, 1 + ln2]],
    // σ(β (ln 1/2 - ln 1/3) - γ) with γ = β ln 3/2 is 1/2; the other way round it is σ(-ln 3/2) = 2/5
    ["simpo", { loss: "simpo", beta: 9, simpoBeta: 0.5, simpoMargin: 0.5 * log(1.5) }, [ln2, log(2.5)]],
    // odds of 1/2 and 1/3 are 1 and 1/2: σ(ln 2) = 2/3 and σ(-ln 2) = 1/3; the SFT part is -mean log-prob of chosen
    ["orpo", { loss: "orpo" }, [ln2 + 0.5 * log(1.5), ln3 + 0.5 * ln3]],
    // β · 7/12 ln 3 and β · -ln 2: -log σ(x) = log(1 + e^-x)
    ["length-normalised dpo", { lengthNormalised: true }, [log(1 + 3 ** (-7 / 24)), log(1 + sqrt(2))]],
    // dpo - 2 · mean log-prob of chosen
    ["dpo with an SFT term", { sftWeight: 2 }, [log(4 / 3) + 2 * ln2, ln3 + 2 * ln3]],
  ])("%s is what its equation gives by hand", (_, options, expected) => {
    expect(largestGap(evaluate(options).losses, expected)).toBeLessThan(2e-6)
  })

  it("logs the rewards that it compares", () => {
    // β s, per token where length-normalised; for SimPO and ORPO β · mean log-prob
    const dpo = evaluate({})
    expect(largestGap(dpo.chosen, [ln3 / 2, -1.5 * ln2])).toBeLessThan(1e-6)
    expect(largestGap(dpo.rejected, [-ln3 / 2, -ln2 / 2])).toBeLessThan(1e-6)
    const normalised = evaluate({ lengthNormalised: true })
    expect(largestGap(normalised.chosen, [ln3 / 8, -0.75 * ln2])).toBeLessThan(1e-6)
    const simpo = evaluate({ loss: "simpo", beta: 9, simpoBeta: 0.5 })
    expect(largestGap(simpo.rejected, [-ln3 / 2, -ln2 / 2])).toBeLessThan(1e-6)
  })

  it("takes a margin within rounding of 0 for no preference", () => {
    // β · s of 1e-6 nats beside log-probs of some nats is what another order of sums gives; 1e-3 nats is a preference
    const ordered = (chosen: number) =>
      tf.tidy(() => [
        ...preferenceLoss(
          { ...simpleOdds(), chosen: tf.tensor1d([chosen, -chosen]), rejected: tf.tensor1d([0, 0]) },
          preferenceDefaults,
        ).ordered.dataSync(),
      ])
    expect(ordered(0)).toEqual([0, 0])
    expect(ordered(1e-6)).toEqual([0, 0])
    expect(ordered(1e-3)).toEqual([1, 0])
  })

  it("stays finite where a margin is far out", () => {
    const far = () => ({ ...simpleOdds(), chosen: tf.tensor1d([-2000, 2000]) })
    const losses = tf.tidy(() => [...preferenceLoss(far(), { ...preferenceDefaults, beta: 1 }).losses.dataSync()])
    expect(losses[0]! / (2000 - ln3)).toBeCloseTo(1, 6)
    expect(losses[1]).toBeCloseTo(0, 6)
    const slope = tf.tidy(() => {
      const f = (x: Tensor1D) =>
        tf.sum(preferenceLoss({ ...far(), chosen: x }, { ...preferenceDefaults, beta: 1 }).losses)
      return [
        ...tf
          .grad((x) => f(x as Tensor1D))(tf.tensor1d([-2000, 2000]))
          .dataSync(),
      ]
    })
    expect(largestGap(slope, [-1, 0])).toBeLessThan(1e-6)
  })
})

describe("the supervised loss", () => {
  it("is the weighted sum of the negative log-probs", () => {
    const loss = tf.tidy(() => sftLoss(tf.tensor1d([-1, -2, -4]), tf.tensor1d([0.5, 0.25, 0])).dataSync()[0])
    expect(loss).toBe(1)
  })
})

describe("sumByResponse", () => {
  it("adds weighted values of the tokens of each response, in any order, and 0 for one without tokens", () => {
    const sums = tf.tidy(() => [
      ...sumByResponse(tf.tensor1d([1, 10, 100, 1000]), Int32Array.from([1, 0, 1, 0]), [1, 0.5, 2, 1], 3).dataSync(),
    ])
    expect(sums).toEqual([1005, 201, 0])
  })
})

const pair = (name: string, prompt: number, chosen: number, rejected: number): PairItem => ({
  prompt: randomIds(prompt, name, "prompt"),
  chosen: randomIds(chosen, name, "chosen"),
  rejected: randomIds(rejected, name, "rejected"),
  chosenWeights: Array.from(randomValues(chosen, 1, name, "cw"), (w) => 1 + w),
  rejectedWeights: Array.from(randomValues(rejected, 1, name, "rw"), (w) => 1 + w),
})
const pairs = [pair("a", 4, 6, 3), pair("b", 7, 2, 5)]

describe("a step of preference training", () => {
  it("has the loss ln 2 and zero rewards under a fresh adapter, whatever the weights", async () => {
    const both = setting(false)
    const items = await withReference(both.model, pairs, 4096)
    const { loss, grads, logs } = await stepGradients({ ...both, ...preferring(preferenceDefaults) }, items)
    expect(Math.abs(loss - ln2)).toBeLessThan(1e-6)
    for (const name of ["chosen_reward", "rejected_reward", "margin", "accuracy"]) expect(logs[name]).toBeCloseTo(0, 6)
    tf.dispose(grads)
    free(both)
  })

  it("with weights all one is DPO, computed from four sums of log-probs", async () => {
    const both = setting(true)
    const sum = (lora: Lora | null, prompt: readonly number[], response: readonly number[]) =>
      tf.tidy(() => {
        const batch = pack([{ prompt, responses: [response] }])
        return tf.sum(responseLogProbs(bind(both.model, { lora }), batch)).dataSync()[0]!
      })
    const beta = 0.7
    const expected = pairs.map(({ prompt, chosen, rejected }) => {
      const gap = (response: readonly number[]) => sum(both.lora, prompt, response) - sum(null, prompt, response)
      return Math.log1p(Math.exp(-beta * (gap(chosen) - gap(rejected))))
    })
    const ones = pairs.map((item) => ({
      ...item,
      chosenWeights: item.chosen.map(() => 1),
      rejectedWeights: item.rejected.map(() => 1),
    }))
    const dpo = preferring({ ...preferenceDefaults, beta })
    const { loss, grads } = await stepGradients({ ...both, ...dpo }, await withReference(both.model, ones, 4096))
    expect(Math.abs(loss - (expected[0]! + expected[1]!) / 2)).toBeLessThan(1e-5)
    expect(Math.abs(expected[0]! - ln2)).toBeGreaterThan(0.01) // the adapter does something
    tf.dispose(grads)
    free(both)
  })

  it("moves the adapter alone, so the reference is the same afterwards", async () => {
    const both = setting(false)
    const before = await withReference(both.model, pairs, 4096)
    await train({
      ...both,
      ...preferring(preferenceDefaults),
      batches: { steps: 3, at: () => before },
      lr: 0.05,
      warmup: 0,
    })
    expect(await withReference(both.model, pairs, 4096)).toEqual(before)
    const { loss, grads } = await stepGradients({ ...both, ...preferring(preferenceDefaults) }, before)
    expect(loss).toBeLessThan(ln2 - 0.01)
    tf.dispose(grads)
    free(both)
  })

  it("keeps reference log-probs that are given", async () => {
    const both = setting(false)
    const given = { ...pairs[0]!, chosenReference: pairs[0]!.chosen.map(() => -1), rejectedReference: [-2, -2, -2] }
    const [first, second] = await withReference(both.model, [given, pairs[1]!], 4096)
    expect(first).toBe(given)
    expect(second!.chosenReference).toHaveLength(2)
    free(both)
  })

  // tdpo2 holds a part of its loss constant, so its gradient is none of the loss: see tdpo.test.ts
  const smooth = preferenceLosses.filter((loss) => loss !== "tdpo2")
  it.each(smooth)("has the gradient of %s that finite differences give", async (loss) => {
    const both = setting(true)
    const options = { ...preferenceDefaults, loss, beta: 0.3, labelSmoothing: 0.1, sftWeight: 0.2 }
    const items = await withReference(both.model, pairs, 4096)
    const slope = () => stepGradients({ ...both, ...preferring(options) }, items)
    const { grads } = await slope()
    // along the gradient itself the derivative is its norm: (L(p + h u) - L(p - h u)) / 2h with u = g / |g|
    const norm = Math.sqrt(Object.values(grads).reduce((n, g) => n + tf.tidy(() => g.square().sum().dataSync()[0]!), 0))
    const start = { ...both.lora.params }
    const lossAt = async (h: number) => {
      const moved = Object.fromEntries(
        Object.entries(start).map(([name, p]) => [name, tf.tidy(() => tf.add(p, tf.mul(grads[name]!, h / norm)))]),
      )
      both.lora.params = moved
      const result = await slope()
      tf.dispose([result.grads, moved])
      return result.loss
    }
    const h = 0.002
    const measured = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h)
    expect(measured / norm).toBeCloseTo(1, 2)
    both.lora.params = start
    tf.dispose(grads)
    free(both)
  })

  it("leaves no tensors behind but the gradients", async () => {
    const both = setting(true)
    const left = await tensorsLeft(async () => {
      const items = await withReference(both.model, pairs, 10)
      const { grads } = await stepGradients({ ...both, ...preferring(preferenceDefaults), tokenBudget: 1 }, items)
      tf.dispose(grads)
    })
    expect(left).toBe(0)
    free(both)
  })
})
