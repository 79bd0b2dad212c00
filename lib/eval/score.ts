import type { Difference, EvalItem, Score } from "../data/results"
import { type BootstrapOptions, bootstrap } from "./bootstrap"
import { constraintShare } from "./grader"

/**
 * Satisfaction rates with bootstrap intervals. CSR: share of an answer's constraints that it keeps, averaged over answers;
 * ISR: share of answers that keep them all. Constraints without a readable verdict count in neither, answers without any
 * readable one are left out. The unit of resampling is the instruction: answers of several seeds to one instruction are
 * drawn together, since they are no independent evidence.
 */
export function scoreOf(items: readonly EvalItem[], options: BootstrapOptions): Score {
  const sums = byInstruction(items)
  const [csr, isr, n] = columnsOf(sums, [...sums.keys()])
  const mean = (column: Float64Array) => total(column) / total(n)
  const interval = (column: Float64Array) => bootstrap([column, n], ([sum, count]) => sum! / count!, options)
  const seeds = [...new Set(items.map(({ seed }) => seed))]
  return {
    csr: mean(csr),
    csr_interval: interval(csr),
    isr: mean(isr),
    isr_interval: interval(isr),
    n: items.length,
    unreadable: items.flatMap(({ constraints }) => constraints).filter(({ satisfied }) => satisfied === null).length,
    seeds: seeds.map((seed) => {
      const own = items.filter((item) => item.seed === seed)
      const [a, b, c] = columnsOf(byInstruction(own), [...byInstruction(own).keys()])
      return { seed, csr: total(a) / total(c), isr: total(b) / total(c), n: own.length }
    }),
  }
}

/** `method` minus `against` over the instructions that both answered, with paired bootstrap intervals. */
export function differenceOf(
  method: readonly EvalItem[],
  against: readonly EvalItem[],
  options: BootstrapOptions,
): Pick<Difference, "csr" | "csr_interval" | "isr" | "isr_interval"> {
  const [a, b] = [byInstruction(method), byInstruction(against)]
  const shared = [...a.keys()].filter((id) => b.has(id))
  const [csrA, isrA, nA] = columnsOf(a, shared)
  const [csrB, isrB, nB] = columnsOf(b, shared)
  const gap = (x: Float64Array, y: Float64Array) => total(x) / total(nA) - total(y) / total(nB)
  const interval = (x: Float64Array, y: Float64Array) =>
    bootstrap([x, nA, y, nB], ([p, n, q, m]) => p! / n! - q! / m!, options)
  return {
    csr: gap(csrA, csrB),
    csr_interval: interval(csrA, csrB),
    isr: gap(isrA, isrB),
    isr_interval: interval(isrA, isrB),
  }
}

interface Sums {
  csr: number
  isr: number
  n: number
}

function byInstruction(items: readonly EvalItem[]): Map<string, Sums> {
  const sums = new Map<string, Sums>()
  for (const { id, constraints } of items) {
    const share = constraintShare(constraints)
    if (Number.isNaN(share)) continue
    const { csr, isr, n } = sums.get(id) ?? { csr: 0, isr: 0, n: 0 }
    sums.set(id, { csr: csr + share, isr: isr + Number(share === 1), n: n + 1 })
  }
  return sums
}

function columnsOf(
  sums: ReadonlyMap<string, Sums>,
  ids: readonly string[],
): [Float64Array, Float64Array, Float64Array] {
  const column = (name: keyof Sums) => Float64Array.from(ids, (id) => sums.get(id)![name])
  return [column("csr"), column("isr"), column("n")]
}

const total = (column: Float64Array) => column.reduce((sum, value) => sum + value, 0)
