/**
 * Text rules of Python 3, where the official scorer has them otherwise than JavaScript: what a blank is, what a word
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

const edges = new RegExp(`^[${blank}]+|[${blank}]+$`, "gu")
const trailing = new RegExp(`[${blank}]+$`, "u")
const blanks = new RegExp(`[${blank}]+`, "u")

/** `str.strip()` */
export const strip = (text: string) => text.replace(edges, "")
/** `str.rstrip()` */
export const stripEnd = (text: string) => text.replace(trailing, "")
/** `str.split()` */
export const splitBlanks = (text: string) => text.split(blanks).filter((part) => part)

/** `str.isupper()`: some cased letter and none of lower or title case. */
export const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text)
/** `str.islower()`: some cased letter and none of upper or title case. */
export const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text)

/** Whether `json.loads` reads it: JSON with NaN and Infinity, whole numbers of at most 4300 digits. */
export function isPythonJson(text: string): boolean {
  let readable = true
  const plain = text.replace(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN|[\d.eE+-]+/gsu, (part) => {
    if (/^-?\d{4301,}$/u.test(part)) readable = false
    return part.endsWith("y") || part === "NaN" ? " 0 " : part
  })
  try {
    JSON.parse(plain)
    return readable
  } catch {
    return false
  }
}
