import { TemplateError } from "./errors"
import { Callable, equal, Loop, lengthOf, Undefined } from "./values"

/** The items of a loop one by one, with what `loop` knows of them. As in jinja2, no item is taken before its time. */
export class LoopItems {
  private readonly iterator: Iterator<unknown>
  private count: number | null
  private at = -1
  private before: unknown
  private current: unknown
  /** items that were looked at before their time, from `first` on */
  private readonly ahead: unknown[] = []
  private first = 0

  constructor(items: Iterable<unknown>) {
    this.iterator = items[Symbol.iterator]()
    this.count = lengthOf(items)
  }

  /** The next item, which may be any value; null behind the last one. */
  next(): { item: unknown } | null {
    if (!this.peek()) return null
    this.before = this.current
    this.current = this.ahead[this.first++]
    this.at++
    return { item: this.current }
  }

  private peek(): boolean {
    if (this.first < this.ahead.length) return true
    this.ahead.length = 0
    this.first = 0
    const { value, done } = this.iterator.next()
    if (done) return false
    this.ahead.push(value)
    return true
  }

  private length(): number {
    if (this.count !== null) return this.count
    for (let next = this.iterator.next(); !next.done; next = this.iterator.next()) this.ahead.push(next.value)
    this.count = this.at + 1 + this.ahead.length - this.first
    return this.count
  }

  /** The loop variable. */
  variable(depth: number, recurse: ((list: unknown) => unknown) | null): Loop {
    let seen: readonly unknown[] | null = null
    const int = (n: number) => BigInt(n)
    const fields: Record<string, () => unknown> = {
      index: () => int(this.at + 1),
      index0: () => int(this.at),
      revindex: () => int(this.length() - this.at),
      revindex0: () => int(this.length() - this.at - 1),
      first: () => this.at === 0,
      last: () => !this.peek(),
      length: () => int(this.length()),
      depth: () => int(depth + 1),
      depth0: () => int(depth),
      previtem: () => (this.at ? this.before : new Undefined("there is no previous item")),
      nextitem: () => (this.peek() ? this.ahead[this.first] : new Undefined("there is no next item")),
      cycle: () =>
        new Callable("cycle", ({ positional }) => {
          if (!positional.length) throw new TemplateError("no items for cycling given")
          return positional[this.at % positional.length]
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
}
