import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Tensor } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { linearNames, readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { generate } from "../../lib/model/generate"
import { contrast, pack, responseLogProbs, type Sequence } from "../../lib/model/logprobs"
import { bind, fromAdapter, type Lora, loraTargets, merge } from "../../lib/model/lora"
import { type Bound, forward, type Model } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { cappedLogits } from "../../lib/ops/head"
import { preferenceDefaults } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { preferring, stepGradients } from "../support/step"

// Every expected number was computed by transformers, PEFT and PyTorch: see tests/reference/README.md.

const root = join(__dirname, "../fixtures/models")
const families = ["llama", "llama3-rope", "gemma3", "qwen2", "qwen3", "mistral"]

beforeAll(async () => {
  await useBackend()
})

/** Logits [T][V] of one row without padding. */
function logitsOf(bound: Bound, ids: readonly number[]): number[][] {
  const [{ ids: flat, ...places }] = [pack([{ prompt: ids, responses: [] }])]
  return tf.tidy(() => {
    const hidden = forward(bound, tf.tensor1d(flat), places, contexts(bound.config, places))
    return cappedLogits(hidden, bound.head, bound.config.logitSoftcap).logits.arraySync()
  })
}

const largestGap = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length)
  let gap = 0
  for (let i = 0; i < a.length; i++) gap = Math.max(gap, Math.abs(a[i]! - b[i]!))
  return gap
}

