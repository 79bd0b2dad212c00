import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it, vi } from "vitest"
import { currentDevice, setDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { type AttentionBlock, attend, rotate, type Span } from "../../lib/ops/attention"
import { gated } from "../../lib/ops/gated"
import { cappedLogits, targetLogProbs } from "../../lib/ops/head"
import { linear } from "../../lib/ops/linear"
import { matMul } from "../../lib/ops/matmul"
import { rmsNorm } from "../../lib/ops/norm"
import { lookup, writeRows } from "../../lib/ops/table"
import { backends, largestGap, randomValues } from "../support/tensors"

// Each op is compared with the formula in plain tfjs on the cpu backend, whose gradients tfjs derives by itself.

type Op = (...inputs: Tensor[]) => Tensor

interface Case {
  name: string
  /** of the inputs that the gradient is wanted for */
  shapes: number[][]
  /** what both formulas get after the inputs; it must outlive a gradient tape, so it is made outside */
  constants?: (inputs: Tensor[]) => Tensor[]
  ours: Op
  plain: Op
}

const B = 2
const N = 4
const K = 2
const T = 5
const H = 6
const M = 7
const D = 8
const O = 10
const V = 11

const uniform = (shape: number[], name: string) =>
  tf.tensor(
    randomValues(
      shape.reduce((a, b) => a * b, 1),
      1,
      name,
    ),
    shape,
  )
const ids = () => tf.tensor1d([3, 0, 10, 3, 7, 1, 3], "int32") // [M]
const scale = 1.5

/** Positions 0 … T-1, each pair of a head turning at its own frequency. */
const angles = () => {
  const values = Float32Array.from({ length: T * H }, (_, i) => Math.floor(i / H) * 0.7 ** ((i % H) % (H / 2)))
  return tf.tensor4d(values, [1, 1, T, H])
}
/** x · rotation = [-x2, x1] */
const rotation = () => {
  const values = new Float32Array(H * H)
  for (let h = 0; h < H / 2; h++) {
    values[(h + H / 2) * H + h] = -1
    values[h * H + h + H / 2] = 1
  }
  return tf.tensor2d(values, [H, H])
}
/** Causal; in the second row nobody but itself sees the first token. */
const mask = () => {
  const values = Float32Array.from({ length: B * T * T }, (_, i) => {
    const [b, t, s] = [Math.floor(i / (T * T)), Math.floor(i / T) % T, i % T]
    return s > t || (b === 1 && s === 0 && t > 0) ? -1e9 : 0
  })
  return tf.tensor4d(values, [B, 1, T, T])
}

/** Hides what is `window` places back or more. */
const windowMask = (window: number) => {
  const values = Float32Array.from({ length: T * T }, (_, i) => (Math.floor(i / T) - (i % T) >= window ? -1e9 : 0))
  return tf.tensor4d(values, [1, 1, T, T])
}
/** All queries in one block. */
const whole = (masked: Tensor): AttentionBlock[] => [
  { queries: [0, masked.shape[2]!], keys: [0, T], mask: masked as Tensor4D },
]
/** Queries and keys of three blocks. */
const spans: [Span, Span][] = [
  [
    [0, 2],
    [0, 2],
  ],
  [
    [2, 1],
    [0, 3],
  ],
  [
    [3, 2],
    [1, 4],
  ],
]

const plainNorm = (x: Tensor, w: Tensor) => tf.mul(tf.div(x, tf.sqrt(tf.add(tf.mean(tf.mul(x, x), -1, true), 1e-5))), w)
const heads = (x: Tensor, from: number, n: number) => tf.slice(x, [0, from, 0, 0], [B, n, T, H])
const plainAttention = (q: Tensor, k: Tensor, v: Tensor, masked: Tensor) => {
  // heads 0 and 1 ask the first key head, 2 and 3 the second
  const repeat = (x: Tensor) =>
    tf.concat(
      [0, 0, 1, 1].map((head) => heads(x, head, 1)),
      1,
    )
  return tf.matMul(tf.softmax(tf.add(tf.matMul(q, repeat(k), false, true), masked)), repeat(v))
}
const plainLogProb = (h: Tensor, w: Tensor, at: Tensor, cap: number | null) => {
  const raw = tf.matMul(h, w, false, true)
  const logits = cap ? tf.mul(tf.tanh(tf.div(raw, cap)), cap) : raw
  return tf.log(tf.sum(tf.mul(tf.softmax(logits), tf.oneHot(at as Tensor1D, V)), 1))
}

const cases: Case[] = [
  {
    name: "linear with a frozen matrix",
    shapes: [[M, D]],
    constants: () => [uniform([D, O], "weight")],
    ours: (x, w) => linear(x as Tensor2D, w as Tensor2D),
    plain: (x, w) => tf.matMul(x!, w!),
  },
  {
    name: "linear with a trained matrix",
    shapes: [
      [M, D],
      [D, O],
    ],
    ours: (x, w) => linear(x as Tensor2D, w as Tensor2D, { trainWeight: true }),
    plain: (x, w) => tf.matMul(x!, w!),
  },
  {
    // y = x W + scale · [x A1 B1 | x A2 B2], blocks of 4 and 6 columns; ours gets W + scale · [A1 B1 | A2 B2]
    name: "linear with two low-rank updates",
    shapes: [
      [M, D],
      [D, 3],
      [3, 4],
      [D, 3],
      [3, 6],
    ],
    constants: ([, a1, b1, a2, b2]) => {
      const weight = uniform([D, O], "weight")
      const update = tf.concat([tf.matMul(a1!, b1!), tf.matMul(a2!, b2!)], 1)
      return [weight, tf.add(weight, tf.mul(update, scale)), ...[a1, b1, a2, b2].map((x) => tf.mul(x!, scale))]
    },
    ours: (x, a1, b1, a2, b2, _, effective, ...scaled) => {
      const [sa1, sb1, sa2, sb2] = scaled as Tensor2D[]
      return linear(x as Tensor2D, effective as Tensor2D, {
        lora: [
          { A: a1 as Tensor2D, B: b1 as Tensor2D, offset: 0, scaled: { A: sa1!, B: sb1! } },
          { A: a2 as Tensor2D, B: b2 as Tensor2D, offset: 4, scaled: { A: sa2!, B: sb2! } },
        ],
      })
    },
    plain: (x, a1, b1, a2, b2, weight) => {
      const low = tf.concat([tf.matMul(tf.matMul(x!, a1!), b1!), tf.matMul(tf.matMul(x!, a2!), b2!)], 1)
      return tf.add(tf.matMul(x!, weight!), tf.mul(low, scale))
    },
  },
  {
    name: "lookup, where some rows are taken twice and others never",
    shapes: [[V, D]],
    constants: () => [ids()],
    ours: (t, at) => lookup(t as Tensor2D, at as Tensor1D),
    plain: (t, at) => tf.matMul(tf.oneHot(at as Tensor1D, V).toFloat(), t!),
  },
  {
    name: "rmsNorm with a frozen weight",
    shapes: [[M, D]],
    constants: () => [uniform([D], "weight")],
    ours: (x, w) => rmsNorm(x!, w!, 1e-5),
    plain: (x, w) => plainNorm(x!, w!),
  },
  {
    name: "rmsNorm with a trained weight",
    shapes: [[M, D], [D]],
    ours: (x, w) => rmsNorm(x!, w!, 1e-5, true),
    plain: (x, w) => plainNorm(x!, w!),
  },
  {
    name: "rmsNorm with a trained weight a head",
    shapes: [
      [B, N, T, H],
      [N, 1, H],
    ],
    ours: (x, w) => rmsNorm(x!, w!, 1e-5, true),
    plain: (x, w) => plainNorm(x!, w!),
  },
  {
    name: "gated silu",
    shapes: [
      [M, D],
      [M, D],
    ],
    ours: (gate, up) => gated(gate as Tensor2D, up as Tensor2D, "silu"),
    plain: (gate, up) => tf.mul(tf.mul(gate!, tf.sigmoid(gate!)), up!),
  },
  {
    name: "gated gelu",
    shapes: [
      [M, D],
      [M, D],
    ],
    ours: (gate, up) => gated(gate as Tensor2D, up as Tensor2D, "gelu_tanh"),
    plain: (gate, up) => {
      const cube = tf.mul(tf.mul(gate!, gate!), gate!)
      const t = tf.tanh(tf.mul(tf.add(gate!, tf.mul(cube, 0.044715)), Math.sqrt(2 / Math.PI)))
      return tf.mul(tf.mul(tf.mul(gate!, 0.5), tf.add(t, 1)), up!)
    },
  },
  {
    name: "rotate",
    shapes: [[B, N, T, H]],
    constants: () => [tf.cos(angles()), tf.sin(angles()), rotation()],
    ours: (x, cos, sin, matrix) =>
      rotate(x as Tensor4D, { cos: cos as Tensor4D, sin: sin as Tensor4D, rotation: matrix as Tensor2D }),
    plain: (x, cos, sin) => {
      const [first, second] = tf.split(x!, 2, 3)
      return tf.add(tf.mul(x!, cos!), tf.mul(tf.concat([tf.neg(second!), first!], 3), sin!))
    },
  },
  {
    name: "attend over grouped queries",
    shapes: [
      [B, N + K, T, H],
      [B, K, T, H],
    ],
    constants: () => [mask()],
    ours: (qk, v, masked) => attend(qk as Tensor4D, v as Tensor4D, whole(masked!), K),
    plain: (qk, v, masked) => plainAttention(heads(qk!, 0, N), heads(qk!, N, K), v!, masked!),
  },
  {
    // a window of three: queries 0 and 1 see keys 0 and 1, query 2 keys 0 to 2, queries 3 and 4 keys 1 to 4
    name: "attend in blocks of queries",
    shapes: [
      [B, N + K, T, H],
      [B, K, T, H],
    ],
    constants: () => {
      const masked = tf.add(mask(), windowMask(3)) as Tensor4D
      return [masked, ...spans.map(([[q, nq], [k, nk]]) => tf.slice(masked, [0, 0, q, k], [B, 1, nq, nk]))]
    },
    ours: (qk, v, _, ...masks) => {
      const blocks = spans.map(([queries, keys], i) => ({ queries, keys, mask: masks[i] as Tensor4D }))
      return attend(qk as Tensor4D, v as Tensor4D, blocks, K)
    },
    plain: (qk, v, masked) => plainAttention(heads(qk!, 0, N), heads(qk!, N, K), v!, masked!),
  },
  ...([null, 2] as const).flatMap((softcap): Case[] => {
    const name = softcap ? ", soft-capped" : ""
    const scored = (h: Tensor, w: Tensor, at: Tensor, trainTable: boolean) =>
      targetLogProbs(h as Tensor2D, w as Tensor2D, at as Tensor1D, { softcap, chunk: 3, trainTable })
    return [
      {
        name: `targetLogProbs of a frozen table${name}`,
        shapes: [[M, D]],
        constants: () => [uniform([V, D], "table"), ids()],
        ours: (h, w, at) => scored(h!, w!, at!, false),
        plain: (h, w, at) => plainLogProb(h!, w!, at!, softcap),
      },
      {
        name: `targetLogProbs of a trained table${name}`,
        shapes: [
          [M, D],
          [V, D],
        ],
        constants: () => [ids()],
        ours: (h, w, at) => scored(h!, w!, at!, true),
        plain: (h, w, at) => plainLogProb(h!, w!, at!, softcap),
      },
    ]
  }),
]

function argumentsOf({ shapes, constants }: Case): { inputs: Tensor[]; rest: Tensor[] } {
  const inputs = shapes.map((shape, i) => uniform(shape, `input ${i}`))
  return { inputs, rest: constants?.(inputs) ?? [] }
}

/** Value, then the gradient of each input under a random dy, as plain numbers. */
function evaluate(one: Case, op: Op): Float32Array[] {
  return tf.tidy(() => {
    const { inputs, rest } = argumentsOf(one)
    const value = op(...inputs, ...rest)
    const grads = tf.grads((...taped) => op(...taped, ...rest))(inputs, uniform(value.shape, "dy"))
    return [value, ...grads].map((tensor) => tensor.dataSync() as Float32Array)
  })
}

describe.each(backends)("on %s", (backend) => {
  beforeAll(async () => {
    await useBackend(backend)
  })

  it.each(cases)("$name has the value and gradients of the plain formula", async (one) => {
    await useBackend("cpu")
    const expected = evaluate(one, one.plain)
    await useBackend(backend)
    const got = evaluate(one, one.ours)
    expect(got.length).toBe(1 + one.shapes.length)
    got.forEach((values, i) => {
      const size = Math.max(1, ...expected[i]!.map(Math.abs))
      expect(largestGap(values, expected[i]!) / size, i ? `gradient ${i}` : "value").toBeLessThan(2e-6)
    })
  })

  it.each([
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ])(
    "matrix products are those of the cpu backend, one or many, small or larger, transposed: %s, %s",
    async (ta, tb) => {
      const multiplied = (product: (a: Tensor, b: Tensor) => Tensor, lead: number[], rows: number) =>
        tf.tidy(() => {
          const [left, right] = [ta ? [D, rows] : [rows, D], tb ? [O, D] : [D, O]]
          const inputs = [uniform([...lead, ...left], "left"), uniform([...lead, ...right], "right")] as const
          const before = tf.memory().numTensors
          const out = product(...inputs)
          expect(tf.memory().numTensors - before).toBe(1)
          return [...out.dataSync()]
        })
      const many = (a: Tensor, b: Tensor) => tf.matMul(a, b, ta, tb)
      const one = (a: Tensor, b: Tensor) => matMul(a as Tensor2D, b as Tensor2D, ta, tb)
      for (const rows of [M, 3 * M]) {
        await useBackend("cpu")
        const expected = [[], [B, K]].map((lead) => multiplied(many, lead, rows))
        await useBackend(backend)
        expect(largestGap(multiplied(one, [], rows), expected[0]!)).toBeLessThan(1e-6)
        expect(largestGap(multiplied(many, [B, K], rows), expected[1]!)).toBeLessThan(1e-6)
      }
    },
  )

  it.runIf(backend === "tensorflow")("matrix products are by the operation that knows bf16, if so asked", () => {
    interface Attr {
      name: string
      value: unknown
    }
    const called = vi.spyOn(
      tf.backend() as unknown as { executeSingleOutput(op: string, attrs: Attr[]): Tensor },
      "executeSingleOutput",
    )
    const device = currentDevice()
    tf.tidy(() => {
      const [a, b] = [uniform([M, D], "left"), uniform([D, O], "right")] as [Tensor2D, Tensor2D]
      matMul(a, b)
      setDevice({ ...device, precision: "bf16" })
      matMul(a, b)
    })
    setDevice(device)
    const settings = (attrs: Attr[]) => attrs.find(({ name }) => name === "settings")?.value
    const products = called.mock.calls.map(([op, attrs]) => [op, settings(attrs)])
    const turned = [0, 0]
    expect(products).toEqual(
      device.kernels === "amx"
        ? [3, 1].map((parts) => ["MuscProduct", [...turned, parts]])
        : [
            device.products === "own" ? ["MuscProduct", [...turned, 3]] : ["MatMul", undefined],
            ["BatchMatMulV2", undefined],
          ],
    )
    called.mockRestore()
  })

  it("attention of the newest token over cached keys is the last row of the whole", () => {
    tf.tidy(() => {
      const qk = uniform([B, N + K, T, H], "qk") as Tensor4D
      const v = uniform([B, K, T, H], "v") as Tensor4D
      const last = tf.slice(qk, [0, 0, T - 1, 0], [B, N, 1, H]) as Tensor4D
      const lastMask = tf.slice(mask(), [0, 0, T - 1, 0], [B, 1, 1, T]) as Tensor4D
      const keys = heads(qk, N, K) as Tensor4D
      const masked = mask()
      const before = tf.memory().numTensors
      const stepwise = attend(last, v, whole(lastMask), K, keys)
      expect(tf.memory().numTensors - before).toBe(1)
      const all = tf.slice(attend(qk, v, whole(masked), K), [0, 0, T - 1, 0], [B, N, 1, H])
      expect(largestGap(stepwise.dataSync(), all.dataSync())).toBeLessThan(1e-6)
    })
  })

  it("writeRows replaces the given rows, leaves the others and consumes the buffer", () => {
    const buffer = tf.tensor2d([0, 1, 2, 3, 4, 5, 6, 7], [4, 2])
    const [at, rows] = [tf.tensor1d([2, 0], "int32"), tf.tensor2d([20, 21, 10, 11], [2, 2])]
    const before = tf.memory().numTensors
    const out = writeRows(buffer, at, rows)
    expect(tf.memory().numTensors).toBe(before) // one made, one consumed
    expect([...out.dataSync()]).toEqual([10, 11, 2, 3, 20, 21, 6, 7])
    expect(buffer.isDisposed).toBe(true)
    expect(rows.isDisposed).toBe(false)
    tf.dispose([out, at, rows])
  })

  it("cappedLogits gives c · tanh(x / c) and its slope 1 - tanh²", () => {
    // h · tableᵀ = 3 · 2 = 6; 6 capped at 4 is 4 tanh 1.5 with slope 1 - tanh² 1.5
    const [h, one] = [tf.tensor2d([[3]]), tf.tensor2d([[2]])]
    const before = tf.memory().numTensors
    const { logits, slope } = cappedLogits(h, one, 4)
    expect(tf.memory().numTensors - before).toBe(2)
    expect(logits.dataSync()[0]).toBeCloseTo(4 * Math.tanh(1.5), 5)
    expect(slope!.dataSync()[0]).toBeCloseTo(1 - Math.tanh(1.5) ** 2, 5)
    const bare = cappedLogits(h, one, null)
    expect(bare.slope).toBeNull()
    expect(bare.logits.dataSync()[0]).toBe(6)
    tf.dispose([h, one, logits, slope!, bare.logits])
  })

  it.each(cases)("$name makes its result and no other tensor", (one) => {
    tf.tidy(() => {
      const { inputs, rest } = argumentsOf(one)
      const before = tf.memory().numTensors
      const out = one.ours(...inputs, ...rest)
      expect(tf.memory().numTensors - before).toBe(1)
      expect(out.isDisposed).toBe(false)
    })
  })
})
