import { TemplateError } from "./errors"
import { namesRead, type OnName, targetNames, uses } from "./names"
import type { Expr, MacroBody, Statement, Target } from "./nodes"

/**
 * What a name of a frame holds when the frame is entered: what a call or loop puts there, the template's variable, the
 * name of the frame around it, or nothing.
 */
export type Load = "parameter" | "resolve" | "alias" | "nothing"

/**
 * The names of one frame (template, loop, macro, block), found before anything is rendered, as jinja2's compiler does
 * it (idtracking.py). So a variable that the root assigns after a loop has read it is undefined in the loop, even if
 * the template was given one of that name.
 */
export class Symbols {
  readonly level: number
  /** by name; every name that this frame knows itself */
  readonly loads = new Map<string, Load>()
  private readonly stores = new Set<string>()
  private readonly keys = new Map<string, string>()

  /** With `before`, the names of a branch of an `if` in a frame that holds those. */
  constructor(
    readonly parent: Symbols | null,
    private readonly before: Symbols | null = null,
  ) {
    this.level = parent ? parent.level + 1 : 0
  }
  /** The variable that holds a name of this frame. */
  key(name: string): string {
    const known = this.keys.get(name)
    if (known !== undefined) return known
    const key = `${this.level} ${name}`
    this.keys.set(name, key)
    return key
  }
  private hasOwn(name: string): boolean {
    return this.loads.has(name) || (this.before?.hasOwn(name) ?? false)
  }
  private hasStored(name: string): boolean {
    return this.stores.has(name) || (this.before?.hasStored(name) ?? false)
  }
  knows(name: string): boolean {
    return this.hasOwn(name) || (this.parent?.knows(name) ?? false)
  }
  load(name: string): void {
    if (!this.knows(name)) this.loads.set(name, "resolve")
  }
  store(name: string): void {
    this.stores.add(name)
    if (!this.hasOwn(name)) this.loads.set(name, this.parent?.knows(name) ? "alias" : "nothing")
  }
  declare(name: string): void {
    this.stores.add(name)
    this.loads.set(name, "parameter")
  }
  /** What a branch of an `if` stores may not be stored at all. */
  branches(works: readonly ((branch: Symbols) => void)[]): void {
    const all = works.map((work) => {
      const branch = new Symbols(this.parent, this)
      work(branch)
      return branch
    })
    const stored = new Set(all.flatMap((branch) => [...branch.stores]).filter((name) => !this.hasStored(name)))
    for (const branch of all) {
      for (const [name, load] of branch.loads) this.loads.set(name, load)
      for (const name of branch.stores) this.stores.add(name)
    }
    for (const name of stored) this.loads.set(name, this.parent?.knows(name) ? "alias" : "resolve")
  }
}

/** The frames of a template by the node that opens them; of a loop, its test and its other branch have their own. */
export type Frames = ReadonlyMap<object, Symbols>

