import { join } from "node:path"
import type { DataFrame } from "danfojs-node"
import { writeAtomic } from "../data/files"
import { mean, percent, signed } from "../data/numbers"
import type { Results } from "../data/results"
import { notInstalled, packageFolder } from "../device/packages"
import { InputError } from "../errors"
import { holm } from "../eval/over-seeds"
import { temperaturesOf } from "../plots/figures"
import { frameOf } from "../plots/frame"
import { orderMethods } from "../plots/theme"
import { belowTable, markdownTable } from "./answers"
import { benchmarkLines, benchmarkMarkdown } from "./benchmark-table"

/** Results as one table, and what is written of it. Only `resultFrame` needs danfo, which takes seconds to load. */

const rates = ["csr", "isr"] as const

/** A table as rows of cells: what `frameOf` makes, or a data frame of danfo. */
interface Frame {
  columns: readonly string[]
  values: readonly unknown[]
}
const rowsOf = ({ values }: Frame) => values as readonly (readonly unknown[])[]

/**
 * A line a method and temperature. Rates and differences are shares; `_low` and `_high` bound 95 % intervals, `_p` is
 * the p-value of a difference after Holm's correction for all of its column.
 */
export type ResultLine = { method: string; temperature: number } & Record<string, string | number | null>

/**
 * The lines of the one table: rates of each method, its paired difference from base, and where musc is among the
 * methods, musc's from it (`musc_minus_isr`), else its own from coarse. null where there is nothing to compare.
 */
export function resultLines(results: Results): ResultLine[] {
  const methods = orderMethods(Object.keys(results.methods))
  const others = methods.includes("coarse") && !methods.includes("musc") ? ["coarse"] : []
  const lines = temperaturesOf(results).flatMap((temperature) =>
    methods.flatMap((method): ResultLine[] => {
      const score = results.methods[method]![temperature]
      if (!score) return []
      const gap = (name: string, rate: "csr" | "isr", of: string, from: string) => {
        const difference = differenceBetween(results, of, from, temperature)
        const p = difference?.[`${rate}_p`] ?? null
        return { ...columns(name, difference?.[rate], difference?.[`${rate}_interval`]), [`${name}_p`]: p }
      }
      const line = rates.map((rate) => ({
        ...columns(rate, score[rate], score[`${rate}_interval`]),
        ...gap(`${rate}_minus_base`, rate, method, results.bases?.[method] ?? "base"),
        ...Object.assign({}, ...others.map((other) => gap(`${rate}_minus_${other}`, rate, method, other))),
        ...(methods.includes("musc") && gap(`musc_minus_${rate}`, rate, "musc", method)),
      }))
      const counts = { pairs: pairsOf(results, method), answers: score.n, unreadable: score.unreadable }
      return [{ method, temperature: Number(temperature.slice(1)), ...line[0], ...line[1], ...counts }]
    }),
  )
  return corrected(lines)
}

/** Pairs that a method was trained on, a mean over seeds; null where it was not trained or results do not say. */
function pairsOf({ trained = [] }: Results, method: string): number | null {
  const own = trained.filter((one) => one.method === method)
  return own.length ? Math.round(mean(own.map(({ pairs }) => pairs))) : null
}

/** The lines with the p-values of each column corrected for being many. */
function corrected(lines: readonly ResultLine[]): ResultLine[] {
  const names = Object.keys(lines[0] ?? {}).filter((name) => name.endsWith("_p"))
  const byName = names.map(
    (name) => [name, holm(lines.map((line) => (line[name] as number | null) ?? Number.NaN))] as const,
  )
  return lines.map((line, i) => ({
    ...line,
    ...Object.fromEntries(byName.map(([name, ps]) => [name, Number.isNaN(ps[i]!) ? null : ps[i]!])),
  }))
}

/** p-value below which a difference counts as one, after correction. */
const SIGNIFICANT = 0.05

/** Whether a difference of a line is one, after the correction for all differences of its column. */
export const isClear = (line: ResultLine | undefined, difference: string): boolean => {
  const p = line?.[`${difference}_p`]
  return typeof p === "number" && p < SIGNIFICANT
}

/** What intervals cover: with one seed they say nothing of another training. */
export const covered = ({ seeds }: Pick<Results, "seeds">): string =>
  seeds.length > 1 ? `${seeds.length} seeds and the instructions` : "the instructions, of one seed"

/** What stands under a table of results, once: what intervals cover, what the mark says, what was answered. */
export function tableNote(results: Results): string {
  const hasP = results.differences.some(({ isr_p }) => typeof isr_p === "number")
  const mark = `\\*: differs from 0 after Holm's correction for all differences of its column (p < ${SIGNIFICANT}).`
  const development = "Answered: the development split, on which settings are chosen."
  return [
    `In brackets: 95 % intervals over ${covered(results)}. Differences in points, paired by seed and instruction.`,
    ...(hasP ? [mark] : []),
    ...(results.split === "development" ? [development] : []),
  ].join(" ")
}

