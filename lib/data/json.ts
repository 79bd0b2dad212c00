/** JSON as Python writes and reads it: NaN, Infinity and -Infinity are numbers. Nesting is bounded. */

/**
 * Deepest nesting that is read. Code that walks a value calls itself once a level, so thousands would end the program.
 */
const maxDepth = 500

const nonFinite: Record<string, number> = {
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  "-Infinity": Number.NEGATIVE_INFINITY,
}
/** Stands for a number that JSON has no word for, while the rest is parsed or written. */
const mark = "\u0001non-finite:"

/**
 * The value of a JSON text, of Python's kind as well. NaN reads as `nan`.
 * @throws SyntaxError where the text is not JSON, RangeError where it is nested deeper than `maxDepth`.
 */
export function parseJson(text: string, nan: number | null = Number.NaN): unknown {
  const plain = text.startsWith("\uFEFF") ? text.slice(1) : text
  let value: unknown
  try {
    value = JSON.parse(plain)
  } catch (error) {
    const marked = plain.replace(/"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?$)|-?\b(?:NaN|Infinity)\b/gs, (word) =>
      word in nonFinite ? JSON.stringify(mark + word) : word,
    )
    if (marked === plain) throw error
    value = JSON.parse(marked)
    checkDepth(value)
    return unmarked(value, nan)
  }
  checkDepth(value)
  return value
}

/**
 * A record of a file that a program in Python wrote: NaN, with which data frames fill what is missing, reads as null.
 * @throws as parseJson
 */
export function parseRecordJson(text: string): unknown {
  try {
    return parsePlainJson(text)
  } catch (error) {
    if (error instanceof RangeError || !/\b(?:NaN|Infinity)\b/.test(text)) throw error
    return parseJson(text, null)
  }
}

/** Whether a text has more opening brackets than may be nested; most have fewer, and need not be looked through. */
function opensMany(text: string): boolean {
  let count = 0
  for (const bracket of ["[", "{"])
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1))
      if (++count > maxDepth) return true
  return false
}

/** The value of a plain JSON text. @throws SyntaxError, and RangeError where it is nested deeper than `maxDepth` */
function parsePlainJson(text: string): unknown {
  const value: unknown = JSON.parse(text)
  if (opensMany(text)) checkDepth(value)
  return value
}

/** Level by level, since calling itself is what a deep value must not make us do. */
function checkDepth(value: unknown): void {
  let level = [value]
  for (let depth = 0; level.length; depth++) {
    if (depth > maxDepth) throw new RangeError(`lists and objects nested deeper than ${maxDepth}`)
    const next: unknown[] = []
    for (const item of level) {
      if (typeof item !== "object" || item === null) continue
      for (const inner of Array.isArray(item) ? item : Object.values(item))
        if (typeof inner === "object" && inner !== null) next.push(inner)
    }
    level = next
  }
}

function unmarked(value: unknown, nan: number | null): unknown {
  if (typeof value === "string") {
    if (!value.startsWith(mark)) return value
    const number = nonFinite[value.slice(mark.length)]
    return Number.isNaN(number) ? nan : number
  }
  if (Array.isArray(value)) return value.map((inner) => unmarked(inner, nan))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unmarked(inner, nan)]))
}

/** A value as JSON with two spaces a level. Numbers that are not finite are written as Python writes them. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(
    value,
    (_, inner) => (typeof inner === "number" && !Number.isFinite(inner) ? mark + inner : inner),
    2,
  )
  return text.replace(/"\\u0001non-finite:(-?\w+)"/g, "$1")
}
