import { describe, expect, it } from "vitest"
import type { EvalItem } from "../../lib/data/results"
import { bootstrap, quantile } from "../../lib/eval/bootstrap"
import { differenceOf, scoreOf } from "../../lib/eval/score"
import { rng } from "../../lib/rng"

const mean = ([sum, n]: Float64Array) => sum! / n!
const ones = (n: number) => new Float64Array(n).fill(1)

/** Every resample of n units, all equally likely: n^n of them. */
function enumerate(units: number[], statistic: (drawn: number[]) => number): Float64Array {
  const n = units.length
  const all = Float64Array.from({ length: n ** n }, (_, code) =>
    statistic(Array.from({ length: n }, (_, i) => units[Math.floor(code / n ** i) % n]!)),
  )
  return all.sort()
}

describe("bootstrap", () => {
  it("gives the quantiles of all n^n resamples of a tiny sample", () => {
    const values = [0, 0.2, 0.5, 1, 3]
    const exact = enumerate(values, (drawn) => drawn.reduce((a, b) => a + b, 0) / drawn.length)
    const [low, high] = bootstrap([Float64Array.from(values), ones(5)], mean, { samples: 200_000, seed: 1, level: 0.8 })
    // The statistic is discrete with steps of about .04, so the sampled quantile may fall on a neighbour.
    expect(Math.abs(low - quantile(exact, 0.1))).toBeLessThan(0.05)
    expect(Math.abs(high - quantile(exact, 0.9))).toBeLessThan(0.05)
  })

  it("agrees with the normal approximation on a large sample", () => {
    const random = rng(7, "sample")
    const values = Float64Array.from({ length: 2000 }, () => Number(random.next() < 0.3))
    const p = values.reduce((a, b) => a + b, 0) / values.length
    const half = 1.96 * Math.sqrt((p * (1 - p)) / values.length)
    const [low, high] = bootstrap([values, ones(2000)], mean, { samples: 4000, seed: 2 })
    expect(low).toBeCloseTo(p - half, 2)
    expect(high).toBeCloseTo(p + half, 2)
  })

  it("covers the truth about as often as it says", () => {
    // 300 samples of 60 draws with mean .5: 95 % +- 2.5 % (two standard errors), a little less for the small sample
    let covered = 0
    for (let trial = 0; trial < 300; trial++) {
      const random = rng(trial, "coverage")
      const values = Float64Array.from({ length: 60 }, () => random.next())
      const [low, high] = bootstrap([values, ones(60)], mean, { samples: 500, seed: trial })
      if (low <= 0.5 && 0.5 <= high) covered++
    }
    expect(covered / 300).toBeGreaterThan(0.9)
    expect(covered / 300).toBeLessThan(0.985)
  })

  it("draws the same resamples for the same seed and others for another", () => {
    const columns = [Float64Array.from([1, 2, 5, 9]), ones(4)]
    const of = (seed: number) => bootstrap(columns, mean, { samples: 101, seed })
    expect(of(3)).toEqual(of(3))
    expect(of(3)).not.toEqual(of(4))
  })

  it("interpolates quantiles as numpy does", () => {
    // numpy.quantile([1, 2, 4, 8], .3) = 1.9 : position .9 between 1 and 2
    expect(quantile([1, 2, 4, 8], 0.3)).toBeCloseTo(1.9)
    expect(quantile([1, 2, 4, 8], 1)).toBe(8)
    expect(quantile([], 0.5)).toBeNaN()
  })
})

const item = (id: string, verdicts: (boolean | null)[], seed = 0): EvalItem => ({
  ...{ id, seed, method: "m", temperature: 0, instruction: "", answer: "" },
  constraints: verdicts.map((satisfied) => ({ question: "", kind: "", satisfied })),
})
const options = { samples: 1000, seed: 0 }

describe("scores", () => {
  it("average the share of constraints kept over answers, and count answers that keep all", () => {
    // shares 1, 1/2, 0 -> CSR 1/2; one of three keeps all
    const score = scoreOf([item("a", [true, true]), item("b", [true, false]), item("c", [false])], options)
    expect(score.csr).toBeCloseTo(0.5)
    expect(score.isr).toBeCloseTo(1 / 3)
    expect(score.n).toBe(3)
  })

  it("leave out verdicts that could not be read, and count them", () => {
    const score = scoreOf([item("a", [true, null]), item("b", [null]), item("c", [false, true, null])], options)
    expect(score.csr).toBeCloseTo(0.75)
    expect(score.isr).toBeCloseTo(0.5)
    expect(score.unreadable).toBe(3)
  })

  it("do not take answers of several seeds to one instruction for independent evidence", () => {
    const random = rng(1, "clusters")
    const verdicts = Array.from({ length: 100 }, () => random.next() < 0.5)
    const once = scoreOf(
      verdicts.map((kept, i) => item(`${i}`, [kept])),
      options,
    )
    const fourTimes = [0, 1, 2, 3].flatMap((seed) => verdicts.map((kept, i) => item(`${i}`, [kept], seed)))
    expect(scoreOf(fourTimes, options).isr_interval).toEqual(once.isr_interval)
    expect(scoreOf(fourTimes, options).seeds).toHaveLength(4)
  })

  it("give paired differences a narrower interval than two independent ones", () => {
    const random = rng(2, "pairs")
    const base = Array.from({ length: 200 }, (_, i) => item(`${i}`, [random.next() < 0.5]))
    // 20 of the failures are cured, nothing is lost: the difference is .1 and never negative
    const failures = base.filter(({ constraints }) => !constraints[0]!.satisfied).slice(0, 20)
    const better = base.map((one) => (failures.includes(one) ? item(one.id, [true]) : one))
    const gap = differenceOf(better, base, options)
    expect(gap.isr).toBeCloseTo(0.1)
    expect(gap.isr_interval[0]).toBeGreaterThan(0.05)
    expect(gap.isr_interval[1]).toBeLessThan(0.15)
    const { isr_interval } = scoreOf(base, options)
    expect(gap.isr_interval[1] - gap.isr_interval[0]).toBeLessThan(isr_interval[1] - isr_interval[0])
  })

  it("compare only instructions that both answered", () => {
    const gap = differenceOf([item("a", [true]), item("b", [false])], [item("a", [true]), item("c", [true])], options)
    expect(gap.isr).toBe(0)
  })
})
