import { TemplateError } from "./errors"
import { chargeItems } from "./meter"
import type { Symbols } from "./symbols"
import { Undefined } from "./values"

/** What a Python function of jinja2's compiler holds in its variables, by level and name. */
export type Variables = Map<string, unknown>

/** A frame while it is rendered. Those that jinja2 makes one Python function of share their variables. */
export class Scope {
  constructor(
    private readonly symbols: Symbols,
    private readonly outer: Scope | null,
    private readonly variables: Variables,
    private readonly context: ReadonlyMap<string, unknown>,
  ) {}

  /** A frame within this one, in the same function or (a macro, a recursive loop) in one of its own. */
  inner(symbols: Symbols, variables = this.variables): Scope {
    return new Scope(symbols, this, variables, this.context)
  }
  /** Gives the names their first values. Parameters are the caller's. */
  enter(): this {
    chargeItems(this.symbols.loads.size)
    for (const [name, load] of this.symbols.loads) {
      if (load === "resolve") this.write(name, this.context.get(name))
      else if (load === "alias") this.write(name, this.outer!.read(name))
      else if (load === "nothing") this.write(name, undefined)
    }
    return this
  }
  leave(): void {
    for (const name of this.symbols.loads.keys()) this.write(name, undefined)
  }
  private write(name: string, value: unknown): void {
    this.variables.set(this.symbols.key(name), value)
  }
  private holder(name: string): Scope {
    for (let scope: Scope | null = this; scope; scope = scope.outer) if (scope.symbols.loads.has(name)) return scope
    throw new TemplateError(`'${name}' is read where jinja2 knows no variable of that name`)
  }
  /** undefined for what has no value */
  private read(name: string): unknown {
    const holder = this.holder(name)
    return holder.variables.get(holder.symbols.key(name))
  }
  has(name: string): boolean {
    return this.read(name) !== undefined
  }
  get(name: string): unknown {
    const value = this.read(name)
    return value === undefined ? new Undefined(`'${name}' is undefined`) : value
  }
  set(name: string, value: unknown): void {
    this.write(name, value)
  }
}
