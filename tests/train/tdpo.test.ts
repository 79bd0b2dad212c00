import type { Scalar, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { pack, responseStates } from "../../lib/model/logprobs"
import { bind, type Lora } from "../../lib/model/lora"
import type { Model } from "../../lib/model/transformer"
import { divergence } from "../../lib/ops/distribution"
import { train } from "../../lib/train/loop"
import { type PairScores, type PreferenceOptions, preferenceDefaults, preferenceLoss } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { ln2, ln3, ln6, simpleOdds } from "../support/pair-scores"
import { free, setting } from "../support/setting"
import { preferring, stepGradients } from "../support/step"
import { backends, largestGap, randomIds, randomValues, tensorsLeft } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

const { exp, log, log1p, sqrt } = Math
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

/*
 * The two pairs of `simpleOdds`. TDPO1 takes δ = β (D_r - D_c) from DPO's margin u = β (s_c - s_r); TDPO2 takes α δ.
 *            s chosen   s rejected   u        D chosen   D rejected   δ         u - δ
 *   first     ln 3       -ln 3        ln 3     2 ln 2     4 ln 2       ln 2      ln 3/2    σ = 3/5
 *   second   -3 ln 2     -ln 2       -ln 2     2 ln 6     0           -ln 6      ln 3      σ = 3/4
 * With α = 1/2: u - α δ = ln (3 / √2) and ln (√6 / 2).
 */
const divergences = { chosen: [2 * ln2, 2 * ln6], rejected: [4 * ln2, 0] }
const scores = (): PairScores => ({
  ...simpleOdds(),
  chosenDivergence: tf.tensor1d(divergences.chosen),
  rejectedDivergence: tf.tensor1d(divergences.rejected),
})
const options = (changes: Partial<PreferenceOptions>) => ({ ...preferenceDefaults, beta: 0.5, ...changes })
const losses = (changes: Partial<PreferenceOptions>) =>
  tf.tidy(() => [...preferenceLoss(scores(), options(changes)).losses.dataSync()])

describe("TDPO", () => {
  it.each<[string, Partial<PreferenceOptions>, [number, number]]>([
    ["tdpo1", { loss: "tdpo1" }, [log(5 / 3), log(4 / 3)]],
    // -log σ(x) = log(1 + e^-x)
    ["tdpo2 with α = 1/2", { loss: "tdpo2" }, [log(1 + sqrt(2) / 3), log(1 + 2 / sqrt(6))]],
    ["tdpo2 with α = 1 (tdpo1, seen from its value)", { loss: "tdpo2", tdpoAlpha: 1 }, [log(5 / 3), log(4 / 3)]],
    ["tdpo2 with α = 0 (DPO)", { loss: "tdpo2", tdpoAlpha: 0 }, [log(4 / 3), ln3]],
  ])("%s is what its equation gives by hand", (_, changes, expected) => {
    expect(largestGap(losses(changes), expected)).toBeLessThan(2e-6)
  })

  it("takes a gradient through both divergences, TDPO2 through that of the rejected answer alone", () => {
    // d(-log σ(x)) / dx = -σ(-x) with x = … + α β D_c - α β D_r; σ(-x) = 2/5 and 1/4 in tdpo1
    const slopes = (changes: Partial<PreferenceOptions>) =>
      tf.tidy(() => {
        const f = (chosenDivergence: Tensor1D, rejectedDivergence: Tensor1D) =>
          tf.sum(preferenceLoss({ ...scores(), chosenDivergence, rejectedDivergence }, options(changes)).losses)
        const given = [tf.tensor1d(divergences.chosen), tf.tensor1d(divergences.rejected)]
        const grads = tf.grads((c, r) => f(c as Tensor1D, r as Tensor1D) as Scalar)(given)
        return grads.map((grad) => [...grad.dataSync()])
      })
    const one = slopes({ loss: "tdpo1" })
    expect(largestGap(one[0]!, [-0.2, -0.125])).toBeLessThan(1e-6)
    expect(largestGap(one[1]!, [0.2, 0.125])).toBeLessThan(1e-6)
    const two = slopes({ loss: "tdpo2", tdpoAlpha: 1 })
    expect(two[0]!.map(Math.abs)).toEqual([0, 0])
    expect(largestGap(two[1]!, [0.2, 0.125])).toBeLessThan(1e-6)
  })

  it("logs the rewards that it compares, β (s + α D)", () => {
    const rewards = tf.tidy(() => {
      const { chosenRewards, rejectedRewards } = preferenceLoss(scores(), options({ loss: "tdpo2", tdpoAlpha: 0.25 }))
      return [chosenRewards, rejectedRewards].map((values) => [...values.dataSync()])
    })
    expect(largestGap(rewards[0]!, [0.5 * ln3 + 0.25 * ln2, -1.5 * ln2 + 0.25 * ln6])).toBeLessThan(1e-6)
    expect(largestGap(rewards[1]!, [-0.5 * ln3 + 0.5 * ln2, -0.5 * ln2])).toBeLessThan(1e-6)
  })
})

describe.each(backends)("divergence on %s", (backend) => {
  const [M, D, V] = [7, 8, 11]
  const uniform = (rows: number, name: string) => tf.tensor2d(randomValues(rows * D, 1, name), [rows, D])

  it.each([null, 2])("has the value and gradient of the plain formula, soft-capped at %s", async (softcap) => {
    const evaluate = (op: (h: Tensor2D, reference: Tensor2D, table: Tensor2D) => Tensor1D) =>
      tf.tidy(() => {
        const [h, reference, table] = [uniform(M, "h"), uniform(M, "reference"), uniform(V, "table")]
        const dy = tf.tensor1d(randomValues(M, 1, "dy"))
        const { value, grad } = tf.valueAndGrad((x) => op(x as Tensor2D, reference, table))(h, dy)
        return [value, grad].map((tensor) => tensor.dataSync() as Float32Array)
      })
    await useBackend("cpu")
    const expected = evaluate((h, reference, table) => {
      const logits = (x: Tensor2D) => {
        const raw = tf.matMul(x, table, false, true)
        return softcap ? tf.mul(tf.tanh(tf.div(raw, softcap)), softcap) : raw
      }
      const q = tf.softmax(logits(reference))
      return tf.sum(tf.mul(q, tf.sub(tf.log(q), tf.log(tf.softmax(logits(h))))), 1)
    })
    await useBackend(backend)
    const got = evaluate((h, reference, table) => divergence(h, () => reference, table, { softcap, chunk: 3 }))
    expect(largestGap(got[0]!, expected[0]!)).toBeLessThan(2e-6)
    expect(largestGap(got[1]!, expected[1]!)).toBeLessThan(4e-6)
    expect(Math.min(...expected[0]!)).toBeGreaterThan(0.01) // the distributions do differ
    await useBackend()
  })
})

const pair = (name: string, prompt: number, chosen: number, rejected: number): PairItem => ({
  prompt: randomIds(prompt, name, "prompt"),
  chosen: randomIds(chosen, name, "chosen"),
  rejected: randomIds(rejected, name, "rejected"),
  chosenWeights: Array.from({ length: chosen }, () => 1),
  rejectedWeights: Array.from({ length: rejected }, () => 1),
})
const pairs = [pair("a", 4, 6, 3), pair("b", 7, 2, 5)]

/** log p of every token of the vocabulary at each place of a response, by plain arithmetic from the model's logits. */
function distributions(model: Model, lora: Lora | null, prompt: readonly number[], response: readonly number[]) {
  return tf.tidy(() => {
    const bound = bind(model, { lora })
    const states = responseStates(bound, pack([{ prompt, responses: [response] }]))
    const rows = tf.matMul(states, bound.head, false, true).arraySync() as number[][]
    return rows.map((logits) => logits.map((logit) => logit - log(sum(logits.map(exp)))))
  })
}

/** Σ log π - log π_ref of the tokens, and Σ KL(π_ref || π) over the places. */
function measured(
  { model, lora }: { model: Model; lora: Lora },
  prompt: readonly number[],
  response: readonly number[],
) {
  const [own, reference] = [lora, null].map((adapter) => distributions(model, adapter, prompt, response))
  return {
    s: sum(response.map((id, t) => own![t]![id]! - reference![t]![id]!)),
    D: sum(reference!.flatMap((row, t) => row.map((logq, v) => exp(logq) * (logq - own![t]![v]!)))),
  }
}

describe("a step of TDPO training", () => {
  it.each([
    ["tdpo1", 1],
    ["tdpo2", 0.5],
  ] as const)("has the loss of %s computed from the whole distributions of both models", async (loss, alpha) => {
    const both = setting(true)
    const beta = 0.7
    const expected = pairs.map(({ prompt, chosen, rejected }) => {
      const [c, r] = [measured(both, prompt, chosen), measured(both, prompt, rejected)]
      expect(Math.min(c.D, r.D)).toBeGreaterThan(0.01) // the adapter does something
      return log1p(exp(-beta * (c.s - r.s - alpha * (r.D - c.D))))
    })
    const objective = preferring({ ...preferenceDefaults, beta, loss })
    const found = await stepGradients({ ...both, ...objective }, await withReference(both.model, pairs, 4096))
    expect(Math.abs(found.loss - sum(expected) / 2)).toBeLessThan(2e-5)
    tf.dispose(found.grads)
    free(both)
  })

  it("has the loss ln 2 and the gradient of DPO under a fresh adapter, where all divergences are 0", async () => {
    const both = setting(false)
    const items = await withReference(both.model, pairs, 4096)
    const slope = async (loss: PreferenceOptions["loss"]) => {
      const objective = preferring({ ...preferenceDefaults, loss })
      const found = await stepGradients({ ...both, ...objective }, items)
      const grads = Object.values(found.grads).flatMap((grad) => [...grad.dataSync()])
      tf.dispose(found.grads)
      return { loss: found.loss, grads }
    }
    const dpo = await slope("dpo")
    expect(Math.max(...dpo.grads.map(Math.abs))).toBeGreaterThan(1e-3)
    for (const name of ["tdpo1", "tdpo2"] as const) {
      const own = await slope(name)
      expect(Math.abs(own.loss - ln2)).toBeLessThan(1e-6)
      expect(largestGap(own.grads, dpo.grads)).toBeLessThan(1e-6)
    }
    free(both)
  })

  it("lowers the loss, and needs the reference model", async () => {
    const both = setting(false)
    const items = await withReference(both.model, pairs, 4096)
    const preference: PreferenceOptions = { ...preferenceDefaults, loss: "tdpo2" }
    const seen: number[] = []
    await train({
      ...both,
      ...preferring(preference),
      batches: { steps: 4, at: () => items },
      lr: 0.05,
      warmup: 0,
      onStep: ({ loss }) => void seen.push(loss),
    })
    expect(seen.at(-1)).toBeLessThan(ln2 - 0.01)
    const all = { model: both.model, ...preferring(preference), batches: { steps: 1, at: () => items }, lr: 0.05 }
    await expect(train(all)).rejects.toThrow(/tdpo2: needs the model without its adapter/)
    free(both)
  })

  it("leaves no tensors behind but the gradients", async () => {
    const both = setting(true)
    const items = await withReference(both.model, pairs, 10)
    const objective = preferring({ ...preferenceDefaults, loss: "tdpo1" })
    const left = await tensorsLeft(async () => {
      tf.dispose((await stepGradients({ ...both, ...objective, tokenBudget: 1 }, items)).grads)
    })
    expect(left).toBe(0)
    free(both)
  })
})
