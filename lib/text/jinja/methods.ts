import { TemplateError, UnsupportedError } from "./errors"
import { blanks } from "./lexer"
import { padded, type Spend } from "./print"
import {
  type CallArgs,
  Callable,
  characters,
  contains,
  DictView,
  dictKey,
  equal,
  iterateOrFail,
  lengthOf,
  Markup,
  Tuple,
  textLength,
  typeName,
  Undefined,
} from "./values"

/** Python's methods of texts, lists and dicts, as far as a template may call them. */

/** Arguments under their Python names; what is missing is undefined. @throws TemplateError for surplus ones. */
export function named(where: string, { positional, keyword }: CallArgs, names: readonly string[]): unknown[] {
  if (positional.length > names.length)
    throw new TemplateError(`${where}() takes at most ${names.length} arguments (${positional.length} given)`)
  const values = [...positional]
  for (const [name, value] of keyword) {
    const at = names.indexOf(name)
    if (at < 0) throw new TemplateError(`${where}() got an unexpected keyword argument '${name}'`)
    if (at in values) throw new TemplateError(`${where}() got multiple values for argument '${name}'`)
    values[at] = value
  }
  return values
}

export function intOf(value: unknown, fallback?: number): number {
  if (value === undefined && fallback !== undefined) return fallback
  if (typeof value === "boolean") return Number(value)
  if (typeof value !== "bigint")
    throw new TemplateError(`'${typeName(value)}' object cannot be interpreted as an integer`)
  return Number(value)
}

export function textOf(value: unknown): string {
  if (typeof value === "string") return value
  if (value instanceof Markup) return value.text
  throw new TemplateError(`must be str, not ${typeName(value)}`)
}

export const strip = (text: string, chars: unknown, side: "left" | "right" | "both"): string => {
  const isGone =
    chars === undefined || chars === null
      ? (char: string) => blank.test(char)
      : (
          (set) => (char: string) =>
            set.has(char)
        )(new Set(characters(textOf(chars))))
  const all = characters(text)
  let [from, to] = [0, all.length]
  if (side !== "right") while (from < to && isGone(all[from]!)) from++
  if (side !== "left") while (to > from && isGone(all[to - 1]!)) to--
  return all.slice(from, to).join("")
}
const blank = new RegExp(`^[${blanks}]$`)
/** Where Python's `splitlines` cuts. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they end lines in Python
export const lineEnds = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g

function split(text: string, separator: unknown, limit: number, fromRight: boolean): string[] {
  const most = limit < 0 ? Number.POSITIVE_INFINITY : limit
  if (separator !== undefined && separator !== null) {
    const between = separatorOf(separator)
    const parts = text.split(between)
    if (parts.length - 1 <= most) return parts
    const rest = parts.length - most
    return fromRight
      ? [parts.slice(0, rest).join(between), ...parts.slice(rest)]
      : [...parts.slice(0, most), parts.slice(most).join(between)]
  }
  const words = [...text.matchAll(new RegExp(`[^${blanks}]+`, "g"))]
  if (words.length <= most) return words.map(([word]) => word)
  if (!fromRight) {
    const rest = strip(text.slice(words[most]!.index), undefined, "left")
    return [...words.slice(0, most).map(([word]) => word), most ? rest : rest]
  }
  const last = words[words.length - most - 1]!
  const rest = strip(text.slice(0, last.index + last[0].length), undefined, "right")
  return [rest, ...words.slice(words.length - most).map(([word]) => word)]
}

function splitLines(text: string, keepEnds: boolean): string[] {
  const lines: string[] = []
  let from = 0
  for (const { index, 0: end } of text.matchAll(lineEnds)) {
    lines.push(text.slice(from, keepEnds ? index + end.length : index))
    from = index + end.length
  }
  if (from < text.length) lines.push(text.slice(from))
  return lines
}

/** The part of a text between two indices as Python takes them, and where it begins. */
function within(text: string, start: unknown, end: unknown): { part: string; from: number } | null {
  const all = characters(text)
  const clip = (value: unknown, fallback: number) => {
    if (value === undefined || value === null) return fallback
    const index = intOf(value)
    return index < 0 ? Math.max(0, index + all.length) : index
  }
  const from = clip(start, 0)
  const to = Math.min(clip(end, all.length), all.length)
  return from > all.length || to < from ? null : { part: all.slice(from, to).join(""), from }
}

