import { frameHtml, frameOf, frameText } from "../plots/frame"
import { display } from "./display"

/**
 * Mime type under which a notebook leaves its key numbers for the check that they have not drifted. Not
 * `application/vnd.…`: VS Code would show that before the table.
 */
export const numbersType = "application/x-musc-numbers+json"

/** Numbers by name. */
export type Numbers = Readonly<Record<string, number>>

/** Shows the key numbers of a notebook as a table, and leaves them where `musc notebook` checks them. */
export function keyNumbers(numbers: Numbers): void {
  const frame = frameOf(Object.entries(numbers).map(([name, value]) => ({ "key number": name, value })))
  display({ "text/plain": frameText(frame), "text/html": `${frameHtml(frame)}`, [numbersType]: numbers })
}

/** Lowest and highest value of each key number, kept in the metadata of the notebook. */
export type Ranges = Readonly<Record<string, readonly [number, number]>>

/** Numbers that left their range or are missing, a line each; numbers without a range are not checked. */
export function drifts(numbers: Numbers, ranges: Ranges): string[] {
  return Object.entries(ranges).flatMap(([name, [low, high]]) => {
    const value = numbers[name]
    if (value === undefined) return [`${name}: must be among the key numbers, got none`]
    return value >= low && value <= high ? [] : [`${name}: must lie in ${low} to ${high}, got ${value}`]
  })
}
