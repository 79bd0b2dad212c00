import { TemplateError, UnsupportedError } from "./errors"
import { compareTexts, DictView, Markup, Namespace, Range, Tuple, textLength, typeName, Undefined } from "./values"

/** How Python writes values: `str`, `repr` and `json.dumps`. */

/** A place to charge for text that is made. */
export type Spend = (characters: number) => void

/** `str(value)`. @throws UnsupportedError for objects whose text would hold an address in memory. */
export function str(value: unknown, spend: Spend): string {
  if (typeof value === "string") return value
  if (value instanceof Markup) return value.text
  if (value instanceof Undefined) return ""
  return repr(value, spend)
}

function repr(value: unknown, spend: Spend): string {
  const text = reprOf(value, spend, 0)
  spend(text.length)
  return text
}

function reprOf(value: unknown, spend: Spend, depth: number): string {
  spend(1)
  if (depth > 200) throw new TemplateError("a value is nested deeper than 200")
  const inner = (item: unknown) => reprOf(item, spend, depth + 1)
  if (value === null) return "None"
  if (typeof value === "boolean") return value ? "True" : "False"
  if (typeof value === "bigint") return value.toString()
  if (typeof value === "number") return floatText(value)
  if (typeof value === "string") return quoted(value, spend)
  if (Array.isArray(value)) return `[${value.map(inner).join(", ")}]`
  if (value instanceof Tuple) return `(${value.items.map(inner).join(", ")}${value.items.length === 1 ? "," : ""})`
  if (value instanceof Map) return `{${[...value].map(([key, item]) => `${inner(key)}: ${inner(item)}`).join(", ")}}`
  if (value instanceof Range) return `range(${value.start}, ${value.stop}${value.step === 1n ? "" : `, ${value.step}`})`
  if (value instanceof DictView) return `dict_${value.kind}([${[...value].map(inner).join(", ")}])`
  if (value instanceof Undefined) return "Undefined"
  if (value instanceof Markup) return `Markup(${quoted(value.text, spend)})`
  if (value instanceof Namespace) return `<Namespace ${inner(new Map(value.values))}>`
  throw new UnsupportedError(`writing out a ${typeName(value)}`)
}

/** `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan"
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf"
  const [digits, power] = value.toExponential().split("e") as [string, string]
  const exponent = Number(power)
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    const size = `${Math.abs(exponent)}`.padStart(2, "0")
    return `${digits}e${exponent < 0 ? "-" : "+"}${size}`
  }
  const text = Object.is(value, -0) ? "-0" : plainDigits(value, digits, exponent)
  return text.includes(".") ? text : `${text}.0`
}

/** JavaScript writes 0.00001 as 1e-5 but its own bounds for that are others than Python's. */
function plainDigits(value: number, digits: string, exponent: number): string {
  const text = String(value)
  if (!text.includes("e")) return text
  const sign = value < 0 ? "-" : ""
  const figures = digits.replace(/[-.]/g, "")
  return exponent < 0
    ? `${sign}0.${"0".repeat(-exponent - 1)}${figures}`
    : `${sign}${figures.padEnd(exponent + 1, "0")}`
}

const unprintable = /[\p{C}\p{Zl}\p{Zp}\p{Zs}]/gu

function quoted(text: string, spend: Spend): string {
  spend(text.length)
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  const body = text
    .replace(/[\\\n\r\t]/g, (char) => ({ "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" })[char]!)
    .replaceAll(quote, `\\${quote}`)
    .replace(unprintable, (char) => {
      if (char === " ") return char
      const hex = char.codePointAt(0)!.toString(16)
      if (hex.length <= 2) return `\\x${hex.padStart(2, "0")}`
      return hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`
    })
  return quote + body + quote
}

export interface JsonStyle {
  ensureAscii: boolean
  /** null for one line */
  indent: string | null
  item: string
  key: string
  sortKeys: boolean
}

/** `json.dumps`. @throws TemplateError for what is not JSON. */
export function dumps(value: unknown, style: JsonStyle, spend: Spend, depth = 0): string {
  spend(1)
  if (depth > 200) throw new TemplateError("a value is nested deeper than 200")
  if (value === null) return "null"
  if (typeof value === "boolean") return `${value}`
  if (typeof value === "bigint") return value.toString()
  if (typeof value === "number") {
    if (Number.isNaN(value)) return "NaN"
    return Number.isFinite(value) ? floatText(value) : value > 0 ? "Infinity" : "-Infinity"
  }
  if (typeof value === "string") return jsonText(value, style, spend)
  const isList = Array.isArray(value) || value instanceof Tuple
  if (!isList && !(value instanceof Map))
    throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`)
  const parts: string[] = []
  if (isList)
    for (const item of Array.isArray(value) ? value : value.items) parts.push(dumps(item, style, spend, depth + 1))
  else {
    const entries = [...value] as [unknown, unknown][]
    if (style.sortKeys) {
      if (entries.some(([key]) => typeof key !== "string"))
        throw new UnsupportedError("sort_keys with keys other than text")
      entries.sort(([a], [b]) => compareTexts(a as string, b as string))
    }
    for (const [key, item] of entries) {
      const name = typeof key === "string" ? key : dumps(key, style, spend, depth + 1)
      parts.push(`${jsonText(name, style, spend)}${style.key}${dumps(item, style, spend, depth + 1)}`)
    }
  }
  const [open, close] = isList ? "[]" : "{}"
  if (!parts.length) return `${open}${close}`
  if (style.indent === null) return `${open}${parts.join(style.item)}${close}`
  const line = (level: number) => `\n${style.indent!.repeat(level)}`
  spend(parts.length * style.indent.length * (depth + 1))
  return `${open}${line(depth + 1)}${parts.join(style.item + line(depth + 1))}${line(depth)}${close}`
}

const shortEscapes: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f" }

function jsonText(text: string, { ensureAscii }: JsonStyle, spend: Spend): string {
  spend(text.length)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON escapes them
  const body = text.replace(/["\\\u0000-\u001f]/g, (char) => {
    if (char === '"' || char === "\\") return `\\${char}`
    return shortEscapes[char] ?? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  })
  const asUnicode = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`
  return `"${ensureAscii ? body.replace(/[^ -~]/g, asUnicode) : body}"`
}

/** Pads a text to a width in characters. */
export function padded(text: string, width: number, side: "left" | "right" | "both", fill: string): string {
  const missing = width - textLength(text)
  if (missing <= 0) return text
  if (side === "left") return fill.repeat(missing) + text
  if (side === "right") return text + fill.repeat(missing)
  const left = Math.floor(missing / 2) + (missing & width & 1)
  return fill.repeat(left) + text + fill.repeat(missing - left)
}
