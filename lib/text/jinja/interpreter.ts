import { BudgetError, TemplateError, UnsupportedError } from "./errors"
import { filters, lackedFilters, type Runtime } from "./filters"
import { builtins } from "./globals"
import { LoopItems } from "./loop"
import { charge, chargeItems, metered } from "./meter"
import type { Args, Expr, MacroBody, Statement, Target } from "./nodes"
import { binary, holds, unary } from "./operators"
import { str } from "./print"
import { Scope, type Variables } from "./scope"
import { attributeOf, itemOf, sliced } from "./subscript"
import type { Frames, Symbols } from "./symbols"
import { tests } from "./tests"
import {
  type CallArgs,
  Callable,
  dictKey,
  iterateOrFail,
  Loop,
  lengthOf,
  Markup,
  Namespace,
  Tuple,
  truthy,
  typeName,
  Undefined,
} from "./values"

/** Calls of macros and recursive loops within each other. */
const maxCalls = 100

type For = Statement & { kind: "for" }
type Control = "break" | "continue" | null

/** Renders one template once. */
export class Interpreter implements Runtime {
  private calls = 0
  private out: string[] = []

  constructor(private readonly frames: Frames) {}

  /**
   * @throws TemplateError of the template, BudgetError beyond its budget of steps, UnsupportedError for what jinja2
   * alone can do.
   */
  render(body: readonly Statement[], variables: ReadonlyMap<string, unknown>): string {
    const context = new Map([...builtins(this), ...variables])
    const scope = new Scope(this.symbols(body), null, new Map(), context)
    return metered(() => this.captured(() => this.run(body, scope.enter())))
  }

  readonly spend = chargeItems

  private symbols(node: object): Symbols {
    return this.frames.get(node)!
  }

  private captured(work: () => void): string {
    const outer = this.out
    this.out = []
    try {
      work()
      const text = this.out.join("")
      this.spend(text.length)
      return text
    } finally {
      this.out = outer
    }
  }

  private write(text: string): void {
    this.spend(text.length)
    this.out.push(text)
  }

  private deeper<T>(work: () => T): T {
    if (++this.calls > maxCalls) throw new BudgetError(`macros and loops may call each other ${maxCalls} levels deep`)
    try {
      return work()
    } finally {
      this.calls--
    }
  }

  private run(body: readonly Statement[], scope: Scope): Control {
    for (const statement of body) {
      charge(1)
      const control = this.statement(statement, scope)
      if (control) return control
    }
    return null
  }

  private statement(node: Statement, scope: Scope): Control {
    switch (node.kind) {
      case "data":
        this.write(node.text)
        return null
      case "output":
        this.write(str(this.value(node.value, scope), this.spend))
        return null
      case "if": {
        for (const { test, body } of node.branches) if (truthy(this.value(test, scope))) return this.run(body, scope)
        return this.run(node.otherwise, scope)
      }
      case "for": {
        if (!node.recursive) return this.forLoop(node, this.value(node.list, scope), scope)
        this.write(this.recursiveLoop(node, this.value(node.list, scope), scope, 0))
        return null
      }
      case "set":
        this.checkNamespaces(node.target, scope)
        this.assign(node.target, this.value(node.value, scope), scope)
        return null
      case "setBlock":
        return this.block(node, scope, (value) => this.assign(node.target, value, scope))
      case "macro":
        scope.set(node.macro.name, this.macro(node.macro, scope))
        return null
      case "callBlock": {
        const { call } = node
        if (call.kind !== "call") throw new TemplateError("expected call")
        const caller = this.macro(node.caller, scope)
        const callee = this.value(call.callee, scope)
        const args = this.args(call.args, scope)
        args.keyword.set("caller", caller)
        this.write(str(this.call(callee, args), this.spend))
        return null
      }
      case "filterBlock":
        // Unlike `{{ }}`, jinja2 joins what the filter gives to the text as it is.
        return this.block(node, scope, (value) => {
          if (typeof value !== "string" && !(value instanceof Markup))
            throw new TemplateError(`a filter block must give a text, got ${typeName(value)}`)
          this.write(str(value, this.spend))
        })
      case "with": {
        const inner = scope.inner(this.symbols(node)).enter()
        for (const [target, value] of node.bindings) this.assign(target, this.value(value, scope), inner)
        const control = this.run(node.body, inner)
        inner.leave()
        return control
      }
      case "generation":
        this.write(str(this.call(this.macro(node.caller, scope), { positional: [], keyword: new Map() }), this.spend))
        return null
      default:
        return node.kind
    }
  }

  /** Gives `use` the text of a block, filtered; where a loop control ends the block, nothing is left of it. */
  private block(
    node: Statement & { kind: "setBlock" | "filterBlock" },
    scope: Scope,
    use: (value: unknown) => void,
  ): Control {
    const inner = scope.inner(this.symbols(node)).enter()
    let control: Control = null
    const text = this.captured(() => {
      control = this.run(node.body, inner)
    })
    if (control) return control
    use(node.filter ? this.filtered(node.filter, text, inner) : text)
    inner.leave()
    return null
  }

