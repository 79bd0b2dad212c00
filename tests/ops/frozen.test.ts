import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { currentDevice, type Device, mathNames, setDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { hasInstructions } from "../../lib/machine"
import {
  backThrough,
  backwards,
  canFreeze,
  floatRows,
  floatsOf,
  freeze,
  frozenLowRank,
  inBf16,
  logitsOf,
  multiply,
  rowsOf,
  tableRows,
} from "../../lib/ops/frozen"
import { kernel, kernelOutputs, kernelPair } from "../../lib/ops/kernel"
import { backends, cuda, largestGap, randomValues, tensorsLeft } from "../support/tensors"

/** Numbers of bf16: floats whose lower half is zeros. */
function bf16(n: number, key: string): Float32Array {
  const values = randomValues(n, 1, key)
  const words = new Uint32Array(values.buffer)
  for (const [i, word] of words.entries()) words[i] = word & 0xffff0000
  return values
}
/** The nearest numbers of bf16. */
const rounded = (x: Float32Array) =>
  Float32Array.from(new Uint32Array(x.buffer, x.byteOffset, x.length), (word) => {
    const near = new Uint32Array([word + 0x7fff + ((word >>> 16) & 1)])
    near[0]! &= 0xffff0000
    return new Float32Array(near.buffer)[0]!
  })
const matrix = (D: number, O: number) => tf.tensor2d(bf16(D * O, `${D} ${O}`), [D, O])
const input = (M: number, D: number) => tf.tensor2d(randomValues(M * D, 1, `x ${D}`).subarray(0, M * D), [M, D])

// Primes, whole panels, one column, and sums longer than what is widened at once.
const sizes = [
  [1, 1],
  [7, 53],
  [64, 32],
  [300, 131],
  [577, 64],
] as const

describe.skipIf(!backends.includes("tensorflow") || cuda)("a frozen matrix", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })

  it.each(sizes)("of %i x %i comes back to the last bit", (D, O) => {
    tf.tidy(() => {
      const [weight, table] = [matrix(D, O), matrix(O, D)]
      expect(floatsOf(freeze(weight)).dataSync()).toEqual(weight.dataSync())
      const frozen = freeze(table, true)
      expect(floatRows(frozen, 0, O).dataSync()).toEqual(table.dataSync())
      const ids = tf.tensor1d([O - 1, 0, O >> 1], "int32") as Tensor1D
      expect(rowsOf(frozen, ids).dataSync()).toEqual(tf.gather(table, ids).dataSync())
    })
  })

  it("gives the logits of some words as those of all", () => {
    tf.tidy(() => {
      const [V, D] = [200, 37]
      const frozen = freeze(matrix(V, D), true)
      const h = input(9, D)
      const all = logitsOf(h, frozen)
      const some = logitsOf(h, tableRows(frozen, 64, 100))
      expect(some.dataSync()).toEqual((tf.slice(all, [0, 64], [9, 100]) as Tensor2D).dataSync())
      const words = floatRows(frozen, 64, 100)
      expect(largestGap(logitsOf(h, words).dataSync(), some.dataSync())).toBeLessThan(1e-5)
      const back = backThrough(some, tableRows(frozen, 64, 100))
      expect(largestGap(back.dataSync(), tf.matMul(some, words).dataSync())).toBeLessThan(1e-4)
    })
  })

  it("refuses numbers that bf16 does not hold, panels of another matrix, and ids outside of a table", () => {
    const inexact = tf.tensor2d([0.1, 1], [1, 2])
    expect(() => freeze(inexact)).toThrow(/bf16 does not hold/)
    const frozen = freeze(matrix(7, 53))
    expect(() => multiply(input(2, 8), frozen)).toThrow(/as wide as the matrix is high/)
    expect(() => kernel("MuscUnpack", [7, 90], [frozen.packed])).toThrow(/of this size/)
    expect(() => rowsOf(frozen, tf.tensor1d([53], "int32"))).toThrow(/outside of the table/)
    tf.dispose([inexact, frozen])
  })

  it("leaves no tensors behind", async () => {
    const x = input(3, 7)
    const left = await tensorsLeft(() => {
      const weight = matrix(7, 53)
      const frozen = freeze(weight)
      const y = multiply(x, frozen)
      tf.dispose([y, backwards(y, frozen), weight, frozen])
    })
    expect(left).toBe(0)
  })
})

