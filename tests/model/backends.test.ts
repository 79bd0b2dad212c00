import { readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { type BackendName, tf, useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { generate } from "../../lib/model/generate"
import { contrast, pack } from "../../lib/model/logprobs"
import { bind, fromAdapter, type Lora, release } from "../../lib/model/lora"
import { forward } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { cappedLogits } from "../../lib/ops/head"
import { type StepLog, train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { preferring } from "../support/step"
import { backends, fixture, largestGap } from "../support/tensors"

// One backend = another: everything that a run asks of one is done on each, and compared with plain JavaScript.

const names = ["llama", "gemma3"] // gemma3 has norms on queries and keys, windows, GeGLU and norms behind its blocks
const others = backends.filter((name) => name !== "cpu")

/** Three steps of token-weighted DPO of the adapter, or of all weights: losses and gradient norms. */
async function trained(dir: string, what: "adapter" | "all"): Promise<number[]> {
  const { lora: expected } = JSON.parse(readFileSync(join(dir, "expected.json"), "utf8"))
  const config = loadConfig(dir)
  const model = loadModel(dir, config)
  const lora: Lora | undefined = what === "adapter" ? fromAdapter(readAdapter(join(dir, "adapter"), config)) : undefined
  type Pair = Record<"prompt" | "chosen" | "rejected" | "chosen_weights" | "rejected_weights", number[]>
  const pairs: PairItem[] = expected.pairs.map((pair: Pair) => ({
    ...pair,
    chosenWeights: pair.chosen_weights,
    rejectedWeights: pair.rejected_weights,
  }))
  const items = await withReference(model, pairs, 4096)
  const logs: StepLog[] = []
  await train({
    model,
    lora,
    ...preferring({ ...preferenceDefaults, sftWeight: 0.1, labelSmoothing: 0.1 }),
    batches: { steps: 3, at: () => items },
    lr: 1e-3,
    warmup: 0,
    onStep: (log) => void logs.push(log),
  })
  tf.dispose([model.params, lora?.params ?? []])
  return logs.flatMap(({ loss, gradNorm }) => [loss, gradNorm])
}

async function everything(backend: BackendName, name: string) {
  await useBackend(backend)
  const dir = fixture(name)
  const expected = JSON.parse(readFileSync(join(dir, "expected.json"), "utf8"))
  const config = loadConfig(dir)
  const model = loadModel(dir, config)
  const bound = bind(model)
  const logits = tf.tidy(() => {
    const { ids, ...places } = pack([{ prompt: expected.inputs[0], responses: [] }])
    const hidden = forward(bound, tf.tensor1d(ids), places, contexts(config, places))
    return cappedLogits(hidden, bound.head, config.logitSoftcap).logits.dataSync()
  })
  const under = (prompt: number[]) => pack([{ prompt, responses: [expected.score.response] }])
  const signals = await contrast(bound, under(expected.score.clean), under(expected.score.noised))
  const prompts: number[][] = expected.inputs
  // 80 tokens, so that the cache grows; rows leave one by one
  const answers = await generate(
    bound,
    prompts.map((prompt, i) => ({ prompt, seed: i, temperature: 0.7, topP: 0.9, maxTokens: 80 - 20 * i })),
    { eosIds: config.eosIds },
  )
  release(bound)
  tf.dispose(model.params)
  return {
    logits,
    signals: Object.values(signals).flatMap((values: Float32Array) => [...values]),
    ids: answers.map(({ ids }) => ids),
    adapter: await trained(dir, "adapter"),
    all: await trained(dir, "all"),
  }
}

describe.each(names)("with %s", (name) => {
  let expected: Awaited<ReturnType<typeof everything>>
  beforeAll(async () => {
    expected = await everything("cpu", name)
  })

  it.each(others)("%s gives what plain JavaScript gives: logits, signals, answers, training", async (backend) => {
    const before = tf.memory().numTensors
    const got = await everything(backend, name)
    expect(tf.memory().numTensors).toBe(before)
    expect(largestGap(got.logits, expected.logits)).toBeLessThan(2e-4)
    expect(largestGap(got.signals, expected.signals)).toBeLessThan(1e-4)
    expect(got.ids).toEqual(expected.ids)
    expect(largestGap(got.adapter, expected.adapter)).toBeLessThan(1e-3)
    expect(largestGap(got.all, expected.all)).toBeLessThan(1e-3)
    expect(expected.all.at(-2)).toBeLessThan(expected.all[0]!)
  })
})
