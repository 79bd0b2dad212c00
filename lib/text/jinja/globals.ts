import { TemplateError, UnsupportedError } from "./errors"
import type { Runtime } from "./filters"
import { named, textOf } from "./methods"
import { str } from "./print"
import { strftimeNow } from "./strftime"
import { type CallArgs, Callable, dictKey, iterateOrFail, Namespace, Range, Tuple, typeName, Undefined } from "./values"

/** jinja2's sandbox allows no longer ones. */
const maxRange = 100_000

/** The functions that every template may call. */
export function builtins(runtime: Runtime): [string, unknown][] {
  const functions: Record<string, (args: CallArgs) => unknown> = {
    range,
    dict: (args) => dict(args, runtime),
    namespace(args) {
      const namespace = new Namespace()
      for (const [key, value] of dict(args, runtime)) {
        if (typeof key !== "string") throw new UnsupportedError("a namespace with names that are no text")
        if (key.startsWith("_"))
          throw new TemplateError(`a namespace cannot hold '${key}', which begins with an underscore`)
        namespace.values.set(key, value)
      }
      return namespace
    },
    raise_exception(args) {
      throw new TemplateError(str(named("raise_exception", args, ["message"])[0], runtime.spend))
    },
    strftime_now: (args) => strftimeNow(textOf(named("strftime_now", args, ["format"])[0])),
    cycler,
    joiner,
    // Blocks are not supported, so it is of no use, but it is defined.
    self() {
      throw new UnsupportedError("self")
    },
    lipsum() {
      throw new UnsupportedError("lipsum")
    },
  }
  return Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)])
}

function range({ positional, keyword }: CallArgs): Range {
  if (keyword.size || !positional.length || positional.length > 3)
    throw new TemplateError("range expected 1 to 3 arguments by position")
  const numbers = positional.map((value) => {
    if (typeof value === "boolean") return BigInt(value)
    if (value instanceof Undefined) value.fail()
    if (typeof value !== "bigint")
      throw new TemplateError(`'${typeName(value)}' object cannot be interpreted as an integer`)
    return value
  })
  const [start, stop, step] =
    numbers.length === 1 ? [0n, numbers[0]!, 1n] : [numbers[0]!, numbers[1]!, numbers[2] ?? 1n]
  if (step === 0n) throw new TemplateError("range() arg 3 must not be zero")
  const made = new Range(start!, stop!, step!)
  if (made.length > maxRange) throw new TemplateError(`range must give at most ${maxRange} numbers, got ${made.length}`)
  return made
}

function dict({ positional, keyword }: CallArgs, { spend }: Runtime): Map<unknown, unknown> {
  if (positional.length > 1) throw new TemplateError("dict expected at most 1 argument")
  const [source] = positional
  const made = new Map<unknown, unknown>()
  if (source instanceof Map) spend(source.size)
  if (source instanceof Map) for (const [key, value] of source) made.set(key, value)
  else if (source !== undefined)
    for (const pair of iterateOrFail(source)) {
      const [key, value, ...more] = iterateOrFail(pair)
      if (value === undefined || more.length) throw new TemplateError("dictionary update sequence needs pairs")
      made.set(dictKey(key), value)
    }
  for (const [key, value] of keyword) made.set(key, value)
  spend(made.size)
  return made
}

function cycler({ positional }: CallArgs): Callable {
  if (!positional.length) throw new TemplateError("at least one item has to be provided")
  let at = 0
  const next = () => {
    const item = positional[at]
    at = (at + 1) % positional.length
    return item
  }
  const reset = () => {
    at = 0
    return null
  }
  const attributes = {
    next: () => new Callable("next", next),
    reset: () => new Callable("reset", reset),
    current: () => positional[at],
    pos: () => BigInt(at),
    items: () => new Tuple(positional),
  }
  const refuse = () => {
    throw new TemplateError("'Cycler' object is not callable")
  }
  return new Callable("cycler", refuse, attributes)
}

function joiner(args: CallArgs): Callable {
  const [between = ", "] = named("joiner", args, ["sep"])
  let used = false
  return new Callable("joiner", () => {
    if (used) return between
    used = true
    return ""
  })
}