describe.each(families)("%s", (name) => {
  const dir = join(root, name)
  const expected = JSON.parse(readFileSync(join(dir, "expected.json"), "utf8"))
  let model: Model
  let bound: Bound
  let lora: Lora
  beforeAll(() => {
    const config = loadConfig(dir)
    model = loadModel(dir, config)
    bound = bind(model)
    lora = fromAdapter(readAdapter(join(dir, "adapter"), config))
  })

  it("gives the logits of transformers", () => {
    const rows = expected.inputs.map((ids: number[]) => logitsOf(bound, ids))
    for (const { row, position, values } of expected.logits) {
      expect(largestGap(rows[row][position], values)).toBeLessThan(2e-4)
    }
  })

  it("gives the log-probs of transformers whether rows are padded or not", () => {
    const sequences: Sequence[] = expected.inputs.map((ids: number[]) => ({
      prompt: ids.slice(0, 1),
      responses: [ids.slice(1)],
    }))
    const padded = tf.tidy(() => responseLogProbs(bound, pack(sequences)).dataSync())
    expect(largestGap(padded, expected.logprobs.flat())).toBeLessThan(1e-4)
    const alone = sequences.flatMap((one) => [...tf.tidy(() => responseLogProbs(bound, pack([one])).dataSync())])
    expect(largestGap(padded, alone)).toBeLessThan(2e-5)
  })

  it("continues greedily as transformers does, each row of a batch as if it were alone", async () => {
    const item = (prompt: number[]) => ({ prompt, seed: 1, temperature: 0, maxTokens: 64 })
    const prompts: number[][] = expected.greedy.map(({ prompt }: { prompt: number[] }) => prompt)
    const together = await generate(bound, prompts.map(item), { eosIds: [] })
    expect(together.map(({ ids }) => ids)).toEqual(expected.greedy.map(({ tokens }: { tokens: number[] }) => tokens))
    const [alone] = await generate(bound, [item(prompts[0]!)], { eosIds: [] })
    expect(alone!.ids).toEqual(expected.greedy[0].tokens)
  })

  it("gives the entropies and divergences of transformers under two prompts", async () => {
    const { clean, noised, response, ...numbers } = expected.score
    const under = (prompt: number[]) => pack([{ prompt, responses: [response] }])
    const got = await contrast(bound, under(clean), under(noised))
    expect(largestGap(got.logprob, numbers.logprob)).toBeLessThan(1e-4)
    expect(largestGap(got.logprobOther, numbers.logprob_noised)).toBeLessThan(1e-4)
    expect(largestGap(got.entropy, numbers.entropy)).toBeLessThan(1e-4)
    expect(largestGap(got.entropyOther, numbers.entropy_noised)).toBeLessThan(1e-4)
    expect(largestGap(got.kl, numbers.kl)).toBeLessThan(1e-4)
    expect(largestGap(got.klReverse, numbers.kl_reverse)).toBeLessThan(1e-4)
  })

  it("gives PEFT's logits with an adapter, merged or not", () => {
    const adapted = bind(model, { lora })
    const merged = bind(merge(model, lora))
    for (const weights of [adapted, merged]) {
      const rows = expected.inputs.map((ids: number[]) => logitsOf(weights, ids))
      const { row, position, values } = expected.lora.logits
      expect(largestGap(rows[row][position], values)).toBeLessThan(3e-4)
    }
  })

  /** Compares all gradients with PEFT's: ours are [in, r] and [r, out], PEFT's the transposes. */
  function expectGradients(
    grads: Record<string, Tensor>,
    wanted: Record<string, Record<"A" | "B", { data: number[] }>>,
    norm: number,
  ) {
    const total = Math.sqrt(Object.values(grads).reduce((sum, g) => sum + (g.square().sum().dataSync()[0] ?? 0), 0))
    expect(Math.abs(total - norm) / norm).toBeLessThan(1e-4)
    for (const [layer, sides] of Object.entries(wanted)) {
      const [, i, linear] = /^layers\.(\d+)\.(.+)$/.exec(layer)!
      expect(linearNames).toContain(linear)
      const target = Object.entries(loraTargets).find(([, hf]) => hf === linear)![0]
      for (const side of ["A", "B"] as const) {
        const got = grads[`layers.${i}.${target}.${side}`]!.transpose().dataSync()
        const scale = Math.max(...sides[side].data.map(Math.abs))
        expect(largestGap(got, sides[side].data) / scale).toBeLessThan(1e-4)
      }
    }
  }

  it("gives PEFT's gradients of the supervised loss", async () => {
    const ids: number[] = expected.inputs[0]
    const sequence: Sequence = { prompt: ids.slice(0, 1), responses: [ids.slice(1)] }
    const { loss, grads } = await stepGradients(
      {
        model,
        lora,
        objective: { kind: "sft", weighting: "even" },
      },
      [sequence],
    )
    expect(Math.abs(loss - expected.lora.sft.loss)).toBeLessThan(1e-5)
    expectGradients(grads, expected.lora.sft.gradients, expected.lora.sft.gradient_norm)
  })

  it.each([
    ["dpo", false],
    ["token_weighted_dpo", true],
  ] as const)(
    "gives PyTorch's loss, rewards and gradients of %s, in one micro-batch or in several",
    async (key, weighted) => {
      const wanted = expected.lora[key]
      type Pair = Record<"prompt" | "chosen" | "rejected" | "chosen_weights" | "rejected_weights", number[]>
      const pairs: PairItem[] = expected.lora.pairs.map((pair: Pair) => ({
        prompt: pair.prompt,
        chosen: pair.chosen,
        rejected: pair.rejected,
        chosenWeights: weighted ? pair.chosen_weights : pair.chosen.map(() => 1),
        rejectedWeights: weighted ? pair.rejected_weights : pair.rejected.map(() => 1),
      }))
      const items = await withReference(model, pairs, 4096)
      const objective = preferring({ ...preferenceDefaults, beta: expected.lora.beta })
      for (const tokenBudget of [4096, 1]) {
        const { loss, grads, logs } = await stepGradients({ model, lora, ...objective, tokenBudget }, items)
        expect(Math.abs(loss - wanted.loss)).toBeLessThan(1e-4)
        const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length
        expect(logs.chosen_reward).toBeCloseTo(mean(wanted.chosen_rewards), 3)
        expect(logs.rejected_reward).toBeCloseTo(mean(wanted.rejected_rewards), 3)
        expectGradients(grads, wanted.gradients, wanted.gradient_norm)
      }
    },
  )
})
