import { describe, expect, it } from "vitest"
import { type BackendName, loadedCores, tf, useBackend } from "../../lib/device/tf"
import { nativeBuild } from "../../lib/native/build"
import { danfoTensorIsOurs } from "../../lib/native/doctor"
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

  it("takes parts out of tensors, in one piece or not, of numbers, truths and words", async () => {
    await useBackend(name)
    const [rows, columns] = [4, 6]
    const parts: [begin: [number, number], size: [number, number]][] = [
      [
        [1, 0],
        [2, columns],
      ],
      [
        [3, 2],
        [1, 3],
      ],
      [
        [0, 1],
        [rows, 2],
      ],
      [
        [2, 0],
        [0, columns],
      ],
    ]
    for (const [dtype, valueAt] of Object.entries({
      float32: (i: number) => i + 0.5,
      int32: (i: number) => i,
      bool: (i: number) => i % 3 === 0,
      string: (i: number) => `word ${i}`,
    })) {
      const values = Array.from({ length: rows * columns }, (_, i) => valueAt(i))
      const whole = tf.tensor2d(values as number[], [rows, columns], dtype as "float32")
      for (const [begin, size] of parts) {
        const expected = values
          .map((value, i) => ({ value, row: Math.floor(i / columns), column: i % columns }))
          .filter(
            ({ row, column }) =>
              row >= begin[0] && row < begin[0] + size[0] && column >= begin[1] && column < begin[1] + size[1],
          )
          .map(({ value }) => (typeof value === "boolean" ? Number(value) : value))
        const part = tf.slice(whole, begin, size)
        expect(part.shape).toEqual(size)
        expect([...((await part.data()) as Iterable<unknown>)]).toEqual(expected)
      }
    }
  })

  it("splits, gathers and clones by rows and by columns", async () => {
    await useBackend(name)
    const values = Array.from({ length: 12 }, (_, i) => i + 0.5)
    const whole = tf.tensor2d(values, [4, 3])
    const rows = (from: number, to: number) => values.slice(3 * from, 3 * to)
    expect(tf.split(whole, [1, 3]).map((part) => [...part.dataSync()])).toEqual([rows(0, 1), rows(1, 4)])
    expect(tf.split(whole, [1, 2], 1).map((part) => part.shape)).toEqual([
      [4, 1],
      [4, 2],
    ])
    expect([...tf.split(whole, [1, 2], 1)[0]!.dataSync()]).toEqual([0.5, 3.5, 6.5, 9.5])
    const at = tf.tensor2d([3, 0, 3, 2], [2, 2], "int32")
    const gathered = tf.gather(whole, at)
    expect(gathered.shape).toEqual([2, 2, 3])
    expect([...gathered.dataSync()]).toEqual([rows(3, 4), rows(0, 1), rows(3, 4), rows(2, 3)].flat())
    expect([...tf.gather(whole, tf.tensor1d([2], "int32"), 1).dataSync()]).toEqual([2.5, 5.5, 8.5, 11.5])
    const copy = tf.clone(whole)
    whole.dispose()
    const later = tf.ones([4, 3]) // may take the room of what was freed
    expect([...copy.dataSync()]).toEqual(values)
    tf.dispose([copy, later])
  })
})

it("refuses to gather a row that is not there on wasm", async () => {
  await useBackend("wasm")
  expect(() => tf.gather(tf.ones([4, 3]), tf.tensor1d([4], "int32"))).toThrow("not in [0, 3]")
})
