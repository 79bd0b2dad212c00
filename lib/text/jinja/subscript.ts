import { TemplateError } from "./errors"
import type { Spend } from "./print"
import { characters, Range, Tuple, typeName } from "./values"

/** Python's `object[key]` for what is no dict; undefined where there is no such element. */
export function indexed(object: unknown, key: unknown): unknown {
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

/** Python's `object[start:stop:step]`; undefined for what cannot be sliced. */
export function sliced(object: unknown, bounds: readonly unknown[], spend: Spend): unknown {
  const items = itemsOf(object)
  if (!items) return undefined
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
  spend(part.length)
  if (typeof object === "string") return part.join("")
  return object instanceof Tuple ? new Tuple(part) : part
}
