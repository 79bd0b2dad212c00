import { TemplateError, UnsupportedError } from "./errors"
import { charge, chargeItems } from "./meter"

/**
 * Python's values, as templates see them: text is a string, int a bigint, float a number, bool a boolean, None null, a
 * list an array and a dict a Map. What else there is has a class here.
 */

export class Tuple {
  constructor(readonly items: readonly unknown[]) {}
}

/** `name` says what was not there, for the error of whoever uses it. */
export class Undefined {
  constructor(readonly name: string) {}
  fail(): never {
    throw new TemplateError(this.name)
  }
}

export class Range {
  readonly length: number
  constructor(
    readonly start: bigint,
    readonly stop: bigint,
    readonly step: bigint,
  ) {
    const span = step > 0n ? stop - start : start - stop
    const stride = step > 0n ? step : -step
    this.length = span <= 0n ? 0 : Number((span + stride - 1n) / stride)
  }
  at(index: number): bigint {
    return this.start + this.step * BigInt(index)
  }
  *[Symbol.iterator](): Generator<unknown> {
    for (let i = 0; i < this.length; i++) yield this.at(i)
  }
}

/** What can be gone through once: the results of `map`, `select`, `batch` and their like. */
export class Once {
  private readonly source: Iterator<unknown>
  constructor(source: Iterable<unknown>) {
    this.source = source[Symbol.iterator]()
  }
  /** Whoever stops half-way leaves the rest to the next one. */
  [Symbol.iterator](): Iterator<unknown> {
    return { next: () => this.source.next() }
  }
}

/** `keys()`, `values()` and `items()` of a dict. */
export class DictView {
  constructor(
    readonly map: Map<unknown, unknown>,
    readonly kind: "keys" | "values" | "items",
  ) {}
  get length(): number {
    return this.map.size
  }
  *[Symbol.iterator](): Generator<unknown> {
    if (this.kind === "keys") yield* this.map.keys()
    else if (this.kind === "values") yield* this.map.values()
    else for (const pair of this.map) yield new Tuple(pair)
  }
}

export class Namespace {
  readonly values = new Map<string, unknown>()
}

/** Text marked as safe for HTML. Nothing is escaped here, but what it is joined with would be. */
export class Markup {
  constructor(readonly text: string) {}
}

/** Arguments of a call: by place and by name. */
export interface CallArgs {
  positional: unknown[]
  keyword: Map<string, unknown>
}

/** Anything that a template may call; `attributes` are those that it may read. */
export class Callable {
  constructor(
    readonly name: string,
    readonly call: (args: CallArgs) => unknown,
    readonly attributes: Readonly<Record<string, unknown>> = {},
  ) {}
}

/** The loop variable. */
export class Loop {
  constructor(
    readonly read: (name: string) => unknown,
    readonly recurse: ((list: unknown) => unknown) | null,
  ) {}
}

export function typeName(value: unknown): string {
  if (value === null) return "NoneType"
  if (typeof value === "string") return "str"
  if (typeof value === "bigint") return "int"
  if (typeof value === "number") return "float"
  if (typeof value === "boolean") return "bool"
  if (Array.isArray(value)) return "list"
  if (value instanceof Map) return "dict"
  if (value instanceof DictView) return `dict_${value.kind}`
  if (value instanceof Callable) return "function"
  return (value as object).constructor.name
}

/** A JSON value as Python's json module reads it. */
export function fromJson(value: unknown): unknown {
  if (value === undefined) return new Undefined("a value is undefined")
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : value
  if (Array.isArray(value)) return value.map(fromJson)
  if (typeof value === "object" && value !== null && !(value instanceof Callable))
    return new Map(Object.entries(value).map(([key, inner]) => [key, fromJson(inner)]))
  return value
}

const isNumber = (value: unknown): value is bigint | number | boolean => /^(bigint|number|boolean)$/.test(typeof value)

/** Characters as Python counts them. */
const hasPairs = /[\ud800-\udbff][\udc00-\udfff]/
export function characters(text: string): string[] {
  chargeItems(text.length)
  return hasPairs.test(text) ? [...text] : text.split("")
}
export function textLength(text: string): number {
  chargeItems(text.length)
  return hasPairs.test(text) ? [...text].length : text.length
}

export function truthy(value: unknown): boolean {
  if (value === null || value instanceof Undefined) return false
  if (typeof value === "boolean") return value
  if (typeof value === "string") return value !== ""
  if (typeof value === "bigint") return value !== 0n
  if (typeof value === "number") return value !== 0
  const length = lengthOf(value)
  return length === null || length > 0
}

/** `len`, or null where Python has none. */
export function lengthOf(value: unknown): number | null {
  if (typeof value === "string") return textLength(value)
  if (value instanceof Markup) return textLength(value.text)
  if (Array.isArray(value)) return value.length
  if (value instanceof Map) return value.size
  if (value instanceof Tuple) return value.items.length
  if (value instanceof Range || value instanceof DictView) return value.length
  return value instanceof Undefined ? 0 : null
}

