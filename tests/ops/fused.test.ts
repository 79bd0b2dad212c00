import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { currentDevice } from "../../lib/device/device"
import { tf, useBackend } from "../../lib/device/tf"
import { contexts, type Places } from "../../lib/model/context"
import { type AttentionInputs, fusedAttention, fusedRotate } from "../../lib/ops/attention"
import { gated } from "../../lib/ops/gated"
import { logProbOf } from "../../lib/ops/head"
import { kernel, kernelOutputs } from "../../lib/ops/kernel"
import { loraGradient } from "../../lib/ops/linear"
import { rmsNorm } from "../../lib/ops/norm"
import { rng } from "../../lib/rng"
import { backends, cuda, largestGap, tensorsLeft, tinyConfig } from "../support/tensors"

/** Numbers between -2 and 2, the same for the same key. */
function numbers(shape: number[], key: string): Tensor {
  const random = rng(7, key)
  const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 4 * random.next() - 2)
  return tf.tensor(values, shape)
}

/** Value and gradients by all inputs, for a gradient of the value that differs everywhere. */
const withGradients = (f: (...x: Tensor[]) => Tensor, inputs: Tensor[]): Float32Array[] =>
  tf.tidy(() => {
    const value = f(...inputs).dataSync() as Float32Array
    const grads = tf.grads((...x: Tensor[]) => tf.reshape(f(...x), [-1]))(inputs, numbers([value.length], "dy"))
    return [value, ...grads.map((grad) => grad.dataSync() as Float32Array)]
  })

// Rows of 131 tokens: a prompt, two answers to it, padding. Several tiles of queries, and sizes that leave a rest
// everywhere.
const [B, T, N, K] = [3, 131, 6, 2]
const parts = [
  [60, 40, 31],
  [20, 9, 80],
  [1, 3, 2],
] as const
const places: Places = (() => {
  const [positions, segments] = [new Int32Array(B * T), new Int32Array(B * T).fill(-1)]
  parts.forEach((lengths, b) => {
    let t = b * T
    lengths.forEach((length, segment) => {
      for (let i = 0; i < length; i++) {
        positions[t] = i + (segment && lengths[0])
        segments[t++] = segment
      }
    })
  })
  return { rows: B, length: T, positions, segments }
})()

/**
 * Whether a query sees a key of its row, in the words of the paper on packing: its own answer and the prompt, up to
 * itself.
 */
function sees(b: number, query: number, key: number, window: number): boolean {
  const at = (t: number) => ({ position: places.positions[b * T + t]!, segment: places.segments[b * T + t]! })
  const [q, k] = [at(query), at(key)]
  const shared = k.segment === q.segment || (k.segment === 0 && q.segment > 0)
  return shared && key <= query && (!window || q.position - k.position < window)
}

/** softmax(q kᵀ + mask) v with the whole mask -> [B (T - from), N H]. */
function plainAttention(qk: Tensor, v: Tensor, H: number, window: number, from: number): Tensor {
  const heads = (x: Tensor, n: number) => tf.transpose(tf.reshape(x, [B, T, n, H]), [0, 2, 1, 3])
  const repeated = (x: Tensor) =>
    tf.concat(
      Array.from({ length: N }, (_, n) => tf.slice(x, [0, Math.floor((n * K) / N)], [-1, 1])),
      1,
    )
  const all = heads(qk, N + K)
  const [q, k] = [tf.slice(all, [0, 0], [-1, N]), repeated(tf.slice(all, [0, N], [-1, K]))]
  const mask = Float32Array.from({ length: B * T * T }, (_, i) =>
    sees(Math.floor(i / T / T), Math.floor(i / T) % T, i % T, window) ? 0 : -1e9,
  )
  const p = tf.softmax(tf.add(tf.matMul(q, k, false, true), tf.tensor4d(mask, [B, 1, T, T])))
  const out = tf.transpose(tf.matMul(p, repeated(heads(v, K))), [0, 2, 1, 3])
  return tf.reshape(tf.slice(out, [0, from], [-1, T - from]), [B * (T - from), N * H])
}

