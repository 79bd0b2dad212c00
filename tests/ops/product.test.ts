import type { Tensor2D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { currentDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { gated, gatedProduct } from "../../lib/ops/gated"
import { linear, loraFactors, lowRankProduct } from "../../lib/ops/linear"
import { matMul } from "../../lib/ops/matmul"
import { rng } from "../../lib/rng"
import { backends, cuda, largestGap, tensorsLeft } from "../support/tensors"

/** Numbers between -2 and 2, all of whose digits count. */
const numbers = (rows: number, columns: number, key: string): Tensor2D => {
  const random = rng(5, key)
  return tf.tensor2d(
    Float32Array.from({ length: rows * columns }, () => 4 * random.next() - 2),
    [rows, columns],
  )
}

/** Numbers of 8 binary digits, as checkpoints in bf16 hold. */
const short = (rows: number, columns: number, key: string): Tensor2D => {
  const random = rng(6, key)
  return tf.tensor2d(
    Float32Array.from({ length: rows * columns }, () => (random.int(511) - 255) / 64),
    [rows, columns],
  )
}

/** a · b in double precision. */
function exactly(a: Tensor2D, b: Tensor2D): Float64Array {
  const [[M, K], N] = [a.shape, b.shape[1]]
  const [x, y] = [a.dataSync(), b.dataSync()]
  const sums = new Float64Array(M * N)
  for (let i = 0; i < M; i++)
    for (let k = 0; k < K; k++) for (let j = 0; j < N; j++) sums[i * N + j]! += x[i * K + k]! * y[k * N + j]!
  return sums
}

/** Root of the mean squared difference. */
const deviation = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.sqrt(Array.from(a).reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0) / a.length)

const available = backends.includes("tensorflow") && !cuda
describe.skipIf(!available)("products by the tiles of AMX", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })
  // Whether the processor has tiles is known only once the backend is loaded.
  const withTiles = (name: string, test: () => void | Promise<void>) =>
    it(name, async (context) => {
      context.skip(currentDevice().kernels !== "amx", "no AMX here, or kernels that were built without it")
      await test()
    })

  // Sizes with a rest in every direction, one of several blocks of columns, one longer than what is packed at once, and
  // one too large to be made the other way round.
  const sizes = [
    [1, 1, 1],
    [3, 5, 7],
    [16, 32, 32],
    [47, 70, 33],
    [65, 33, 1030],
    [40, 2100, 70],
    [2100, 3, 520],
  ] as const
  const turned = [
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ] as const

  withTiles("are nearer to the true ones than those in f32, whichever matrix is transposed", () => {
    for (const [M, K, N] of sizes) {
      for (const right of [numbers, short]) {
        const [a, b] = [numbers(M, K, "a"), right(K, N, "b")]
        const wanted = exactly(a, b)
        const usual = deviation(tf.matMul(a, b).dataSync(), wanted)
        for (const [turnA, turnB] of turned) {
          const [x, y] = [turnA ? tf.transpose(a) : a, turnB ? tf.transpose(b) : b] as [Tensor2D, Tensor2D]
          const product = matMul(x, y, turnA, turnB)
          expect(product.shape).toEqual([M, N])
          // One in 2^24 of a sum that is about sqrt(K) large; a few additions of TensorFlow's may hit it by chance.
          const bound = Math.max(usual, 2 ** -23 * Math.sqrt(K))
          expect(deviation(product.dataSync(), wanted), `${M} x ${K} x ${N}`).toBeLessThan(bound)
        }
      }
    }
  })

  withTiles("give a row the same digits whatever stands beside it", () => {
    const [a, b] = [numbers(200, 90, "a"), numbers(90, 130, "b")]
    const all = matMul(a, b, false, false).arraySync()
    for (const [from, count] of [
      [0, 1],
      [17, 16],
      [33, 100],
      [199, 1],
    ] as const) {
      const some = matMul(tf.slice(a, [from, 0], [count, 90]), b, false, false)
      expect(some.arraySync()).toEqual(all.slice(from, from + count))
    }
  })

  withTiles("do not hide what is not a number", () => {
    const a = tf.tensor2d([1, Number.NaN, 3, 4], [2, 2])
    const [[first], [second]] = matMul(a, tf.ones([2, 1]), false, false).arraySync() as [number[], number[]]
    expect([first, second]).toEqual([Number.NaN, 7])
  })

  withTiles("say what must agree, and give zeros for a sum of nothing", () => {
    expect(() => matMul(tf.ones([2, 3]), tf.ones([2, 3]), false, false)).toThrow("must agree")
    expect(matMul(tf.ones([0, 3]), tf.ones([3, 2]), false, false).shape).toEqual([0, 2])
    expect([...matMul(tf.ones([2, 0]), tf.ones([0, 2]), false, false).dataSync()]).toEqual([0, 0, 0, 0])
  })

  withTiles("add updates of low rank, and give what went through them", () => {
    for (const [M, K, N] of sizes) {
      const [x, weight, dy] = [numbers(M, K, "x"), short(K, N, "w"), numbers(M, N, "dy")]
      const [down, up] = [numbers(K, 16, "down"), numbers(16, N, "up")]
      const whole = tf.add(weight, tf.matMul(down, up)) as Tensor2D
      const [y, through] = lowRankProduct(x, weight, down, up, false)
      const [dx, back] = lowRankProduct(dy, weight, up, down, true)
      const close = (found: Tensor2D, wanted: Float64Array) =>
        expect(
          largestGap(found.dataSync(), wanted) / wanted.reduce((a, b) => Math.max(a, b), 1),
          `${M} x ${K} x ${N}`,
        ).toBeLessThan(3e-6)
      close(y, exactly(x, whole))
      close(through, exactly(x, down))
      close(dx, exactly(dy, tf.transpose(whole)))
      close(back, exactly(dy, tf.transpose(up)))
    }
  })

  withTiles("gate a product as it comes", () => {
    for (const [M, K, N] of sizes) {
      for (const matrix of [numbers, short]) {
        const [x, gate, up] = [numbers(M, K, "x"), matrix(K, N, "gate"), matrix(K, N, "up")]
        const product = (matrix: Tensor2D) => matMul(x, matrix, false, false)
        for (const activation of ["silu", "gelu_tanh"] as const) {
          const whole = gatedProduct(x, gate, up, activation)
          expect(whole.arraySync()).toEqual(gated(product(gate), product(up), activation).arraySync())
        }
      }
    }
  })

  // y = x (W + scale Σ A B), differentiated by tfjs.
  withTiles("train adapters beside a matrix as within it", async () => {
    const [M, D, O] = [70, 48, 80]
    const scale = 0.5
    const [x, weight, dy] = [numbers(M, D, "x"), short(D, O, "w"), numbers(M, O, "dy")]
    const updates = [
      { A: numbers(D, 4, "A1"), B: numbers(4, 48, "B1"), offset: 0 },
      { A: numbers(D, 4, "A2"), B: numbers(4, 32, "B2"), offset: 48 },
    ]
    const inputs = [x, ...updates.flatMap(({ A, B }) => [A, B])]
    const plain = (x: Tensor2D, A1: Tensor2D, B1: Tensor2D, A2: Tensor2D, B2: Tensor2D) => {
      const delta = tf.concat([tf.matMul(A1, B1), tf.matMul(A2, B2)], 1)
      return tf.matMul(x, tf.add(weight, tf.mul(delta, scale)) as Tensor2D)
    }
    const wanted = tf.grads(plain as (...xs: tf.Tensor[]) => tf.Tensor)(inputs, dy)
    const left = await tensorsLeft(() => {
      const factors = loraFactors(O, updates, scale)
      const trained = (x: tf.Tensor) => linear(x as Tensor2D, weight, { lora: updates, factors })
      expect(
        largestGap(
          tf.tidy(() => trained(x).dataSync()),
          tf.tidy(() => plain(...(inputs as Parameters<typeof plain>)).dataSync()),
        ),
      ).toBeLessThan(2e-4)
      const found = tf.grads((...xs) => trained(xs[0]!))(inputs, dy.clone())
      found.forEach((grad, i) => {
        expect(grad.shape).toEqual(inputs[i]!.shape)
        expect(largestGap(grad.dataSync(), wanted[i]!.dataSync())).toBeLessThan(1e-3)
      })
      const constant = tf.grads(() => linear(x, weight, { lora: updates, factors, constantInput: true }))(
        inputs.slice(1),
        dy.clone(),
      )
      constant.forEach((grad, i) => {
        expect(largestGap(grad.dataSync(), found[i + 1]!.dataSync())).toBeLessThan(1e-4)
      })
      tf.dispose([factors.down, factors.up, factors.scale, found, constant])
    })
    expect(left).toBe(0)
  })
})
