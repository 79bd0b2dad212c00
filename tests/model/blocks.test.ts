import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import type { Sequence } from "../../lib/model/logprobs"
import { initModel } from "../../lib/model/weights"
import { stepGradients } from "../support/step"
import { largestGap, randomIds, tinyConfig } from "../support/tensors"

// Attention goes through 64 queries at a time. Rows of one block stand against rows of several with the same answers.

beforeAll(async () => {
  await useBackend()
})

const windows = { "no window": null, "a window of seven": 7, "a window of eighty": 80 }

describe.each(Object.entries(windows))("with %s", (_, window) => {
  it("packed pairs longer than a block have the loss and gradients of their answers alone", async () => {
    const model = initModel(tinyConfig({ window: [window, null], qkNorm: true }), 5, 0.3)
    // rows of 35 + 60 + 62 = 157 and 20 + 15 + 44 = 79 tokens, padded; alone at most 97
    const pairs = [
      [35, 60, 62],
      [20, 15, 44],
    ].map(
      ([prompt, ...answers], i): Sequence => ({
        prompt: randomIds(prompt!, "prompt", i),
        responses: answers.map((n, j) => randomIds(n, "answer", i, j)),
      }),
    )
    const alone = pairs.flatMap(({ prompt, responses }) => responses.map((one) => ({ prompt, responses: [one] })))
    const gradients = (rows: Sequence[], tokenBudget: number) =>
      stepGradients(
        {
          model,
          objective: { kind: "sft", weighting: "even" },
          tokenBudget,
        },
        rows,
      )
    const together = await gradients(pairs, 4096)
    const separate = await gradients(alone, 1)
    expect(together.loss / separate.loss).toBeCloseTo(1, 6)
    for (const [name, grad] of Object.entries(together.grads)) {
      const expected = separate.grads[name]!.dataSync()
      const size = Math.max(...expected.map(Math.abs))
      expect(largestGap(grad.dataSync(), expected) / size, name).toBeLessThan(1e-5)
    }
    tf.dispose([together.grads, separate.grads, model.params])
  })
})
