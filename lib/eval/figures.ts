import { groupBy, signed } from "../data/numbers"
import { type BootstrapOptions, type Interval, percentiles, resamples } from "./bootstrap"

/** One item's result; items of one unit are resampled together. */
export interface Scored<Result = unknown> {
  id: string
  unit: string
  result: Result
}

/** Figures by name, of any set of results. */
export type Figures<Result> = (results: readonly Result[]) => Record<string, number>

/** One figure of a benchmark with its interval. */
export interface Figure {
  value: number
  interval: Interval
}

/** Every figure with its bootstrap interval; [NaN, NaN] where no resample gives a number. */
export function withIntervals<Result>(
  figures: Figures<Result>,
  rows: readonly Scored<Result>[],
  options: BootstrapOptions,
): Record<string, Figure> {
  const units = [...groupBy(rows, unitOf, ({ result }) => result).values()]
  const whole = figures(rows.map(({ result }) => result))
  const columns = Object.keys(whole).map((name) => ({ name, values: new Float64Array(options.samples) }))
  let sample = 0
  for (const drawn of resamples(units.length, options)) {
    const own = figures(pick(units, drawn))
    for (const { name, values } of columns) values[sample] = own[name] ?? Number.NaN
    sample++
  }
  return Object.fromEntries(
    columns.map(({ name, values }) => [name, { value: whole[name]!, interval: percentiles(values, options.level) }]),
  )
}

/** One figure of two lists of results to the same items, and their difference with its paired interval. */
export interface PairedDifference {
  a: number
  b: number
  /** `b` minus `a`. */
  difference: number
  interval: Interval
}

/**
 * `b` minus `a` in every figure over the items that both have, with paired bootstrap intervals: each resample draws the
 * same units for both.
 */
export function pairedDifferences<Result>(
  figures: Figures<Result>,
  a: readonly Scored<Result>[],
  b: readonly Scored<Result>[],
  options: BootstrapOptions,
): { items: number; figures: Record<string, PairedDifference> } {
  const other = new Map(b.map(({ id, result }) => [id, result]))
  const shared = a.filter(({ id }) => other.has(id))
  const left = [...groupBy(shared, unitOf, ({ result }) => result).values()]
  const right = [...groupBy(shared, unitOf, ({ id }) => other.get(id)!).values()]
  const [wholeA, wholeB] = [figures(left.flat()), figures(right.flat())]
  const names = Object.keys(wholeA).filter((name) => name in wholeB)
  const columns = names.map((name) => ({ name, values: new Float64Array(options.samples) }))
  let sample = 0
  for (const drawn of resamples(left.length, options)) {
    const [ownA, ownB] = [figures(pick(left, drawn)), figures(pick(right, drawn))]
    for (const { name, values } of columns) values[sample] = (ownB[name] ?? Number.NaN) - (ownA[name] ?? Number.NaN)
    sample++
  }
  const differences = columns.map(({ name, values }): [string, PairedDifference] => {
    const [x, y] = [wholeA[name]!, wholeB[name]!]
    return [name, { a: x, b: y, difference: y - x, interval: percentiles(values, options.level) }]
  })
  return { items: shared.length, figures: Object.fromEntries(differences) }
}

/** Share of what is kept by type, as figures "type: …" in the order of the types; null counts in none. */
export function typeShares(checks: readonly { type: string; satisfied: boolean | null }[]): Record<string, number> {
  const sums = new Map<string, [kept: number, all: number]>()
  for (const { type, satisfied } of checks) {
    const sum = sums.get(type) ?? [0, 0]
    sums.set(type, sum)
    sum[0] += Number(satisfied)
    sum[1] += Number(satisfied !== null)
  }
  const sorted = [...sums].sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(sorted.map(([type, [kept, all]]) => [`type: ${type || "none"}`, kept / all]))
}

const unitOf = <Row extends { unit: string }>({ unit }: Row) => unit

/** The values of the units that are drawn. */
export function pick<Value>(units: readonly (readonly Value[])[], drawn: Int32Array): Value[] {
  const values: Value[] = []
  for (const unit of drawn) values.push(...units[unit]!)
  return values
}

const rounded = (value: number, plus = "") => (Number.isNaN(value) ? "–" : signed(value, 3, plus).replace("−", "-"))
const between = ([low, high]: Interval, sign = "") =>
  Number.isNaN(low) ? "–" : `[${rounded(low, sign)}, ${rounded(high, sign)}]`

/** Figures as a Markdown table, columns padded so that it reads well as plain text too. */
export function figuresTable(figures: Readonly<Record<string, Figure>>): string {
  const rows = Object.entries(figures).map(([name, { value, interval }]) => [name, rounded(value), between(interval)])
  return markdownTable([["figure", "value", "95 %"], ...rows])
}

/** Differences as a Markdown table; an asterisk stands where the interval leaves zero out. */
export function differencesTable(
  names: readonly [a: string, b: string],
  differences: Readonly<Record<string, PairedDifference>>,
): string {
  const rows = Object.entries(differences).map(([name, { a, b, difference, interval }]) => {
    const clear = interval[0] > 0 || interval[1] < 0 ? " *" : ""
    return [name, rounded(a), rounded(b), rounded(difference, "+"), between(interval, "+") + clear]
  })
  return markdownTable([["figure", ...names, `${names[1]} - ${names[0]}`, "95 %"], ...rows])
}

function markdownTable(rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|").replace(/\s+/g, " ")))
  const widths = cells[0]!.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)))
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, c) => (c ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!))).join(" | ")} |`
  const rule = `|${widths.map((width, c) => (c ? `${"-".repeat(width + 1)}:` : "-".repeat(width + 2))).join("|")}|`
  return [line(cells[0]!), rule, ...cells.slice(1).map(line)].join("\n")
}
