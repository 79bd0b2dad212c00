import { darkColours } from "./page-style"

/**
 * Draws the figures of a page: in the colours of the reader's system, and on a phone with panels below each other, the
 * legend in as many lines as it needs, and labels broken into short lines.
 */
export const drawScript = `
const dark = matchMedia("screen and (prefers-color-scheme: dark)")
const small = matchMedia("screen and (max-width: 700px)")
const inDark = ${JSON.stringify(darkColours)}
const recoloured = (json) => dark.matches ? json.replace(/#[0-9A-Fa-f]{6}\\b/g, (colour) => inDark[colour.toUpperCase()] ?? colour) : json
const options = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] }
const shortLines = (label) => typeof label !== "string" ? label :
  label.replaceAll("<br>", " ").split(" ").reduce((text, word) =>
    text + (text.length - text.lastIndexOf(">") + word.length > 18 ? "<br>" : " ") + word)
const narrow = ({ data, layout }, width) => {
  const { margin, meta, legend } = layout
  const names = data.filter(({ name, showlegend }) => name && showlegend !== false).map(({ name }) => name)
  const lines = Math.round((margin.t - 62) / 22)
  const entry = 60 + 7.3 * Math.max(1, ...names.map((name) => name.length))
  const needed = lines && Math.ceil(names.length / Math.max(1, Math.floor((width - 88) / entry)))
  margin.t += 22 * Math.max(0, needed - lines)
  let height = layout.height - margin.b - 62 - 22 * lines
  if (meta?.panels > 1) {
    height = meta.panels * (meta.rowHeight + meta.gap) - meta.gap
    for (let i = 0; i < meta.panels; i++) {
      const [axis, top] = [i ? i + 1 : "", 1 - i * (meta.rowHeight + meta.gap) / height]
      layout["xaxis" + axis].domain = [0, 1]
      layout["yaxis" + axis].domain = [Math.max(0, top - meta.rowHeight / height), top]
      layout["yaxis" + axis].showticklabels = true
      Object.assign(layout.annotations[i], { x: 0, y: top, font: { size: 11 } })
    }
  }
  for (const trace of data) if (Array.isArray(trace.y)) trace.y = trace.y.map(shortLines)
  for (const [name, axis] of Object.entries(layout))
    if (name.startsWith("yaxis")) for (const list of ["categoryarray", "ticktext"]) if (axis[list]) axis[list] = axis[list].map(shortLines)
  layout.title.font.size = Math.min(16, (1.8 * width) / layout.title.text.length)
  layout.legend = { ...legend, y: 1 + 26 / height }
  layout.height = height + margin.t + margin.b
  return { data, layout }
}
const drawAll = () => {
  for (const plot of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(recoloured(plot.nextElementSibling.textContent))
    const { data, layout } = small.matches ? narrow(figure, plot.clientWidth) : figure
    plot.style.height = layout.height + "px"
    Plotly.react(plot, data, layout, options)
  }
}
drawAll()
dark.addEventListener("change", drawAll)
small.addEventListener("change", drawAll)
const fit = (width) => document.querySelectorAll(".plot").forEach((plot) => Plotly.relayout(plot, { width, autosize: !width }))
addEventListener("beforeprint", () => fit(1050))
addEventListener("afterprint", () => fit(undefined))
`
