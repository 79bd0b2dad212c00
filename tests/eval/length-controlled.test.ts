import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import {
  type Comparison,
  fitLengthControlled,
  fitLogistic,
  type GamedRow,
  lengthControlledRate,
  type ModelRow,
} from "../../lib/eval/length-controlled"

interface Case {
  own: ModelRow[]
  gamed: GamedRow[]
  rate: number
  rate_default_tolerance: number
  strength: number
  coefficients: number[]
}
const { cases }: { cases: Case[] } = JSON.parse(
  readFileSync(join(__dirname, "../fixtures/length-controlled/expected.json"), "utf8"),
)

describe("the length-controlled rate", () => {
  it.each(cases.map((one, i) => [i, one] as const))("is that of scikit-learn on made-up comparisons %i", (_, one) => {
    expect(lengthControlledRate(one.own, one.gamed)).toBeCloseTo(one.rate, 6)
    // At the tolerance which is used officially the reference itself is off by about 1e-5.
    expect(Math.abs(one.rate - one.rate_default_tolerance)).toBeLessThan(1e-4)
  })

  it("is the same for lengths in another unit", () => {
    const { own, gamed } = cases[0]!
    const longer = own.map((row) => ({ ...row, lengthDifference: row.lengthDifference * 7 }))
    expect(lengthControlledRate(longer, gamed)).toBeCloseTo(lengthControlledRate(own, gamed), 9)
  })

  it("is not a number where lengths have no spread or there are too few rows", () => {
    const row = { preference: 0.4, lengthDifference: 5, difficulty: 1 }
    expect(lengthControlledRate([row, row, row, row, row, row], [])).toBeNaN()
    expect(lengthControlledRate([row, { ...row, lengthDifference: 9 }], [])).toBeNaN()
    expect(lengthControlledRate([], [])).toBeNaN()
  })
})

describe("the regression", () => {
  it("chooses the strength and the coefficients of scikit-learn", () => {
    for (const { own, gamed, strength, coefficients } of cases) {
      const lengths = own.map(({ lengthDifference }) => lengthDifference)
      const mean = lengths.reduce((a, b) => a + b) / lengths.length
      const sd = Math.sqrt(lengths.reduce((sum, l) => sum + (l - mean) ** 2, 0) / (lengths.length - 1))
      const rows: Comparison[] = [
        ...gamed.map((g) => ({
          x: [Math.tanh(g.lengthDifference), g.difficulty, 0] as const,
          y: g.preference!,
          weight: 0.1,
        })),
        ...own
          .filter(({ preference }) => preference !== null)
          .map((row) => ({
            x: [Math.tanh(row.lengthDifference / sd), row.difficulty, 1] as const,
            y: row.preference!,
            weight: 1,
          })),
      ]
      const fit = fitLengthControlled(rows)
      expect(fit.strength / strength).toBeCloseTo(1, 9)
      fit.coefficients.forEach((value, j) => {
        expect(value).toBeCloseTo(coefficients[j]!, 5)
      })
    }
  })

  it("solves one feature as the equation has it", () => {
    // Minimise |b| + C (-y log p - (1 - y) log(1 - p)), p = s(b), for x = 1: at b > 0, 1 + C (p - y) = 0, so p = y -
    // 1/C. y = .9, C = 5: p = .7, b = log(.7 / .3). Up to C (y - .5) = 1 the minimum is at 0: y = .9, C = 2.5.
    const rows: Comparison[] = [{ x: [0, 0, 1], y: 0.9, weight: 1 }]
    expect(fitLogistic(rows, 5)[2]).toBeCloseTo(Math.log(0.7 / 0.3), 8)
    expect(fitLogistic(rows, 2.5)).toEqual([0, 0, 0])
  })

  it("does not depend on where it starts, or on the order of rows", () => {
    const rows: Comparison[] = cases[2]!.gamed.map((g) => ({
      x: [Math.tanh(g.lengthDifference), g.difficulty, 1],
      y: g.preference!,
      weight: 1,
    }))
    const fit = fitLogistic(rows, 3)
    for (const other of [fitLogistic([...rows].reverse(), 3), fitLogistic(rows, 3, [5, -7, 9])])
      for (const j of [0, 1, 2]) expect(other[j]).toBeCloseTo(fit[j]!, 7)
  })
})