  /** The text of a recursive loop, which is a function of its own. */
  private recursiveLoop(node: For, list: unknown, scope: Scope, depth: number): string {
    return this.captured(() => this.forLoop(node, list, scope, new Map(), depth))
  }

  private forLoop(node: For, list: unknown, scope: Scope, variables?: Variables, depth = 0): Control {
    const recurse = node.recursive
      ? (inner: unknown) => this.deeper(() => this.recursiveLoop(node, inner, scope, depth + 1))
      : null
    const all = iterateOrFail(list)
    const items = new LoopItems(node.test ? this.passing(node, node.test, all, scope) : all)
    const loop = items.variable(depth, recurse)
    const symbols = this.symbols(node)
    const inner = scope.inner(symbols, variables)
    // As in jinja2, the other branch runs too where no round came to its end.
    let isComplete = false
    for (let next = items.next(); next; next = items.next()) {
      charge(1)
      this.assign(node.target, next.item, inner)
      if (symbols.loads.get("loop") === "parameter") inner.set("loop", loop)
      const control = this.run(node.body, inner.enter())
      if (control === "break") break
      isComplete ||= control === null
    }
    inner.leave()
    if (isComplete || !node.empty.length) return null
    const otherwise = scope.inner(this.symbols(node.empty), variables).enter()
    const control = this.run(node.empty, otherwise)
    otherwise.leave()
    return control
  }

  /** The items for which the test of a loop holds, tried when the loop comes to them. */
  private *passing(node: For, test: Expr, list: Iterable<unknown>, scope: Scope): Generator<unknown> {
    const inner = scope.inner(this.symbols(test), new Map()).enter()
    for (const item of this.charged(list)) {
      this.assign(node.target, item, inner)
      if (truthy(this.value(test, inner))) yield item
    }
  }

  private *charged(items: Iterable<unknown>): Generator<unknown> {
    for (const item of items) {
      charge(1)
      yield item
    }
  }

  private checkNamespaces(target: Target, scope: Scope): void {
    if (target.kind === "targets") for (const item of target.items) this.checkNamespaces(item, scope)
    else if (target.kind === "namespace" && !(scope.get(target.name) instanceof Namespace))
      throw new TemplateError("cannot assign attribute on non-namespace object")
  }

  private assign(target: Target, value: unknown, scope: Scope): void {
    if (target.kind === "name") {
      scope.set(target.name, value)
      return
    }
    if (target.kind === "namespace") {
      const namespace = scope.get(target.name)
      if (!(namespace instanceof Namespace)) throw new TemplateError("cannot assign attribute on non-namespace object")
      if (target.attribute.startsWith("_"))
        throw new TemplateError(`a namespace cannot hold '${target.attribute}', which begins with an underscore`)
      namespace.values.set(target.attribute, value)
      return
    }
    const items = [...this.charged(iterateOrFail(value))]
    if (items.length !== target.items.length)
      throw new TemplateError(`expected ${target.items.length} values to unpack, got ${items.length}`)
    target.items.forEach((inner, i) => {
      this.assign(inner, items[i], scope)
    })
  }

