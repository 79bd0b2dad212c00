import { sum } from "../data/numbers"
import type { Difference, EvalItem, Score } from "../data/results"
import type { BootstrapOptions, Interval } from "./bootstrap"
import { constraintShare } from "./grader"
import { overSeeds, type SeedColumns } from "./over-seeds"

/**
 * Satisfaction rates with intervals over seeds and instructions. CSR: share of an answer's constraints that it keeps,
 * averaged over answers; ISR: share of answers that keep them all. Constraints without a readable verdict count in
 * neither, answers without any readable one are left out. Answers of several seeds to one instruction are drawn
 * together, since they are no independent evidence.
 */
export function scoreOf(items: readonly EvalItem[], options: BootstrapOptions): Score {
  const cells = cellsOf(items)
  const ids = [...new Set(items.map(({ id }) => id))]
  const seeds = [...cells.values()].map((cell) => columnsOf(cell, ids))
  const estimate = (rate: number) => overSeeds(seeds, (totals) => totals[rate]! / totals[N]!, options)
  const [csr, isr] = [estimate(CSR), estimate(ISR)]
  return {
    csr: csr.value,
    csr_interval: within(csr.interval, 0),
    isr: isr.value,
    isr_interval: within(isr.interval, 0),
    n: items.length,
    unreadable: items.flatMap(({ constraints }) => constraints).filter(({ satisfied }) => satisfied === null).length,
    seeds: [...cells.keys()].map((seed, i) => {
      const [c, s, n] = seeds[i]!.map(sum) as [number, number, number]
      return { seed, csr: c / n, isr: s / n, n: items.filter((item) => item.seed === seed).length }
    }),
  }
}

/**
 * `method` minus `against` over the seeds and instructions that both answered, with paired intervals over both. p is of
 * the difference being 0, not corrected for how many differences are looked at.
 */
export function differenceOf(
  method: readonly EvalItem[],
  against: readonly EvalItem[],
  options: BootstrapOptions,
): Pick<Difference, "csr" | "csr_interval" | "csr_p" | "isr" | "isr_interval" | "isr_p"> {
  const [a, b] = [cellsOf(method), cellsOf(against)]
  const seeds = [...a.keys()].filter((seed) => b.has(seed))
  const ids = [...new Set(seeds.flatMap((seed) => [...a.get(seed)!.keys()]))]
  const both = seeds.map((seed): SeedColumns => {
    const [own, other] = [a.get(seed)!, b.get(seed)!]
    const shared = (cell: Cell, id: string) => (own.has(id) && other.has(id) ? cell.get(id) : undefined)
    return [own, other].flatMap((cell) => columnsOf({ get: (id) => shared(cell, id) }, ids))
  })
  if (!both.length)
    return { ...{ csr: NaN, csr_interval: NONE, csr_p: NaN }, ...{ isr: NaN, isr_interval: NONE, isr_p: NaN } }
  const estimate = (rate: number) =>
    overSeeds(both, (totals) => totals[rate]! / totals[N]! - totals[3 + rate]! / totals[3 + N]!, options)
  const [csr, isr] = [estimate(CSR), estimate(ISR)]
  return {
    ...{ csr: csr.value, csr_interval: within(csr.interval, -1), csr_p: csr.p },
    ...{ isr: isr.value, isr_interval: within(isr.interval, -1), isr_p: isr.p },
  }
}

/** An interval without what no share can be: few seeds reach beyond. */
const within = ([low, high]: Interval, least: number): Interval => [Math.max(least, low), Math.min(1, high)]

const NONE: Interval = [Number.NaN, Number.NaN]

/** Places of the columns. */
const [CSR, ISR, N] = [0, 1, 2]

type Sums = [csr: number, isr: number, n: number]

/** Sums of one seed by instruction. */
type Cell = ReadonlyMap<string, Sums>

function cellsOf(items: readonly EvalItem[]): Map<number, Cell> {
  const cells = new Map<number, Map<string, Sums>>()
  for (const { id, seed, constraints } of items) {
    const share = constraintShare(constraints)
    const cell = cells.get(seed) ?? new Map<string, Sums>()
    cells.set(seed, cell)
    if (Number.isNaN(share)) continue
    const [csr, isr, n] = cell.get(id) ?? [0, 0, 0]
    cell.set(id, [csr + share, isr + Number(share === 1), n + 1])
  }
  return cells
}

/** The sums as columns over the instructions; 0 for one that was not answered. */
const columnsOf = (cell: { get(id: string): Sums | undefined }, ids: readonly string[]): Float64Array[] =>
  [CSR, ISR, N].map((place) => Float64Array.from(ids, (id) => cell.get(id)?.[place!] ?? 0))
