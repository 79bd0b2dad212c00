import { escapeHtml, html, jsonForScript, plotlyBundle } from "../plots/html"
import { figurePng } from "../plots/picture"
import type { Figure } from "../plots/theme"
import { type Bundle, display, inNotebook, mode, type Slot, settled } from "./display"

const drawing = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] }

/** The title of a figure and how much is in it, where no picture can be shown. */
function figureText({ data, layout }: Figure): string {
  const title = (layout.title as { text?: string } | undefined)?.text ?? "figure"
  const names = [...new Set(data.map(({ name }) => name).filter((name) => typeof name === "string"))]
  return `[figure] ${title.replaceAll("<br>", " ")}${names.length ? ` (${names.join(", ")})` : ""}`
}

let figures = 0
let loaded = false

/**
 * Brings plotly into the page, once a kernel, so that figures answer to the pointer: a display holds the script for a
 * moment and is then emptied, which keeps the saved notebook small. Call it again after the page was reloaded.
 */
async function loadPlotly(): Promise<void> {
  loaded = true
  if (mode() === "publish" || !inNotebook()) return
  await settled()
  const code = `(function () { var define, module, exports; ${plotlyBundle()} }).call(window)`
  const slot = display({ "text/plain": "", "text/html": `<script>if (!window.Plotly) { ${code} }</script>` })
  await new Promise((resolve) => setTimeout(resolve, 800))
  slot.set({ "text/plain": "", "text/html": "" })
}

/** The element that a figure is drawn in, and the script that draws it there where plotly is in the page. */
function liveHtml(figure: Figure, element: string, picture: string): string {
  const title = escapeHtml(figureText(figure))
  const image = `<img src="data:image/png;base64,${picture}" alt="${title}" style="max-width:100%;width:860px">`
  return `<div id="${element}">${picture ? image : ""}</div>${drawScript(figure, element)}`
}

/** Draws a figure in an element of the page, or changes the one that is there. */
function drawScript({ data, layout }: Figure, element: string): string {
  return `<script>(() => {
  const place = document.getElementById("${element}")
  if (!window.Plotly || !place) return
  if (!place.classList.contains("js-plotly-plot")) place.replaceChildren()
  Plotly.react(place, ${jsonForScript(data)}, ${jsonForScript(layout)}, ${jsonForScript(drawing)})
})()</script>`
}

/** A figure for every front end: live with plotly's JSON, a script and a picture; published with its JSON and a PNG. */
export async function figureBundle(
  figure: Figure,
  element = `musc-figure-${process.pid}-${++figures}`,
): Promise<Bundle> {
  const picture = (await figurePng(figure)).toString("base64")
  const both = { "application/vnd.plotly.v1+json": figure, "text/plain": figureText(figure) }
  if (mode() === "publish") return { ...both, "image/png": picture }
  return { ...both, "text/html": liveHtml(figure, element, picture) }
}

/** Shows a figure; the first one also brings plotly into the page. */
export async function showFigure(figure: Figure): Promise<void> {
  if (!loaded) await loadPlotly()
  display(inNotebook() ? await figureBundle(figure) : { "text/plain": figureText(figure) })
}

/** Least milliseconds between two drawings of a figure that grows. */
const PAUSE = 400

/** A figure that grows while the cell works, with a line of text below it. */
export interface LiveFigure {
  /** Draws at most a few times a second; `figure` is made only then. */
  update(figure: () => Figure, line: string): void
  /** Leaves the last figure with its picture, and the line. */
  end(figure: Figure, line: string): Promise<void>
}

/** A place for a figure that grows. Published notebooks show its end alone. */
export async function liveFigure(): Promise<LiveFigure> {
  if (!loaded) await loadPlotly()
  else await settled()
  const element = `musc-figure-${process.pid}-${++figures}`
  const silent = mode() === "publish" || !inNotebook()
  const place: Slot | undefined = silent ? undefined : display(emptyPlace(element))
  const pen = silent ? undefined : display({ "text/plain": "" })
  let drawn = 0
  return {
    update(figure, line) {
      if (!pen || Date.now() - drawn < PAUSE) return
      drawn = Date.now()
      pen.set({ "text/plain": line, "text/html": `${html`<pre>${line}</pre>`}${drawScript(figure(), element)}` })
    },
    async end(figure, line) {
      if (place) place.set(await figureBundle(figure, element))
      else await showFigure(figure)
      const bundle = { "text/plain": line, "text/html": `${html`<pre>${line}</pre>`}` }
      if (pen) pen.set(bundle)
      else display(bundle)
    },
  }
}

const emptyPlace = (element: string): Bundle => ({
  "text/plain": "",
  "text/html": `<div id="${element}" style="min-height:40px"></div>`,
})
