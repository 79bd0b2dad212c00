import type { EvalItem, Results, Score } from "../data/results"
import { answerCells, constraintCells, shareBy, wilson } from "./shares"
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
  rowHeight,
  sideBySide,
  type Trace,
} from "./theme"

/** Share as a percentage axis from 0 to 100 %. */
const shareAxis = (title: string, more: Record<string, unknown> = {}) =>
  axis(title, { range: [0, 1.04], tickformat: ".0%", dtick: 0.2, ...more })

/** "T0.5" as "temperature 0.5". */
const temperatureLabel = (key: string): string => plain(key.replace(/^T/, "temperature "))
const degrees = (key: string): number => Number(key.slice(1))

/** Temperatures of some results ("T0", "T0.5"), lowest first. */
export const temperaturesOf = (results: Pick<Results, "methods">): string[] =>
  [...new Set(Object.values(results.methods).flatMap((scores) => Object.keys(scores)))].sort(
    (a, b) => degrees(a) - degrees(b),
  )

/** Constraint and instruction satisfaction of every method at every temperature, with 95 % intervals. */
export function resultBars(results: Pick<Results, "methods">): Figure {
  const temperatures = temperaturesOf(results)
  const methods = orderMethods(Object.keys(results.methods))
  const look = methodLooks(methods)
  const rates = [
    { rate: "csr", heading: "constraints kept (CSR)" },
    { rate: "isr", heading: "instructions kept whole (ISR)" },
  ] as const
  const data = rates.flatMap(({ rate }, i) =>
    methods.flatMap((method): Trace[] => {
      const scores = temperatures.map((key): Score | undefined => results.methods[method]![key])
      const value = <Value>(pick: (score: Score) => Value) => scores.map((score) => (score ? pick(score) : null))
      const common = {
        ...{ type: "bar", name: plain(method), legendgroup: method, offsetgroup: method },
        ...{ x: temperatures.map(temperatureLabel), xaxis: axesOf(i).x, yaxis: axesOf(i).y },
      }
      const bar = {
        ...common,
        showlegend: i === 0,
        y: value((score) => score[rate]),
        error_y: {
          type: "data",
          symmetric: false,
          array: value((score) => Math.max(0, score[`${rate}_interval`][1] - score[rate])),
          arrayminus: value((score) => Math.max(0, score[rate] - score[`${rate}_interval`][0])),
          thickness: 1.5,
          width: 4,
          color: colours.black,
        },
        marker: { color: look(method).colour },
        customdata: value((score) => score.n),
        hovertemplate: `${plain(method)}, %{x}: %{y:.1%} of %{customdata} answers<extra></extra>`,
      }
      // An invisible bar carries the number above the interval; elsewhere the interval's line would cross it.
      const number = {
        ...common,
        ...{ showlegend: false, hoverinfo: "skip", marker: { color: "rgba(0,0,0,0)" } },
        y: value((score) => Math.max(score[rate], score[`${rate}_interval`][1])),
        text: value((score) => `${Math.round(100 * score[rate])}`),
        ...{ textposition: "outside", textangle: 0, constraintext: "none", cliponaxis: false },
      }
      return [bar, number]
    }),
  )
  const panels = rates.map(({ heading }) => ({
    heading,
    x: axis("", { type: "category" }),
    y: shareAxis("share, with 95 % interval", { range: [0, 1.1] }), // with room for a number above 100 %
  }))
  const legend = { legend: legendRows(methods) }
  return {
    data,
    layout: { ...gridLayout("Satisfaction by method and temperature", panels, 2, 280, legend), bargap: 0.18 },
  }
}

/** The items at one temperature; without one given, the lowest that there is. */
export function atTemperature(items: readonly EvalItem[], wanted?: number): { items: EvalItem[]; temperature: number } {
  const temperature = wanted ?? items.reduce((least, item) => Math.min(least, item.temperature), Infinity)
  return { items: items.filter((item) => item.temperature === temperature), temperature }
}

/** A share with its number of draws and interval, for hover labels. */
function hover(share: number, n: number): string {
  const [low, high] = wilson(share, n).map((value) => (100 * value).toFixed(0))
  return `${(100 * share).toFixed(1)} % of ${n} (95 % interval ${low} to ${high} %)`
}

