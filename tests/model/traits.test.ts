import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { useBackend } from "../../lib/device/tf"
import type { GenerateRequest, Generator } from "../../lib/engine/engine"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { localFolder, modelTraits } from "../../lib/model/traits"
import { corrupt } from "../../lib/musc/corrupt"
import { decompose } from "../../lib/musc/decompose"
import { makePairs } from "../../lib/musc/pipeline"
import { isEmbedded } from "../../lib/runs/model"
import { worldInstructions } from "../../lib/world/spec"
import { fixture } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "musc-traits-"))
afterAll(() => rmSync(dir, { recursive: true }))

describe("what a model folder says of its prompts", () => {
  let world: LocalModel
  beforeAll(async () => {
    await useBackend()
    world = openLocal("world") // by its name, from any project
  })

  it("keeps examples out of every prompt to the embedded model, whoever asks", async () => {
    const requests: GenerateRequest[] = []
    const engine = world.engine()
    const watched: Generator = {
      ...engine,
      generate(request) {
        requests.push(request)
        return engine.generate(request)
      },
    }
    const rows = worldInstructions({ n: 20, seed: 0, split: "train" })
    let pairs = 0
    for await (const row of makePairs(watched, rows)) if (!row.failure) pairs++
    // With five examples 93 of 100 rows failed; the committed runs keep 553 of 600.
    expect(pairs).toBeGreaterThan(14)
    expect(new Set(requests.map(({ messages }) => messages.length))).toEqual(new Set([1]))
    engine.dispose()
  })

  it("refuses more examples than the model takes", async () => {
    const engine = world.engine()
    const [row] = worldInstructions({ n: 1, seed: 0, split: "train" })
    await expect(decompose(engine, row!, { shots: 5 })).rejects.toThrow(
      "shots: must be at most 0 for the model world, got 5; leave it out",
    )
    await expect(
      corrupt(engine, { ...row!, constraints: ["Is it a letter?", "Is it short?"] }, { shots: 1 }),
    ).rejects.toThrow("shots: must be at most 0")
    expect(() => parseConfig({ model: "world", shots: 5 })).toThrow(
      /shots: must be at most 0 for the model world, got 5/,
    )
    engine.dispose()
  })

  it("decides the default of the settings", () => {
    expect(parseConfig({}).shots).toBe(0)
    expect(parseConfig({ model: "org/name" }).shots).toBe(5)
    expect(parseConfig({ model: "org/name", shots: 2 }).shots).toBe(2)
  })

  it("holds for a copy under another name too", () => {
    const copy = join(dir, "mine")
    cpSync(localFolder("world-small")!, copy, { recursive: true })
    expect([isEmbedded(copy), parseConfig({ model: copy }).shots]).toEqual([true, 0])
    expect([isEmbedded(fixture("llama")), isEmbedded("org/world")]).toEqual([false, false])
  })

  it("is refused where a field is not known", () => {
    const folder = join(dir, "odd")
    mkdirSync(folder)
    writeFileSync(join(folder, "musc.json"), '{"shot": 0}')
    expect(() => modelTraits(folder)).toThrow(/odd\/musc\.json: .*"shot"; known fields: embedded, shots, turns/)
  })
})
