import { describe, expect, it } from "vitest"
import type { Score } from "../../lib/data/results"
import { methodComparison, satisfactionOver } from "../../lib/plots/comparison"

const score = (isr: number): Score => ({
  ...{ csr: isr, csr_interval: [isr, isr], isr, isr_interval: [isr - 0.1, isr + 0.2] },
  ...{ n: 20, unreadable: 0, seeds: [] },
})

describe("the comparison of methods", () => {
  it("has a mark with its interval for each method at each temperature, the baselines first", () => {
    const methods = { musc: { T0: score(0.7), "T0.5": score(0.6) }, base: { T0: score(0.3) } }
    const { data } = methodComparison({ methods })
    const marks = data.map(({ x, y, xaxis }) => [(x as number[])[0], (y as string[])[0], xaxis])
    expect(marks).toEqual([
      [0.3, "base", "x"],
      [0.7, "musc", "x"],
      [0.6, "musc", "x2"],
    ])
    const { array, arrayminus } = data[0]!.error_x as { array: number[]; arrayminus: number[] }
    expect([array[0], arrayminus[0]]).toEqual([expect.closeTo(0.2), expect.closeTo(0.1)])
  })
})

describe("satisfaction over a setting", () => {
  it("sorts the points, colours by method, dashes by model, and draws the model before training flat", () => {
    const points = [
      { at: 500, score: score(0.6) },
      { at: 60, score: score(0.4) },
    ]
    const curves = ["small", "large"].map((model) => ({ method: "musc", model, points, base: score(0.3) }))
    const { data, layout } = satisfactionOver(
      "pairs",
      "temperature 0",
      [...curves, { ...curves[1]!, method: "coarse" }],
      { log: true },
    )
    expect(data.map(({ name, x, y }) => [name, x, y])).toEqual([
      ["small musc", [60, 500], [0.4, 0.6]],
      [undefined, [60, 500], [0.3, 0.3]],
      ["large musc", [60, 500], [0.4, 0.6]],
      [undefined, [60, 500], [0.3, 0.3]],
      ["large coarse", [60, 500], [0.4, 0.6]],
    ])
    expect([data[1]!.text, data[3]!.text]).toEqual([
      ["", "small before training"],
      ["", "large before training"],
    ])
    const lines = [data[0]!, data[2]!].map(({ line }) => line as { color: string; dash: string })
    expect(lines[0]!.color).toBe(lines[1]!.color)
    expect(lines.map(({ dash }) => dash)).toEqual(["dash", "solid"])
    expect(layout.xaxis).toMatchObject({ type: "log", tickvals: [500, 60] })
  })
})