/**
 * Share of constraints kept by kind and method, hardest kind for the base model (or the first method) at the bottom.
 * Constraints of unknown kind are left out.
 */
export function satisfactionByKind(all: readonly EvalItem[], wanted?: number): Figure {
  const { items, temperature } = atTemperature(all, wanted)
  const groups = shareBy(
    constraintCells(items).filter(({ kind }) => kind),
    ["method", "kind"],
  )
  const methods = orderMethods(groups.map(({ method }) => method))
  const look = methodLooks(methods)
  const first = groups.filter(({ method }) => method === methods[0])
  const kinds = [...new Set(groups.map(({ kind }) => kind))]
  const ofFirst = (kind: string) => first.find((group) => group.kind === kind)?.share ?? 0
  kinds.sort((a, b) => ofFirst(b) - ofFirst(a) || (a < b ? -1 : 1))
  const data = methods.map((method): Trace => {
    const own = groups.filter((group) => group.method === method)
    return {
      type: "scatter",
      mode: "markers",
      orientation: "h",
      name: plain(method),
      x: own.map(({ share }) => share),
      y: own.map(({ kind }) => plain(kind)),
      text: own.map(({ share, n }) => hover(share, n)),
      hovertemplate: `${plain(method)}, %{y}: %{text}<extra></extra>`,
      marker: {
        color: look(method).colour,
        symbol: look(method).symbol,
        size: 11,
        line: { color: "#FFFFFF", width: 1 },
      },
    }
  })
  const order = { categoryorder: "array", categoryarray: kinds.map(plain), autorange: "reversed" }
  const height = Math.max(160, kinds.length * rowHeight(methods.length))
  const layout = layoutOf(`Constraints kept by kind, temperature ${temperature}`, height, {
    ...sideBySide,
    legend: legendRows(methods),
    xaxis: axis("share of constraints kept", { range: [-0.02, 1.02], tickformat: ".0%", dtick: 0.2 }),
    yaxis: axis("", { type: "category", ...order, ticks: "" }),
  })
  return { data, layout }
}

/**
 * Constraints kept, and instructions kept whole, by the number of constraints of the instruction, with Wilson's 95 %
 * intervals over answers (for CSR on the safe side: shares of an answer vary less than yes and no).
 */
export function satisfactionByCount(all: readonly EvalItem[], wanted?: number): Figure {
  const { items, temperature } = atTemperature(all, wanted)
  const rates = [
    { heading: "constraints kept (CSR)", groups: shareBy(answerCells(items, "csr"), ["method", "constraints"]) },
    { heading: "instructions kept whole (ISR)", groups: shareBy(answerCells(items, "isr"), ["method", "constraints"]) },
  ]
  const methods = orderMethods(items.map(({ method }) => method))
  const look = methodLooks(methods)
  const data = rates.flatMap(({ groups }, i) =>
    methods.map((method, m): Trace => {
      const own = groups.filter((group) => group.method === method).sort((a, b) => a.constraints - b.constraints)
      const { colour, symbol } = look(method)
      return {
        type: "scatter",
        mode: "lines+markers",
        name: plain(method),
        legendgroup: method,
        showlegend: i === 0,
        // A little aside, so that intervals of several methods stay apart.
        x: own.map(({ constraints }) => constraints + 0.05 * (m - (methods.length - 1) / 2)),
        y: own.map(({ share }) => share),
        error_y: {
          type: "data",
          symmetric: false,
          array: own.map(({ share, n }) => wilson(share, n)[1] - share),
          arrayminus: own.map(({ share, n }) => share - wilson(share, n)[0]),
          thickness: 1,
          width: 0,
        },
        text: own.map(({ share, n, constraints }) => `${constraints} constraints: ${hover(share, n)}`),
        hovertemplate: `${plain(method)}, %{text}<extra></extra>`,
        line: { color: colour, width: 2 },
        marker: { color: colour, symbol, size: 8 },
        xaxis: axesOf(i).x,
        yaxis: axesOf(i).y,
      }
    }),
  )
  const panels = rates.map(({ heading }) => ({
    heading,
    x: axis("constraints in the instruction, topic included", { dtick: 1 }),
    y: shareAxis("share, with 95 % interval"),
  }))
  const title = `Satisfaction by number of constraints, temperature ${temperature}`
  return { data, layout: gridLayout(title, panels, 2, 280, { legend: legendRows(methods) }) }
}
