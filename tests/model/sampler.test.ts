import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { drawToken, type TokenSampling } from "../../lib/model/sampler"
import { drawingKernel } from "../../lib/ops/draw"
import { rng } from "../../lib/rng"
import { backends, cuda, largestGap, randomValues } from "../support/tensors"

const draws = 20000

/** Share of each token over an even grid of `u`: exact to 1 / draws, as every token owns one stretch of [0, 1). */
function shares(logits: Float32Array, sampling: TokenSampling, draw = drawn): number[] {
  const counts = new Array<number>(logits.length).fill(0)
  const grid = Array.from({ length: draws }, (_, i) => (i + 0.5) / draws)
  for (const id of draw(logits, sampling, grid)) counts[id]!++
  return counts.map((n) => n / draws)
}

/** A token for each `u`. */
const drawn = (logits: Float32Array, sampling: TokenSampling, us: readonly number[]): number[] =>
  us.map((u) => drawToken(logits, sampling, u))

/** The same by the kernel. */
const drawnByKernel: typeof drawn = (logits, { temperature, topP = 1, topK = 0 }, us) =>
  tf.tidy(() => {
    const rows = tf.tile(tf.tensor2d(logits, [1, logits.length]), [us.length, 1])
    const choices = us.map((u) => ({ temperature, topP, topK, u }))
    return [...drawingKernel()!(rows, choices).dataSync()]
  })

const softmax = (logits: ArrayLike<number>, temperature: number): number[] => {
  const odds = Array.from(logits, (x) => Math.exp(x / temperature))
  const total = odds.reduce((a, b) => a + b)
  return odds.map((x) => x / total)
}
/** Logits of given probabilities. */
const of = (...p: number[]) => Float32Array.from(p, Math.log)

describe("a drawn token", () => {
  it.each([0.3, 0.8, 1, 2])("follows softmax(logits / T) at T = %s", (temperature) => {
    const logits = randomValues(30, 3, "logits")
    expect(largestGap(shares(logits, { temperature }), softmax(logits, temperature))).toBeLessThan(1.01 / draws)
  })

  it("is the likeliest one at T = 0, whatever u, and of equals the first", () => {
    const logits = Float32Array.from([1, 5, -2, 5, 4.9])
    for (const u of [0, 0.5, 0.9999]) {
      expect(drawToken(logits, { temperature: 0 }, u)).toBe(1)
      expect(drawToken(logits, { temperature: 1, topK: 1 }, u)).toBe(1)
    }
  })

  it("does not change when a constant is added to the logits, even a large one", () => {
    const logits = Float32Array.from([0, 1, 2, 3])
    const moved = logits.map((x) => x - 20000)
    expect(shares(moved, { temperature: 0.5 })).toEqual(shares(logits, { temperature: 0.5 }))
  })

  it("is never one of probability 0", () => {
    const logits = Float32Array.from([Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, 0])
    expect(shares(logits, { temperature: 5 })).toEqual([0, 0.5, 0, 0.5])
    expect(drawToken(of(0.7, 0.3, 1e-30), { temperature: 1 }, 1 - 2 ** -53)).toBe(1)
  })

  it("is refused where a diverged model gives no numbers", () => {
    const logits = new Float32Array(5).fill(Number.NaN)
    for (const temperature of [0, 1])
      expect(() => drawToken(logits, { temperature }, 0.5)).toThrow(/got NaN; .*diverged/)
  })

  it("reads only its row of a batch", () => {
    const batch = Float32Array.from([9, 9, 9, 0, 3, 0, 9, 9, 9])
    expect(drawToken(batch.subarray(3, 6), { temperature: 0 }, 0)).toBe(1)
  })
})

