import { beforeAll, describe, expect, it, vi } from "vitest"
import { tf, useBackend } from "../../lib/backend/tf"
import { loadConfig } from "../../lib/model/config"
import { bind, initLora, type LoraTarget, loraTargets, release } from "../../lib/model/lora"
import type { Bound } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { backends, cuda, fixture, randomValues, tensorsLeft } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

/** Values of all effective matrices and scaled updates. */
const valuesOf = ({ layers }: Bound) =>
  layers.map((layer) =>
    ([layer.qk, layer.v, layer.o, layer.gate, layer.up, layer.down] as const).map(({ weight, lora }) => [
      weight.arraySync(),
      lora.map(({ scaled, offset }) => [scaled.A.arraySync(), scaled.B.arraySync(), offset]),
    ]),
  )

describe.runIf(backends[0] === "tensorflow" && !cuda)("effective matrices by graph", () => {
  const all = Object.keys(loraTargets) as LoraTarget[]

  it.each([
    ["llama", all, true],
    ["gemma3", all, true],
    ["qwen2", ["o", "down", "v"] as LoraTarget[], true],
    // q without k, which it is held together with
    ["llama", ["q", "up"] as LoraTarget[], false],
  ])("are to the last bit those made one by one: %s, %s, by graph: %s", async (name, targets, byGraph) => {
    const model = loadModel(fixture(name), loadConfig(fixture(name)))
    const lora = initLora(model.config, { rank: 3, alpha: 7, seed: 1, targets })
    for (const [side, zeros] of Object.entries(lora.params).filter(([side]) => side.endsWith(".B"))) {
      lora.params[side] = tf.tensor(randomValues(zeros.size, 1, side), zeros.shape)
      zeros.dispose()
    }
    const runs = vi.spyOn(tf.backend() as unknown as { runSavedModel(): void }, "runSavedModel")
    const left = await tensorsLeft(() => {
      const [plain, often] = [bind(model, { lora }), bind(model, { lora, graphs: true, often: true })]
      expect(valuesOf(often)).toEqual(valuesOf(plain))
      for (const bound of [plain, often]) release(bound)
    })
    expect(left).toBe(0)
    expect(runs).toHaveBeenCalledTimes(byGraph ? model.config.layers : 0)
    runs.mockRestore()
    tf.dispose([model.params, lora.params])
  })
})
