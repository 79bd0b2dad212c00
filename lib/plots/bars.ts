import { axis, colours, type Figure, inkOn, layoutOf, plain, wrapped } from "./theme"

const spare = [colours.blue, colours.vermillion, colours.green, colours.orange, colours.purple, colours.grey]

export interface BarOptions {
  title: string
  /** What the values are, with their unit. */
  value: string
  /** plotly's format of values: ".0%" for shares, ".2f". */
  format?: string
}

/** Values of some series by category as horizontal bars, categories from top to bottom in order of appearance. */
export function barFigure(
  series: Readonly<Record<string, Readonly<Record<string, number>>>>,
  { title, value, format = ",d" }: BarOptions,
): Figure {
  const names = Object.keys(series)
  const categories = [...new Set(names.flatMap((name) => Object.keys(series[name]!)))]
  const data = names.map((name, i) => {
    const colour = spare[i % spare.length]!
    return {
      ...{ type: "bar", orientation: "h", name: plain(name), showlegend: names.length > 1 },
      x: categories.map((category) => series[name]![category] ?? null),
      y: categories.map((category) => wrapped(category, 40)),
      texttemplate: `%{x:${format}}`,
      // A bar of length 0 has no inside.
      textposition: categories.map((category) => (series[name]![category] === 0 ? "outside" : "auto")),
      textangle: 0,
      insidetextfont: { color: inkOn(colour) },
      marker: { color: colour },
      hovertemplate: `%{y}, ${plain(name)}: %{x:${format}}<extra></extra>`,
    }
  })
  const height = 26 * categories.length * names.length + 16 * categories.length + 20
  return {
    data,
    layout: layoutOf(title, height, {
      legend: names.length > 1,
      ...{ bargap: 0.25, ...(names.length > 1 && { showlegend: true }) },
      xaxis: axis(value, { rangemode: "tozero", tickformat: format }),
      yaxis: axis("", { autorange: "reversed", ticks: "", type: "category" }),
    }),
  }
}
