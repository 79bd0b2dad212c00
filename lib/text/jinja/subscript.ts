import { TemplateError, UnsupportedError } from "./errors"
import { chargeItems } from "./meter"
import { method } from "./methods"
import { Callable, characters, dictKey, Loop, Markup, Namespace, Range, Tuple, typeName, Undefined } from "./values"

/** jinja2's `object.name`. */
export function attributeOf(object: unknown, name: string): unknown {
  if (object instanceof Undefined) return object.fail()
  if (object instanceof Namespace && object.values.has(name)) return object.values.get(name)
  if (object instanceof Loop) return object.read(name)
  if (object instanceof Callable && Object.hasOwn(object.attributes, name)) {
    const attribute = object.attributes[name]
    return typeof attribute === "function" ? attribute() : attribute
  }
  const bound = method(object, name, chargeItems)
  if (bound) return bound
  if (object instanceof Map && object.has(name)) return object.get(name)
  return new Undefined(`'${typeName(object)} object' has no attribute '${name}'`)
}

/** jinja2's `object[key]`. */
export function itemOf(object: unknown, key: unknown): unknown {
  if (object instanceof Undefined) return object.fail()
  if (object instanceof Map) {
    const isKey = typeof key === "string" || typeof key === "bigint" || key === null || typeof key === "boolean"
    if (isKey && object.has(dictKey(key))) return object.get(dictKey(key))
  } else {
    if (object instanceof Markup) throw new UnsupportedError("characters of a safe text")
    const item = indexed(object, key)
    if (item !== undefined) return item
  }
  if (object instanceof Namespace && typeof key === "string") return attributeOf(object, key)
  if (typeof key === "string") {
    const bound = method(object, key, chargeItems)
    if (bound) return bound
  }
  return new Undefined(`'${typeName(object)} object' has no such element`)
}

/** The element of a text, list or tuple; undefined where there is none. */
function indexed(object: unknown, key: unknown): unknown {
  if (typeof key !== "bigint" && typeof key !== "boolean") return undefined
  const items = itemsOf(object)
  if (!items) return undefined
  const index = Number(key)
  const at = index < 0 ? index + items.length : index
  if (at < 0 || at >= items.length) return undefined
  return items instanceof Range ? items.at(at) : items[at]
}

function itemsOf(object: unknown): readonly unknown[] | Range | null {
  if (typeof object === "string") return characters(object)
  if (Array.isArray(object) || object instanceof Range) return object
  return object instanceof Tuple ? object.items : null
}

/** Python's `object[start:stop:step]`. @throws TemplateError for what cannot be sliced */
export function sliced(object: unknown, bounds: readonly unknown[]): unknown {
  if (object instanceof Undefined) object.fail()
  const items = itemsOf(object)
  if (!items) {
    if (object instanceof Markup) throw new UnsupportedError("a slice of a safe text")
    throw new TemplateError(`'${typeName(object)}' object cannot be sliced`)
  }
  const [start, stop, step] = bounds.map((bound) => {
    if (bound === null) return null
    if (typeof bound === "boolean") return Number(bound)
    if (typeof bound !== "bigint") throw new TemplateError(`slice indices must be integers, not ${typeName(bound)}`)
    return Number(bound)
  }) as [number | null, number | null, number | null]
  const stride = step ?? 1
  if (stride === 0) throw new TemplateError("slice step cannot be zero")
  const { length } = items
  const [low, high] = stride > 0 ? [0, length] : [-1, length - 1]
  const clip = (bound: number | null, fallback: number) => {
    if (bound === null) return fallback
    return Math.min(Math.max(bound < 0 ? bound + length : bound, low), high)
  }
  const from = clip(start, stride > 0 ? low : high)
  const to = clip(stop, stride > 0 ? high : low)
  if (items instanceof Range) {
    const at = (i: number) => items.start + items.step * BigInt(i)
    return new Range(at(from), at(to), items.step * BigInt(stride))
  }
  const part: unknown[] = []
  for (let i = from; stride > 0 ? i < to : i > to; i += stride) part.push(items[i])
  chargeItems(part.length)
  if (typeof object === "string") return part.join("")
  return object instanceof Tuple ? new Tuple(part) : part
}
