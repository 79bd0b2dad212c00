import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { StoppedError } from "../../lib/errors"
import { floatParams } from "../../lib/model/transformer"
import { checkSettings, type TrainRow, type TrainSettings, trainDefaults } from "../../lib/musc/train"
import { runTraining } from "../../lib/runs/train-stage"

let folder = ""
let local: LocalModel
beforeAll(async () => {
  await useBackend()
  local = openLocal("data/models/world-small")
  folder = mkdtempSync(join(tmpdir(), "musc-all-"))
})
afterAll(() => rmSync(folder, { recursive: true }))

const rows: TrainRow[] = ["lantern", "harbor", "rope"].map((word) => ({
  ...{ id: word, input: null, clean_instruction: `Write about a sailor. Use the word "${word}".` },
  ...{ chosen: `The sailor held a ${word}.`, rejected: "The sailor slept." },
}))
async function* pairs() {
  yield* rows
}
const settings: TrainSettings = {
  ...trainDefaults,
  ...{ epochs: 3, batchSize: 2, lr: 1e-3, warmup: 0, trained: "all", weighting: "uniform" },
}
const values = ({ model }: LocalModel) => Object.values(floatParams(model)).map((tensor) => [...tensor.dataSync()])

describe("training all weights", () => {
  it("leaves a plain checkpoint, the same after a stop, and the model that it started from as it was", async () => {
    const before = values(local)
    const losses: number[] = []
    const stage = { key: "k", by: local, pairs, settings, checkpointEvery: 1, onNote: () => {} }
    const dir = await runTraining({ ...stage, dir: join(folder, "whole"), onStep: ({ loss }) => losses.push(loss) })
    expect(dir).toBe(join(folder, "whole", "model"))
    expect(losses[0]).toBeCloseTo(Math.log(2), 4)
    expect(losses.at(-1)!).toBeLessThan(0.6)
    expect(values(local)).toEqual(before)
    for (const name of ["config.json", "tokenizer.json", "model.safetensors"])
      expect(existsSync(join(dir, name))).toBe(true)
    const trained = openLocal(dir)
    expect(JSON.parse(readFileSync(join(dir, "config.json"), "utf8")).dtype).toBe("float32")
    expect(
      values(trained).every(
        (own, i) => own.every((value) => Number.isFinite(value)) && own.length === before[i]!.length,
      ),
    ).toBe(true)
    expect(values(trained)).not.toEqual(before)

    const stop = new AbortController()
    const part = { ...stage, dir: join(folder, "part") }
    const onStep = ({ step }: { step: number }) => step === 3 && stop.abort()
    await expect(runTraining({ ...part, signal: stop.signal, onStep })).rejects.toThrow(StoppedError)
    const resumed = openLocal(await runTraining(part))
    expect(values(resumed)).toEqual(values(trained))
    tf.dispose([trained.model.params, resumed.model.params])
  })

  it("is refused with what needs a LoRA beside the model", () => {
    const preference = { ...trainDefaults, ...settings, epochs: 3 } as TrainSettings & { kind: "preference" }
    expect(() => checkSettings({ ...preference, weighEvery: 1 })).toThrow(/must be lora with weighEvery 1, got all/)
    const tdpo = { ...preference.preference, loss: "tdpo1" as const }
    expect(() => checkSettings({ ...preference, preference: tdpo })).toThrow(/must be lora with the loss tdpo1/)
  })
})
