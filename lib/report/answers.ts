import { percent } from "../data/numbers"
import type { Results } from "../data/results"
import { temperaturesOf } from "../plots/figures"
import { orderMethods } from "../plots/theme"

/** What stands below the table of rates: how the run was done, what the answers look like, rates by kind. */

/** Rows as Markdown, the head first; the first column flush left. Nothing of no rows. */
export const markdownTable = (rows: readonly (readonly string[])[]) =>
  rows
    .flatMap((row, i) => [row, ...(i ? [] : [row.map((_, c) => (c ? "---:" : "---"))])])
    .map((row) => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`)
    .join("")

/** A cell whose characters mean nothing in Markdown: kinds are called "n *highlights*" and "<<title>>". */
export const literal = (cell: string): string => cell.replace(/[*_<>`[\]]/g, "\\$&").replace(/\s+/g, " ")

/**
 * Lengths of answers, and shares of those that were cut off and that repeat themselves, a row a method and temperature.
 */
export function answerRows(results: Results): string[][] {
  const methods = orderMethods(Object.keys(results.answers ?? {}))
  const rows = temperaturesOf(results).flatMap((temperature) =>
    methods.flatMap((method) => {
      const figures = results.answers?.[method]?.[temperature]
      if (!figures) return []
      const { words, tokens, cut, repeated } = figures
      const known = [tokens === null ? "–" : tokens.toFixed(1), cut === null ? "–" : percent(cut)]
      return [[method, temperature.slice(1), words.toFixed(1), ...known, percent(repeated)]]
    }),
  )
  return rows.length ? [["method", "temperature", "words", "tokens", "cut off %", "repeats itself %"], ...rows] : []
}

/** Constraints kept by kind in percent, a column a method, at the lowest temperature. */
export function kindRows(results: Results): string[][] {
  const [temperature] = temperaturesOf(results)
  const methods = orderMethods(Object.keys(results.kinds ?? {}))
  const of = (method: string) => results.kinds?.[method]?.[temperature ?? ""] ?? {}
  const first = of(methods[0] ?? "")
  const kinds = Object.keys(first).sort((a, b) => first[b]!.n - first[a]!.n)
  if (!kinds.length) return []
  const rows = kinds.map((kind) => {
    const cells = methods.map((method) => {
      const share = of(method)[kind]
      return share ? percent(share.kept / share.n) : "–"
    })
    return [kind, ...cells, `${first[kind]!.n}`]
  })
  return [[`kind, temperature ${temperature!.slice(1)}`, ...methods, "constraints"], ...rows]
}

/**
 * Pairs of each seed, and the shares of constraints that their answers keep: of all, and of those that were corrupted.
 */
export function pairLines({ pairs }: Results): string[] {
  const share = (value: number | null | undefined) => (typeof value === "number" ? `${percent(value)} %` : "not graded")
  return pairs.map(({ seed, n, chosen_csr, rejected_csr, chosen_spoiled, rejected_spoiled }) => {
    const all = `Chosen answers keep ${share(chosen_csr)} of the constraints, rejected ones ${share(rejected_csr)}`
    const corrupted =
      typeof chosen_spoiled === "number" &&
      `of the corrupted constraints ${share(chosen_spoiled)} and ${share(rejected_spoiled)}`
    if (chosen_csr === null) return `Seed ${seed}: ${n} pairs, not graded.`
    return `Seed ${seed}: ${n} pairs. ${all}${corrupted ? `; ${corrupted}` : ""}.`
  })
}

/** The same as Markdown, to stand below the table of rates. */
export function belowTable(results: Results): string {
  const notes = [...(results.notes ?? []), ...pairLines(results)].map((note) => `- ${note}\n`).join("")
  return [notes, markdownTable(answerRows(results)), markdownTable(kindRows(results).map((row) => row.map(literal)))]
    .filter((part) => part)
    .map((part) => `\n${part}`)
    .join("")
}
