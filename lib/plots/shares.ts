import type { EvalItem } from "../data/results"
import { constraintShare } from "../eval/grader"

/** One row a constraint whose verdict could be read; `satisfied` is 1 or 0. */
export interface ConstraintCell {
  method: string
  temperature: number
  seed: number
  kind: string
  /** constraints of its instruction */
  constraints: number
  satisfied: number
}

/** One row an answer; `satisfied` is its CSR or its ISR, 0 to 1. */
export type AnswerCell = Omit<ConstraintCell, "kind">

/** The constraints of graded answers, unreadable ones left out. */
export const constraintCells = (items: readonly EvalItem[]): ConstraintCell[] =>
  items.flatMap(({ method, temperature, seed, constraints }) =>
    constraints.flatMap(({ kind, satisfied }) =>
      satisfied === null
        ? []
        : { method, temperature, seed, kind, constraints: constraints.length, satisfied: Number(satisfied) },
    ),
  )

/** Graded answers as a whole, by their readable verdicts; answers without any are left out, as in the results. */
export const answerCells = (items: readonly EvalItem[], rate: "csr" | "isr"): AnswerCell[] =>
  items.flatMap(({ method, temperature, seed, constraints }) => {
    const share = constraintShare(constraints)
    if (Number.isNaN(share)) return []
    return {
      method,
      temperature,
      seed,
      constraints: constraints.length,
      satisfied: rate === "csr" ? share : Number(share === 1),
    }
  })

/**
 * Mean of `satisfied` over the rows that agree in `keys`, and how many there are; one entry a group, in order of their
 * first rows. (A data frame would not do: danfojs joins the keys by "-", so that "a" of "b-c" and "a-b" of "c" are
 * one.)
 */
export function shareBy<Row extends { satisfied: number }, Key extends Exclude<keyof Row & string, "satisfied">>(
  rows: readonly Row[],
  keys: readonly Key[],
): (Pick<Row, Key> & { share: number; n: number })[] {
  const groups = new Map<string, { row: Row; sum: number; n: number }>()
  for (const row of rows) {
    const name = JSON.stringify(keys.map((key) => row[key]))
    const group = groups.get(name) ?? { row, sum: 0, n: 0 }
    groups.set(name, group)
    group.sum += row.satisfied
    group.n++
  }
  return [...groups.values()].map(({ row, sum, n }) => {
    const named = Object.fromEntries(keys.map((key) => [key, row[key]])) as Pick<Row, Key>
    return { ...named, share: sum / n, n }
  })
}

/** Wilson's 95 % interval of a share of `n` independent draws. */
export function wilson(share: number, n: number): [number, number] {
  const z = 1.959964
  const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n)
  const half = (z * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n)
  return [Math.max(0, centre - half), Math.min(1, centre + half)]
}
