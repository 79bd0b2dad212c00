import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { flatten, unflatten } from "../../lib/ops/optimizer"
import { backends } from "../support/tensors"

const shapes = [[2, 3], [4], [5, 3], [3, 2], [1], [1, 3]]

describe.each(backends)("on %s", (backend) => {
  beforeAll(async () => {
    await useBackend(backend)
  })

  it("tensors come back from one vector as they were, those with equal rows side by side in it", () => {
    let next = 0
    const tensors = shapes.map((shape) => {
      const size = shape.reduce((a, b) => a * b, 1)
      return tf.tensor(
        Array.from({ length: size }, () => next++),
        shape,
        "float32",
      )
    })
    const before = tf.memory().numTensors
    const vector = flatten(tensors)
    const again = unflatten(vector, tensors)
    expect(tf.memory().numTensors - before).toBe(1 + shapes.length)
    // rows of three: 0 … 5, 10 … 24 and 32 … 34; single values: 6 … 9 and 31; rows of two: 25 … 30
    const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)
    expect([...vector.dataSync()]).toEqual([
      ...range(0, 5),
      ...range(10, 24),
      ...range(32, 34),
      ...range(6, 9),
      31,
      ...range(25, 30),
    ])
    again.forEach((tensor, i) => {
      expect(tensor.shape).toEqual(shapes[i])
      expect([...tensor.dataSync()]).toEqual([...tensors[i]!.dataSync()])
    })
    tf.dispose([tensors, vector, again])
  })

  it("a large tensor lies alone, in its place among the first of each kind", () => {
    const rows = 2 ** 18
    const tensors = [tf.fill([2, 4], 1), tf.range(0, 4 * rows).reshape([rows, 4]), tf.fill([1, 4], 3)]
    const vector = flatten(tensors)
    const at = (from: number, count: number) => [...tf.slice(vector, from, count).dataSync()]
    expect(at(0, 13)).toEqual([...Array(8).fill(1), ...Array(4).fill(3), 0])
    expect(at(12 + 4 * rows - 2, 2)).toEqual([4 * rows - 2, 4 * rows - 1])
    const again = unflatten(vector, tensors)
    expect(again.map(({ shape }) => shape)).toEqual(tensors.map(({ shape }) => shape))
    expect([...tf.slice(again[1]!, [rows - 1, 0]).dataSync()]).toEqual([4, 3, 2, 1].map((back) => 4 * rows - back))
    tf.dispose([tensors, vector, again])
  })
})
