import type { Results, Score } from "../data/results"
import { temperaturesOf } from "./figures"
import {
  axesOf,
  axis,
  colours,
  type Figure,
  gridLayout,
  layoutOf,
  legendRows,
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

/**
 * ISR of every method with its 95 % interval, one line a method and one panel a temperature; for any number of methods.
 */
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
  method: string
  /** told apart by dashes; empty where there is one only */
  model: string
  points: readonly { at: number; score: Score }[]
  base?: Score
}

/**
 * ISR against a setting, one curve a method (colour) and model (dash), with 95 % intervals; dotted grey, once a model:
 * before training.
 */
export function satisfactionOver(
  setting: string,
  circumstances: string,
  curves: readonly AxisCurve[],
  { log = false } = {},
): Figure {
  const look = methodLooks(curves.map(({ method }) => method))
  const models = [...new Set(curves.map(({ model }) => model))].reverse()
  const dashes = ["solid", "dash", "dashdot", "longdash"]
  const based = new Set<string>()
  const data = curves.flatMap(({ method, model, points, base }): Trace[] => {
    const name = plain([model, method].filter(Boolean).join(" "))
    const sorted = [...points].sort((a, b) => a.at - b.at)
    const { colour: color, symbol } = look(method)
    const x = sorted.map(({ at }) => at)
    const of = (pick: (score: Score) => number) => sorted.map(({ score }) => Math.max(0, pick(score)))
    const error_y = {
      ...{ type: "data", symmetric: false, thickness: 1.5, width: 4, color },
      array: of((score) => score.isr_interval[1] - score.isr),
      arrayminus: of((score) => score.isr - score.isr_interval[0]),
    }
    const curve: Trace = {
      ...{ type: "scatter", mode: "lines+markers", name, x, y: of(({ isr }) => isr), error_y },
      line: { color, width: 2, dash: dashes[models.indexOf(model) % dashes.length] },
      marker: { color, symbol, size: 9 },
      hovertemplate: `${name}, %{x}: %{y:.1%}<extra></extra>`,
    }
    if (!base || based.has(model)) return [curve]
    based.add(model)
    const flat: Trace = {
      ...{ type: "scatter", mode: "lines+text", x: [x[0], x.at(-1)], y: [base.isr, base.isr], showlegend: false },
      ...{ text: ["", plain(`${model} before training`.trim())], textposition: "top left" },
      textfont: { color: colours.grey },
      line: { color: colours.grey, width: 1, dash: "dot" },
      hovertemplate: `${plain(model)} before training: %{y:.1%}<extra></extra>`,
    }
    return [curve, flat]
  })
  const tickvals = [...new Set(curves.flatMap(({ points }) => points.map(({ at }) => at)))]
  const layout = layoutOf(`Instructions kept whole by ${setting}, ${circumstances}`, 320, {
    xaxis: axis(plain(setting), {
      tickvals,
      ticktext: tickvals.map((at) => `${Math.round(1000 * at) / 1000}`),
      ...(log && { type: "log" }),
    }),
    yaxis: axis("ISR, with 95 % interval", { tickformat: ".0%" }),
    legend: legendRows(curves.map(({ model, method }) => `${model} ${method}`)),
  })
  return { data, layout }
}
