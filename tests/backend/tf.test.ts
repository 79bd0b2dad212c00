import { describe, expect, it } from "vitest"
import { danfoTensorIsOurs } from "../../lib/backend/doctor"
import { nativeBuild } from "../../lib/backend/native"
import { type BackendName, loadedCores, tf, useBackend } from "../../lib/backend/tf"
import { rng } from "../../lib/rng"

const names: BackendName[] = nativeBuild() ? ["tensorflow", "wasm", "cpu"] : ["wasm", "cpu"]

describe("the tfjs of the process", () => {
  it("has one core, which danfojs-node shares, so that tensors of a data frame mix with ours", async () => {
    await useBackend("cpu")
    expect(await danfoTensorIsOurs()).toBe(true)
    expect(loadedCores()).toHaveLength(1)

    const { DataFrame } = await import("danfojs-node")
    const frame = new DataFrame([
      [1, 2],
      [3, 4],
    ])
    const product = tf.matMul(frame.tensor as never, tf.tensor2d([[1], [10]]))
    expect([...product.dataSync()]).toEqual([21, 43])
  })

  it("keeps the banners of tfjs off the terminal", async () => {
    expect(tf.env().getBool("PROD")).toBe(true)
  })
})

describe.each(names)("the backend %s", (name) => {
  it("starts when forced and multiplies matrices as three loops do, in each transposition", async () => {
    expect((await useBackend(name)).name).toBe(name)
    expect(tf.getBackend()).toBe(name)
    const { next } = rng("matmul")
    const [m, k, n] = [5, 7, 3]
    const a = Array.from({ length: m }, () => Array.from({ length: k }, next))
    const b = Array.from({ length: k }, () => Array.from({ length: n }, next))
    const expected = a.flatMap((row) => b[0]!.map((_, j) => row.reduce((sum, x, i) => sum + x * b[i]![j]!, 0)))
    const [ta, tb] = [tf.tensor2d(a), tf.tensor2d(b)]
    const [at, bt] = [tf.transpose(ta), tf.transpose(tb)]
    for (const product of [tf.matMul(ta, tb), tf.matMul(at, tb, true), tf.matMul(ta, bt, false, true)]) {
      const got = await product.data()
      expect(got).toHaveLength(m * n)
      for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, 5)
    }
  })
})
