import { streamKey, uniformAt } from "../rng"

/** How a bootstrap interval is drawn. */
export interface BootstrapOptions {
  /** Resamples, 1,000 to 10,000. */
  samples: number
  /** Any integer; the same seed draws the same resamples. */
  seed: number
  /** Coverage of the interval, 0 to 1. */
  level?: number
}

/** Both ends of an interval. */
export type Interval = [low: number, high: number]

/**
 * Percentile bootstrap (Efron 1979) of any statistic of column totals. Row i of all columns together is one unit of
 * resampling; each resample draws as many units as there are, with replacement, and gives `statistic` the totals of the
 * columns. Resamples whose statistic is not a number (nothing to divide by) are left out; [NaN, NaN] when none is left.
 */
export function bootstrap(
  columns: readonly Float64Array[],
  statistic: (totals: Float64Array) => number,
  { samples, seed, level = 0.95 }: BootstrapOptions,
): Interval {
  const totals = new Float64Array(columns.length)
  const statistics: number[] = []
  for (const drawn of resamples(columns[0]!.length, { samples, seed })) {
    totals.fill(0)
    for (const unit of drawn) for (let c = 0; c < columns.length; c++) totals[c]! += columns[c]![unit]!
    statistics.push(statistic(totals))
  }
  return percentiles(statistics, level)
}

/**
 * The numbers of the units that each resample draws: as many as there are, with replacement. The same seed gives the
 * same draws, so that two results over the same units are resampled alike. The array is used again for the next
 * resample.
 */
export function* resamples(units: number, { samples, seed }: BootstrapOptions): Generator<Int32Array> {
  const key = streamKey(seed, "bootstrap")
  const drawn = new Int32Array(units)
  for (let s = 0; s < samples; s++) {
    for (let u = 0; u < units; u++) drawn[u] = Math.floor(uniformAt(key, s * units + u) * units)
    yield drawn
  }
}

/** The interval that holds the middle share `level` of the values that are numbers. */
export function percentiles(values: ArrayLike<number>, level = 0.95): Interval {
  const sorted = Float64Array.from(values)
    .filter((value) => !Number.isNaN(value))
    .sort()
  return [quantile(sorted, (1 - level) / 2), quantile(sorted, (1 + level) / 2)]
}

/**
 * Quantile of ascending values, linear between neighbours (type 7 of Hyndman & Fan 1996, the default of numpy and R).
 */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  const at = q * (sorted.length - 1)
  const below = Math.floor(at)
  const [low, high] = [sorted[below], sorted[Math.min(below + 1, sorted.length - 1)]]
  return low === undefined || high === undefined ? Number.NaN : low + (at - below) * (high - low)
}
