import type { Tensor } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig } from "../../lib/model/config"
import { pack, responseLogProbs } from "../../lib/model/logprobs"
import { bind, initLora, type LoraTarget, loraTargets, release } from "../../lib/model/lora"
import { loadModel } from "../../lib/model/weights"
import { training } from "../support/plans"
import { fixture, largestGap, randomValues } from "../support/tensors"

describe("an adapter of one projection alone", () => {
  beforeAll(async () => {
    await useBackend()
  })

  it.each(Object.keys(loraTargets) as LoraTarget[])("%s gives the same beside the matrix as within it", (target) => {
    const config = loadConfig(fixture("llama"))
    const model = loadModel(fixture("llama"), config)
    const lora = initLora(config, { rank: 4, alpha: 8, seed: 1, targets: [target] })
    for (const [name, { shape, size }] of Object.entries(lora.params) as [string, Tensor][])
      if (name.endsWith(".B")) lora.params[name] = tf.tensor(randomValues(size, 1, name), shape)
    const batch = pack([{ prompt: [1, 5, 9, 4], responses: [[7, 3, 8, 2]] }])
    const logProbs = (options: Parameters<typeof bind>[1]) => {
      const bound = bind(model, options)
      const values = tf.tidy(() => responseLogProbs(bound, batch).dataSync())
      release(bound)
      return values
    }
    const within = logProbs({ lora })
    expect(largestGap(logProbs({ lora, plan: training() }), within)).toBeLessThan(1e-4)
    expect(largestGap(logProbs({}), within)).toBeGreaterThan(1e-3)
  })
})
