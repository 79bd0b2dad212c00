/** In the order given; sums of floats depend on it. */
export function sum(values: ArrayLike<number>): number {
  let total = 0
  for (let i = 0; i < values.length; i++) total += values[i]!
  return total
}

/** NaN of no values. */
export const mean = (values: ArrayLike<number>): number => sum(values) / values.length

/** A number with so many decimals; what rounds to zero has no minus sign. */
export const fixed = (value: number, digits: number): string => (Number(value.toFixed(digits)) + 0).toFixed(digits)

/** The same with its sign: a true minus, or `plus` for zero and above. */
export const signed = (value: number, digits: number, plus = "+"): string => {
  const text = fixed(value, digits)
  return text.startsWith("-") ? `−${text.slice(1)}` : plus + text
}

/** A share as "12.3", per cent without the sign. */
export const percent = (share: number): string => fixed(100 * share, 1)

/** Bytes as "1.5 GiB". */
export const gibibytes = (bytes: number, digits = 1): string => `${(bytes / 2 ** 30).toFixed(digits)} GiB`

/** What `take` gives of the values, by key, in the order of appearance. */
export function groupBy<T, Key, Value>(
  values: readonly T[],
  keyOf: (value: T) => Key,
  take: (value: T) => Value,
): Map<Key, Value[]> {
  const groups = new Map<Key, Value[]>()
  for (const value of values) {
    const own = groups.get(keyOf(value))
    if (own) own.push(take(value))
    else groups.set(keyOf(value), [take(value)])
  }
  return groups
}