describe.skipIf(!backends.includes("tensorflow") || cuda).each(mathNames)(
  "a frozen matrix in %s maths",
  (precision) => {
    let device: Device
    beforeAll(async () => {
      await useBackend("tensorflow")
      device = currentDevice()
      setDevice({ ...device, precision })
    })
    afterAll(() => setDevice(device))

    // In bf16 other processors, and other builds of the kernels, multiply in f32.
    const rounds = () =>
      precision === "bf16" &&
      device.kernels === "vector" &&
      !process.env.MUSC_KERNELS &&
      hasInstructions("avx512_bf16") === true
    /** What is multiplied of x. */
    const factor = (x: Tensor2D) =>
      rounds() ? tf.tensor2d(rounded(x.dataSync() as Float32Array), x.shape) : (x.clone() as Tensor2D)
    const turned = (a: Tensor2D, b: Tensor2D) => tf.matMul(a, b, false, true)
    const firstRows = (all: Tensor2D, M: number) => tf.slice(all, [0, 0], [M, all.shape[1]]) as Tensor2D

    // Products of numbers of 8 digits are exact in f32, so that what is left are the roundings of the sum.
    it.each(sizes)("of %i x %i gives products like floats, a row the same digits among any others", (D, O) => {
      tf.tidy(() => {
        const weight = matrix(D, O)
        const frozen = freeze(weight)
        const x = input(203, D)
        const all = multiply(x, frozen)
        expect(largestGap(all.dataSync(), tf.matMul(factor(x), weight).dataSync())).toBeLessThan(2e-6 * D)
        const back = backwards(all, frozen)
        expect(largestGap(back.dataSync(), turned(factor(all), weight).dataSync())).toBeLessThan(2e-6 * D * O)
        if (rounds()) expect(largestGap(all.dataSync(), tf.matMul(x, weight).dataSync())).toBeGreaterThan(1e-4)
        for (const M of [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 97, 203]) {
          expect(multiply(firstRows(x, M), frozen).dataSync()).toEqual(firstRows(all, M).dataSync())
          expect(backwards(firstRows(all, M), frozen).dataSync()).toEqual(firstRows(back, M).dataSync())
        }
      })
    })

    it.each([...sizes, [40, 70] as const])(
      "of %i x %i with a low-rank update gives what the sum of both gives",
      (D, O) => {
        tf.tidy(() => {
          for (const R of [5, 16]) {
            const [weight, down, up] = [matrix(D, O), input(D, R), input(R, O)]
            const frozen = freeze(weight)
            const x = input(101, D)
            const [y, through] = frozenLowRank(x, frozen, down, up, false)
            expect(largestGap(through.dataSync(), tf.matMul(x, down).dataSync())).toBeLessThan(2e-6 * D)
            const sum = tf.add(tf.matMul(factor(x), weight), tf.matMul(factor(through), factor(up)))
            expect(largestGap(y.dataSync(), sum.dataSync())).toBeLessThan(1e-5 * D)
            const [dx, back] = frozenLowRank(y, frozen, up, down, true)
            const scale = Math.max(...y.dataSync().map(Math.abs))
            expect(largestGap(back.dataSync(), turned(y, up).dataSync())).toBeLessThan(2e-6 * O * scale)
            const dSum = tf.add(turned(factor(y), weight), turned(factor(back), factor(down)))
            expect(largestGap(dx.dataSync(), dSum.dataSync())).toBeLessThan(1e-5 * O * scale)
            for (const M of [1, 2, 3, 4, 5, 7, 8, 9, 13, 97]) {
              const [some, someThrough] = frozenLowRank(firstRows(x, M), frozen, down, up, false)
              expect(some.dataSync()).toEqual(firstRows(y, M).dataSync())
              expect(someThrough.dataSync()).toEqual(firstRows(through, M).dataSync())
              const [someBack] = frozenLowRank(firstRows(y, M), frozen, up, down, true)
              expect(someBack.dataSync()).toEqual(firstRows(dx, M).dataSync())
            }
            // an update that has learnt nothing changes no digit
            const nothing = frozenLowRank(x, frozen, down, tf.zeros([R, O]), false)[0]
            expect(nothing.dataSync()).toEqual(multiply(x, frozen).dataSync())
          }
        })
      },
    )

    it.each(sizes)("of %i x %i takes part in joined operations to the same digits", (D, O) => {
      tf.tidy(() => {
        const [one, other] = [freeze(matrix(D, O)), freeze(tf.tensor2d(bf16(D * O, "other"), [D, O]))]
        const weight = tf.tensor1d(randomValues(D, 1, "weight"))
        const eps = tf.scalar(1e-5)
        for (const M of [1, 2, 4, 5, 23]) {
          const x = input(M, D)
          const [normed] = kernelPair("MuscRmsNorm", [0], [x, weight, eps]) as [Tensor2D, Tensor1D]
          const products = [one, other].map((frozen) => multiply(normed, frozen))
          const inputs = [x, weight, eps, one.packed, other.packed]
          const found = kernelOutputs("MuscNormedProducts", [O, O, inBf16()], inputs, 2, 2)
          for (const [i, product] of products.entries()) expect(found[i]!.dataSync()).toEqual(product.dataSync())
          for (const gelu of [0, 1]) {
            const gated = kernel("MuscNormedGated", [O, gelu, inBf16()], inputs)
            expect(gated.dataSync()).toEqual(kernel("MuscGated", [gelu], products).dataSync())
          }
          const residual = input(M, O)
          const sum = kernel("MuscFrozenSum", [O, inBf16()], [x, one.packed, residual])
          expect(sum.dataSync()).toEqual(tf.add(residual, multiply(x, one)).dataSync())
        }
      })
    })

    it("keeps what is not a number", () => {
      tf.tidy(() => {
        const x = tf.tensor2d([Number.NaN, 1, Number.POSITIVE_INFINITY, 1], [2, 2])
        const y = multiply(x, freeze(tf.tensor2d([1, 0, 1, 1], [2, 2])))
        expect([...y.dataSync()]).toEqual([Number.NaN, Number.NaN, Number.POSITIVE_INFINITY, Number.NaN])
      })
    })
  },
)

