import { axesOf, axis, colours, type Figure, gridLayout, layoutOf, plain } from "../../lib/plots/theme"
import type { Results } from "./bench"

/** Long titles on two lines. */
const label = (work: string) => plain(work).replace(", against ", ",<br>against ")

/** Ratios to the peers with their spread and targets; how time and memory grow. */
export function benchFigures({ rows, growth }: Results): { speed?: Figure; growth?: Figure } {
  const raced = rows.filter(({ ratio }) => ratio !== null).reverse()
  const figures: { speed?: Figure; growth?: Figure } = {}
  if (raced.length) {
    const bars = {
      type: "bar",
      orientation: "h",
      name: "ratio, least to greatest",
      y: raced.map(({ work }) => label(work)),
      x: raced.map(({ ratio }) => ratio),
      error_x: {
        type: "data",
        symmetric: false,
        array: raced.map(({ ratio, spread }) => spread![1] - ratio!),
        arrayminus: raced.map(({ ratio, spread }) => ratio! - spread![0]),
        color: colours.black,
        thickness: 1.5,
      },
      marker: { color: colours.sky },
    }
    const aimed = raced.filter(({ target }) => target !== null)
    const targets = {
      type: "scatter",
      mode: "markers",
      name: "target",
      y: aimed.map(({ work }) => label(work)),
      x: aimed.map(({ target }) => target),
      marker: { symbol: "line-ns-open", size: 16, color: colours.vermillion, line: { width: 3 } },
    }
    const layout = layoutOf("Speed against the peer", 34 * raced.length, {
      xaxis: axis("times as fast as the peer", { rangemode: "tozero" }),
      yaxis: axis("", { ticks: "" }),
    })
    figures.speed = { data: aimed.length ? [bars, targets] : [bars], layout }
  }
  if (growth.length) {
    const panels = growth.flatMap(({ title, x, y, points }) => {
      const at = points.map((point) => point.x)
      const across = axis(x, { type: "log", tickvals: at, ticktext: at.map((value) => value.toLocaleString("en")) })
      const [work, memory = "memory"] = title.split(/, (?=memory)/)
      return [
        { heading: plain(work!), x: across, y: axis(y, { rangemode: "tozero" }) },
        { heading: memory, x: across, y: axis("peak MiB", { rangemode: "tozero" }) },
      ]
    })
    const data = growth.flatMap(({ points }, i) =>
      (["y", "peakMiB"] as const).map((key, k) => ({
        type: "scatter",
        mode: "lines+markers",
        showlegend: false,
        x: points.map(({ x }) => x),
        y: points.map((point) => point[key]),
        marker: { color: k ? colours.vermillion : colours.blue, size: 8 },
        xaxis: axesOf(2 * i + k).x,
        yaxis: axesOf(2 * i + k).y,
      })),
    )
    figures.growth = { data, layout: gridLayout("Growth", panels, 2, 170, { legend: false }) }
  }
  return figures
}
