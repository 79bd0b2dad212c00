import type { Results, Score } from "../data/results"
import { temperaturesOf } from "./figures"
import {
  axesOf,
  axis,
  colours,
  type Figure,
  gridLayout,
  layoutOf,
  methodLooks,
  orderMethods,
  plain,
  type Trace,
} from "./theme"

const intervalOf = (score: Score) => ({
  type: "data",
  symmetric: false,
  array: [Math.max(0, score.isr_interval[1] - score.isr)],
  arrayminus: [Math.max(0, score.isr - score.isr_interval[0])],
  thickness: 1.5,
  width: 4,
})

/** ISR of every method with its 95 % interval, one line a method and one panel a temperature; for any number of methods. */
export function methodComparison(results: Pick<Results, "methods">): Figure {
  const methods = orderMethods(Object.keys(results.methods))
  const look = methodLooks(methods)
  const temperatures = temperaturesOf(results)
  const data = temperatures.flatMap((temperature, i) =>
    methods.flatMap((method): Trace[] => {
      const score = results.methods[method]![temperature]
      if (!score) return []
      return [
        {
          type: "scatter",
          mode: "markers",
          x: [score.isr],
          y: [plain(method)],
          error_x: { ...intervalOf(score), color: look(method).colour },
          marker: { color: look(method).colour, symbol: look(method).symbol, size: 10 },
          hovertemplate: `${plain(method)}: %{x:.1%} of ${score.n} answers<extra></extra>`,
          showlegend: false,
          xaxis: axesOf(i).x,
          yaxis: axesOf(i).y,
        },
      ]
    }),
  )
  const order = { categoryorder: "array", categoryarray: methods.map(plain).reverse() }
  const panels = temperatures.map((temperature, i) => ({
    heading: plain(temperature.replace(/^T/, "temperature ")),
    x: axis("instructions kept whole (ISR), with 95 % interval", { tickformat: ".0%" }),
    y: axis("", { type: "category", ticks: "", showticklabels: i === 0, ...order }),
  }))
  const layout = gridLayout("Methods compared", panels, 2, Math.max(140, 26 * methods.length), { legend: false })
  return { data, layout }
}

/** One curve: a score at each value of a setting, and what stands for no training at all. */
export interface AxisCurve {
  name: string
  points: readonly { at: number; score: Score }[]
  base?: Score
}

/** ISR against a setting, one curve a method (and model), with 95 % intervals; dashed: the model before training. */
export function satisfactionOver(title: string, curves: readonly AxisCurve[], { log = false } = {}): Figure {
  const names = curves.map(({ name }) => name)
  const look = methodLooks(names)
  const data = curves.flatMap(({ name, points, base }): Trace[] => {
    const sorted = [...points].sort((a, b) => a.at - b.at)
    const { colour, symbol } = look(name)
    const x = sorted.map(({ at }) => at)
    const of = (pick: (score: Score) => number) => sorted.map(({ score }) => Math.max(0, pick(score)))
    const error_y = {
      ...{ type: "data", symmetric: false, thickness: 1.5, width: 4 },
      array: of((score) => score.isr_interval[1] - score.isr),
      arrayminus: of((score) => score.isr - score.isr_interval[0]),
    }
    const curve: Trace = {
      ...{ type: "scatter", mode: "lines+markers", name: plain(name), x, y: of(({ isr }) => isr), error_y },
      line: { color: colour, width: 2 },
      marker: { color: colour, symbol, size: 9 },
      hovertemplate: `${plain(name)}, %{x}: %{y:.1%}<extra></extra>`,
    }
    const flat: Trace = {
      ...{ type: "scatter", mode: "lines", x: [x[0], x.at(-1)], y: [base?.isr, base?.isr], showlegend: false },
      line: { color: colours.grey, width: 1, dash: "dash" },
      hovertemplate: `before training: %{y:.1%}<extra></extra>`,
    }
    return base ? [curve, flat] : [curve]
  })
  const layout = layoutOf(`Instructions kept whole by ${title}`, 320, {
    xaxis: axis(plain(title), log ? { type: "log", dtick: "D2" } : {}),
    yaxis: axis("ISR, with 95 % interval", { tickformat: ".0%" }),
  })
  return { data, layout }
}
