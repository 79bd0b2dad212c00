import type { Ref, Sizes, Trace } from "./watch"

/** Lengths and counts that a graph computes anew at each call, found from what was watched at a few sizes. */

/** A list of whole numbers that depends on the sizes. */
export type Ints = (sizes: Sizes) => number[]

/** Numbers that sizes give: M, B, lengths between cuts, and B times those. */
function sizeExpressions({ rows, selected, cuts }: Sizes): number[] {
  const lengths = cuts.flatMap((to, j) => cuts.slice(0, j).map((from) => to - from))
  return [selected, rows, ...lengths, ...lengths.map((length) => rows * length)]
}

/** What gives `values` at `sizes`: the same number, or the smallest multiple of a size expression. */
function solveForSize(values: readonly number[], sizes: readonly Sizes[]): (sizes: Sizes) => number {
  if (values.every((value) => value === values[0])) return () => values[0]!
  const known = sizes.map(sizeExpressions)
  const fits = known[0]!.flatMap((expression, i) => {
    const factor = values[0]! / expression
    return Number.isInteger(factor) && values.every((value, k) => value === factor * known[k]![i]!)
      ? [{ factor, i }]
      : []
  })
  const [best] = fits.sort((a, b) => a.factor - b.factor)
  if (!best) throw new Error(`trace: ${values} must follow from the sizes`)
  return (others) => best.factor * sizeExpressions(others)[best.i]!
}

/**
 * Constants that are not the same at all sizes, as functions of the sizes.
 * @throws Error where traces differ in more than lengths
 */
export function varyingConstants(traces: readonly Trace[], sizes: readonly Sizes[]): Map<Ref, Ints> {
  const [first, ...others] = traces as [Trace, ...Trace[]]
  const same = ({ constants, ...rest }: Trace) =>
    JSON.stringify([rest, constants.map(({ dtype, shape }) => [dtype, shape])])
  if (others.some((other) => same(other) !== same(first))) throw new Error("trace: must be alike at all sizes")
  const shown = sizes.map(sizeExpressions)
  const columns = shown[0]!.map((_, i) => shown.map((row) => row[i]).join())
  if (new Set(columns).size < columns.length) throw new Error("trace: examples must tell all lengths apart")
  const varying = new Map<Ref, Ints>()
  first.constants.forEach(({ dtype, values }, c) => {
    const all = traces.map(({ constants }) => constants[c]!.values)
    if (all.every((some) => some.join() === values.join())) return
    if (dtype !== "int32") throw new Error("trace: numbers other than sizes must be arguments")
    const entries = values.map((_, i) =>
      solveForSize(
        all.map((some) => some[i]!),
        sizes,
      ),
    )
    varying.set(`c${c}`, (at) => entries.map((entry) => entry(at)))
  })
  return varying
}
