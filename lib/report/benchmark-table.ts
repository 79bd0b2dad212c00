import { signed } from "../data/numbers"
import type { BenchmarkResults, Results } from "../data/results"
import { holm } from "../eval/over-seeds"
import { orderMethods } from "../plots/theme"
import { literal, markdownTable } from "./answers"

/** The one table of a run's benchmarks, methods by benchmarks, and what is written of it. */

/**
 * A row of `benchmarks.csv`: one figure of one method. Rates are shares in [0, 1]; `_low` and `_high` bound 95 %
 * intervals.
 */
export type BenchmarkLine = Record<string, string | number | null> & {
  benchmark: string
  figure: string
  method: string
}

type Figure = BenchmarkResults["methods"][string][string]
type Difference = BenchmarkResults["differences"][number]

/** The figures that a table of all benchmarks has room for. All others are in the CSV. */
const shownFigures: Readonly<Record<string, readonly string[]>> = {
  ifeval: ["prompt strict", "inst strict"],
  followbench: ["HSR", "SSR"],
  cfbench: ["CSR", "ISR", "PSR"],
  "alpaca-eval": ["length-controlled win rate", "win rate"],
}

const methodsOf = (benchmarks: readonly BenchmarkResults[]) =>
  orderMethods(new Set(benchmarks.flatMap(({ methods }) => Object.keys(methods))))

/** The figures of a benchmark that the table shows: those named above, else the first one. */
export function headlinesOf({ benchmark, methods }: BenchmarkResults): string[] {
  const all = Object.keys(Object.values(methods)[0] ?? {})
  const shown = (shownFigures[benchmark] ?? []).filter((name) => all.includes(name))
  return shown.length ? shown : all.slice(0, 1)
}

const rated = (name: string) => name.startsWith("rating") || name.startsWith("average") || name.endsWith("CSL")

/** `method` minus `against`, whichever way round the results hold it. */
function differenceOf({ differences }: BenchmarkResults, method: string, against: string, figure: string) {
  const difference = differences.find(
    (one) =>
      one.figure === figure &&
      (one.method === method ? one.against === against : one.method === against && one.against === method),
  )
  if (!difference || difference.method === method) return difference
  const minus = (value: number | null) => (value === null ? null : -value)
  const [low, high] = difference.interval
  return {
    ...difference,
    value: minus(difference.value),
    interval: [minus(high), minus(low)] as Difference["interval"],
  }
}

/** A row a benchmark, figure and method: its value, its difference from base, and musc's from it. */
export function benchmarkLines(benchmarks: readonly BenchmarkResults[]): BenchmarkLine[] {
  const columns = (name: string, cell?: Figure) => ({
    [name]: cell?.value ?? null,
    [`${name}_low`]: cell?.interval[0] ?? null,
    [`${name}_high`]: cell?.interval[1] ?? null,
  })
  return benchmarks.flatMap((of) =>
    methodsOf([of]).flatMap((method) =>
      Object.entries(of.methods[method]!).map(([figure, cell]) => {
        const [base, musc] = [differenceOf(of, method, "base", figure), differenceOf(of, "musc", method, figure)]
        return {
          ...{ benchmark: of.benchmark, figure, method, ...columns("value", cell) },
          ...{ ...columns("minus_base", base), minus_base_p: base?.p ?? null },
          ...{ ...columns("musc_minus", musc), musc_minus_p: musc?.p ?? null },
          ...{ items: of.items, scoring: of.scoring, judge: of.judge ?? "none" },
        }
      }),
    ),
  )
}

const said = (figure: string, value: number | null, sign = "") => {
  if (value === null) return "–"
  return rated(figure) ? signed(value, 2, sign) : signed(100 * value, 1, sign)
}
const withInterval = (figure: string, cell: Figure | undefined, sign = "") =>
  cell
    ? `${said(figure, cell.value, sign)} [${cell.interval.map((bound) => said(figure, bound, sign)).join(", ")}]`
    : "–"

/** Cells of the table: methods down, headline figures across; and the same of the differences from another method. */
export function benchmarkCells(benchmarks: readonly BenchmarkResults[]): {
  head: string[]
  values: string[][]
  differences: { against: string; rows: string[][] }[]
} {
  const shown = benchmarks.flatMap((of) => headlinesOf(of).map((figure) => ({ of, figure })))
  const methods = methodsOf(benchmarks)
  const against = ["base", "coarse"].filter((one) => methods.includes(one))
  return {
    head: ["method", ...shown.map(({ of, figure }) => `${of.benchmark} ${figure}`)],
    values: methods.map((method) => [
      method,
      ...shown.map(({ of, figure }) => withInterval(figure, of.methods[method]?.[figure])),
    ]),
    differences: against.map((other) => {
      const own = methods.filter((method) => method !== other && !(other === "coarse" && method === "base"))
      const marks = shown.map(({ of, figure }) => {
        const gaps = own.map((method) => differenceOf(of, method, other, figure))
        const corrected = holm(gaps.map((one) => one?.p ?? Number.NaN))
        return gaps.map((one, i) => withInterval(figure, one, "+") + (corrected[i]! < 0.05 ? " *" : ""))
      })
      return { against: other, rows: own.map((method, i) => [method, ...marks.map((column) => column[i]!)]) }
    }),
  }
}

/** What a reader must know of the table: scoring, judges, items, and the notes of each benchmark. */
export function benchmarkNotes(benchmarks: readonly BenchmarkResults[], seeds: number): string[] {
  const over = seeds > 1 ? `items and ${seeds} seeds` : "items of one seed (another training may differ by more)"
  return [
    `Rates in percent, ratings and CSL as they are; in brackets 95 % intervals over ${over}. Differences are paired by item.`,
    "*: differs from 0 after Holm's correction for all differences of its column (p < .05).",
    ...benchmarks.flatMap((of) => [
      `${of.benchmark}: ${of.scoring} scoring, ${of.items} items${of.judge ? `, judged by ${of.judge}` : ", checked by rules"}` +
        (of.left_out ? `; ${of.left_out} items that some method has no result for are left out` : ""),
      ...of.notes.map((note) => `${of.benchmark}: ${note}`),
    ]),
  ]
}

/** The table and its differences in Markdown. */
export function benchmarkMarkdown({ benchmarks = [], seeds }: Pick<Results, "benchmarks" | "seeds">): string {
  const { head, values, differences } = benchmarkCells(benchmarks)
  // Names of methods come from a user's variants; figures are ours, and keep their brackets.
  const plain = ([method, ...figures]: readonly string[]) => [
    literal(method!),
    ...figures.map((figure) => figure.replaceAll("*", "\\*")),
  ]
  const table = (rows: readonly (readonly string[])[]) => markdownTable([head, ...rows].map(plain))
  const gaps = differences.map(({ against, rows }) => `Difference from ${against}:\n\n${table(rows)}`)
  const notes = benchmarkNotes(benchmarks, seeds.length).map((note) => `- ${note.replace(/^\*/, "\\*")}\n`)
  return [table(values), ...gaps, notes.join("")].join("\n")
}
