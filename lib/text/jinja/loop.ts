import { TemplateError } from "./errors"
import { Callable, equal, Loop, Undefined } from "./values"

/** The loop variable of a loop over `items`, of which `state.at` is the present one. */
export function loopOver(
  items: readonly unknown[],
  state: { at: number },
  depth: number,
  recurse: ((list: unknown) => unknown) | null,
): Loop {
  let seen: readonly unknown[] | null = null
  const { length } = items
  const int = (n: number) => BigInt(n)
  const fields: Record<string, () => unknown> = {
    index: () => int(state.at + 1),
    index0: () => int(state.at),
    revindex: () => int(length - state.at),
    revindex0: () => int(length - state.at - 1),
    first: () => state.at === 0,
    last: () => state.at === length - 1,
    length: () => int(length),
    depth: () => int(depth + 1),
    depth0: () => int(depth),
    previtem: () => (state.at ? items[state.at - 1] : new Undefined("there is no previous item")),
    nextitem: () => (state.at < length - 1 ? items[state.at + 1] : new Undefined("there is no next item")),
    cycle: () =>
      new Callable("cycle", ({ positional }) => {
        if (!positional.length) throw new TemplateError("no items for cycling given")
        return positional[state.at % positional.length]
      }),
    changed: () =>
      new Callable("changed", ({ positional }) => {
        const same = seen !== null && equal([...seen], positional)
        seen = positional
        return !same
      }),
  }
  const read = (name: string) =>
    Object.hasOwn(fields, name) ? fields[name]!() : new Undefined(`'LoopContext object' has no attribute '${name}'`)
  return new Loop(read, recurse)
}