describe.skipIf(!backends.includes("tensorflow") || cuda)("a frozen matrix on a device without kernels of ours", () => {
  let device: Device
  let plain: Device
  beforeAll(async () => {
    await useBackend("tensorflow")
    device = currentDevice()
    plain = { ...device, kernels: "none", products: "library" }
    setDevice(plain)
  })
  afterAll(() => setDevice(device))

  it("takes half of the memory, where its width is even and graphs can be made", () => {
    expect(canFreeze(37)).toBe(false)
    expect(canFreeze(38)).toBe(true)
    const frozen = tf.tidy(() => freeze(matrix(38, 53)))
    expect(frozen.packed.shape).toEqual([53, 19])
    tf.dispose(frozen)
    setDevice({ ...plain, graphs: false })
    expect(canFreeze(38)).toBe(false)
    setDevice(plain)
  })

  it.each([
    [2, 1],
    [38, 53],
    [300, 131],
  ])("of %i x %i comes back to the last bit, whole and in rows, zeros too", (D, O) => {
    tf.tidy(() => {
      // A pair of a number and zero looks like a float that is too small to be normal.
      const thirds = (x: Tensor2D) => tf.where(tf.equal(tf.mod(tf.range(0, x.size), 3), 0).reshape(x.shape), 0, x)
      const [weight, table] = [thirds(matrix(D, O)), thirds(matrix(O, D))] as [Tensor2D, Tensor2D]
      expect(floatsOf(freeze(weight)).dataSync()).toEqual(weight.dataSync())
      const frozen = freeze(table, true)
      expect(floatRows(frozen, 0, O).dataSync()).toEqual(table.dataSync())
      const ids = tf.tensor1d([O - 1, 0, O >> 1], "int32") as Tensor1D
      expect(rowsOf(frozen, ids).dataSync()).toEqual(tf.gather(table, ids).dataSync())
      const few = tf.slice(frozen.packed as Tensor2D, [0, 0], [1, D / 2])
      expect(rowsOf({ ...frozen, packed: few }, tf.tensor1d([0], "int32")).dataSync()).toEqual(
        tf.slice(table, [0, 0], [1, D]).dataSync(),
      )
    })
  })

  it("gives products like floats, of all columns and of some", () => {
    tf.tidy(() => {
      const [V, D] = [200, 38]
      const table = matrix(V, D)
      const frozen = freeze(table, true)
      const h = input(9, D)
      const gaps = (a: Tensor2D, b: Tensor2D) => largestGap(a.dataSync(), b.dataSync())
      expect(gaps(multiply(h, frozen), tf.matMul(h, table, false, true))).toBeLessThan(2e-6 * D)
      const [rows, some] = [tableRows(frozen, 64, 100), tf.slice(table, [64, 0], [100, D])]
      expect(gaps(logitsOf(h, rows), tf.matMul(h, some, false, true))).toBeLessThan(2e-6 * D)
      const dy = input(9, 100)
      expect(gaps(backThrough(dy, rows), tf.matMul(dy, some))).toBeLessThan(2e-6 * 100)
    })
  })

  it("multiplies in bf16 where that is wanted: both factors and the result have 8 binary digits", () => {
    setDevice({ ...plain, precision: "bf16" })
    tf.tidy(() => {
      const [D, O] = [300, 131]
      const weight = matrix(D, O)
      const x = input(9, D)
      const near = tf.tensor2d(rounded(x.dataSync() as Float32Array), [9, D])
      const [made, exact] = [multiply(x, freeze(weight)), tf.matMul(near, weight)].map((y) => y.dataSync())
      const sums = tf.matMul(tf.abs(near), tf.abs(weight)).dataSync()
      made!.forEach((y, i) => {
        expect(Math.abs(y - exact![i]!)).toBeLessThan(2 ** -8 * Math.abs(exact![i]!) + D * 2 ** -24 * sums[i]!)
      })
      expect(rounded(made as Float32Array)).toEqual(made)
    })
    setDevice(plain)
  })
})