function find(text: string, args: unknown[], last: boolean): number {
  const [wanted, start, end] = args
  const place = within(text, start, end)
  const needle = textOf(wanted)
  const at = !place ? -1 : last ? place.part.lastIndexOf(needle) : place.part.indexOf(needle)
  return at < 0 ? -1 : place!.from + textLength(place!.part.slice(0, at))
}

function affix(text: string, args: unknown[], test: "startsWith" | "endsWith"): boolean {
  const [wanted, start, end] = args
  const place = within(text, start, end)
  const all = wanted instanceof Tuple ? wanted.items : [wanted]
  return all.some((one) => {
    if (typeof one !== "string")
      throw new TemplateError(`${test.toLowerCase()} first arg must be str or a tuple of str, not ${typeName(wanted)}`)
    return place?.part[test](one) ?? false
  })
}

function count(text: string, wanted: string): number {
  return wanted ? text.split(wanted).length - 1 : textLength(text) + 1
}

export function replace(text: string, from: string, to: string, most: number, spend: Spend): string {
  const times = Math.min(count(text, from), most < 0 ? Number.POSITIVE_INFINITY : most)
  spend(text.length + times * to.length)
  if (!from) {
    const all = characters(text)
    return all.map((char, i) => (i < times ? to : "") + char).join("") + (times > all.length ? to : "")
  }
  const parts = text.split(from)
  return (
    parts.slice(0, times + 1).join(to) +
    parts
      .slice(times + 1)
      .map((part) => from + part)
      .join("")
  )
}

/** Cased letters where Python's title case is not the upper case of JavaScript. */
const titleForms: Record<string, string> = { Ǆ: "ǅ", ǆ: "ǅ", Ǉ: "ǈ", ǉ: "ǈ", Ǌ: "ǋ", ǌ: "ǋ", Ǳ: "ǲ", ǳ: "ǲ" }
const titled = (char: string): string => {
  const upper = titleForms[char] ?? char.toUpperCase()
  const [first = "", ...rest] = characters(upper)
  return first + rest.join("").toLowerCase()
}
/** A sigma at the end of a word has a form of its own, so the lower case of a character depends on its neighbours. */
function lowerForms(all: readonly string[]): (at: number) => string {
  let whole: string | undefined
  let [known, length] = [0, 0] // of the lower case of the characters before `known`; asked for in order
  return (at) => {
    if (all[at] !== "Σ") return all[at]!.toLowerCase()
    whole ??= all.join("").toLowerCase()
    for (; known < at; known++) length += all[known]!.toLowerCase().length
    return whole[length]!
  }
}
export function capitalize(text: string): string {
  const [first] = characters(text)
  return first === undefined ? "" : titled(first) + text.toLowerCase().slice(first.toLowerCase().length)
}
const cased = /\p{Uppercase}|\p{Lowercase}|\p{Lt}/u
function title(text: string): string {
  let inWord = false
  const all = characters(text)
  const lowerAt = lowerForms(all)
  return all
    .map((char, i) => {
      const done = cased.test(char) ? (inWord ? lowerAt(i) : titled(char)) : char
      inWord = cased.test(char)
      return done
    })
    .join("")
}

/** Digits that are no decimal ones: Python says of some that they are digits and of others that they are not. */
const oddNumbers = /\p{No}|\p{Nl}/u
const every = (text: string, pattern: RegExp, name: string): boolean => {
  if (oddNumbers.test(text)) throw new UnsupportedError(`${name} of ${JSON.stringify(text.slice(0, 20))}`)
  return pattern.test(text)
}

type Method<T> = (self: T, args: CallArgs, spend: Spend) => unknown
/** A method without arguments. */
const without =
  <T>(work: (self: T) => unknown): Method<T> =>
  (self, args) => {
    placed("this method", args, [])
    return work(self)
  }
/** As `named`, for functions of Python that take no argument by name. */
function placed(where: string, args: CallArgs, names: readonly string[]): unknown[] {
  if (args.keyword.size) throw new TemplateError(`${where}() takes no keyword arguments`)
  return named(where, args, names)
}

