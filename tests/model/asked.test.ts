import type { Tensor } from "@tensorflow/tfjs-core"
import { describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig } from "../../lib/model/config"
import { type ContextOptions, contexts } from "../../lib/model/context"
import { pack } from "../../lib/model/logprobs"
import { bind } from "../../lib/model/lora"
import { floatParams, forward } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { lookup } from "../../lib/ops/table"
import { backends, fixture, largestGap, randomIds, tensorsLeft } from "../support/tensors"

describe.each(backends)("forward, asked for some tokens, on %s", (backend) => {
  // Prompts of 70 and 90 tokens, so that the first 64 queries attend in no row; gemma3 has windows and norms behind its
  // blocks.
  it.each(["llama", "gemma3", "qwen2"])(
    "gives their states in %s, and the gradients that all would give",
    async (name) => {
      await useBackend(backend)
      const dir = fixture(name)
      const model = loadModel(dir, loadConfig(dir))
      const batch = pack(
        [70, 90].map((length, i) => ({
          prompt: randomIds(length, i, "p"),
          responses: [randomIds(5, i, "c"), randomIds(9, i, "r")],
        })),
      )
      const states = (asked: boolean) => () => {
        const ids = tf.tensor1d(batch.ids)
        const from = (options: ContextOptions) =>
          forward(bind(model, { trainAll: true }), ids, batch, contexts(model.config, batch, options))
        const some = asked ? from({ selected: batch.predictors }) : lookup(from({}), tf.tensor1d(batch.predictors))
        expect(some.shape).toEqual([28, model.config.dim])
        return tf.sum(tf.mul(some, tf.reshape(tf.range(0, some.size), some.shape))).asScalar()
      }
      const weights = Object.entries(floatParams(model)).flatMap(([name, weight]) => (name === "head" ? [] : [weight]))
      const found = (asked: boolean): Float32Array[] =>
        tf.tidy(() => {
          const { value, grads } = tf.engine().gradients(states(asked), weights)
          return [value, ...grads].map((x: Tensor) => x.dataSync() as Float32Array)
        })
      const left = await tensorsLeft(async () => {
        const [some, all] = [found(true), found(false)]
        some.forEach((values, i) => {
          const largest = all[i]!.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
          expect(largest).toBeGreaterThan(0)
          expect(largestGap(values, all[i]!) / largest).toBeLessThan(1e-5)
        })
      })
      expect(left).toBe(0)
      tf.dispose(model.params)
    },
  )
})
