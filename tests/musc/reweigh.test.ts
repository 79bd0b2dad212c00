import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { PairRow, WeighedRow } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import { type LocalEngine, type LocalModel, openLocal } from "../../lib/engine/local"
import { StoppedError } from "../../lib/errors"
import { weightsFile } from "../../lib/musc/reweigh"
import { type TrainSettings, trainAdapter, trainDefaults } from "../../lib/musc/train"
import { weigh, weighRequest, weighSamples, weightsOf } from "../../lib/musc/weigh"
import { largestGap } from "../support/tensors"

let folder = ""
let local: LocalModel
let engine: LocalEngine
beforeAll(async () => {
  await useBackend()
  local = openLocal("data/models/world-small")
  engine = local.engine()
  folder = mkdtempSync(join(tmpdir(), "musc-reweigh-"))
})
afterAll(() => rmSync(folder, { recursive: true }))

const row = (id: string, chosen: string, rejected: string): PairRow => ({
  ...{ id, instruction: "i", input: null, source: "", calls: {} },
  ...{ constraints: ["a", "b"], noised_constraints: ["a"] },
  edits: [{ index: 1, kind: "constraint-dropout", before: "b", after: null }],
  clean_instruction: `Write about a sailor. Use the word "${id}".`,
  noised_instruction: "Write about a sailor.",
  ...{ chosen, rejected },
})
const pairs = [
  row("lantern", "The sailor held a lantern.", "The sailor slept."),
  row("harbor", "A sailor left the harbor.", "A sailor sang."),
  row("rope", "The rope was long. The sailor pulled.", "The sailor pulled."),
]
const settings = (change: Partial<TrainSettings> = {}) =>
  ({ ...trainDefaults, epochs: 3, batchSize: 2, lr: 0.01, warmup: 0, ...change }) as TrainSettings

/** The trained numbers, and the loss of each step. */
async function trained(rows: readonly WeighedRow[], change: object = {}, control: object = {}) {
  const losses: number[] = []
  const lora = await trainAdapter(local, rows, settings(change), {
    onStep: ({ loss }) => {
      losses.push(loss)
    },
    ...control,
  })
  const values = Object.values(lora.params).flatMap((tensor) => [...tensor.dataSync()])
  tf.dispose(lora.params)
  return { losses, values }
}
const weighedPairs = async () => (await Promise.all(pairs.map((pair) => weigh(engine, pair)))) as WeighedRow[]

describe("dynamic weights", () => {
  it("are those of the base in the first epoch and others from the second on", async () => {
    const rows = await weighedPairs()
    const [once, dynamic] = [await trained(rows), await trained(rows, { weighEvery: 1 })]
    expect(dynamic.losses).toHaveLength(6)
    expect(dynamic.losses.slice(0, 2)).toEqual(once.losses.slice(0, 2))
    expect(dynamic.losses.slice(2)).not.toEqual(once.losses.slice(2))
    // every second epoch: the second is as before
    const second = await trained(rows, { weighEvery: 2 })
    expect(second.losses.slice(0, 4)).toEqual(once.losses.slice(0, 4))
    expect(second.losses.slice(4)).not.toEqual(once.losses.slice(4))
    // a policy that does not move gives the weights that there were
    const still = { lr: 1e-30 }
    const [a, b] = [await trained(rows, still), await trained(rows, { ...still, weighEvery: 1 })]
    for (const [step, loss] of a.losses.entries()) expect(b.losses[step]!).toBeCloseTo(loss, 5)
  })

  it("are the same after a stop in the middle of an epoch", async () => {
    const rows = await weighedPairs()
    const whole = await trained(rows, { weighEvery: 1 })
    const file = join(folder, "checkpoint.safetensors")
    const checkpoint = { file, every: 1, key: "k" }
    const stop = new AbortController()
    const onStep = ({ step }: { step: number }) => {
      if (step === 3) stop.abort()
    }
    await expect(trained(rows, { weighEvery: 1 }, { checkpoint, signal: stop.signal, onStep })).rejects.toThrow(
      StoppedError,
    )
    expect(existsSync(weightsFile(file))).toBe(true)
    const resumed = await trained(rows, { weighEvery: 1 }, { checkpoint })
    expect(resumed.losses).toEqual(whole.losses.slice(3))
    expect(resumed.values).toEqual(whole.values)
  })

  it("that are due after the last epoch are refused", async () => {
    await expect(trained(await weighedPairs(), { weighEvery: 3 })).rejects.toThrow(
      /weighEvery must be below the epochs, 3, .* got 3; lower it/,
    )
  })

  it("are refused before the first step for pairs that have no noised instruction", async () => {
    const [row] = await weighedPairs()
    const foreign = { ...row!, prompt: [{ role: "user" as const, content: "Hi" }] }
    const { noised_instruction: _, ...bare } = row!
    for (const rows of [[foreign], [bare as typeof row & object]])
      await expect(trained(rows as (typeof row & object)[], { weighEvery: 1 })).rejects.toThrow(
        /must have a noised instruction, with which weighEvery 1 weighs it again, got none/,
      )
  })
})

describe("fine only", () => {
  it("weighs both answers from the clean prompt against the empty one", async () => {
    const { noised_instruction: _, ...sample } = pairs[0]!
    const weighed = await weighSamples(engine, sample, { weightings: ["kl", "pmi", "contrast"] })
    expect(weighed.rejected_from).toBe("clean")
    const { clean, noised, empty } = weighRequest(weighed)
    expect(noised).toEqual(empty)
    expect(clean[0]!.content).toBe(sample.clean_instruction)
    const { chosen, rejected } = weighed.signals
    expect(largestGap(rejected.logprob_noised, rejected.logprob_empty)).toBeLessThan(1e-4)
    // seen from the clean prompt, the rejected answer is weighed as a chosen one would be
    const exchanged = weightsOf({ chosen: rejected, rejected: chosen }, "kl", { rejectedFrom: "clean" })
    expect(weighed.weights.kl!.rejected).toEqual(exchanged.chosen)
    expect(largestGap(weighed.weights.contrast!.rejected, weighed.weights.pmi!.rejected)).toBeLessThan(1e-3)
    expect(() => weighRequest(sample)).toThrow(/must have noised_instruction to be weighed/)
  })

  it("is trained with these weights, and the reference is that of the clean prompt", async () => {
    const { noised_instruction: _, ...sample } = pairs[0]!
    const weighed = await weighSamples(engine, sample)
    const { losses } = await trained([weighed as unknown as WeighedRow], { weighEvery: 1 })
    expect(losses[0]).toBeCloseTo(Math.log(2), 5)
    expect(losses.at(-1)!).toBeLessThan(0.6)
  })
})
