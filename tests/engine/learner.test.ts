import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { openHelpers } from "../../lib/engine/learner"
import { openLocal } from "../../lib/engine/local"
import { Shelf } from "../../lib/engine/shelf"
import { openPool, type WorkerPool } from "../../lib/engine/workers"
import { StoppedError } from "../../lib/errors"
import { initLora } from "../../lib/model/lora"
import type { Model } from "../../lib/model/transformer"
import { type Learner, trainedParams } from "../../lib/train/gradients"
import { type StepLog, type TrainOptions, train } from "../../lib/train/loop"
import { type PreferenceOptions, preferenceDefaults } from "../../lib/train/losses"
import type { Objective, PairItem } from "../../lib/train/objective"
import { withReference } from "../../lib/train/pairs"
import { backends, cuda, randomIds, tensorsLeft } from "../support/tensors"

const dir = join(__dirname, "../../data/models/world")
const scratch = mkdtempSync(join(tmpdir(), "learner-"))
let model: Model
let bare: PairItem[]
let pairs: PairItem[]

beforeAll(async () => {
  await useBackend()
  model = openLocal(dir).model
  bare = Array.from({ length: 12 }, (_, i): PairItem => {
    const ids = (n: number, what: string) => randomIds(n, i, what)
    const [prompt, chosen, rejected] = [ids(40 + i, "p"), ids(20 + (i % 5), "c"), ids(30 - i, "r")]
    const weights = (of: readonly number[]) => of.map((_, t) => (t % 3) / 2)
    return { prompt, chosen, rejected, chosenWeights: weights(chosen), rejectedWeights: weights(rejected) }
  })
  pairs = await withReference(model, bare, 512)
})
afterAll(() => rmSync(scratch, { recursive: true }))

const preferring = (loss: PreferenceOptions["loss"] = "dpo"): Objective => ({
  kind: "preference",
  preference: { ...preferenceDefaults, loss },
})

/** Three steps of six pairs in so many processes: losses, and all parameters at the end. */
async function run(workers: number, options: Partial<TrainOptions> = {}, all = false) {
  const lora = all ? undefined : initLora(model.config, { rank: 4, alpha: 8, seed: 5 })
  const params = { ...model.params }
  for (const name of all ? Object.keys(params) : []) params[name] = params[name]!.clone()
  const learner: Learner = { model: { ...model, params }, lora, objective: preferring(), ...options }
  const pool = openPool(workers, 2e6, all ? null : dir)
  const helpers = openHelpers(pool, learner)
  const logs: StepLog[] = []
  const trained = trainedParams(learner)
  try {
    await train({
      ...learner,
      batches: { steps: 3, at: (step) => (step === 1 ? pairs.slice(6) : pairs.slice(0, 6)) },
      ...{ lr: 1e-3, warmup: 0, helpers, tokenBudget: 256 },
      ...options,
      onStep: async (log) => {
        logs.push(log)
        await options.onStep?.(log)
      },
    } as TrainOptions)
    return { logs, end: Object.values(trained).map((tensor) => tensor.dataSync()), pids: pool?.pids ?? [] }
  } finally {
    helpers?.close()
    tf.dispose(trained)
  }
}

const sequences = () => pairs.map(({ prompt, chosen }) => ({ prompt, responses: [chosen, chosen.slice(5)] }))

describe.skipIf(cuda)("training with helping processes", () => {
  it.each([
    ["DPO", {}, false],
    ["TDPO", { objective: preferring("tdpo1") }, false],
    ["DPO with gradient checkpointing", { gradientCheckpointing: true }, false],
    [
      "supervised training of all weights, which no folder holds",
      { objective: { kind: "sft", weighting: "root" }, batches: { steps: 3, at: sequences } },
      true,
    ],
  ] as [string, Partial<TrainOptions>, boolean][])("gives %s the same to the last bit", async (_, options, all) => {
    const left = await tensorsLeft(async () => {
      const [one, two] = [await run(1, options, all), await run(2, options, all)]
      expect(one.pids).toEqual([])
      expect(two.pids).toHaveLength(2)
      expect(two.logs).toEqual(one.logs)
      expect(two.end).toEqual(one.end)
      expect(one.logs[2]!.loss).not.toBe(one.logs[0]!.loss)
    })
    expect(left).toBe(0)
  })

  it.runIf(backends[0] === "tensorflow").each([
    ["DPO", {}, false],
    ["all weights", { objective: { kind: "sft", weighting: "root" }, batches: { steps: 3, at: sequences } }, true],
  ] as [string, Partial<TrainOptions>, boolean][])(
    "asks none of them for %s by graphs, which threads compute side by side",
    async (_, options, all) => {
      const left = await tensorsLeft(async () => {
        const plain = await run(1, options, all)
        const two = await run(2, { ...options, graphs: true }, all)
        expect(two.pids).toEqual([])
        two.logs.forEach(({ loss, gradNorm, tokens }, i) => {
          expect(loss).toBeCloseTo(plain.logs[i]!.loss, 4)
          expect(gradNorm / plain.logs[i]!.gradNorm).toBeCloseTo(1, 3)
          expect(tokens).toBe(plain.logs[i]!.tokens)
        })
      })
      expect(left).toBe(0)
    },
  )

  it("gives the same to the last bit when it goes on with another number of them", async () => {
    const whole = await run(1)
    const checkpoint = { file: join(scratch, "state.safetensors"), every: 100, key: "a" }
    const stop = new AbortController()
    const stopping = run(2, { checkpoint, signal: stop.signal, onStep: () => stop.abort() })
    await expect(stopping).rejects.toThrow(StoppedError)
    const rest = await run(1, { checkpoint })
    expect(rest.logs).toEqual(whole.logs.slice(1))
    expect(rest.end).toEqual(whole.end)
  })

  it("gives the same by messages alone, where the system has no files in memory", async () => {
    const [one, made] = [await run(1), vi.spyOn(Shelf, "make").mockReturnValue(null)]
    const two = await run(2)
    expect(made).toHaveBeenCalledOnce()
    made.mockRestore()
    expect(two.logs).toEqual(one.logs)
    expect(two.end).toEqual(one.end)
  })

  it("reads reference log-probs with them, the same to the last bit", async () => {
    const learner = { model, lora: initLora(model.config, { rank: 1, alpha: 1, seed: 1 }), objective: preferring() }
    const helpers = openHelpers(openPool(2, 2e6, dir), learner)!
    expect(await withReference(model, bare, 512, helpers)).toEqual(pairs)
    helpers.close()
    tf.dispose(learner.lora.params)
  })

  it("ends with an error that names the remedy when one of them is killed", async () => {
    const learner = { model, lora: initLora(model.config, { rank: 1, alpha: 1, seed: 1 }), objective: preferring() }
    const pool = openPool(2, 2e6, dir) as WorkerPool
    const helpers = openHelpers(pool, learner)!
    const onStep = () => void process.kill(pool.pids[1]!, "SIGKILL")
    const batches = { steps: 50, at: () => pairs }
    const failed = train({
      ...learner,
      objective: learner.objective,
      batches,
      lr: 1e-3,
      helpers,
      onStep,
    } as TrainOptions)
    await expect(failed).rejects.toThrow(/^worker 2 of 2: .* killed by SIGKILL; run again with fewer workers/)
    helpers.close()
    tf.dispose(learner.lora.params)
  })

  it("is done by one process where there is little to do and their number is left open", async () => {
    const helpers = { worth: () => false } as never
    expect((await run(1, { helpers })).logs).toHaveLength(3)
  })
})
