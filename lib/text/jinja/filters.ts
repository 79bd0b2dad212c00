import { TemplateError, UnsupportedError } from "./errors"
import { blanks } from "./lexer"
import { capitalize, intOf, lineEnds, method, named, replace, strip, textOf } from "./methods"
import { binary, formatted } from "./operators"
import { dumps, padded, type Spend, str } from "./print"
import { itemOf } from "./subscript"
import {
  type CallArgs,
  characters,
  checkHashable,
  compareValues,
  DictView,
  equal,
  iterateOrFail,
  lengthOf,
  Markup,
  Namespace,
  Once,
  Tuple,
  textLength,
  truthy,
  typeName,
  Undefined,
} from "./values"

/** What filters need of the renderer. */
export interface Runtime {
  spend: Spend
  callFilter(name: string, input: unknown, args: CallArgs): unknown
  callTest(name: string, input: unknown, args: readonly unknown[]): boolean
}

type Filter = (input: unknown, args: CallArgs, runtime: Runtime) => unknown

/** The text of a value, where a safe text would stay one in jinja2. */
const soft = (value: unknown, { spend }: Runtime): string => {
  if (value instanceof Markup) throw new UnsupportedError("a filter of text on a safe text")
  return str(value, spend)
}
const isGiven = (value: unknown): boolean => value !== undefined && value !== null
const flag = (value: unknown): boolean => value !== undefined && truthy(value)
const lowerCase = (value: unknown): unknown => (typeof value === "string" ? value.toLowerCase() : value)

function listed(value: unknown, { spend }: Runtime): unknown[] {
  const items = [...iterateOrFail(value)]
  spend(items.length)
  return items
}

/** The value at a path such as `function.name` or `0`. */
function attribute(path: unknown, fallback?: unknown): (item: unknown) => unknown {
  const parts =
    typeof path === "string" ? path.split(".").map((part) => (/^\d+$/.test(part) ? BigInt(part) : part)) : [path]
  return (item) =>
    parts.reduce((value: unknown, part) => {
      const inner = itemOf(value, part)
      return isGiven(fallback) && inner instanceof Undefined ? fallback : inner
    }, item)
}

function sorted(items: unknown[], key: (item: unknown) => unknown, descending: boolean): unknown[] {
  const keyed = items.map((item) => ({ item, key: key(item) }))
  keyed.sort((a, b) => (descending ? compareValues(b.key, a.key, "<") : compareValues(a.key, b.key, "<")))
  return keyed.map(({ item }) => item)
}

function extreme(name: "min" | "max"): Filter {
  return (input, args, runtime) => {
    const [cased, path] = named(name, args, ["case_sensitive", "attribute"])
    const get = isGiven(path) ? attribute(path) : (item: unknown) => item
    const key = (item: unknown) => (flag(cased) ? get(item) : lowerCase(get(item)))
    const items = listed(input, runtime)
    if (!items.length) return new Undefined("No aggregated item, sequence was empty.")
    const better = (a: unknown, b: unknown) => {
      const order = compareValues(key(a), key(b), "<")
      return name === "min" ? order < 0 : order > 0
    }
    return items.reduce((best, item) => (better(item, best) ? item : best))
  }
}

function selection(keep: boolean, byAttribute: boolean): Filter {
  return (input, { positional }, runtime) => {
    if (byAttribute && !positional.length) throw new TemplateError("Missing parameter for attribute name")
    const get = byAttribute ? attribute(positional[0]) : (item: unknown) => item
    const [name, ...args] = positional.slice(byAttribute ? 1 : 0)
    const test = (item: unknown) =>
      name === undefined ? truthy(get(item)) : runtime.callTest(textOf(name), get(item), args)
    return new Once(selected())
    function* selected() {
      if (truthy(input)) for (const item of iterateOrFail(input)) if (test(item) === keep) yield item
    }
  }
}

/** Python's `round`: to even where a value lies exactly between. */
function roundHalfEven(value: number, digits: number): number {
  if (!Number.isFinite(value)) return value
  if (digits < 0 || digits > 15) throw new UnsupportedError("rounding to so many digits")
  const doubled = value * 2 ** (digits + 1)
  if (Number.isInteger(doubled)) {
    const half = BigInt(doubled) * 5n ** BigInt(digits)
    const below = (half - 1n) / 2n
    if (half % 2n !== 0n) {
      const floor = half > 0n ? below : (half + 1n) / 2n - 1n
      const even = floor % 2n === 0n ? floor : floor + 1n
      return Number(even) / 10 ** digits
    }
  }
  return Number(value.toFixed(digits))
}

