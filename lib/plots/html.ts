import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { drawScript } from "./page-script"
import { pageStyle } from "./page-style"
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

/**
 * JavaScript in which the only places where these can stand, strings and patterns, say the same without `</` and `<!`.
 */
const inScript = (code: string): string => code.replace(/<(?=\/script|!--)/gi, "\\x3c")

/**
 * A whole page in one file: style, scripts and figures inside, nothing from the network; a policy in its head forbids
 * even to try, and runs no script but those given here. `scripts` is code that runs after the figures are drawn.
 */
export function page(title: string, body: Html, scripts: readonly string[] = []): string {
  const code = [plotlyBundle(), drawScript, ...scripts.map(inScript)]
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
<style>${new Html(pageStyle)}</style>
</head>
<body>
<main>
${body}
</main>
${code.map((text) => new Html(`<script>${text}</script>\n`))}</body>
</html>
`.text
}

/** A cell of two or more that stand beside each other, `share` percent wide. */
export const besideCell = (share: number, content: Part): Html =>
  html`<td style="width:${share}%;vertical-align:top;text-align:left;border:0;padding:4px 14px 4px 0">${content}</td>`
