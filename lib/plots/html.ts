import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import type { Figure } from "./theme"

/** Text that is HTML already. Made by the `html` tag alone, which escapes all else. */
export class Html {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text
  }
}

/** What may stand in a template: text (escaped), HTML (as it is), lists of both; nothing for null, undefined, false. */
export type Part = Html | string | number | null | undefined | false | readonly Part[]

/** HTML with everything put into it escaped, for element content and for attributes in double quotes. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.reduce((text, piece, i) => text + render(parts[i - 1]) + piece))
}

function render(part: Part): string {
  if (part === null || part === undefined || part === false) return ""
  if (part instanceof Html) return part.text
  if (typeof part === "object") return part.map(render).join("")
  return escapeHtml(`${part}`)
}

/** Text as HTML text or as the value of a quoted attribute. */
export const escapeHtml = (text: string): string =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;")

/** A value as JSON that may stand inside a script element: no `</script>`, no `<!--`, no line separators. */
export const jsonForScript = (value: unknown): string =>
  JSON.stringify(value).replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029")

/** Data for scripts of the page. */
export const dataBlock = (id: string, value: unknown): Html =>
  html`<script type="application/json" id="${id}">${new Html(jsonForScript(value))}</script>`

/** A figure with its data in the page; the script of `page` draws it. The caption says what to see in it. */
export const figureBlock = (figure: Figure, caption?: Part): Html =>
  html`<figure><div class="plot" style="height:${figure.layout.height}px"></div><script type="application/json">${new Html(
    jsonForScript(figure),
  )}</script>${caption && html`<figcaption>${caption}</figcaption>`}</figure>
`

/** The figures of a page, in order. */
export const figuresIn = (page: string): Figure[] =>
  [...page.matchAll(/<div class="plot"[^>]*><\/div><script type="application\/json">(.*?)<\/script>/gs)].map(
    ([, json]) => JSON.parse(json!),
  )

/** A table; cells of the columns named in `numeric` (by position) are set flush right. */
export function table(
  head: readonly Part[],
  rows: readonly (readonly Part[])[],
  numeric: readonly number[] = [],
): Html {
  const kind = (i: number) => (numeric.includes(i) ? "number" : "")
  return html`<div class="wide"><table><thead><tr>${head.map((cell, i) => html`<th class="${kind(i)}">${cell}</th>`)}</tr></thead>
<tbody>${rows.map((row) => html`<tr>${row.map((cell, i) => html`<td class="${kind(i)}">${cell}</td>`)}</tr>\n`)}</tbody></table></div>
`
}

/** The plotly bundle (cartesian charts, 1.5 MB), safe inside a script element. */
export function plotlyBundle(): string {
  return inScript(readFileSync(require.resolve("plotly.js"), "utf8"))
}

/** JavaScript in which the only places where these can stand, strings and patterns, say the same without `</` and `<!`. */
const inScript = (code: string): string => code.replace(/<(?=\/script|!--)/gi, "\\x3c")

const draw = `
for (const plot of document.querySelectorAll(".plot")) {
  const { data, layout } = JSON.parse(plot.nextElementSibling.textContent)
  Plotly.newPlot(plot, data, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] })
}
const fit = (width) => document.querySelectorAll(".plot").forEach((plot) => Plotly.relayout(plot, { width, autosize: !width }))
addEventListener("beforeprint", () => fit(1050))
addEventListener("afterprint", () => fit(undefined))
`

/**
 * A whole page in one file: style, scripts and figures inside, nothing from the network; a policy in its head forbids
 * even to try, and runs no script but those given here. `scripts` is code that runs after the figures are drawn.
 */
export function page(title: string, body: Html, scripts: readonly string[] = []): string {
  const code = [plotlyBundle(), draw, ...scripts.map(inScript)]
  const hashes = code.map((text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`)
  const policy = [
    "default-src 'none'",
    "img-src data: blob:",
    "style-src 'unsafe-inline'",
    `script-src ${hashes.join(" ")}`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ")
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${new Html(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${new Html(style)}</style>
</head>
<body>
<main>
${body}
</main>
${code.map((text) => new Html(`<script>${text}</script>\n`))}</body>
</html>
`.text
}

const style = `
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: #1f2933; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 1100px; margin: 0 auto; padding: 28px 24px 64px }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px }
h2 { font-size: 21px; margin: 44px 0 10px; padding-top: 12px; border-top: 1px solid #dde2e8 }
h3 { font-size: 16px; margin: 26px 0 8px }
p { margin: 8px 0; max-width: 78ch }
.lead { font-size: 18px; max-width: 70ch }
.note, figcaption { color: #52606d; font-size: 14px }
.warning { border-left: 4px solid #d55e00; background: #fdf1e7; padding: 8px 12px; max-width: none }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 14px 0 0; font-size: 14px }
a { color: #0b5cad }
figure { margin: 18px 0; overflow-x: auto }
.plot { min-width: 860px }
figcaption { max-width: 78ch }
.wide { overflow-x: auto; margin: 12px 0 }
table { border-collapse: collapse; min-width: 50%; font-size: 14px }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #9aa3af; white-space: nowrap }
th, td { padding: 5px 10px; vertical-align: top }
td { border-bottom: 1px solid #e6e9ee }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.mark { text-align: center; white-space: nowrap }
tr.ours td { background: #eef6fb }
small { color: #52606d; font-size: 12.5px }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: #f5f7fa; border: 1px solid #e0e5eb; border-radius: 6px; padding: 12px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.card { border: 1px solid #dde2e8; border-radius: 8px; padding: 14px 16px; margin: 14px 0; break-inside: avoid }
.card > .head { color: #52606d; font-size: 13px; margin-bottom: 6px }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px }
.two > div { min-width: 0 }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 12px 0 }
.facts dt { color: #52606d } .facts dd { margin: 0; overflow-wrap: anywhere }
details { margin: 12px 0 } summary { cursor: pointer; color: #0b5cad }
.controls { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; margin: 12px 0 }
select { font: inherit; padding: 3px 6px }
@media (max-width: 700px) { .two { grid-template-columns: 1fr } }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  @page { margin: 14mm }
  main { max-width: none; padding: 0 } nav, .controls { display: none }
  .plot { zoom: .64 } figure, .wide { overflow: visible }
  table, small, .note, figcaption { font-size: 10.5px } th, td { padding: 3px 6px }
  h2 { break-after: avoid } figure, tr { break-inside: avoid } body { font-size: 12px }
}
`