function toInt(value: unknown): bigint | null {
  if (typeof value === "bigint") return value
  if (typeof value === "boolean") return BigInt(value)
  if (value instanceof Undefined) value.fail()
  const number = typeof value === "number" ? value : toFloat(value, true)
  if (typeof number === "bigint") return number
  if (number === null || Number.isNaN(number)) return null
  if (!Number.isFinite(number)) {
    if (typeof value === "number") throw new TemplateError("cannot convert float infinity to integer")
    return null
  }
  return BigInt(Math.trunc(number))
}

function toFloat(value: unknown, exact = false): number | bigint | null {
  if (typeof value === "number") return value
  if (typeof value === "bigint" || typeof value === "boolean") return Number(value)
  if (value instanceof Undefined) value.fail()
  if (typeof value !== "string") return null
  const text = strip(value, undefined, "both")
  if (/(?![0-9])\p{Nd}/u.test(text)) throw new UnsupportedError("a number in other digits than 0 to 9")
  if (exact && text.length <= 4300 && /^[+-]?\d+(_\d+)*$/.test(text))
    return BigInt(text.replaceAll("_", "").replace(/^\+/, ""))
  if (/^[+-]?(\d+(_\d+)*(\.(\d+(_\d+)*)?)?|\.\d+(_\d+)*)(e[+-]?\d+(_\d+)*)?$/i.test(text))
    return Number(text.replaceAll("_", ""))
  const word = /^([+-]?)(inf|infinity|nan)$/i.exec(text)
  if (!word) return null
  if (/nan/i.test(word[2]!)) return Number.NaN
  return word[1] === "-" ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
}

const htmlEscapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;" }
const escapeHtml: Filter = (input, _, { spend }) => {
  if (input instanceof Markup) return input
  const text = str(input, spend)
  spend(text.length)
  return new Markup(text.replace(/[&<>'"]/g, (char) => htmlEscapes[char]!))
}

const wordStart = new RegExp(`([-${blanks}({[<]+)`)
const lines = (text: string): string[] => {
  const parts = text.split(lineEnds)
  return parts.at(-1) === "" ? parts.slice(0, -1) : parts
}

const length: Filter = (input) => {
  const count = lengthOf(input)
  if (count === null) throw new TemplateError(`object of type '${typeName(input)}' has no len()`)
  return BigInt(count)
}

const fallback: Filter = (input, args) => {
  const [value = "", whenFalse] = named("default", args, ["default_value", "boolean"])
  return input instanceof Undefined || (flag(whenFalse) && !truthy(input)) ? value : input
}

export const filters: Readonly<Record<string, Filter>> = {
  ...{ length, count: length, default: fallback, d: fallback, escape: escapeHtml, e: escapeHtml },
  ...{ min: extreme("min"), max: extreme("max") },
  ...{ select: selection(true, false), reject: selection(false, false) },
  ...{ selectattr: selection(true, true), rejectattr: selection(false, true) },
  safe: (input, _, { spend }) => new Markup(str(input, spend)),
  string: (input, _, { spend }) => (input instanceof Markup ? input : str(input, spend)),
  upper: (input, _, runtime) => soft(input, runtime).toUpperCase(),
  lower: (input, _, runtime) => soft(input, runtime).toLowerCase(),
  capitalize: (input, _, runtime) => capitalize(soft(input, runtime)),
  title: (input, _, runtime) =>
    soft(input, runtime)
      .split(wordStart)
      .map((word) => {
        const [first = "", ...rest] = characters(word)
        return first.toUpperCase() + rest.join("").toLowerCase()
      })
      .join(""),
  trim: (input, args, runtime) => strip(soft(input, runtime), named("trim", args, ["chars"])[0], "both"),
  list: (input, _, runtime) => listed(input, runtime),
  abs(input) {
    if (input instanceof Undefined) input.fail()
    if (typeof input === "bigint") return input < 0n ? -input : input
    if (typeof input === "boolean") return BigInt(input)
    if (typeof input === "number") return Math.abs(input)
    throw new TemplateError(`bad operand type for abs(): '${typeName(input)}'`)
  },
  attr(input, args, { spend }) {
    const name = textOf(named("attr", args, ["name"])[0])
    if (input instanceof Namespace && input.values.has(name)) return input.values.get(name)
    return method(input, name, spend) ?? new Undefined(`the value has no attribute '${name}'`)
  },
  batch(input, args, runtime) {
    const [size, fill] = named("batch", args, ["linecount", "fill_with"])
    const items = listed(input, runtime)
    const width = intOf(size)
    if (width < 1) throw new UnsupportedError("a batch of less than 1")
    const rows = Array.from({ length: Math.ceil(items.length / width) }, (_, i) =>
      items.slice(i * width, (i + 1) * width),
    )
    const last = rows.at(-1)
    if (last && isGiven(fill)) {
      runtime.spend(width)
      while (last.length < width) last.push(fill)
    }
    return new Once(rows)
  },
  slice(input, args, runtime) {
    const [count, fill] = named("slice", args, ["slices", "fill_with"])
    const items = listed(input, runtime)
    const n = intOf(count)
    if (n < 1) throw new UnsupportedError("a slice of less than 1")
    runtime.spend(n)
    const [size, extra] = [Math.floor(items.length / n), items.length % n]
    const rows = Array.from({ length: n }, (_, i) => {
      const start = i * size + Math.min(i, extra)
      const row = items.slice(start, start + size + (i < extra ? 1 : 0))
      return isGiven(fill) && i >= extra ? [...row, fill] : row
    })
    return new Once(rows)
  },
  center(input, args, runtime) {
    const width = intOf(named("center", args, ["width"])[0], 80)
    runtime.spend(width)
    return padded(soft(input, runtime), width, "both", " ")
  },
  dictsort(input, args) {
    const [cased, by = "key", reverse] = named("dictsort", args, ["case_sensitive", "by", "reverse"])
    if (!(input instanceof Map)) throw new TemplateError(`'${typeName(input)}' object has no attribute 'items'`)
    if (by !== "key" && by !== "value") throw new TemplateError('You can only sort by either "key" or "value"')
    const key = (pair: unknown) => {
      const value = (pair as Tuple).items[by === "key" ? 0 : 1]
      return flag(cased) ? value : lowerCase(value)
    }
    return sorted([...new DictView(input, "items")], key, flag(reverse))
  },
  first(input) {
    for (const item of iterateOrFail(input)) return item
    return new Undefined("No first item, sequence was empty.")
  },
  last(input, _, runtime) {
    if (input instanceof Once) throw new TemplateError("'generator' object is not reversible")
    const items = listed(input, runtime)
    return items.length ? items.at(-1) : new Undefined("No last item, sequence was empty.")
  },
  float(input, args) {
    const [value = 0] = named("float", args, ["default"])
    return toFloat(input) ?? value
  },
  int(input, args) {
    const [value = 0n, base = 10n] = named("int", args, ["default", "base"])
    if (base !== 10n) throw new UnsupportedError("int of another base")
    return toInt(input) ?? value
  },
  format(input, { positional, keyword }, runtime) {
    if (keyword.size) throw new UnsupportedError("format with named values")
    return formatted(soft(input, runtime), new Tuple(positional), runtime.spend)
  },
  indent(input, args, runtime) {
    const [width = 4n, first, blank] = named("indent", args, ["width", "first", "blank"])
    if (typeof input !== "string") throw new TemplateError(`cannot indent a ${typeName(input)}`)
    const space = typeof width === "string" ? width : padded("", intOf(width), "left", " ")
    const all = lines(`${input}\n`)
    runtime.spend(input.length + all.length * space.length)
    const rest = all.slice(1).map((line) => (flag(blank) || line ? space + line : line))
    return (flag(first) ? space : "") + [all[0], ...rest].join("\n")
  },
  items(input) {
    if (input instanceof Undefined) return new Once([])
    if (!(input instanceof Map)) throw new TemplateError("Can only get item pairs from a mapping.")
    return new Once(new DictView(input, "items"))
  },
  join(input, args, runtime) {
    const [between = "", path] = named("join", args, ["d", "attribute"])
    const get = isGiven(path) ? attribute(path) : (item: unknown) => item
    const joined = listed(input, runtime)
      .map((item) => str(get(item), runtime.spend))
      .join(str(between, runtime.spend))
    runtime.spend(joined.length)
    return joined
  },
  map(input, { positional, keyword }, runtime) {
    const [name, ...rest] = positional
    const byPath = name === undefined && keyword.has("attribute")
    if (name === undefined && !byPath) throw new TemplateError("map requires a filter argument")
    const change = byPath
      ? attribute(keyword.get("attribute"), keyword.get("default"))
      : (item: unknown) => runtime.callFilter(textOf(name), item, { positional: rest, keyword })
    return new Once(mapped())
    function* mapped() {
      if (truthy(input)) for (const item of iterateOrFail(input)) yield change(item)
    }
  },
  replace(input, args, { spend }) {
    const [from, to, most] = named("replace", args, ["old", "new", "count"])
    if (from === undefined || to === undefined) throw new TemplateError("replace() needs an old and a new text")
    const times = isGiven(most) ? intOf(most) : -1
    return replace(str(input, spend), str(from, spend), str(to, spend), times, spend)
  },
  reverse(input, _, runtime) {
    if (typeof input === "string") return characters(input).reverse().join("")
    if (input instanceof Once) throw new TemplateError("argument must be iterable")
    return new Once(listed(input, runtime).reverse())
  },
  round(input, args) {
    const [precision = 0n, how = "common"] = named("round", args, ["precision", "method"])
    const digits = intOf(precision)
    if (input instanceof Undefined) input.fail()
    if (typeof input !== "bigint" && typeof input !== "number")
      throw new TemplateError(`cannot round a ${typeName(input)}`)
    if (how !== "common" && how !== "ceil" && how !== "floor")
      throw new TemplateError("method must be common, ceil or floor")
    if (how !== "common" && typeof input === "bigint" && digits >= 0) return Number(input)
    if (how !== "common") return Math[how](Number(input) * 10 ** digits) / 10 ** digits
    if (typeof input === "number") return roundHalfEven(input, digits)
    if (digits < 0) throw new UnsupportedError("rounding to tens")
    return input
  },
  sort(input, args, runtime) {
    const [reverse, cased, path] = named("sort", args, ["reverse", "case_sensitive", "attribute"])
    const paths = typeof path === "string" ? path.split(",") : [path]
    const gets = isGiven(path) ? paths.map((one) => attribute(one)) : [(item: unknown) => item]
    const key = (item: unknown) => {
      const keys = gets.map((get) => (flag(cased) ? get(item) : lowerCase(get(item))))
      return isGiven(path) ? keys : keys[0]
    }
    return sorted(listed(input, runtime), key, flag(reverse))
  },
  sum(input, args, runtime) {
    const [path, start = 0n] = named("sum", args, ["attribute", "start"])
    const get = isGiven(path) ? attribute(path) : (item: unknown) => item
    if (typeof start === "string") throw new TemplateError("sum() can't sum strings [use ''.join(seq) instead]")
    return listed(input, runtime).reduce((total, item) => binary("+", total, get(item), runtime.spend), start)
  },
  tojson(input, args, { spend }) {
    const names = ["ensure_ascii", "indent", "separators", "sort_keys"]
    const [ascii, indent, separators, sortKeys] = named("tojson", args, names)
    const pair = separators instanceof Tuple ? separators.items : separators
    const isPair = Array.isArray(pair) && pair.length === 2
    if (isGiven(separators) && !isPair) throw new UnsupportedError("tojson with such separators")
    const [item, key] = isPair ? pair.map(textOf) : [isGiven(indent) ? "," : ", ", ": "]
    const space = !isGiven(indent) ? null : typeof indent === "string" ? indent : " ".repeat(Math.max(0, intOf(indent)))
    if (space && space.length > 100) throw new UnsupportedError("so wide an indent")
    const style = { ensureAscii: flag(ascii), indent: space, item: item!, key: key!, sortKeys: flag(sortKeys) }
    const json = dumps(input, style, spend)
    spend(json.length)
    return json
  },
  truncate(input, args, runtime) {
    const [size = 255n, cut, end = "...", slack] = named("truncate", args, ["length", "killwords", "end", "leeway"])
    if (typeof input !== "string") throw new TemplateError(`cannot truncate a ${typeName(input)}`)
    const [width, tail, leeway] = [intOf(size), textOf(end), isGiven(slack) ? intOf(slack) : 5]
    if (width < textLength(tail)) throw new TemplateError(`expected length >= ${textLength(tail)}, got ${width}`)
    const all = characters(input)
    runtime.spend(all.length)
    if (all.length <= width + leeway) return input
    const start = all.slice(0, width - textLength(tail)).join("")
    if (flag(cut)) return start + tail
    const blank = start.lastIndexOf(" ")
    return (blank < 0 ? start : start.slice(0, blank)) + tail
  },
  unique(input, args, runtime) {
    const [cased, path] = named("unique", args, ["case_sensitive", "attribute"])
    const get = isGiven(path) ? attribute(path) : (item: unknown) => item
    const seen: unknown[] = []
    const items = listed(input, runtime).filter((item) => {
      const key = flag(cased) ? get(item) : lowerCase(get(item))
      checkHashable(key)
      if (seen.some((one) => equal(one, key))) return false
      seen.push(key)
      return true
    })
    return new Once(items)
  },
  urlencode(input, _, { spend }) {
    if (typeof input !== "string") throw new UnsupportedError("urlencode of what is no text")
    spend(3 * input.length)
    if (/\p{Cs}/u.test(input)) throw new TemplateError("surrogates cannot be encoded")
    const escaped = encodeURIComponent(input).replaceAll("%2F", "/")
    return escaped.replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
  },
  wordcount: (input, _, runtime) => BigInt(soft(input, runtime).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0),
}

/** Filters of jinja2 that we lack; a name that is in neither list is an error of the template. */
export const lackedFilters = new Set(
  "filesizeformat forceescape groupby pprint random striptags urlize wordwrap xmlattr".split(" "),
)