/** @throws TemplateError for what jinja2's compiler refuses */
export function framesOf(body: readonly Statement[]): Frames {
  const frames = new Map<object, Symbols>()
  const root = new Symbols(null)
  frames.set(body, root)
  for (const node of body) visit(node, root)
  enter(body, root)
  return frames

  /** Opens the frames of statements within a frame whose own names are all known. */
  function enter(statements: readonly Statement[], outer: Symbols): void {
    const open = (key: object, parameters: readonly string[], inside: readonly Statement[], last?: Expr) => {
      const inner = new Symbols(outer)
      for (const name of parameters) inner.declare(name)
      for (const node of inside) visit(node, inner)
      if (last) loads(last, inner)
      frames.set(key, inner)
      enter(inside, inner)
    }
    for (const node of statements) {
      if (node.kind === "if") for (const { body } of [...node.branches, { body: node.otherwise }]) enter(body, outer)
      else if (node.kind === "for") {
        uses(node, (ctx, name) => {
          if (ctx === "store" && name === "loop")
            throw new TemplateError("Can't assign to special loop variable in for-loop target")
        })
        const names = targetNames(node.target)
        const extended = node.recursive || readsFirst(node.body, ["loop"]).has("loop")
        open(node, extended ? ["loop", ...names] : names, node.body)
        open(node.empty, [], node.empty)
        if (node.test) open(node.test, names, [], node.test)
      } else if (node.kind === "setBlock") {
        open(node, [], node.body)
        // jinja2's compiler does not look for names in the filter, and fails at those that nothing else has shown it.
        const inner = frames.get(node)!
        namesRead(node.filter, (name) => {
          if (!inner.knows(name))
            throw new TemplateError(`'${name}' is read where jinja2 knows no variable of that name`)
        })
      } else if (node.kind === "filterBlock") open(node, [], node.body, node.filter)
      else if (node.kind === "with")
        open(
          node,
          node.bindings.flatMap(([target]) => targetNames(target)),
          node.body,
        )
      else if (node.kind === "macro") openMacro(node.macro)
      else if (node.kind === "callBlock" || node.kind === "generation") openMacro(node.caller)
    }
    function openMacro(macro: MacroBody): void {
      const parameters = macro.parameters.map(({ name }) => name)
      const inner = new Symbols(outer)
      for (const name of parameters) inner.declare(name)
      for (const { fallback } of macro.parameters) loads(fallback, inner)
      for (const node of macro.body) visit(node, inner)
      const read = readsFirst(macro.body, ["caller", "kwargs", "varargs"])
      const place = parameters.indexOf("caller")
      if (read.has("caller") && place >= 0 && !macro.parameters[place]!.fallback)
        throw new TemplateError("the special 'caller' argument must be omitted or be given a default")
      const own = (name: string) => read.has(name) && !parameters.includes(name)
      macro.takes = { caller: read.has("caller"), varargs: own("varargs"), kwargs: own("kwargs") }
      for (const name of ["caller", "kwargs", "varargs"]) if (own(name)) inner.declare(name)
      frames.set(macro, inner)
      enter(macro.body, inner)
    }
  }
}

/** What a statement does to the names of the frame that it stands in. */
function visit(node: Statement, symbols: Symbols): void {
  switch (node.kind) {
    case "output":
      loads(node.value, symbols)
      break
    case "if": {
      const [first, ...others] = node.branches
      loads(first!.test, symbols)
      const each = (body: readonly Statement[], branch: Symbols) => {
        for (const inner of body) visit(inner, branch)
      }
      // Every `elif` is a condition of its own, and all of them together are one branch.
      const rest = (branch: Symbols) => {
        for (const { test, body } of others) visit({ kind: "if", branches: [{ test, body }], otherwise: [] }, branch)
      }
      symbols.branches([(b) => each(first!.body, b), rest, (b) => each(node.otherwise, b)])
      break
    }
    case "for":
      loads(node.list, symbols)
      break
    case "set":
      loads(node.value, symbols)
      visitTarget(node.target, symbols)
      break
    case "setBlock":
      visitTarget(node.target, symbols)
      break
    case "macro":
      symbols.store(node.macro.name)
      break
    case "callBlock":
      loads(node.call, symbols)
      break
    case "filterBlock":
      loads(node.filter, symbols)
      break
    case "with":
      for (const [, value] of node.bindings) loads(value, symbols)
      break
    default:
  }
}

function visitTarget(target: Target, symbols: Symbols): void {
  if (target.kind === "name") symbols.store(target.name)
  else if (target.kind === "namespace") symbols.load(target.name)
  else for (const item of target.items) visitTarget(item, symbols)
}

function loads(node: Expr | null, symbols: Symbols): void {
  namesRead(node, (name) => symbols.load(name))
}

/** Which of `names` the statements read before they store them, in the order of jinja2's tree. */
function readsFirst(body: readonly Statement[], names: readonly string[]): Set<string> {
  const open = new Set(names)
  const read = new Set<string>()
  const onName: OnName = (ctx, name) => {
    if (ctx === "load" && open.has(name)) read.add(name)
    else open.delete(name)
  }
  for (const node of body) uses(node, onName)
  return read
}
