import { type EvalItem, evalItem, type Results, results } from "../data/results"
import {
  type CorruptedRow,
  corruptedRow,
  decomposedRow,
  failure,
  instructionRow,
  type PairRow,
  pairRow,
  recombinedRow,
  type WeighedRow,
  weighedRow,
} from "../data/schema"
import { answersHtml, diffHtml, editsHtml } from "../plots/diff"
import { resultBars } from "../plots/figures"
import { type FrameLike, frameHtml, frameOf, frameText } from "../plots/frame"
import { mapLegend, pairMap } from "../plots/heatmap"
import { Html, html, type Part } from "../plots/html"
import type { Figure } from "../plots/theme"
import type { RunData } from "../report/report-data"
import { summary, verdictsOf } from "../report/report-sections"
import { resultsTable } from "../runs/results"
import { type Bundle, display, plainText } from "./display"
import { showFigure } from "./figure"

/** What a value looks like: HTML that carries its own styles, and the same as text. */
interface View {
  html: Html
  text: string
}

/**
 * Shows a value in a notebook, as what it is: figures, data frames and lists of records, every record of the pipeline,
 * results, runs, HTML; anything else as text. All text is escaped. Outside of Jupyter the text is printed.
 */
export async function show(value: unknown): Promise<void> {
  const custom = (value as Record<symbol, unknown> | null)?.[Symbol.for("Jupyter.display")]
  if (typeof custom === "function") display((await custom.call(value)) as Bundle)
  else if (isFigure(value)) await showFigure(value)
  else if (isRun(value)) await showRun(value)
  else if (results.safeParse(value).success) await showResults(value as Results)
  else {
    const { html, text } = viewOf(value)
    display({ "text/plain": text, "text/html": `<div style="${page}">${html}</div>` })
  }
}

const page = "color:#1f2933;background:#fff;padding:2px 6px;max-width:1000px;text-align:left"

const isFigure = (value: unknown): value is Figure =>
  typeof value === "object" && value !== null && "data" in value && "layout" in value && Array.isArray(value.data)

const isFrame = (value: unknown): value is FrameLike =>
  typeof value === "object" && value !== null && "columns" in value && "values" in value && Array.isArray(value.columns)

const isRun = (value: unknown): value is RunData =>
  typeof value === "object" && value !== null && "stages" in value && "logs" in value && "items" in value

const isRecord = (value: unknown): value is object =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.getPrototypeOf(value) === Object.prototype

/** The view of a value that is no figure. */
export function viewOf(value: unknown): View {
  if (value instanceof Html) return { html: value, text: textOf(value) }
  if (isFrame(value)) return { html: frameHtml(value), text: frameText(value) }
  if (isRecord(value)) return recordView(value) ?? asText(value)
  if (Array.isArray(value) && value.length > 0 && value.every(isRecord)) {
    const frame = frameOf(value)
    return { html: frameHtml(frame), text: frameText(frame) }
  }
  return asText(value)
}

const asText = (value: unknown): View => {
  const text = plainText(value)
  if (typeof value === "string") return { html: html`<div style="white-space:pre-wrap">${text}</div>`, text }
  return { html: html`<pre style="white-space:pre-wrap;margin:0">${text}</pre>`, text }
}

