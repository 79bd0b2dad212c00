import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { figureBlock, html, page } from "../../lib/plots/html"
import { axesOf, axis, colours, type Figure, gridLayout, layoutOf, plain } from "../../lib/plots/theme"
import type { Results } from "./bench"

/** Ratios to the peers with their spread and targets; below, how time and memory grow. */
export function benchFigures({ rows, growth }: Results): Figure[] {
  const raced = rows.filter(({ ratio }) => ratio !== null).reverse()
  const figures: Figure[] = []
  if (raced.length) {
    const bars = {
      type: "bar",
      orientation: "h",
      name: "ratio to the peer, least to greatest",
      y: raced.map(({ work }) => plain(work)),
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
      y: aimed.map(({ work }) => plain(work)),
      x: aimed.map(({ target }) => target),
      marker: { symbol: "line-ns-open", size: 16, color: colours.vermillion, line: { width: 3 } },
    }
    const layout = layoutOf("Speed against the peer", 34 * raced.length, {
      xaxis: axis("times as fast as the peer", { rangemode: "tozero" }),
      yaxis: axis("", { ticks: "" }),
    })
    figures.push({ data: aimed.length ? [bars, targets] : [bars], layout })
  }
  if (growth.length) {
    const panels = growth.flatMap(({ title, x, y, points }) => {
      const across = axis(x, { type: "log", tickvals: points.map((point) => point.x) })
      return [
        { heading: plain(title), x: across, y: axis(y, { rangemode: "tozero" }) },
        { heading: "memory", x: across, y: axis("peak MiB", { rangemode: "tozero" }) },
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
    figures.push({ data, layout: gridLayout("Growth", panels, 2, 170, { legend: false }) })
  }
  return figures
}

/** Draws figures into a PNG with Chromium, where there is one; the path, else null. */
export function savePicture(figures: readonly Figure[], file: string): string | null {
  const dir = mkdtempSync(join(tmpdir(), "musc-figure-"))
  const source = join(dir, "page.html")
  const height = figures.reduce((sum, { layout }) => sum + layout.height + 40, 80)
  try {
    writeFileSync(
      source,
      page("bench", html`<style>.modebar { display: none }</style>${figures.map((figure) => figureBlock(figure))}`),
    )
    const shot = [`--screenshot=${file}`, `--window-size=1100,${height}`, "--virtual-time-budget=10000"]
    const args = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", ...shot, source]
    execFileSync(process.env.CHROMIUM ?? "chromium", args, { stdio: "ignore" })
    return file
  } catch {
    return null
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
