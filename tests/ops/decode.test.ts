import type { Tensor } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { kernel } from "../../lib/ops/kernel"
import { rng } from "../../lib/rng"
import { backends, cuda, largestGap } from "../support/tensors"

const numbers = (n: number, key: string): Float32Array => {
  const random = rng(11, key)
  return Float32Array.from({ length: n }, () => 2 * random.next() - 1)
}

/**
 * Rows of keys and values of their own, behind P that all share; the newest token of each row is at `columns[b]`, -1
 * for none.
 */
interface Case {
  H: number
  P: number
  S: number
  columns: number[]
  window: number
}
const [N, K] = [6, 2]

/** What row `b` of a case is given, by the number of the row alone. */
function rowOf({ H, P, S }: Case, b: number, at: number) {
  const angles = Array.from({ length: H / 2 }, (_, h) => (P + at) * 100 ** ((-2 * h) / H))
  return {
    qk: numbers((N + K) * H, `qk ${b}`),
    v: numbers(K * H, `v ${b}`),
    cos: angles.map(Math.cos),
    sin: angles.map(Math.sin),
    keys: numbers(K * S * H, `keys ${b}`),
    values: numbers(K * S * H, `values ${b}`),
  }
}

const sharedOf = ({ H, P }: Case) => ({ k: numbers(K * P * H, "shared k"), v: numbers(K * P * H, "shared v") })

/** The kernel for some rows; shared keys stand apart, or in front of each row's own. */
function decode(one: Case, rows: readonly number[], apart = true): Float32Array {
  const { H, P, S, window } = one
  const columns = rows.map((b) => one.columns[b]!)
  const given = rows.map((b, i) => rowOf(one, b, columns[i]!))
  const shared = sharedOf(one)
  const flat = (name: keyof ReturnType<typeof rowOf>, shape: number[]) =>
    tf.tensor(Float32Array.from(given.flatMap((row) => [...row[name]])), shape)
  return tf.tidy(() => {
    const B = rows.length
    const k = tf.tensor3d(shared.k, [K, P, H])
    const v = tf.tensor3d(shared.v, [K, P, H])
    const cache = (own: Tensor, front: Tensor) =>
      tf.reshape(apart ? own : tf.concat([tf.tile(tf.expandDims(front, 0), [B, 1, 1, 1]), own], 2), [-1, H])
    const keys = cache(flat("keys", [B, K, S, H]), k)
    const values = cache(flat("values", [B, K, S, H]), v)
    const places = apart ? columns : columns.map((column) => (column < 0 ? -1 : P + column))
    const padding = Math.ceil(P / 16) * 16 - P
    const none = tf.zeros([0, H])
    const transposed = tf.pad(tf.transpose(k, [0, 2, 1]), [
      [0, 0],
      [0, 0],
      [0, padding],
    ])
    const inputs = [
      ...[flat("qk", [B, (N + K) * H]), flat("v", [B, K * H]), flat("cos", [B, H / 2]), flat("sin", [B, H / 2])],
      ...[tf.scalar(0.3), keys, values, tf.tensor1d(places, "int32")],
      ...(apart && P ? [transposed, v] : [none, none]),
    ]
    return kernel("MuscDecode", [N, K, window], inputs).dataSync() as Float32Array
  })
}

