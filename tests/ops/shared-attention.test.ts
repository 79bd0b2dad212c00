import type { Tensor2D, Tensor3D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { extentOf } from "../../lib/model/context"
import { fusedAttention } from "../../lib/ops/attention"
import { backends, cuda, randomValues } from "../support/tensors"

const [N, K] = [6, 2]

/** Places of sequences that lie end to end, with positions from `first` on. */
function inputs(lengths: readonly number[], first: number, window: number) {
  const bounds = extentOf(lengths, true).bounds!
  const positions = lengths.flatMap((length) => Array.from({ length }, (_, t) => first + t))
  const places = tf.tensor3d([...positions, ...positions.map(() => 0)], [2, 1, positions.length], "int32")
  const one = tf.scalar(1)
  return {
    ...{ cos: tf.zeros([1, 1]) as Tensor2D, sin: tf.zeros([1, 1]) as Tensor2D, queryScale: one, window },
    ...{ queries: places, keys: places, bounds: tf.tensor1d(bounds), from: tf.scalar(0, "int32") },
  }
}

describe.runIf(backends[0] === "tensorflow" && !cuda)("attention over tokens that all sequences begin with", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })

  it.each([0, 1, 15, 16, 17, 50])("gives the digits that %i tokens of each sequence's own give", (P) => {
    for (const H of [8, 24])
      for (const window of [0, 5, 30])
        tf.tidy(() => {
          const lengths = [1, 40, 3, 17]
          const C = (N + K) * H
          const rows = (key: string, n: number, width: number) =>
            tf.tensor2d(randomValues(n * width, 1, `${key} ${H}`).subarray(0, n * width), [n, width])
          const M = lengths.reduce((a, b) => a + b)
          const shared = { qk: rows("shared qk", P, C), v: rows("shared v", P, K * H) }
          const own = { qk: rows("qk", M, C), v: rows("v", M, K * H) }
          const starts = lengths.map((_, b) => lengths.slice(0, b).reduce((a, b) => a + b, 0))
          const whole = (kind: "qk" | "v") =>
            tf.concat(
              lengths.flatMap((length, b) => [shared[kind], tf.slice(own[kind], [starts[b]!, 0], [length, -1])]),
            )
          const copied = fusedAttention(
            whole("qk"),
            whole("v"),
            inputs(
              lengths.map((length) => P + length),
              0,
              window,
            ),
            [N, K],
          )
          const expected = tf.concat(
            lengths.map((length, b) => tf.slice(copied, [starts[b]! + P * (b + 1), 0], [length, -1])),
          )
          const byHead = (x: Tensor2D) => tf.transpose(tf.reshape(x, [P, K, H]), [1, 0, 2]) as Tensor3D
          const keys = tf.transpose(byHead(tf.slice(shared.qk, [0, N * H], [-1, K * H])), [0, 2, 1])
          const padding = Math.ceil(P / 16) * 16 - P
          const transposed = tf.pad(keys, [
            [0, 0],
            [0, 0],
            [0, padding],
          ]) as Tensor3D
          const known = { transposed, v: byHead(shared.v) }
          const found = fusedAttention(own.qk, own.v, inputs(lengths, P, window), [N, K], known)
          expect(found.dataSync(), `H ${H}, window ${window}`).toEqual(expected.dataSync())
        })
  })
})