const textMethods: Record<string, Method<string>> = {
  upper: without((text) => text.toUpperCase()),
  lower: without((text) => text.toLowerCase()),
  title: without((text) => title(text)),
  capitalize: without((text) => capitalize(text)),
  swapcase: without((text) => {
    const all = characters(text)
    const lowerAt = lowerForms(all)
    return all.map((char, i) => (/\p{Uppercase}/u.test(char) ? lowerAt(i) : char.toUpperCase())).join("")
  }),
  strip: (text, args) => strip(text, placed("strip", args, ["chars"])[0], "both"),
  lstrip: (text, args) => strip(text, placed("lstrip", args, ["chars"])[0], "left"),
  rstrip: (text, args) => strip(text, placed("rstrip", args, ["chars"])[0], "right"),
  split(text, args) {
    const [separator, most] = named("split", args, ["sep", "maxsplit"])
    return split(text, separator, intOf(most, -1), false)
  },
  rsplit(text, args) {
    const [separator, most] = named("rsplit", args, ["sep", "maxsplit"])
    return split(text, separator, intOf(most, -1), true)
  },
  splitlines(text, args) {
    const [keep] = named("splitlines", args, ["keepends"])
    return splitLines(text, keep === undefined ? false : Boolean(intOf(keep)))
  },
  startswith: (text, args) => affix(text, placed("startswith", args, ["prefix", "start", "end"]), "startsWith"),
  endswith: (text, args) => affix(text, placed("endswith", args, ["suffix", "start", "end"]), "endsWith"),
  find: (text, args) => BigInt(find(text, placed("find", args, ["sub", "start", "end"]), false)),
  rfind: (text, args) => BigInt(find(text, placed("rfind", args, ["sub", "start", "end"]), true)),
  index: (text, args) => foundOrFail(find(text, placed("index", args, ["sub", "start", "end"]), false)),
  rindex: (text, args) => foundOrFail(find(text, placed("rindex", args, ["sub", "start", "end"]), true)),
  count(text, args) {
    const [wanted, start, end] = placed("count", args, ["sub", "start", "end"])
    const place = within(text, start, end)
    return BigInt(place ? count(place.part, textOf(wanted)) : 0)
  },
  replace(text, args, spend) {
    const [from, to, most] = placed("replace", args, ["old", "new", "count"])
    return replace(text, textOf(from), textOf(to), intOf(most, -1), spend)
  },
  join(text, args, spend) {
    const [list] = placed("join", args, ["iterable"])
    const parts = [...iterateOrFail(list)].map((part, i) => {
      if (typeof part !== "string")
        throw new TemplateError(`sequence item ${i}: expected str instance, ${typeName(part)} found`)
      return part
    })
    const joined = parts.join(text)
    spend(joined.length)
    return joined
  },
  removeprefix(text, args) {
    const prefix = textOf(placed("removeprefix", args, ["prefix"])[0])
    return text.startsWith(prefix) ? text.slice(prefix.length) : text
  },
  removesuffix(text, args) {
    const suffix = textOf(placed("removesuffix", args, ["suffix"])[0])
    return suffix && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text
  },
  partition(text, args) {
    const between = separatorOf(placed("partition", args, ["sep"])[0])
    const at = text.indexOf(between)
    return new Tuple(at < 0 ? [text, "", ""] : [text.slice(0, at), between, text.slice(at + between.length)])
  },
  rpartition(text, args) {
    const between = separatorOf(placed("rpartition", args, ["sep"])[0])
    const at = text.lastIndexOf(between)
    return new Tuple(at < 0 ? ["", "", text] : [text.slice(0, at), between, text.slice(at + between.length)])
  },
  zfill(text, args, spend) {
    const width = intOf(placed("zfill", args, ["width"])[0])
    spend(width)
    const sign = /^[+-]/.exec(text)?.[0] ?? ""
    return sign + padded(text.slice(sign.length), width - sign.length, "left", "0")
  },
  ljust: (text, args, spend) => justify(text, args, spend, "right"),
  rjust: (text, args, spend) => justify(text, args, spend, "left"),
  center: (text, args, spend) => justify(text, args, spend, "both"),
  isalpha: without((text) => /^\p{L}+$/u.test(text)),
  isdecimal: without((text) => /^\p{Nd}+$/u.test(text)),
  isdigit: without((text) => every(text, /^\p{Nd}+$/u, "isdigit")),
  isnumeric(text, args) {
    placed("this method", args, [])
    if (/\p{Lo}/u.test(text)) throw new UnsupportedError("isnumeric of letters that may be numbers")
    return /^\p{N}+$/u.test(text)
  },
  isalnum: without((text) => every(text, /^[\p{L}\p{Nd}]+$/u, "isalnum")),
  isspace: without((text) => new RegExp(`^[${blanks}]+$`).test(text)),
  isascii: without((text) => !/[\u0080-\uffff]/.test(text)),
  isupper: without((text) => /\p{Uppercase}/u.test(text) && !/\p{Lowercase}|\p{Lt}/u.test(text)),
  islower: without((text) => /\p{Lowercase}/u.test(text) && !/\p{Uppercase}|\p{Lt}/u.test(text)),
}

