import type { Tensor2D } from "@tensorflow/tfjs-core"
import { describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { contrastOf } from "../../lib/ops/contrast"
import { headLogProbs } from "../../lib/ops/head"
import { backends, cuda, largestGap, randomValues, tensorsLeft } from "../support/tensors"

const matrix = (rows: number, columns: number, scale: number, name: string) =>
  tf.tensor2d(randomValues(rows * columns, scale, name), [rows, columns])
const targetsOf = (M: number, V: number) => tf.tensor1d(Int32Array.from({ length: M }, (_, i) => (i * 6007) % V))

describe.each(backends)("two distributions on %s", (backend) => {
  // The logits reach ±30, and the largest one of some rows lies in the first block, of others in the last.
  it.each([null, 4])("have the log-probs, entropies and divergences of log-softmax, soft cap %s", async (softcap) => {
    await useBackend(backend)
    const [M, D, V] = [11, 6, 40]
    const left = await tensorsLeft(async () => {
      const [hp, hq, table] = [matrix(M, D, 3, "p"), matrix(M, D, 3, "q"), matrix(V, D, 3, "table")]
      const targets = targetsOf(M, V)
      const plain = tf.tidy(() => {
        const logOf = (h: Tensor2D) => {
          const raw = tf.matMul(h, table, false, true)
          return tf.logSoftmax(softcap ? tf.mul(tf.tanh(tf.div(raw, softcap)), softcap) : raw)
        }
        const [p, q] = [logOf(hp), logOf(hq)]
        const at = tf.oneHot(targets, V)
        const mean = (over: typeof p, of: typeof p) => tf.sum(tf.mul(tf.exp(over), of), 1)
        const lines = [
          tf.sum(tf.mul(p, at), 1),
          tf.sum(tf.mul(q, at), 1),
          tf.neg(mean(p, p)),
          tf.neg(mean(q, q)),
          mean(p, tf.sub(p, q)),
          mean(q, tf.sub(q, p)),
        ]
        return tf.stack(lines).dataSync()
      })
      for (const [words, rows] of [
        [7, 4],
        [20, 11],
        [V, 5],
        [1000, 1000],
      ]) {
        const got = tf.tidy(() => contrastOf([hp, hq], table, targets, { softcap, entries: words, rows }).dataSync())
        expect(largestGap(got, plain)).toBeLessThan(4e-5)
      }
      const same = tf.tidy(() =>
        contrastOf([hp, hp], table, targets, { softcap, entries: 7 }).arraySync(),
      ) as number[][]
      expect(same[4]).toEqual(Array(M).fill(0))
      tf.dispose([hp, hq, table, targets])
    })
    expect(left).toBe(0)
  })
})

describe.skipIf(cuda)("a vocabulary of 20,000 words", () => {
  it("gives a token the same values to the last bit, whatever tokens are asked for beside it", async () => {
    await useBackend(backends[0])
    const [M, D, V] = [320, 16, 20_000]
    const [hp, hq, table] = [matrix(M, D, 2, "p"), matrix(M, D, 2, "q"), matrix(V, D, 2, "table")]
    const targets = targetsOf(M, V)
    const values = (from: number, count: number) =>
      tf.tidy(() => {
        const [p, q] = [hp, hq].map((h) => tf.slice(h, from, count)) as [Tensor2D, Tensor2D]
        const at = tf.slice(targets, from, count)
        const all = [contrastOf([p, q], table, at), tf.expandDims(headLogProbs(p, table, at), 0)]
        return tf.transpose(tf.concat(all)).arraySync()
      })
    const whole = values(0, M) as number[][]
    const cuts = [0, 32, 96, 192, M]
    const parts = cuts.slice(1).flatMap((to, i) => values(cuts[i]!, to - cuts[i]!) as number[][])
    expect(parts).toEqual(whole)
    tf.dispose([hp, hq, table, targets])
  })
})
