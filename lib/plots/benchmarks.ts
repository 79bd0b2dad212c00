import type { BenchmarkResults } from "../data/results"
import { axesOf, axis, type Figure, gridLayout, methodLooks, orderMethods, plain, type Trace } from "./theme"

/** One panel a benchmark and figure: the value of every method with its 95 % interval. */
export function benchmarkFigure(panels: readonly { of: BenchmarkResults; figure: string }[]): Figure {
  const methods = orderMethods(new Set(panels.flatMap(({ of }) => Object.keys(of.methods))))
  const look = methodLooks(methods)
  const data = panels.flatMap(({ of, figure }, i) =>
    methods.flatMap((method): Trace[] => {
      const estimate = of.methods[method]?.[figure]
      if (!estimate || estimate.value === null) return []
      const { value } = estimate
      const [low, high] = estimate.interval
      const { colour: color, symbol } = look(method)
      return [
        {
          ...{ type: "scatter", mode: "markers", x: [value], y: [plain(method)], showlegend: false },
          error_x: {
            ...{ type: "data", symmetric: false, thickness: 1.5, width: 4, color },
            array: [Math.max(0, (high ?? value) - value)],
            arrayminus: [Math.max(0, value - (low ?? value))],
          },
          marker: { color, symbol, size: 10 },
          hovertemplate: `${plain(method)}: %{x} over ${of.items} items<extra></extra>`,
          ...{ xaxis: axesOf(i).x, yaxis: axesOf(i).y },
        },
      ]
    }),
  )
  const order = { categoryorder: "array", categoryarray: methods.map(plain).reverse() }
  const shares = (figure: string) => !/^(rating|average)|CSL$/.test(figure)
  const grid = panels.map(({ of, figure }, i) => ({
    heading: plain(of.benchmark),
    x: axis(`${plain(figure)}, with 95 % interval`, shares(figure) ? { tickformat: ".0%" } : {}),
    y: axis("", { type: "category", ticks: "", showticklabels: i % 2 === 0, ...order }),
  }))
  const height = Math.max(140, 26 * methods.length)
  return { data, layout: gridLayout("Methods on benchmarks", grid, 2, height, { legend: false }) }
}
