import { afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { recipes } from "../../lib/config/recipes"
import type { WeighedRow } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { StoppedError } from "../../lib/errors"
import { makePairs } from "../../lib/musc/pipeline"
import { weigh } from "../../lib/musc/weigh"
import { Trainer } from "../../lib/notebook/trainer"
import { collect } from "../../lib/runs/context"
import { stageOptions, trainSettings } from "../../lib/runs/stages"
import { worldInstructions } from "../../lib/world/spec"

const config = parseConfig({ ...recipes.smoke!.config, epochs: 2, batchSize: 2 })
const settings = trainSettings(config, "musc", 1)!
const stoppers = Symbol.for("musc.stoppers")
const kernel = globalThis as Record<symbol, unknown>

describe("a trainer", () => {
  let local: LocalModel
  let pairs: WeighedRow[]
  beforeAll(async () => {
    await useBackend()
    local = openLocal("data/models/world")
    const engine = local.engine()
    const rows = await collect(
      makePairs(engine, worldInstructions({ n: 8, seed: 1, split: "train" }), stageOptions(config, 1)),
    )
    const made = rows.flatMap((row) => (row.failure ? [] : [row])).slice(0, 4)
    pairs = (await Promise.all(made.map((row) => weigh(engine, row)))).flatMap((row) => (row.failure ? [] : [row]))
    engine.dispose()
  })
  afterEach(() => {
    delete kernel[stoppers]
    vi.restoreAllMocks()
  })
  const values = ({ lora }: Trainer) => Object.entries(lora.params).map(([name, of]) => [name, [...of.dataSync()]])

  it("stopped at any step and run again makes the adapter and the log of one that was never stopped", async () => {
    vi.spyOn(console, "log").mockImplementation(() => {})
    const whole = new Trainer(local, pairs, settings)
    await whole.run()
    expect(whole.log.map(({ step }) => step)).toEqual([1, 2, 3, 4])
    for (const at of [1, 2, 3]) {
      const stops = new Set<() => void>()
      kernel[stoppers] = stops
      const stopped = new Trainer(local, pairs, settings)
      // The interrupt comes while the step is being worked on.
      const push = vi.spyOn(stopped.log, "push").mockImplementation((step) => {
        stopped.log[stopped.log.length] = step
        if (step.step === at) for (const stop of stops) stop()
        return stopped.log.length
      })
      await expect(stopped.run()).rejects.toThrow(`stopped after musc: step ${at} of 4`)
      expect(() => stopped.lora).toThrow(StoppedError)
      expect(stopped.log).toHaveLength(at)
      expect(stops.size).toBe(0)
      push.mockRestore()
      await stopped.run()
      expect(stopped.log).toEqual(whole.log)
      expect(values(stopped)).toEqual(values(whole))
      stopped.dispose()
    }
    whole.dispose()
  })
})