/** softmax(q kᵀ) v of one row in double precision -> [N H]. */
function exactly(one: Case, b: number): number[] {
  const { H, P, S, window } = one
  const column = one.columns[b]!
  if (column < 0) return Array(N * H).fill(0)
  const row = rowOf(one, b, column)
  const shared = sharedOf(one)
  const turned = (head: number, scale: number) => {
    const x = row.qk.subarray(head * H, (head + 1) * H)
    return Array.from({ length: H }, (_, h) => {
      const i = h % (H / 2)
      const other = h < H / 2 ? -x[h + H / 2]! : x[h - H / 2]!
      return scale * (x[h]! * row.cos[i]! + other * row.sin[i]!)
    })
  }
  return Array.from({ length: N }, (_, n) => {
    const g = Math.floor((n * K) / N)
    const q = turned(n, 0.3)
    const at = (from: "keys" | "values", position: number): ArrayLike<number> => {
      const [own, front] = from === "keys" ? [row.keys, shared.k] : [row.values, shared.v]
      if (position < P) return front.subarray((g * P + position) * H, (g * P + position + 1) * H)
      if (position === P + column) return from === "keys" ? turned(N + g, 1) : row.v.subarray(g * H, (g + 1) * H)
      return own.subarray((g * S + position - P) * H, (g * S + position - P + 1) * H)
    }
    const first = window ? Math.max(0, P + column - window + 1) : 0
    const positions = Array.from({ length: P + column + 1 - first }, (_, i) => first + i)
    const odds = positions.map((p) => Math.exp(q.reduce((sum, x, h) => sum + x * at("keys", p)[h]!, 0)))
    const total = odds.reduce((a, b) => a + b)
    return Array.from({ length: H }, (_, h) =>
      positions.reduce((sum, p, i) => sum + (odds[i]! / total) * at("values", p)[h]!, 0),
    )
  }).flat()
}

describe.runIf(backends[0] === "tensorflow" && !cuda)("a decoding step's attention", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })

  const cases: Case[] = [8, 24, 32].flatMap((H) =>
    [0, 1, 17, 64].flatMap((P) =>
      [0, 5, 30].map((window) => ({ H, P, S: 23, columns: [0, 22, -1, 7, 3], window }) satisfies Case),
    ),
  )

  it("is softmax(q kᵀ) v over shared keys and then a row's own, for rows of any length, and zeros for free rows", () => {
    for (const one of cases) {
      const wanted = one.columns.flatMap((_, b) => exactly(one, b))
      const gap = largestGap(decode(one, [0, 1, 2, 3, 4]), wanted)
      expect(gap, JSON.stringify(one)).toBeLessThan(2e-6)
    }
  })

  it("gives a row the same digits whatever stands beside it, and whether its first keys are shared or its own", () => {
    for (const one of cases) {
      const all = decode(one, [0, 1, 2, 3, 4])
      const size = N * one.H
      const row = (values: Float32Array, b: number) => values.slice(b * size, (b + 1) * size)
      for (const b of [0, 1, 3]) expect(row(decode(one, [b]), 0), JSON.stringify(one)).toEqual(row(all, b))
      expect(decode(one, [0, 1, 2, 3, 4], false), JSON.stringify(one)).toEqual(all)
    }
  })

  it("writes keys and values into their columns alone", () => {
    const one: Case = { H: 8, P: 0, S: 3, columns: [1, -1], window: 0 }
    tf.tidy(() => {
      const [keys, values] = [tf.fill([2 * K * 3, 8], 5), tf.fill([2 * K * 3, 8], 6)]
      const none = tf.zeros([0, 8])
      const inputs = [tf.ones([2, (N + K) * 8]), tf.fill([2, K * 8], 9), tf.ones([2, 4]), tf.zeros([2, 4])]
      kernel(
        "MuscDecode",
        [N, K, 0],
        [...inputs, ...[tf.scalar(1), keys, values, tf.tensor1d(one.columns, "int32"), none, none]],
      )
      const rowsOf = (buffer: Tensor) =>
        (tf.reshape(buffer, [2 * K, 3, 8]).arraySync() as number[][][]).map((x) => x.map(([y]) => y))
      expect(rowsOf(keys)).toEqual([...Array(K).fill([5, 1, 5]), ...Array(K).fill([5, 5, 5])])
      expect(rowsOf(values)).toEqual([...Array(K).fill([6, 9, 6]), ...Array(K).fill([6, 6, 6])])
    })
  })

  it("says what does not fit", () => {
    const one: Case = { H: 8, P: 0, S: 3, columns: [3], window: 0 }
    expect(() => decode(one, [0])).toThrow("a row's cache has no column left")
  })
})
