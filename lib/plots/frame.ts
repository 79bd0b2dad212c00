import { type Html, html } from "./html"

/** The part of a data frame that is shown; danfo's DataFrame has it, and so has any plain object made like it. */
export interface FrameLike {
  columns: readonly string[]
  values: readonly (readonly unknown[])[]
}

/** Rows shown, at most; the rest is counted. */
const MOST_ROWS = 20

/** Significant digits of numbers. */
const PRECISION = 4

const isNumber = (value: unknown): value is number => typeof value === "number"

/** A cell as text: numbers short, nothing for what is missing, lists and objects as JSON. */
function cellText(value: unknown): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–"
  if (isNumber(value)) {
    if (Number.isInteger(value)) return `${value}`
    return Math.abs(value) < 1e-3 ? value.toExponential(1) : `${Number(value.toPrecision(PRECISION))}`
  }
  const text = typeof value === "object" ? JSON.stringify(value) : `${value}`
  return text.length > 300 ? `${text.slice(0, 300)} …` : text
}

/** Column names and cells as text, with the row count when some are left out. */
function frameCells({ columns, values }: FrameLike) {
  const rows = values.slice(0, MOST_ROWS)
  const numeric = columns.map((_, c) => rows.some((row) => isNumber(row[c])) && rows.every((row) => !isText(row[c])))
  const more = values.length > rows.length ? `${values.length} rows, ${rows.length} shown` : ""
  return { columns, numeric, more, rows: rows.map((row) => columns.map((_, c) => cellText(row[c]))) }
}

const isText = (value: unknown) => value !== null && value !== undefined && typeof value !== "number"

/** A data frame as an HTML table that needs no style sheet; numbers flush right, also where styles are taken away. */
export function frameHtml(frame: FrameLike): Html {
  const { columns, numeric, rows, more } = frameCells(frame)
  const side = (c: number) => (numeric[c] ? "right" : "left")
  const style = (c: number, line: string) =>
    `text-align:${side(c)};vertical-align:top;padding:4px 10px;border-bottom:${line};max-width:46em`
  return html`<table style="border-collapse:collapse;font-size:13px;margin:4px 0"><thead><tr>${columns.map(
    (name, c) => html`<th align="${side(c)}" style="${style(c, "2px solid #9aa3af")}">${name}</th>`,
  )}</tr></thead><tbody>${rows.map(
    (row) =>
      html`<tr>${row.map((cell, c) => html`<td align="${side(c)}" style="${style(c, "1px solid #e6e9ee")}">${cell}</td>`)}</tr>\n`,
  )}</tbody></table>${more && html`<small>${more}</small>`}`
}

/** A data frame as aligned text. */
export function frameText(frame: FrameLike): string {
  const { columns, numeric, rows, more } = frameCells(frame)
  const lines = [columns, ...rows].map((row) => row.map((cell) => cell.slice(0, 60).replace(/\s+/g, " ")))
  const widths = columns.map((_, c) => Math.max(...lines.map((line) => line[c]!.length)))
  const padded = (cell: string, c: number) => (numeric[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))
  return [...lines.map((line) => line.map(padded).join("  ").trimEnd()), ...(more ? [more] : [])].join("\n")
}

/** Records as a frame: a column for every field that any of them has, in order of appearance. */
export function frameOf(records: readonly object[]): FrameLike {
  const columns = [...new Set(records.flatMap((record) => Object.keys(record)))]
  return { columns, values: records.map((record) => columns.map((name) => (record as Record<string, unknown>)[name])) }
}