/** Who judged, as a line above a table. */
export const judgedLine = (judge: string) => `Judged by: ${judge}.`

const columns = (name: string, value?: number, interval?: readonly [number, number]) => ({
  [name]: value ?? null,
  [`${name}_low`]: interval?.[0] ?? null,
  [`${name}_high`]: interval?.[1] ?? null,
})

/** `method` minus `against`, whichever way round the results hold it. */
export function differenceBetween({ differences }: Results, method: string, against: string, temperature: string) {
  const difference = differences.find(
    (d) =>
      d.temperature === temperature && [d.method, d.against].sort().join("\n") === [method, against].sort().join("\n"),
  )
  if (!difference || difference.method === method) return difference
  const turned = ([low, high]: readonly [number, number]): [number, number] => [-high, -low]
  const { csr, isr, csr_interval, isr_interval } = difference
  return { ...difference, csr: -csr, isr: -isr, csr_interval: turned(csr_interval), isr_interval: turned(isr_interval) }
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

/**
 * A frame as CSV: fields with a comma, a quote or a line break in quotes, nothing for what is missing, full precision.
 */
export function toCsv(frame: Frame): string {
  const cell = (value: unknown) => {
    const plain = value === null || value === undefined || Number.isNaN(value) ? "" : `${value}`
    // A table calculator takes a text with such a beginning for a formula, which could come from a stranger's name.
    const text = typeof value === "string" && /^[=+\-@\t\r\n＝＋－＠]/.test(plain) ? `'${plain}` : plain
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  return [frame.columns, ...rowsOf(frame)].map((row) => `${row.map(cell).join(",")}\n`).join("")
}

/**
 * A frame of `resultLines` as a Markdown table in percent, with intervals in brackets; of the differences those in ISR.
 */
export function toMarkdown(frame: Frame): string {
  const names = frame.columns
  const left = /_(low|high|p)$|csr_minus|minus_csr/ // differences in CSR are in the CSV alone: the table is wide enough
  const shown = names.filter(
    (name) => !left.test(name) && (!/^(unreadable|pairs)$/.test(name) || anyAbove0(frame, name)),
  )
  const rows = rowsOf(frame).map((values) => {
    const value = (name: string) => values[names.indexOf(name)]
    return shown.map((name) => {
      const [of, low, high] = [value(name), value(`${name}_low`), value(`${name}_high`)]
      if (!names.includes(`${name}_low`)) return of === null || Number.isNaN(of) ? "–" : `${of}`
      if (typeof of !== "number" || Number.isNaN(of)) return "–"
      const said = name.includes("_minus_") ? points : percent
      const p = value(`${name}_p`)
      const mark = typeof p === "number" && p < SIGNIFICANT ? " \\*" : ""
      return `${said(of)} [${said(low as number)}, ${said(high as number)}]${mark}`
    })
  })
  const head = shown.map((name) => titles(name))
  return markdownTable([head, ...rows])
}

const anyAbove0 = (frame: Frame, name: string) =>
  rowsOf(frame).some((row) => Number(row[frame.columns.indexOf(name)]) > 0)
/** A difference of shares in percentage points, with its sign. */
export const points = (share: number) => signed(100 * share, 1)

/** `isr_minus_base` as "ISR − base", `musc_minus_isr` as "musc − this, ISR". */
function titles(name: string): string {
  const lead = /^(.*)_minus_(csr|isr)$/.exec(name)
  if (lead) return `${lead[1]} − this, ${lead[2]!.toUpperCase()}`
  return name.replace(/^(csr|isr)/, (rate) => rate.toUpperCase()).replace("_minus_", " − ")
}

/**
 * Writes `results.json`, `results.csv` and `results.md` into a folder, and of benchmarks `benchmarks.csv` and `.md`.
 */
export async function writeResults(dir: string, results: Results): Promise<void> {
  await writeAtomic(join(dir, "results.json"), `${JSON.stringify(results, null, 2)}\n`)
  if (results.benchmarks?.length) {
    await writeAtomic(join(dir, "benchmarks.csv"), toCsv(frameOf(benchmarkLines(results.benchmarks))))
    await writeAtomic(join(dir, "benchmarks.md"), benchmarkMarkdown(results))
  }
  if (!Object.keys(results.methods).length) return
  const frame = frameOf(resultLines(results))
  await writeAtomic(join(dir, "results.csv"), toCsv(frame))
  const head = results.judged_by ? `${judgedLine(results.judged_by)}\n\n` : ""
  await writeAtomic(
    join(dir, "results.md"),
    `${head}${toMarkdown(frame)}\n${tableNote(results)}\n${belowTable(results)}`,
  )
}