/** HTML without its tags, for front ends that show text alone; changes are marked as `git diff --word-diff` does. */
const textOf = ({ text }: Html): string =>
  text
    .replace(/<(br|\/?(p|tr|div|li|h\d|table))\b[^>]*>/g, "\n")
    .replace(/<\/t[dh]>/g, "  ")
    .replace(/<del[^>]*>([\s\S]*?)<\/del>/g, "[-$1-]")
    .replace(/<ins[^>]*>([\s\S]*?)<\/ins>/g, "{+$1+}")
    .replace(/<[^>]*>/g, "")
    .replace(/&lt;/g, "<")
    .replace(/&gt;/g, ">")
    .replace(/&quot;/g, '"')
    .replace(/&#39;/g, "'")
    .replace(/&amp;/g, "&")
    .replace(/(?:[ \t]*\n){2,}/g, "\n")
    .trim()

/** Records by how far they have come, the furthest first. */
const recordViews: readonly [{ safeParse(value: unknown): { success: boolean } }, (row: never) => View][] = [
  [weighedRow, weighedView],
  [pairRow, pairView],
  [recombinedRow, recombinedView],
  [corruptedRow, (row: CorruptedRow) => htmlView(row, editsHtml(row))],
  [decomposedRow, ({ constraints, ...row }: { constraints: string[] }) => htmlView(row, listOf(constraints))],
  [evalItem, gradedView],
  [instructionRow, (row: object) => htmlView(row)],
]

function recordView(row: object): View | undefined {
  const failed = failure.safeParse((row as { failure?: unknown }).failure).data
  if (failed) return htmlView(row, html`<p><b>failed in ${failed.stage}</b>: ${failed.reason}</p>`, lastCall(row))
  const [, view] = recordViews.find(([schema]) => schema.safeParse(row).success) ?? []
  return view?.(row as never)
}

/** A record's head (its instruction) and the parts below it. */
function htmlView(row: { id?: string; instruction?: string }, ...parts: readonly Part[]): View {
  const instruction = row.instruction && html`<div style="white-space:pre-wrap">${row.instruction}</div>`
  const body = html`<div style="color:#52606d;font-size:12px">${row.id ?? ""}</div>${instruction}${parts}`
  return { html: body, text: textOf(body) }
}

const listOf = (questions: readonly string[]): Html =>
  html`<ol start="0" style="margin:6px 0;padding-left:26px">${questions.map((question) => html`<li>${question}</li>`)}</ol>`

function lastCall(row: object): Part {
  const calls = Object.values((row as { calls?: Record<string, { text: string }[]> }).calls ?? {})
  const text = calls.at(-1)?.at(-1)?.text
  return text !== undefined && html`<pre style="white-space:pre-wrap">${text}</pre>`
}

const recombined = (row: { clean_instruction: string; noised_instruction: string }): Html =>
  html`<p style="margin:2px 0"><b>clean → noised instruction</b></p>${diffHtml(row.clean_instruction, row.noised_instruction)}`

function recombinedView(row: PairRow): View {
  return htmlView({ id: row.id }, editsHtml(row), recombined(row))
}

function pairView(row: PairRow): View {
  const answer = (name: "chosen" | "rejected") => ({ name, text: row[name], verdicts: verdictsOf(row, row[name]) })
  return htmlView({ id: row.id }, recombined(row), answersHtml([answer("chosen"), answer("rejected")]))
}

function weighedView(row: WeighedRow): View {
  const map = pairMap(row, { elements: true })
  return { ...htmlView({ id: row.id }, recombined(row), mapLegend(), map), text: weightText(row) }
}

/** A heat map as text: heavy tokens in brackets with their weight. */
function weightText(row: WeighedRow): string {
  const [name] = Object.keys(row.weights)
  return (["chosen", "rejected"] as const)
    .map((answer) => {
      const weights = row.weights[name!]![answer]
      const tokens = row.signals[answer].tokens.map((token, t) =>
        weights[t]! >= 1.25 ? `[${token.trim()} ${weights[t]!.toFixed(1)}]` : token,
      )
      return `${answer} (${name}): ${tokens.join("")}`
    })
    .join("\n")
}

function gradedView({ method, temperature, answer, constraints, ...row }: EvalItem): View {
  const name = `${method}, temperature ${temperature}`
  return htmlView(row, answersHtml([{ name, text: answer, verdicts: constraints }]))
}

async function showResults(value: Results): Promise<void> {
  await showFigure(resultBars(value))
  const text = resultsTable(value)
  display({ "text/plain": text, "text/html": `${html`<pre>${text}</pre>`}` })
}

async function showRun(run: RunData): Promise<void> {
  const head = html`<b>${run.name}</b> ${summary(run)}`
  display({ "text/plain": textOf(head), "text/html": `<div style="${page}">${head}</div>` })
  if (run.results) await showResults(run.results)
}
