import { describe, expect, it } from "vitest"
import { bootstrap } from "../../lib/eval/bootstrap"
import { differencesTable, figuresTable, pairedDifferences, type Scored, withIntervals } from "../../lib/eval/figures"
import { rng } from "../../lib/rng"

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
const figures = (values: readonly number[]) => ({ mean: mean(values), max: Math.max(...values), none: Number.NaN })
const rows = (values: readonly number[], unit = (i: number) => `${i}`): Scored<number>[] =>
  values.map((result, i) => ({ id: `${i}`, unit: unit(i), result }))
const options = { samples: 400, seed: 3 }

describe("figures with intervals", () => {
  const values = Array.from({ length: 50 }, (_, i) => rng(1, "values", i).next())

  it("have the intervals that the bootstrap of column totals has", () => {
    const ones = new Float64Array(50).fill(1)
    const expected = bootstrap([Float64Array.from(values), ones], ([sum, n]) => sum! / n!, options)
    const found = withIntervals(figures, rows(values), options)
    expect(found.mean!.value).toBe(mean(values))
    for (const end of [0, 1] as const) expect(found.mean!.interval[end]).toBeCloseTo(expected[end], 12)
    expect(found.none).toEqual({ value: Number.NaN, interval: [Number.NaN, Number.NaN] })
  })

  it("take items of one unit together: four copies of each value are no more evidence", () => {
    const once = withIntervals(figures, rows(values), options)
    const copies = withIntervals(
      figures,
      rows(
        values.flatMap((value) => [value, value, value, value]),
        (i) => `${i >> 2}`,
      ),
      options,
    )
    expect(copies.mean!.interval[0]).toBeCloseTo(once.mean!.interval[0], 12)
    expect(copies.mean!.interval[1]).toBeCloseTo(once.mean!.interval[1], 12)
  })
})

describe("paired differences", () => {
  it("are exact where b is a plus a constant, in whatever order its items come", () => {
    const a = rows([0.1, 0.5, 0.9, 0.3])
    const b = [...a].reverse().map((row) => ({ ...row, result: row.result + 0.25 }))
    const { items, figures: found } = pairedDifferences(figures, a, b, options)
    expect(items).toBe(4)
    for (const name of ["mean", "max"]) {
      expect(found[name]!.difference).toBeCloseTo(0.25, 12)
      expect(found[name]!.interval[0]).toBeCloseTo(0.25, 12)
      expect(found[name]!.interval[1]).toBeCloseTo(0.25, 12)
    }
  })

  it("are over common items only", () => {
    const a = rows([0, 1, 1])
    const b = rows([1, 1]).concat({ id: "other", unit: "other", result: 50 })
    const { items, figures: found } = pairedDifferences(figures, a, b, options)
    expect(items).toBe(2)
    expect(found.mean).toMatchObject({ a: 0.5, b: 1, difference: 0.5 })
  })
})

describe("tables", () => {
  it("are Markdown, with a dash where there is no number", () => {
    expect(
      figuresTable({
        "a|b": { value: 0.5, interval: [0.25, 1] },
        none: { value: Number.NaN, interval: [Number.NaN, Number.NaN] },
      }),
    ).toBe(
      [
        "| figure | value |           95 % |",
        "|--------|------:|---------------:|",
        "| a\\|b   | 0.500 | [0.250, 1.000] |",
        "| none   |     – |              – |",
      ].join("\n"),
    )
  })

  it("mark differences whose interval leaves out zero", () => {
    const table = differencesTable(["base", "musc"], {
      up: { a: 0.5, b: 0.75, difference: 0.25, interval: [0.1, 0.4] },
      same: { a: 0.5, b: 0.4, difference: -0.1, interval: [-0.3, 0.1] },
    })
    expect(table.split("\n").map((line) => line.split("|").map((cell) => cell.trim()))).toEqual([
      ["", "figure", "base", "musc", "musc - base", "95 %", ""],
      expect.anything(),
      ["", "up", "0.500", "0.750", "+0.250", "[+0.100, +0.400] *", ""],
      ["", "same", "0.500", "0.400", "-0.100", "[-0.300, +0.100]", ""],
    ])
  })
})
