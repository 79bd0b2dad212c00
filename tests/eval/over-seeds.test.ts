import { describe, expect, it } from "vitest"
import type { EvalItem } from "../../lib/data/results"
import { quantile } from "../../lib/eval/bootstrap"
import { holm, overSeeds, studentDraws } from "../../lib/eval/over-seeds"
import { differenceOf, scoreOf } from "../../lib/eval/score"
import { rng } from "../../lib/rng"

const options = { samples: 4000, seed: 0 }
const mean = ([sum, n]: Float64Array) => sum! / n!
/** A seed whose units all have the same value, so that only seeds differ. */
const even = (value: number, units = 50) => [new Float64Array(units).fill(value), new Float64Array(units).fill(1)]

describe("intervals over seeds", () => {
  it("are the t-interval where all that differs is the seed", () => {
    // .8, 5.6 and 1.0: mean 2.467, standard deviation 2.715, t(.975, 2) = 4.303: 2.467 +- 4.303 · 2.715 / sqrt 3 = +-
    // 6.744
    const { value, interval, p } = overSeeds([even(0.8), even(5.6), even(1)], mean, { samples: 100_000, seed: 1 })
    expect(value).toBeCloseTo(2.4667, 4)
    expect(Math.abs(interval[0] - -4.277)).toBeLessThan(0.2)
    expect(Math.abs(interval[1] - 9.211)).toBeLessThan(0.2)
    // t = 2.4667 / 1.5674 = 1.574 with 2 degrees of freedom: p = 1 - 1.574 / sqrt(2 + 1.574²) = .2563
    expect(p).toBeCloseTo(0.256, 1)
  })

  it("are those over instructions where seeds are alike, or there is but one", () => {
    const random = rng(3, "units")
    const seed = [Float64Array.from({ length: 80 }, () => Number(random.next() < 0.4)), new Float64Array(80).fill(1)]
    const one = overSeeds([seed], mean, options)
    expect(overSeeds([seed, seed, seed], mean, options).interval).toEqual(one.interval)
    const half = 1.96 * Math.sqrt((one.value * (1 - one.value)) / 80)
    expect(Math.abs(one.interval[1] - one.value - half)).toBeLessThan(0.03)
  })

  it("cover the truth about as often as they say, with 3 and with 5 seeds", () => {
    // Seeds spread by .1 around the truth 0, instructions by .3, single answers by .3.
    for (const count of [3, 5]) {
      let covered = 0
      for (let trial = 0; trial < 200; trial++) {
        const { next } = rng(trial, count, "over seeds")
        const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())
        const units = Array.from({ length: 100 }, () => 0.3 * normal())
        const seeds = Array.from({ length: count }, () => {
          const shift = 0.1 * normal()
          return [Float64Array.from(units, (unit) => unit + shift + 0.3 * normal()), new Float64Array(100).fill(1)]
        })
        const [low, high] = overSeeds(seeds, mean, { samples: 300, seed: trial }).interval
        if (low <= 0 && 0 <= high) covered++
      }
      expect(covered / 200).toBeGreaterThan(0.9)
    }
  })

  it("draw from Student's t", () => {
    // t(.975, 2) = 4.303, t(.9, 4) = 1.533
    const two = studentDraws(2, { samples: 200_000, seed: 0 }).sort()
    expect(Math.abs(quantile(two, 0.975) / 4.303 - 1)).toBeLessThan(0.03)
    expect(Math.abs(quantile(studentDraws(4, { samples: 200_000, seed: 0 }).sort(), 0.9) - 1.533)).toBeLessThan(0.02)
  })
})

describe("scores of several seeds", () => {
  const item = (id: number, seed: number, kept: boolean): EvalItem => ({
    ...{ id: `${id}`, seed, method: "m", temperature: 0, instruction: "", answer: "" },
    constraints: [{ question: "", kind: "", satisfied: kept }],
  })
  /** 100 instructions, of which each seed keeps the first so many. */
  const seeds = (kept: readonly number[]) =>
    kept.flatMap((many, seed) => Array.from({ length: 100 }, (_, i) => item(i, seed, i < many)))

  it("do not call a difference clear that one seed of three makes", () => {
    const gap = differenceOf(seeds([51, 56, 51]), seeds([50, 50, 50]), options)
    expect(gap.isr).toBeCloseTo(0.0267, 4)
    expect(gap.isr_interval[0]).toBeLessThan(0)
    expect(gap.isr_p).toBeGreaterThan(0.05)
    const sure = differenceOf(seeds([60, 61, 60]), seeds([50, 50, 50]), options)
    expect(sure.isr_interval[0]).toBeGreaterThan(0)
    expect(sure.isr_p).toBeLessThan(0.01)
  })

  it("have intervals of shares, however far few seeds lie apart", () => {
    const { isr_interval } = scoreOf(seeds([99, 80, 100]), options)
    expect(isr_interval[1]).toBe(1)
    expect(isr_interval[0]).toBeGreaterThan(0)
  })

  it("compare only the seeds that both have", () => {
    const gap = differenceOf(seeds([60, 90]), seeds([50]), options)
    expect(gap.isr).toBeCloseTo(0.1, 10)
    expect(scoreOf(seeds([60, 90]), options).seeds).toEqual([
      { seed: 0, csr: 0.6, isr: 0.6, n: 100 },
      { seed: 1, csr: 0.9, isr: 0.9, n: 100 },
    ])
    expect(differenceOf([item(0, 1, true)], [item(0, 2, true)], options).isr).toBeNaN()
  })
})

describe("Holm's correction", () => {
  it("is that of R's p.adjust", () => {
    // p.adjust(c(.03, .01, .04, .02), "holm") is .06 .04 .06 .06; three of .5 are 1
    expect(holm([0.03, 0.01, 0.04, 0.02]).map((p) => Number(p.toFixed(10)))).toEqual([0.06, 0.04, 0.06, 0.06])
    expect(holm([0.5, 0.5, 0.5])).toEqual([1, 1, 1])
    expect(holm([Number.NaN, 0.02])).toEqual([Number.NaN, 0.02])
    expect(holm([])).toEqual([])
  })
})
