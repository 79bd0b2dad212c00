import { mean } from "../data/numbers"
import { type BootstrapOptions, resamples } from "./bootstrap"
import { type Figures, pick, type Scored } from "./figures"
import { type Estimate, estimateOf } from "./over-seeds"

/** One method's results on a benchmark, by seed. Methods have the same seeds, in the same order. */
export interface MethodRows<Result = unknown> {
  method: string
  seeds: readonly (readonly Scored<Result>[])[]
}

export interface MethodFigures {
  /** Items that every method has in every seed, and all others. */
  items: number
  leftOut: number
  /** By method and name of the figure. */
  methods: Record<string, Record<string, Estimate>>
  /** `method` minus `against`. */
  differences: ({ method: string; against: string; figure: string } & Estimate)[]
}

/**
 * Every figure of every method, a mean over seeds, and the differences asked for, with intervals over seeds and items
 * as in `overSeeds`. Only items count that all methods have in all seeds, and each resample draws the same units of
 * them for all, so that differences are paired. Figures of groups (such as FollowBench's CSL) stay those of one seed at
 * a time.
 */
export function figuresOfMethods<Result>(
  figures: Figures<Result>,
  rows: readonly MethodRows<Result>[],
  pairs: readonly (readonly [method: string, against: string])[],
  options: BootstrapOptions,
): MethodFigures {
  const lists = rows.flatMap(({ seeds }) => seeds)
  const counts = new Map<string, number>()
  for (const list of lists) for (const { id } of list) counts.set(id, (counts.get(id) ?? 0) + 1)
  const shared = lists[0]!.filter(({ id }) => counts.get(id) === lists.length)
  const units = [...new Set(shared.map(({ unit }) => unit))]
  const place = new Map(units.map((unit, i) => [unit, i]))
  const known = new Map<readonly Scored<Result>[], Result[][]>() // seeds may share their answers, as those of base
  const byUnit = (list: readonly Scored<Result>[]): Result[][] => {
    const found = known.get(list)
    if (found) return found
    const made: Result[][] = units.map(() => [])
    const own = new Map(list.map((row) => [row.id, row.result]))
    for (const { id, unit } of shared) made[place.get(unit)!]!.push(own.get(id)!)
    known.set(list, made)
    return made
  }
  const cells = rows.map(({ method, seeds }) => ({ method, seeds: seeds.map(byUnit) }))
  const all = Int32Array.from(units.keys())
  const valuesOf = (drawn: Int32Array) => {
    const counted = new Map<readonly Result[][], Record<string, number>>()
    return cells.map(({ seeds }) =>
      seeds.map((cell) => {
        const found = counted.get(cell) ?? figures(pick(cell, drawn))
        counted.set(cell, found)
        return found
      }),
    )
  }
  const whole = valuesOf(all)
  const drawn = drawsOf(units.length, valuesOf, options)
  const names = Object.keys(whole[0]![0]!)
  const estimate = (name: string, of: number, against?: number): Estimate => {
    const gap = (values: Record<string, number>[][], seed: number) =>
      (values[of]![seed]![name] ?? Number.NaN) -
      (against === undefined ? 0 : (values[against]![seed]![name] ?? Number.NaN))
    const seeds = whole[of]!.map((_, seed) => seed)
    const over = (values: Record<string, number>[][]) => mean(seeds.map((seed) => gap(values, seed)))
    const perSeed = seeds.map((seed) => gap(whole, seed))
    return estimateOf(over(whole), drawn.map(over), perSeed, options)
  }
  const at = (method: string) => cells.findIndex((cell) => cell.method === method)
  return {
    items: shared.length,
    leftOut: counts.size - shared.length,
    methods: Object.fromEntries(
      cells.map(({ method }, i) => [method, Object.fromEntries(names.map((name) => [name, estimate(name, i)]))]),
    ),
    differences: pairs.flatMap(([method, against]) =>
      names.map((figure) => ({ method, against, figure, ...estimate(figure, at(method), at(against)) })),
    ),
  }
}

/** The values of each resample; its draw is used up at once, as the array is used again. */
function drawsOf<Values>(units: number, valuesOf: (drawn: Int32Array) => Values, options: BootstrapOptions): Values[] {
  const values: Values[] = []
  for (const drawn of resamples(units, options)) values.push(valuesOf(drawn))
  return values
}
