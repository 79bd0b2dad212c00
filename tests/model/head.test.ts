import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { headLogProbs, targetLogProbs } from "../../lib/ops/head"
import { backends, largestGap, randomValues, tensorsLeft } from "../support/tensors"

// [M, D] states against a table [V, D] taken 7 words at a time, the last block short; the logits reach ±30, and the
// largest one of some rows lies in the first block, of others in the last.
const [M, D, V] = [11, 6, 40]

function inputs() {
  const table = tf.tensor2d(randomValues(V * D, 3, "table"), [V, D])
  const h = tf.tensor2d(randomValues(M * D, 3, "h"), [M, D])
  return { h, table, targets: tf.tensor1d(Int32Array.from({ length: M }, (_, i) => (i * 13) % V)) }
}

/** Values, and gradients by h for weights 1, 2, … on the rows. */
async function valuesAndSlopes(logProbs: (h: Tensor2D) => Tensor1D, h: Tensor2D) {
  const weights = tf.range(1, M + 1)
  const { value, grad } = tf.valueAndGrad((x: Tensor) => tf.sum(tf.mul(logProbs(x as Tensor2D), weights)))(h)
  const values = logProbs(h)
  const found = [await values.data(), await grad.data()] as Float32Array[]
  tf.dispose([weights, value, grad, values])
  return found as [Float32Array, Float32Array]
}

describe.each(backends)("log-probs of a large vocabulary on %s", (backend) => {
  it.each([null, 4])(
    "are log-softmax at the target, with its gradient, for any block, soft cap %s",
    async (softcap) => {
      await useBackend(backend)
      const left = await tensorsLeft(async () => {
        const { h, table, targets } = inputs()
        // tfjs' own operations and gradients
        const logits = (x: Tensor2D) => {
          const raw = tf.matMul(x, table, false, true)
          return softcap ? tf.mul(tf.tanh(tf.div(raw, softcap)), softcap) : raw
        }
        const ofTfjs = (x: Tensor2D) => tf.sum(tf.mul(tf.logSoftmax(logits(x)), tf.oneHot(targets, V)), 1) as Tensor1D
        const plain = await valuesAndSlopes((x) => tf.tidy(() => ofTfjs(x)), h)
        for (const block of [7, 20, V, 1000]) {
          const [values, slopes] = await valuesAndSlopes((x) => headLogProbs(x, table, targets, { softcap, block }), h)
          expect(largestGap(values, plain[0])).toBeLessThan(2e-5)
          expect(largestGap(slopes, plain[1])).toBeLessThan(2e-4)
        }
        tf.dispose([h, table, targets])
      })
      expect(left).toBe(0)
    },
  )
})

describe("a vocabulary of 20,000 words", () => {
  it("has the same log-probs in blocks as at once, without holding more than a tenth of the logits", async () => {
    await useBackend(backends[0])
    const [rows, words] = [300, 20_000] // more rows than are taken at once
    const table = tf.tensor2d(randomValues(words * 4, 2, "wide"), [words, 4])
    const h = tf.tensor2d(randomValues(rows * 4, 2, "rows"), [rows, 4])
    const targets = tf.tensor1d(Int32Array.from({ length: rows }, (_, i) => (i * 6007) % words))
    const before = tf.memory().numBytes
    const { peakBytes, result } = await tf.profile(() => headLogProbs(h, table, targets, { block: 300 }))
    expect(peakBytes - before).toBeLessThan((rows * words * 4) / 10)
    const whole = tf.tidy(() => targetLogProbs(h, table, targets, { chunk: rows }))
    const got = await (result as Tensor).data()
    expect(largestGap(got as Float32Array, (await whole.data()) as Float32Array)).toBeLessThan(2e-5)
    tf.dispose([table, h, targets, result, whole])
  })
})
