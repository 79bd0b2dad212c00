/**
 * Text rules of Python 3, where the official scorers have them otherwise than JavaScript: what a blank is, what a word
 * character is, what `.`, `^` and `$` stop at, and which letters are the same when case does not count.
 */
const blank = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
const word = "\\p{L}\\p{N}_"

const outside: Record<string, string> = {
  "\\s": `[${blank}]`,
  "\\S": `[^${blank}]`,
  "\\w": `[${word}]`,
  "\\W": `[^${word}]`,
  "\\d": "\\p{Nd}",
  "\\D": "\\P{Nd}",
  "\\b": `(?:(?<=[${word}])(?![${word}])|(?<![${word}])(?=[${word}]))`,
  ".": "[^\\n]",
}
const inside: Record<string, string> = { "\\s": blank, "\\w": word, "\\d": "\\p{Nd}", "\\-": "\\-" }

export interface PythonFlags {
  ignoreCase?: boolean
  multiline?: boolean
}

/**
 * A pattern of Python's `re` for text, as a global JavaScript one. Groups, sets, look-around and lazy repeats read the
 * same in both; flags inside the pattern, named and atomic groups do not.
 * @throws SyntaxError if it is no pattern.
 */
export function pythonPattern(pattern: string, { ignoreCase = false, multiline = false }: PythonFlags = {}): RegExp {
  let inSet = false
  const source = pattern.replace(/\\.|[[\].^$]/gsu, (part) => {
    if (part === "[" || part === "]") {
      const escaped = inSet === (part === "[")
      if (!escaped) inSet = part === "["
      return escaped ? `\\${part}` : part
    }
    const known = (inSet ? inside : outside)[part]
    if (known) return known
    if (!inSet && part === "^") return multiline ? "(?<![^\\n])" : "^"
    if (!inSet && part === "$") return multiline ? "(?![^\\n])" : "(?=\\n?$)"
    return /^\\[^\w^$\\.*+?()[\]{}|/]$/u.test(part) ? part.slice(1) : part
  })
  return new RegExp(source, ignoreCase ? "giu" : "gu")
}

/** `text` for a pattern that ignores case: Python counts dotted and dotless I as i, JavaScript does not. */
export const foldI = (text: string) => text.replace(/[İı]/g, "i")

/** Matches of `pattern` in `text`, as `len(re.findall())`. */
export const countMatches = (pattern: RegExp, text: string) => text.match(pattern)?.length ?? 0

/** `str.isspace()` of a character in the basic plane; outside of it there are no blanks. */
export const isBlank = (code: number) =>
  code <= 0x20
    ? code === 0x20 || (code >= 0x09 && code <= 0x0d) || code >= 0x1c
    : (code >= 0x85 && (code === 0x85 || code === 0xa0 || code === 0x1680 || (code >= 0x2000 && code <= 0x200a))) ||
      code === 0x2028 ||
      code === 0x2029 ||
      code === 0x202f ||
      code === 0x205f ||
      code === 0x3000

/** `text.lstrip(first).rstrip(last)` with one character each. */
export function withoutMarks(text: string, first: string, last: string): string {
  let start = 0
  while (text[start] === first) start++
  const rest = text.slice(start)
  return rest.slice(
    0,
    endWithout(rest, (code) => code === last.charCodeAt(0)),
  )
}

/**
 * Where a text ends when what `drops` is cut from its end. A loop: a pattern such as `x+$` is quadratic in the text.
 */
function endWithout(text: string, drops: (code: number) => boolean): number {
  let end = text.length
  while (end > 0 && drops(text.charCodeAt(end - 1))) end--
  return end
}

/** `str.rstrip()` */
export const stripEnd = (text: string) => text.slice(0, endWithout(text, isBlank))

/** `str.strip()` */
export function strip(text: string): string {
  let start = 0
  while (start < text.length && isBlank(text.charCodeAt(start))) start++
  return stripEnd(text.slice(start))
}

const blanks = new RegExp(`[${blank}]+`, "u")
/** `str.split()` */
export const splitBlanks = (text: string) => text.split(blanks).filter((part) => part)

/** `str.isupper()`: some cased letter and none of lower or title case. */
export const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text)
/** `str.islower()`: some cased letter and none of upper or title case. */
export const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text)

/**
 * `float(text)` of a decimal number: blanks around it, digits of any script (full-width, Arabic, …), single underscores
 * between digits. Undefined for anything else, infinities and NaN included.
 */
export function pythonFloat(text: string): number | undefined {
  const plain = strip(text)
    .replace(/\p{Nd}/gu, digitValue)
    .replace(/(?<=\d)_(?=\d)/g, "")
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : undefined
}

/** Digits of a script are ten code points in a row, those of mathematical alphabets several times ten. */
function digitValue(digit: string): string {
  const code = digit.codePointAt(0)!
  let before = 0
  while (/\p{Nd}/u.test(String.fromCodePoint(code - before - 1))) before++
  return `${before % 10}`
}

/**
 * What `json.loads` reads: JSON with NaN and Infinity (0 here), whole numbers of at most 4300 digits. Undefined for all
 * else.
 */
export function pythonJson(text: string): { value: unknown } | undefined {
  const pieces: string[] = []
  const outside = /-?Infinity|NaN|[\d.eE+-]+/g
  for (let at = 0; at < text.length; ) {
    const quote = text.indexOf('"', at)
    const plain = text.slice(at, quote < 0 ? text.length : quote)
    let tooLong = false
    pieces.push(
      plain.replace(outside, (part) => {
        tooLong ||= /^-?\d{4301,}$/.test(part)
        return part.endsWith("y") || part === "NaN" ? " 0 " : part
      }),
    )
    if (tooLong) return undefined
    if (quote < 0) break
    const end = endOfString(text, quote)
    if (end < 0) return undefined
    pieces.push(text.slice(quote, end))
    at = end
  }
  try {
    return { value: JSON.parse(pieces.join("")) }
  } catch {
    return undefined
  }
}

/** Whether `json.loads` reads a text. */
export const isPythonJson = (text: string) => pythonJson(text) !== undefined

/** Where the string that begins at `start` ends, the quote included; -1 if it does not. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const mark = text[at]
    if (mark === "\\") at++
    else if (mark === '"') return at + 1
  }
  return -1
}
