import { mean, percent } from "../data/numbers"
import type { EvalItem, Results } from "../data/results"
import { answerFigures, kindShares } from "../eval/answers"
import type { BootstrapOptions } from "../eval/bootstrap"
import { constraintShare, type Verdicts } from "../eval/grader"
import { differenceOf, scoreOf } from "../eval/score"
import { judgedLine } from "../report/tables"
import type { GradedPair } from "./graders"

/** Answers of one method at one temperature. */
export interface Graded {
  method: string
  temperature: number
  items: EvalItem[]
}

/** How temperatures are called in `results.json`: "T0", "T0.5". */
const temperatureName = (temperature: number) => `T${temperature}`

/** Pairs of one seed, some of them graded. */
export interface PairCount {
  seed: number
  n: number
  graded: readonly GradedPair[]
  /** where pairs were verified: how many passed, of how many, and who judged */
  verified?: { n: number; of: number; by: string }
}

/** `results.json`: rates of each method, differences of each from those before it, and how good the pairs are. */
export function resultsOf(answers: readonly Graded[], pairs: readonly PairCount[], options: BootstrapOptions): Results {
  const graded = seedsTogether(answers)
  const methods: Results["methods"] = {}
  const answered: NonNullable<Results["answers"]> = {}
  const kinds: NonNullable<Results["kinds"]> = {}
  for (const { method, temperature, items } of graded) {
    const name = temperatureName(temperature)
    methods[method] = { ...methods[method], [name]: scoreOf(items, options) }
    answered[method] = { ...answered[method], [name]: answerFigures(items) }
    kinds[method] = { ...kinds[method], [name]: kindShares(items) }
  }
  const differences = graded.flatMap(
    (own, i) =>
      graded
        .slice(0, i)
        .filter(({ method, temperature }) => method !== own.method && temperature === own.temperature)
        .map((other) => ({
          method: own.method,
          against: other.method,
          temperature: temperatureName(own.temperature),
          ...differenceOf(own.items, other.items, options),
        }))
        .filter(({ isr }) => !Number.isNaN(isr)), // nothing that both answered
  )
  return {
    methods,
    differences,
    answers: answered,
    kinds,
    seeds: [...new Set([...pairs, ...answers.flatMap(({ items }) => items)].map(({ seed }) => seed))],
    pairs: pairs.map(({ seed, n, verified, graded: rows }) => ({
      ...{ seed, n, ...meanShares(rows) },
      chosen_spoiled: meanShare(rows.map(({ spoiled }) => spoiled.chosen)),
      rejected_spoiled: meanShare(rows.map(({ spoiled }) => spoiled.rejected)),
      ...(verified && { verified }),
    })),
  }
}

/** Constraints kept by both answers of pairs, on average; null without any that could be graded. */
export const meanShares = (rows: readonly GradedPair[]) => ({
  chosen_csr: meanShare(rows.map(({ chosen }) => chosen)),
  rejected_csr: meanShare(rows.map(({ rejected }) => rejected)),
})

function seedsTogether(answers: readonly Graded[]): Graded[] {
  const merged = new Map<string, Graded>()
  for (const { method, temperature, items } of answers) {
    const name = `${method} ${temperature}`
    merged.set(name, { method, temperature, items: [...(merged.get(name)?.items ?? []), ...items] })
  }
  return [...merged.values()]
}

function meanShare(answers: readonly Verdicts[]): number | null {
  const shares = answers.map(constraintShare).filter((share) => !Number.isNaN(share))
  return shares.length ? mean(shares) : null
}

/** The results as an aligned plain-text table, one line a method and temperature. */
export function resultsTable(results: Results): string {
  const rate = (value: number, [low, high]: readonly [number, number]) =>
    `${percent(value)} [${percent(low)}, ${percent(high)}]`
  const rows = Object.entries(results.methods).flatMap(([method, byTemperature]) =>
    Object.entries(byTemperature).map(([temperature, score]) => [
      method,
      temperature,
      rate(score.csr, score.csr_interval),
      rate(score.isr, score.isr_interval),
      `${score.n}`,
      `${score.unreadable}`,
    ]),
  )
  const head = ["method", "", "CSR % [95 %]", "ISR % [95 %]", "answers", "unreadable"]
  const judge = results.judged_by ? `${judgedLine(results.judged_by)}\n` : ""
  return judge + aligned([head, ...rows])
}

/** Rows of cells as lines, columns padded to the same width. */
export function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, c) => Math.max(...rows.map((row) => row[c]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, c) => cell.padEnd(widths[c]!))
        .join("  ")
        .trimEnd(),
    )
    .join("\n")
}
