import { join } from "node:path"
import type { DataFrame } from "danfojs-node"
import { writeAtomic } from "../data/jsonl"
import type { Results } from "../data/results"
import { notInstalled, packageFolder } from "../device/packages"
import { InputError } from "../errors"
import { temperaturesOf } from "../plots/figures"
import { frameOf } from "../plots/frame"
import { orderMethods } from "../plots/theme"

/** Results as one table, and what is written of it. Only `resultFrame` needs danfo, which takes seconds to load. */

const rates = ["csr", "isr"] as const

/** A table as rows of cells: what `frameOf` makes, or a data frame of danfo. */
interface Frame {
  columns: readonly string[]
  values: readonly unknown[]
}
const rowsOf = ({ values }: Frame) => values as readonly (readonly unknown[])[]

/** A line a method and temperature. Rates and differences are shares; `_low` and `_high` bound 95 % intervals. */
export type ResultLine = { method: string; temperature: number } & Record<string, string | number | null>

/**
 * The lines of the one table: rates of each method, its paired difference from base, and where musc is among the methods,
 * musc's from it (`musc_minus_isr`), else its own from coarse. null where there is nothing to compare.
 */
export function resultLines(results: Results): ResultLine[] {
  const methods = orderMethods(Object.keys(results.methods))
  const others = methods.includes("coarse") && !methods.includes("musc") ? ["coarse"] : []
  return temperaturesOf(results).flatMap((temperature) =>
    methods.flatMap((method): ResultLine[] => {
      const score = results.methods[method]![temperature]
      if (!score) return []
      const gap = (name: string, rate: "csr" | "isr", of: string, from: string) => {
        const found = differenceBetween(results, of, from, temperature)
        return columns(name, found?.[rate], found?.[`${rate}_interval`])
      }
      const line = rates.map((rate) => ({
        ...columns(rate, score[rate], score[`${rate}_interval`]),
        ...gap(`${rate}_minus_base`, rate, method, results.bases?.[method] ?? "base"),
        ...Object.assign({}, ...others.map((other) => gap(`${rate}_minus_${other}`, rate, method, other))),
        ...(methods.includes("musc") && gap(`musc_minus_${rate}`, rate, "musc", method)),
      }))
      const counts = { answers: score.n, unreadable: score.unreadable }
      return [{ method, temperature: Number(temperature.slice(1)), ...line[0], ...line[1], ...counts }]
    }),
  )
}

const columns = (name: string, value?: number, interval?: readonly [number, number]) => ({
  [name]: value ?? null,
  [`${name}_low`]: interval?.[0] ?? null,
  [`${name}_high`]: interval?.[1] ?? null,
})

/** `method` minus `against`, whichever way round the results hold it. */
export function differenceBetween({ differences }: Results, method: string, against: string, temperature: string) {
  const found = differences.find(
    (d) =>
      d.temperature === temperature && [d.method, d.against].sort().join("\n") === [method, against].sort().join("\n"),
  )
  if (!found || found.method === method) return found
  const turned = ([low, high]: readonly [number, number]): [number, number] => [-high, -low]
  const { csr, isr, csr_interval, isr_interval } = found
  return { ...found, csr: -csr, isr: -isr, csr_interval: turned(csr_interval), isr_interval: turned(isr_interval) }
}

/**
 * The results as a data frame, a row a method and temperature; see `resultLines`.
 * @throws InputError without the optional package danfojs-node
 */
export async function resultFrame(results: Results): Promise<DataFrame> {
  if (!packageFolder("danfojs-node")) throw new InputError(`data frames: ${notInstalled("danfojs-node")}`)
  const { DataFrame } = await import("danfojs-node")
  return new DataFrame(resultLines(results))
}

/** A frame as CSV: fields with a comma, a quote or a line break in quotes, nothing for what is missing, full precision. */
export function toCsv(frame: Frame): string {
  const cell = (value: unknown) => {
    const text = value === null || value === undefined || Number.isNaN(value) ? "" : `${value}`
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  return [frame.columns, ...rowsOf(frame)].map((row) => `${row.map(cell).join(",")}\n`).join("")
}

/** A frame of `resultLines` as a Markdown table in percent, with intervals in brackets; of the differences those in ISR. */
export function toMarkdown(frame: Frame): string {
  const names = frame.columns
  const left = /_(low|high)$|csr_minus|minus_csr/ // differences in CSR are in the CSV alone: the table is wide enough
  const shown = names.filter((name) => !left.test(name) && (name !== "unreadable" || anyAbove0(frame, name)))
  const rows = rowsOf(frame).map((values) => {
    const value = (name: string) => values[names.indexOf(name)]
    return shown.map((name) => {
      const [of, low, high] = [value(name), value(`${name}_low`), value(`${name}_high`)]
      if (!names.includes(`${name}_low`)) return `${of}`
      if (typeof of !== "number" || Number.isNaN(of)) return "–"
      const said = name.includes("_minus_") ? points : percent
      return `${said(of)} [${said(low as number)}, ${said(high as number)}]`
    })
  })
  const head = shown.map((name) => titles(name))
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`
  return [head, head.map((_, i) => (i ? "---:" : "---")), ...rows].map(line).join("")
}

const anyAbove0 = (frame: Frame, name: string) =>
  rowsOf(frame).some((row) => Number(row[frame.columns.indexOf(name)]) > 0)
const percent = (share: number) => (100 * share).toFixed(1)
const points = (share: number) => `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`

/** `isr_minus_base` as "ISR − base", `musc_minus_isr` as "musc − it, ISR". */
function titles(name: string): string {
  const lead = /^(.*)_minus_(csr|isr)$/.exec(name)
  if (lead) return `${lead[1]} − it, ${lead[2]!.toUpperCase()}`
  return name.replace(/^(csr|isr)/, (rate) => rate.toUpperCase()).replace("_minus_", " − ")
}

/** Writes `results.json`, `results.csv` and `results.md` into a folder. */
export async function writeResults(dir: string, results: Results): Promise<void> {
  await writeAtomic(join(dir, "results.json"), `${JSON.stringify(results, null, 2)}\n`)
  if (!Object.keys(results.methods).length) return
  const frame = frameOf(resultLines(results))
  await writeAtomic(join(dir, "results.csv"), toCsv(frame))
  await writeAtomic(join(dir, "results.md"), toMarkdown(frame))
}