describe.runIf(backends[0] === "tensorflow" && !cuda)("kernels of our own", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })

  it("are there", () => expect(currentDevice().kernels).not.toBe("none"))

  it.each([
    { rows: 5, P: 1, D: 40 },
    { rows: 3, P: 3, D: 8 },
    { rows: 70, P: 1, D: 333 },
  ])("normalise $rows rows of $D numbers by weights for $P", ({ rows, P, D }) => {
    const inputs = [numbers([rows, P, D], "x"), numbers(P > 1 ? [P, D] : [D], "w")]
    const plain = (x: Tensor, w: Tensor) => tf.mul(tf.div(x, tf.sqrt(tf.add(tf.mean(tf.mul(x, x), -1, true), 1e-5))), w)
    const found = withGradients((x, w) => rmsNorm(x!, w!, 1e-5, true), inputs)
    withGradients((x, w) => plain(x!, w!), inputs).forEach((values, i) => {
      expect(largestGap(values, found[i]!)).toBeLessThan(2e-5)
    })
    const frozen = withGradients((x) => rmsNorm(x!, inputs[1]!, 1e-5, false), [inputs[0]!])
    expect(frozen[1]).toEqual(found[1])
    tf.dispose(inputs)
  })

  it.each([false, true])("gate, by GELU: %s", (gelu) => {
    const inputs = [tf.mul(numbers([37, 301], "gate"), 4), numbers([37, 301], "up")]
    const c = Math.sqrt(2 / Math.PI)
    const act = (g: Tensor) =>
      gelu
        ? tf.mul(tf.mul(g, 0.5), tf.add(tf.tanh(tf.mul(tf.add(g, tf.mul(tf.mul(g, tf.mul(g, g)), 0.044715)), c)), 1))
        : tf.mul(g, tf.sigmoid(g))
    const found = withGradients((g, u) => gated(g as Tensor2D, u as Tensor2D, gelu ? "gelu_tanh" : "silu"), inputs)
    withGradients((g, u) => tf.mul(act(g!), u!), inputs).forEach((values, i) => {
      expect(largestGap(values, found[i]!)).toBeLessThan(2e-5)
    })
    tf.dispose(inputs)
  })

  it.each([300, 16, 5])("give log-probs of targets and their slope, %s words", (V) => {
    tf.tidy(() => {
      const logits = tf.mul(numbers([21, V], "logits"), 9) as Tensor2D
      const targets = tf.tensor1d(Int32Array.from({ length: 21 }, (_, i) => (i * 7) % V))
      const { logp, slope } = logProbOf(logits, targets, true)
      const p = tf.softmax(logits)
      const hot = tf.oneHot(targets, V)
      expect(largestGap(logp.dataSync(), tf.log(tf.sum(tf.mul(p, hot), 1)).dataSync())).toBeLessThan(1e-5)
      expect(largestGap(slope!.dataSync(), tf.sub(p, hot).dataSync())).toBeLessThan(1e-6)
      const alone = logProbOf(logits, targets, false)
      expect(alone.slope).toBeUndefined()
      expect(alone.logp.dataSync()).toEqual(logp.dataSync())
    })
  })

  it("sum two distributions by blocks of words", () => {
    tf.tidy(() => {
      const [p, q] = ["p", "q"].map((key) => tf.mul(numbers([9, 77], key), 5)) as [Tensor2D, Tensor2D]
      const block = (x: Tensor2D, at: number, n: number) => tf.slice(x, [0, at], [-1, n])
      const first = kernel("MuscContrast", [0], [block(p, 0, 40), block(q, 0, 40), tf.zeros([0, 8])])
      const sums = kernel("MuscContrast", [0], [block(p, 40, 37), block(q, 40, 37), first])
      const [x, y] = [p, q].map((logits) => tf.sub(logits, tf.max(logits, 1, true))) as [Tensor, Tensor]
      const of = (logits: Tensor, mine: Tensor, other: Tensor) => [
        tf.max(logits, 1),
        tf.sum(tf.exp(mine), 1),
        tf.sum(tf.mul(tf.exp(mine), mine), 1),
        tf.sum(tf.mul(tf.exp(mine), other), 1),
      ]
      const wanted = tf.stack([...of(p, x, y), ...of(q, y, x)], 1)
      expect(largestGap(sums.dataSync(), wanted.dataSync())).toBeLessThan(2e-4) // of values up to 100
    })
  })

  it.each([3, 16, 70])("give the gradients of an update of rank %s", (rank) => {
    tf.tidy(() => {
      const [M, D, O, offset] = [300, 45, 37, 11]
      const [x, dy] = [numbers([M, D], "x"), numbers([M, offset + O + 4], "dy")] as [Tensor2D, Tensor2D]
      const scaled = { A: numbers([D, rank], "A") as Tensor2D, B: numbers([rank, O], "B") as Tensor2D }
      const part = tf.slice(dy, [0, offset], [-1, O])
      const [dA, dB] = loraGradient(x, dy, scaled, offset)
      const close = (a: Tensor, b: Tensor) => {
        const most = tf.max(tf.abs(b)).dataSync()[0]!
        expect(largestGap(a.dataSync(), b.dataSync()) / most).toBeLessThan(2e-6)
      }
      close(dA, tf.matMul(x, tf.matMul(part, scaled.B, false, true), true))
      close(dB, tf.matMul(tf.matMul(x, scaled.A), part, true))
    })
  })

  describe.each([8, 32, 40])("with heads of %s", (H) => {
    const config = (window: number | null) => {
      const changes = { heads: N, kvHeads: K, headDim: H, queryScale: 0.3, layers: 1, window: [window] }
      return { ...tinyConfig(changes), rope: tinyConfig({}).rope.slice(0, 1) }
    }
    const inputsOf = (window: number | null) => contexts(config(window), places)[0]!.attention as AttentionInputs

    it("turn queries and keys", () => {
      tf.tidy(() => {
        const attention = inputsOf(null)
        const qk = numbers([B * T, (N + K) * H], "qk") as Tensor2D
        const plain = (x: Tensor) => {
          const [low, high] = tf.split(tf.reshape(x, [B * T, N + K, H]), 2, 2) as [Tensor, Tensor]
          const [c, s] = [tf.expandDims(attention.cos, 1), tf.expandDims(attention.sin, 1)]
          const both = [tf.sub(tf.mul(low, c), tf.mul(high, s)), tf.add(tf.mul(high, c), tf.mul(low, s))]
          const scale = tf.tensor3d(
            Array.from({ length: N + K }, (_, n) => (n < N ? 0.3 : 1)),
            [1, N + K, 1],
          )
          return tf.reshape(tf.mul(tf.concat(both, 2), scale), [B * T, (N + K) * H])
        }
        const found = withGradients((x) => fusedRotate(x as Tensor2D, attention, N), [qk])
        withGradients((x) => plain(x!), [qk]).forEach((values, i) => {
          expect(largestGap(values, found[i]!)).toBeLessThan(2e-6)
        })
      })
    })

    it.each([
      { window: null, from: 0 },
      { window: null, from: 50 },
      { window: 17, from: 0 },
      { window: 17, from: 29 },
    ])("attend to what they may see, window $window, from $from on", ({ window, from }) => {
      tf.tidy(() => {
        const attention = { ...inputsOf(window), from: tf.scalar(from, "int32") }
        const inputs = [numbers([B * T, (N + K) * H], "qk"), numbers([B * T, K * H], "v")]
        const ours = (qk: Tensor, v: Tensor) => fusedAttention(qk as Tensor2D, v as Tensor2D, attention, [N, K])
        // What padding makes of itself is nobody's business.
        const tokens = tf.slice(tf.reshape(tf.tensor1d(places.segments), [B, T]), [0, from], [B, T - from])
        const real = tf.reshape(tf.cast(tf.greaterEqual(tokens, 0), "float32"), [-1, 1])
        const found = withGradients((qk, v) => tf.mul(ours(qk!, v!), real), inputs)
        const plain = (qk: Tensor, v: Tensor) => plainAttention(qk, v, H, window ?? 0, from)
        withGradients((qk, v) => tf.mul(plain(qk!, v!), real), inputs).forEach((values, i) => {
          const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
          expect(largestGap(values, found[i]!) / largest, `${["value", "by qk", "by v"][i]}`).toBeLessThan(2e-6)
        })
      })
    })
  })

  it("attend to nothing where nobody attends, and its gradient is zero", () => {
    tf.tidy(() => {
      const config = tinyConfig({ heads: N, kvHeads: K, headDim: 8, queryScale: 0.3, layers: 1, window: [null] })
      const attention = contexts(config, places)[0]!.attention as AttentionInputs
      const none = { ...attention, from: tf.scalar(T, "int32") }
      const inputs = [numbers([B * T, (N + K) * 8], "qk"), numbers([B * T, K * 8], "v")]
      const [value, ...gradients] = withGradients(
        (qk, v) => fusedAttention(qk as Tensor2D, v as Tensor2D, none, [N, K]),
        inputs,
      )
      expect(value).toHaveLength(0)
      expect(gradients.map((gradient) => [...gradient])).toEqual(inputs.map(({ size }) => Array(size).fill(0)))
    })
  })

  it("flatten tensors and take the vector apart again, or say that it is too short", () => {
    tf.tidy(() => {
      const tensors = [numbers([3, 5], "a"), numbers([7], "b"), numbers([2, 1, 4], "c")]
      const vector = kernelOutputs("MuscFlatten", [0], tensors, 1, 3)[0]!
      expect([...vector.dataSync()]).toEqual(tensors.flatMap((x) => [...x.dataSync()]))
      const shapes = tensors.map(({ shape }) => shape)
      const settings = shapes.flatMap((shape) => [shape.length, ...shape])
      const unflattened = (from: Tensor) => kernelOutputs("MuscUnflatten", settings, [from], 3, 3)
      unflattened(vector).forEach((x, i) => {
        expect([x.shape, x.dataSync()]).toEqual([shapes[i], tensors[i]!.dataSync()])
      })
      const short = tf.slice(vector, 0, 20)
      expect(() => unflattened(short)).toThrow("the vector must hold all tensors, got less")
    })
  })

  it("take a step of Adam in place, and measure a gradient's length", () => {
    tf.tidy(() => {
      const P = 40_003
      const [p, m, v, g] = ["p", "m", "v", "g"].map((key) => numbers([P], key) as Tensor1D) as [
        Tensor1D,
        Tensor1D,
        Tensor1D,
        Tensor1D,
      ]
      const square = tf.square(v) as Tensor1D
      const [clip, b1, b2, lr, eps, kept] = [0.5, 0.1, 0.01, 0.03, 1e-4, 0.9]
      const slope = tf.mul(g, clip)
      const mean = tf.add(tf.mul(m, 1 - b1), tf.mul(slope, b1))
      const squares = tf.add(tf.mul(square, 1 - b2), tf.mul(tf.square(slope), b2))
      const after = tf.sub(tf.mul(p, kept), tf.mul(lr, tf.div(mean, tf.add(tf.sqrt(squares), eps))))
      const wanted = [after, mean, squares].map((x) => x.dataSync())
      kernelOutputs("MuscAdam", [0], [p, m, square, g, tf.tensor1d([clip, b1, b2, lr, eps, kept])], 0)
      ;[p, m, square].forEach((x, i) => {
        expect(largestGap(x.dataSync(), wanted[i]!)).toBeLessThan(2e-6)
      })
      const length = Math.sqrt([...g.dataSync()].reduce((sum, x) => sum + x * x, 0))
      expect(Math.abs(kernel("MuscNorm", [0], [g]).dataSync()[0]! / length - 1)).toBeLessThan(1e-6)
      const short = tf.tensor1d([1])
      expect(() => kernelOutputs("MuscAdam", [0], [p, m, square, short, tf.zeros([6])], 0)).toThrow(
        "vectors must be of one length",
      )
    })
  })

  it("leave nothing behind", async () => {
    const left = await tensorsLeft(() => {
      const inputs = [numbers([4, 24], "a"), numbers([4, 24], "b")] as [Tensor2D, Tensor2D]
      withGradients((a, b) => gated(a as Tensor2D, b as Tensor2D, "silu"), inputs)
      withGradients((a, b) => rmsNorm(a!, b!, 1e-5, true), inputs)
      tf.dispose(inputs)
    })
    expect(left).toBe(0)
  })

  // Each in a process of its own: they are chosen when TensorFlow is loaded.
  const elsewhere = (env: Record<string, string>) => {
    const program = join(__dirname, "../support/fused-step.ts")
    const options = { env: { ...process.env, ...env }, encoding: "utf8" } as const
    return JSON.parse(execFileSync(process.execPath, ["--import", "tsx", program], options)) as {
      present: boolean
      loss: number
      norm: number
      digits: string
      sideBySide: { loss: number; gradient: string }
    }
  }

  it("give the same digits with any number of threads", () => {
    const [one, four] = ["1", "4"].map((threads) => elsewhere({ TF_NUM_INTRAOP_THREADS: threads }))
    expect(one!.present).toBe(true)
    expect(four!.digits).toBe(one!.digits)
    expect(four!.sideBySide).toEqual(one!.sideBySide)
  })

  const instructions = existsSync("/proc/cpuinfo") ? readFileSync("/proc/cpuinfo", "latin1") : ""
  const levels = [/avx512vl/.test(instructions) && "x86-64-v4", /avx2/.test(instructions) && "x86-64-v3", "plain", "0"]
  it.each(levels.filter((level) => level !== false))("compiled for %s, or without any, train alike", (level) => {
    const usual = elsewhere({})
    const other = elsewhere({ MUSC_KERNELS: level })
    expect(other.present).toBe(level !== "0")
    expect(Math.abs(other.loss / usual.loss - 1)).toBeLessThan(1e-5)
    expect(Math.abs(other.norm / usual.norm - 1)).toBeLessThan(1e-4)
    expect(Math.abs(other.sideBySide.loss / usual.loss - 1)).toBeLessThan(1e-5)
  })
})