function separatorOf(value: unknown): string {
  const between = textOf(value)
  if (!between) throw new TemplateError("empty separator")
  return between
}

function foundOrFail(at: number): bigint {
  if (at < 0) throw new TemplateError("substring not found")
  return BigInt(at)
}

function justify(text: string, args: CallArgs, spend: Spend, side: "left" | "right" | "both"): string {
  const [width, fill] = placed("justify", args, ["width", "fillchar"])
  const char = fill === undefined ? " " : textOf(fill)
  if (textLength(char) !== 1) throw new TemplateError("The fill character must be exactly one character long")
  spend(intOf(width))
  return padded(text, intOf(width), side, char)
}

const listMethods: Record<string, Method<readonly unknown[]>> = {
  count(list, args) {
    const given = placed("count", args, ["value"])
    if (!given.length) throw new TemplateError("count() takes exactly one argument (0 given)")
    return BigInt(list.filter((item) => equal(item, given[0])).length)
  },
  index(list, args) {
    const [wanted, start, stop] = placed("index", args, ["value", "start", "stop"])
    if (start !== undefined || stop !== undefined) throw new UnsupportedError("index of a list with bounds")
    const at = list.findIndex((item) => equal(item, wanted))
    if (at < 0) throw new TemplateError("the value is not in list")
    return BigInt(at)
  },
}

const dictMethods: Record<string, Method<Map<unknown, unknown>>> = {
  keys: without((map) => new DictView(map, "keys")),
  values: without((map) => new DictView(map, "values")),
  items: without((map) => new DictView(map, "items")),
  copy: without((map) => new Map(map)),
  get(map, args) {
    const [key, fallback = null] = placed("get", args, ["key", "default"])
    return contains(map, key) ? map.get(key instanceof Markup ? key.text : dictKey(key)) : fallback
  },
}

/** Names of Python's methods that we lack or that change a value, which the sandbox refuses. */
const otherMethods: Record<string, string> = {
  str: "casefold encode expandtabs format format_map isidentifier isprintable istitle maketrans translate",
  list: "append clear copy extend insert pop remove reverse sort",
  dict: "clear fromkeys pop popitem setdefault update",
  int: "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag is_integer numerator real to_bytes",
  float: "as_integer_ratio conjugate fromhex hex imag is_integer real",
  tuple: "",
  Range: "count index start step stop",
}

/** The method of a value, undefined where Python has none of that name. */
export function method(value: unknown, name: string, spend: Spend): Callable | Undefined | undefined {
  const type = typeName(value) === "bool" ? "int" : value instanceof Tuple ? "tuple" : typeName(value)
  if (name.startsWith("__")) {
    return new Undefined(`access to attribute '${name}' is unsafe`)
  }
  const bind = <T>(methods: Record<string, Method<T>>, self: T) =>
    Object.hasOwn(methods, name)
      ? new Callable(name, (args) => {
          spend(lengthOf(value) ?? 0)
          return methods[name]!(self, args, spend)
        })
      : undefined
  const own =
    typeof value === "string"
      ? bind(textMethods, value)
      : Array.isArray(value)
        ? bind(listMethods, value)
        : value instanceof Tuple
          ? bind(listMethods, value.items)
          : value instanceof Map
            ? bind(dictMethods, value)
            : undefined
  if (own) return own
  if (value instanceof Markup) throw new UnsupportedError(`'${name}' of a safe text`)
  if (otherMethods[type]?.split(" ").includes(name)) throw new UnsupportedError(`'${name}' of a ${type}`)
  return undefined
}