/** What `for` goes through; null where Python cannot iterate. */
export function iterate(value: unknown): Iterable<unknown> | null {
  if (typeof value === "string") return characters(value)
  if (value instanceof Markup) throw new UnsupportedError("going through the characters of a safe text")
  if (Array.isArray(value) || value instanceof Range || value instanceof Once || value instanceof DictView) return value
  if (value instanceof Map) return value.keys()
  if (value instanceof Tuple) return value.items
  return value instanceof Undefined ? [] : null
}

export function iterateOrFail(value: unknown): Iterable<unknown> {
  const items = iterate(value)
  if (!items) throw new TemplateError(`'${typeName(value)}' object is not iterable`)
  return items
}

/** A key as a dict holds it. Python takes 1, 1.0 and true for one key, so only texts, ints and None are allowed. */
export function dictKey(value: unknown): unknown {
  if (typeof value === "string" || typeof value === "bigint" || value === null) return value
  checkHashable(value)
  throw new UnsupportedError(`a dict key of type ${typeName(value)}`)
}

/** @throws TemplateError for what Python takes for no key of a dict and no member of a set */
export function checkHashable(value: unknown): void {
  if (Array.isArray(value) || value instanceof Map) throw new TemplateError(`unhashable type: '${typeName(value)}'`)
  if (value instanceof Tuple) value.items.forEach(checkHashable)
}

export function equal(a: unknown, b: unknown): boolean {
  charge(1)
  if (typeof a === "string") chargeItems(a.length / 8)
  if (isNumber(a) && isNumber(b))
    return Number(a) === Number(b) && (typeof a !== "bigint" || typeof b !== "bigint" || a === b)
  if (a instanceof Markup || b instanceof Markup) return plain(a) === plain(b)
  if (a instanceof Undefined) return b instanceof Undefined
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]))
  if (a instanceof Tuple)
    return (
      b instanceof Tuple && a.items.length === b.items.length && a.items.every((item, i) => equal(item, b.items[i]))
    )
  if (a instanceof Map)
    return b instanceof Map && a.size === b.size && [...a].every(([key, item]) => b.has(key) && equal(item, b.get(key)))
  if (a instanceof Range && b instanceof Range) return equal([...a], [...b])
  if (a instanceof DictView && b instanceof DictView) throw new UnsupportedError("comparing views of dicts")
  return a === b
}
const plain = (value: unknown) => (value instanceof Markup ? value.text : value)

/** Negative, 0 or positive, as Python orders; @throws TemplateError for types without an order. */
export function compareValues(a: unknown, b: unknown, operator: string): number {
  charge(1)
  if (isNumber(a) && isNumber(b)) {
    if (typeof a === "bigint" && typeof b === "bigint") return a < b ? -1 : a > b ? 1 : 0
    const [x, y] = [Number(a), Number(b)]
    return x < y ? -1 : x > y ? 1 : x === y ? 0 : Number.NaN
  }
  if (typeof a === "string" && typeof b === "string") return compareTexts(a, b)
  const [left, right] = [listOf(a), listOf(b)]
  if (left && right && Array.isArray(a) === Array.isArray(b)) {
    for (let i = 0; i < Math.min(left.length, right.length); i++)
      if (!equal(left[i], right[i])) return compareValues(left[i], right[i], operator)
    return left.length - right.length
  }
  if (a instanceof Undefined) a.fail()
  if (b instanceof Undefined) b.fail()
  if (a instanceof Markup || b instanceof Markup) throw new UnsupportedError("ordering safe texts")
  const types = `'${typeName(a)}' and '${typeName(b)}'`
  throw new TemplateError(`'${operator}' not supported between instances of ${types}`)
}
const listOf = (value: unknown) => (Array.isArray(value) ? value : value instanceof Tuple ? value.items : null)

/** By code points; JavaScript orders by halves of them. */
export function compareTexts(a: string, b: string): number {
  chargeItems(a.length + b.length)
  if (!hasPairs.test(a) && !hasPairs.test(b)) return a < b ? -1 : a > b ? 1 : 0
  const [left, right] = [characters(a), characters(b)]
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = left[i]!.codePointAt(0)! - right[i]!.codePointAt(0)!
    if (difference) return difference
  }
  return left.length - right.length
}

export function contains(container: unknown, item: unknown): boolean {
  if (typeof container === "string") {
    chargeItems(container.length)
    if (item instanceof Markup) return container.includes(item.text)
    if (typeof item !== "string")
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`)
    return container.includes(item)
  }
  if (container instanceof Map) {
    if (item instanceof Undefined) return false
    return container.has(item instanceof Markup ? item.text : dictKey(item))
  }
  const items = iterate(container)
  if (!items) throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`)
  for (const one of items) if (equal(one, item)) return true
  return false
}