  private macro(macro: MacroBody, scope: Scope): Callable {
    const { name, parameters, body, takes } = macro
    const call = ({ positional, keyword }: CallArgs) =>
      this.deeper(() => {
        const inner = scope.inner(this.symbols(macro), new Map())
        const rest = new Map(keyword)
        parameters.forEach((parameter, i) => {
          const value = i < positional.length ? positional[i] : rest.get(parameter.name)
          if (i >= positional.length) rest.delete(parameter.name)
          inner.set(parameter.name, value)
        })
        if (takes.caller && !parameters.some((parameter) => parameter.name === "caller")) {
          inner.set("caller", rest.get("caller") ?? new Undefined("No caller defined"))
          rest.delete("caller")
        }
        if (takes.kwargs) inner.set("kwargs", rest)
        else if (rest.size)
          throw new TemplateError(`macro '${name}' takes no keyword argument '${[...rest.keys()][0]}'`)
        if (takes.varargs) inner.set("varargs", new Tuple(positional.slice(parameters.length)))
        else if (positional.length > parameters.length)
          throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`)
        inner.enter()
        for (const parameter of parameters) {
          if (inner.has(parameter.name)) continue
          const missing = new Undefined(`parameter '${parameter.name}' was not provided`)
          inner.set(parameter.name, parameter.fallback ? this.value(parameter.fallback, inner) : missing)
        }
        return this.captured(() => this.run(body, inner))
      })
    return new Callable(name, call, { name })
  }

  private args(args: Args, scope: Scope): CallArgs {
    const positional = args.positional.map((arg) => this.value(arg, scope))
    const keyword = new Map(args.keyword.map(([name, arg]) => [name, this.value(arg, scope)]))
    if (args.star) positional.push(...this.charged(iterateOrFail(this.value(args.star, scope))))
    if (args.doubleStar) {
      const more = this.value(args.doubleStar, scope)
      if (!(more instanceof Map)) throw new TemplateError("argument after ** must be a mapping")
      for (const [name, value] of more) {
        if (typeof name !== "string") throw new TemplateError("keywords must be strings")
        if (keyword.has(name)) throw new TemplateError(`got multiple values for keyword argument '${name}'`)
        keyword.set(name, value)
      }
    }
    return { positional, keyword }
  }

  private call(callee: unknown, args: CallArgs): unknown {
    if (callee instanceof Undefined) return callee.fail()
    if (callee instanceof Callable) return callee.call(args)
    if (callee instanceof Loop) {
      if (!callee.recurse)
        throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.")
      return callee.recurse(args.positional[0])
    }
    throw new TemplateError(`'${typeName(callee)}' object is not callable`)
  }

  /** A chain of filters whose first input is a text that was rendered. */
  private filtered(node: Expr, input: unknown, scope: Scope): unknown {
    if (node.kind !== "filter") throw new TemplateError("expected a filter")
    const inner = node.input ? this.filtered(node.input, input, scope) : input
    return this.callFilter(node.name, inner, this.args(node.args, scope))
  }

  callFilter(name: string, input: unknown, args: CallArgs): unknown {
    charge(1)
    if (!Object.hasOwn(filters, name)) {
      if (lackedFilters.has(name)) throw new UnsupportedError(`the filter '${name}'`)
      throw new TemplateError(`No filter named '${name}'`)
    }
    chargeItems(lengthOf(input) ?? 0)
    return filters[name]!(input, args, this)
  }

  callTest(name: string, input: unknown, args: readonly unknown[]): boolean {
    charge(1)
    if (name === "filter" || name === "test")
      return Object.hasOwn(name === "filter" ? filters : tests, str(input, this.spend))
    if (!Object.hasOwn(tests, name)) throw new TemplateError(`No test named '${name}'`)
    return tests[name]!(input, ...args)
  }

  private value(node: Expr, scope: Scope): unknown {
    charge(1)
    switch (node.kind) {
      case "const":
        return node.value
      case "name":
        return scope.get(node.name)
      case "list":
        return node.items.map((item) => this.value(item, scope))
      case "tuple":
        return new Tuple(node.items.map((item) => this.value(item, scope)))
      case "dict":
        return new Map(node.pairs.map(([key, value]) => [dictKey(this.value(key, scope)), this.value(value, scope)]))
      case "attr":
        return attributeOf(this.value(node.object, scope), node.name)
      case "item": {
        const object = this.value(node.object, scope)
        if (node.index.kind !== "slice") return itemOf(object, this.value(node.index, scope))
        const bounds = node.index.parts.map((part) => (part ? this.value(part, scope) : null))
        return sliced(object, bounds)
      }
      case "slice":
        throw new UnsupportedError("a slice among several subscripts")
      case "call":
        return this.call(this.value(node.callee, scope), this.args(node.args, scope))
      case "filter":
        return this.callFilter(node.name, this.value(node.input!, scope), this.args(node.args, scope))
      case "test":
        return this.callTest(node.name, this.value(node.input, scope), this.args(node.args, scope).positional)
      case "not":
        return !truthy(this.value(node.operand, scope))
      case "neg":
      case "pos":
        return unary(node.kind, this.value(node.operand, scope))
      case "and": {
        const left = this.value(node.left, scope)
        return truthy(left) ? this.value(node.right, scope) : left
      }
      case "or": {
        const left = this.value(node.left, scope)
        return truthy(left) ? left : this.value(node.right, scope)
      }
      case "binary":
        return binary(node.operator, this.value(node.left, scope), this.value(node.right, scope), this.spend)
      case "concat":
        return this.concatenated(node.parts.map((part) => this.value(part, scope)))
      case "compare":
        return this.compared(node.first, node.rest, scope)
      case "cond":
        if (truthy(this.value(node.test, scope))) return this.value(node.value, scope)
        return node.otherwise ? this.value(node.otherwise, scope) : new Undefined("an inline if without else was false")
    }
  }

  private concatenated(parts: readonly unknown[]): string {
    if (parts.some((part) => part instanceof Markup)) throw new UnsupportedError("'~' on a safe text")
    const text = parts.map((part) => str(part, this.spend)).join("")
    this.spend(text.length)
    return text
  }

  private compared(first: Expr, rest: readonly { operator: string; operand: Expr }[], scope: Scope): boolean {
    let left = this.value(first, scope)
    for (const { operator, operand } of rest) {
      const right = this.value(operand, scope)
      if (!holds(operator, left, right)) return false
      left = right
    }
    return true
  }
}