describe("top-k", () => {
  const p = of(0.1, 0.4, 0.2, 0.3)
  it("keeps the k likeliest in proportion", () => {
    expect(largestGap(shares(p, { temperature: 1, topK: 2 }), [0, 4 / 7, 0, 3 / 7])).toBeLessThan(1.01 / draws)
  })

  it("keeps all when k is 0 or more than there are", () => {
    const all = shares(p, { temperature: 1 })
    for (const topK of [0, 4, 50])
      expect(largestGap(shares(p, { temperature: 1, topK }), all)).toBeLessThan(1.01 / draws)
  })

  it("of equals keeps the lowest ids", () => {
    expect(shares(of(0.25, 0.25, 0.25, 0.25), { temperature: 1, topK: 2 })).toEqual([0.5, 0.5, 0, 0])
  })
})

describe("top-p", () => {
  const p = of(0.2, 0.5, 0.3)
  // sorted .5, .3, .2 with sums .5, .8, 1: the smallest set that reaches p
  it.each([
    [0, [0, 1, 0]],
    [1e-9, [0, 1, 0]],
    [0.49, [0, 1, 0]],
    [0.51, [0, 5 / 8, 3 / 8]],
    [0.79, [0, 5 / 8, 3 / 8]],
    [0.81, [0.2, 0.5, 0.3]],
    [1, [0.2, 0.5, 0.3]],
  ])("of %s keeps the smallest set that reaches it", (topP, expected) => {
    expect(largestGap(shares(p, { temperature: 1, topP }), expected)).toBeLessThan(1.01 / draws)
  })

  it("counts what top-k left as the whole", () => {
    // of .4, .3, .2, .1 two are left, 4/7 and 3/7: 4/7 alone reaches .55, which .4 would not
    const sampling = { temperature: 1, topK: 2, topP: 0.55 }
    expect(shares(of(0.4, 0.3, 0.2, 0.1), sampling)).toEqual([1, 0, 0, 0])
  })

  it("sees the probabilities after the temperature", () => {
    // at T = 1/2 the odds 1 : 2 become 1 : 4, so the first alone has .8
    const sampling = { temperature: 0.5, topP: 0.75 }
    expect(shares(of(1 / 3, 2 / 3), sampling)).toEqual([0, 1])
    expect(largestGap(shares(of(1 / 3, 2 / 3), { temperature: 1, topP: 0.75 }), [1 / 3, 2 / 3])).toBeLessThan(
      1.01 / draws,
    )
  })
})

describe.runIf(backends[0] === "tensorflow" && !cuda)("the kernel", () => {
  beforeAll(async () => {
    await useBackend("tensorflow")
  })

  const samplings: TokenSampling[] = [
    ...[{ temperature: 0 }, { temperature: 1 }, { temperature: 0.05 }, { temperature: 3 }],
    ...[
      { temperature: 1, topK: 1 },
      { temperature: 1, topK: 7 },
      { temperature: 1, topK: 1e6 },
    ],
    ...[
      { temperature: 0.7, topP: 0 },
      { temperature: 1, topP: 0.5 },
      { temperature: 1.5, topP: 0.95, topK: 40 },
    ],
  ]

  it.each([1, 7, 16, 255, 256, 257, 1000, 49_152])("draws the tokens that drawToken draws, of %i", (V) => {
    const random = rng(3, "u")
    const us = [0, 1 - 2 ** -53, ...Array.from({ length: V > 1000 ? 20 : 200 }, () => random.next())]
    for (const [i, sampling] of samplings.entries()) {
      // Rounded, so that many are equal.
      const logits = randomValues(V, 5, `logits ${i}`).map((x) => (i % 2 ? x : Math.round(4 * x) / 4))
      if (V > 7) logits[3] = Number.NEGATIVE_INFINITY
      expect(drawnByKernel(logits, sampling, us), JSON.stringify(sampling)).toEqual(drawn(logits, sampling, us))
    }
  })

  it("gives each token its share", () => {
    const logits = of(0.1, 0.4, 0.2, 0.3)
    expect(largestGap(shares(logits, { temperature: 1 }, drawnByKernel), [0.1, 0.4, 0.2, 0.3])).toBeLessThan(
      1.01 / draws,
    )
  })

  it("says -1 where the largest logit is not a number", () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      for (const temperature of [0, 1])
        expect(drawnByKernel(new Float32Array(20).fill(value), { temperature }, [0.5])).toEqual([-1])
  })
})
