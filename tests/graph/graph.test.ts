import { beforeAll, describe, expect, it } from "vitest"
import { currentDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { GraphBuilder, type GraphOptions } from "../../lib/ops/builder"
import { backends, cuda, largestGap, tensorsLeft } from "../support/tensors"

beforeAll(async () => {
  await useBackend()
})

describe.runIf(backends[0] === "tensorflow" && !cuda)("a graph", () => {
  /** arithmetic with all kinds of attributes and constants: (a bᵀ · 2)[1:] with rows turned into [-1, 2] */
  const build = () => {
    const g = new GraphBuilder()
    const [a, b] = [g.input("a"), g.input("b")]
    const T = "float32"
    const product = g.op("MatMul", [a, b], { T, transpose_a: false, transpose_b: true })
    const doubled = g.op("Mul", [product, g.number(2)], { T })
    const cut = g.op("Slice", [doubled, g.ints([1, 0]), g.ints([-1, -1])], { T, Index: "int32" })
    const mean = g.op("Mean", [doubled, g.ints(1)], { T, Tidx: "int32", keep_dims: false })
    return g.compile([g.op("Reshape", [cut, g.ints([-1, 2])], { T, Tshape: "int32" }), mean])
  }

  it("computes what its operations do one by one, for inputs of any size, and leaves no tensors behind", async () => {
    expect(currentDevice().graphs).toBe(true)
    const graph = build()
    const left = await tensorsLeft(() => {
      for (const rows of [2, 3]) {
        tf.tidy(() => {
          const a = tf.tensor2d(
            Array.from({ length: rows * 3 }, (_, i) => i / 7 - 1),
            [rows, 3],
          )
          const b = tf.tensor2d(
            Array.from({ length: 12 }, (_, i) => (i % 5) - 2),
            [4, 3],
          )
          const doubled = tf.matMul(a, b, false, true).mul(2)
          const [cut, mean] = graph.run({ a, b })
          expect(cut!.shape).toEqual([2 * (rows - 1), 2])
          expect(largestGap(cut!.dataSync(), doubled.slice([1, 0]).dataSync())).toBeLessThan(1e-6)
          expect(largestGap(mean!.dataSync(), doubled.mean(1).dataSync())).toBeLessThan(1e-6)
        })
      }
    })
    expect(left).toBe(0)
    graph.dispose()
  })

  it("gives the same within 1e-5 when XLA compiles it, and on one thread", () => {
    const elementwise = (options: GraphOptions) => {
      const g = new GraphBuilder()
      const T = "float32"
      const [a, b] = [g.input("a"), g.input("b")]
      const product = g.op("MatMul", [a, b], { T, transpose_a: false, transpose_b: true })
      return g.compile([g.op("Mul", [g.op("Sigmoid", [product], { T }), product], { T })], options)
    }
    tf.tidy(() => {
      const [a, b] = [tf.randomUniform([3, 7], -1, 1, "float32", 1), tf.randomUniform([5, 7], -1, 1, "float32", 2)]
      const product = tf.matMul(a as tf.Tensor2D, b as tf.Tensor2D, false, true)
      const wanted = tf.mul(tf.sigmoid(product), product).dataSync()
      for (const options of [{}, { oneThread: true }, { xla: true }]) {
        const graph = elementwise(options)
        const [found] = graph.run({ a, b })
        expect(largestGap(found!.dataSync(), wanted), JSON.stringify(options)).toBeLessThan(1e-5)
        graph.dispose()
      }
    })
  })

  it("says what is wrong with it", () => {
    const g = new GraphBuilder()
    expect(() => g.compile([g.op("NoSuchOperation", [g.input("a")])])).toThrow("NoSuchOperation")
  })

  it("writes into its inputs in place", () => {
    const g = new GraphBuilder()
    const inputs = [g.input("buffer"), g.input("at", "int32"), g.input("rows")]
    const graph = g.compile([g.op("InplaceUpdate", inputs, { T: "float32" })])
    const buffer = tf.zeros([3, 2])
    tf.tidy(() => graph.run({ buffer, at: tf.tensor1d([2], "int32"), rows: tf.tensor2d([[5, 6]]) }))
    expect([...buffer.dataSync()]).toEqual([0, 0, 0, 0, 5, 6])
    buffer.dispose()
    graph.dispose()
  })
})

describe("graphs", () => {
  it("are for the native backend alone", async () => {
    const former = tf.getBackend()
    await useBackend("cpu")
    expect(currentDevice().graphs).toBe(false)
    await useBackend(former)
  })
})
