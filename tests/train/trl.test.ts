import { readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { fromAdapter } from "../../lib/model/lora"
import { loadModel } from "../../lib/model/weights"
import { type StepLog, train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import type { PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { preferring } from "../support/step"
import { fixture } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

// Expected numbers by TRL's DPOTrainer: see tests/reference/make_dpo.py.
it("follows TRL's DPO for twenty steps: learning rate, loss, margin and gradient norm of each", async () => {
  const file = join(__dirname, "../fixtures/dpo/expected.json")
  const { model: name, settings, pairs, steps } = JSON.parse(readFileSync(file, "utf8"))
  const dir = fixture(name)
  const config = loadConfig(dir)
  const model = loadModel(dir, config)
  const ones = (ids: number[]) => ids.map(() => 1)
  const items = await withReference(
    model,
    pairs.map((pair: Pick<PairItem, "prompt"> & Record<"chosen" | "rejected", number[]>) => ({
      ...pair,
      chosenWeights: ones(pair.chosen),
      rejectedWeights: ones(pair.rejected),
    })),
    4096,
  )
  const { batch } = settings
  const logs: StepLog[] = []
  await train({
    model,
    lora: fromAdapter(readAdapter(join(dir, "adapter"), config)),
    ...preferring({ ...preferenceDefaults, beta: settings.beta }),
    batches: {
      steps: settings.steps,
      at: (step) => {
        const start = (step * batch) % items.length
        return items.slice(start, start + batch)
      },
    },
    lr: settings.lr,
    warmup: settings.warmup_steps / settings.steps,
    adam: { weightDecay: settings.weight_decay, maxGradNorm: settings.max_grad_norm },
    onStep: (log) => void logs.push(log),
  })
  expect(logs).toHaveLength(20)
  logs.forEach((log, i) => {
    expect(log.lr).toBeCloseTo(steps[i].lr, 9)
    expect(Math.abs(log.loss - steps[i].loss)).toBeLessThan(1e-3)
    expect(Math.abs(log.margin! - steps[i].margin)).toBeLessThan(2e-3)
    expect(Math.abs(log.gradNorm / steps[i].gradient_norm - 1)).toBeLessThan(1e-2)
  })
  // The walk goes somewhere.
  expect(Math.min(...logs.map(({ loss }) => loss))).toBeLessThan(logs[0]!.loss / 2)
})
