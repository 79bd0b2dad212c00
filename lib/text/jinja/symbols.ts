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
  const finder = new FrameFinder()
  finder.open(body, null, [], body)
  return finder.frames
}

/** Finds the frames from the outside in: those within a frame are opened when all of its own names are known. */
class FrameFinder {
  readonly frames = new Map<object, Symbols>()

  /** The frame that `key` opens: with parameters, with the names of statements, and of an expression behind them. */
  open(
    key: object,
    outer: Symbols | null,
    parameters: readonly string[],
    body: readonly Statement[],
    last: Expr | null = null,
  ): void {
    const frame = new Symbols(outer)
    for (const name of parameters) frame.declare(name)
    for (const node of body) visit(node, frame)
    loads(last, frame)
    this.enter(key, frame, body)
  }

  private enter(key: object, frame: Symbols, body: readonly Statement[]): void {
    this.frames.set(key, frame)
    for (const node of body) this.openWithin(node, frame)
  }

  private openWithin(node: Statement, outer: Symbols): void {
    switch (node.kind) {
      case "if":
        for (const { body } of [...node.branches, { body: node.otherwise }])
          for (const inner of body) this.openWithin(inner, outer)
        break
      case "for":
        this.openLoop(node, outer)
        break
      case "setBlock":
        this.open(node, outer, [], node.body)
        this.checkFilter(node)
        break
      case "filterBlock":
        this.open(node, outer, [], node.body, node.filter)
        break
      case "with": {
        const names = node.bindings.flatMap(([target]) => targetNames(target))
        this.open(node, outer, names, node.body)
        break
      }
      case "macro":
        this.openMacro(node.macro, outer)
        break
      case "callBlock":
      case "generation":
        this.openMacro(node.caller, outer)
        break
      default:
    }
  }

  private openLoop(node: Statement & { kind: "for" }, outer: Symbols): void {
    uses(node, (ctx, name) => {
      if (ctx === "store" && name === "loop")
        throw new TemplateError("Can't assign to special loop variable in for-loop target")
    })
    const names = targetNames(node.target)
    const extended = node.recursive || readsFirst(node.body, ["loop"]).has("loop")
    this.open(node, outer, extended ? ["loop", ...names] : names, node.body)
    this.open(node.empty, outer, [], node.empty)
    if (node.test) this.open(node.test, outer, names, [], node.test)
  }

  /** jinja2's compiler does not look for names in the filter, and fails at those that nothing else has shown it. */
  private checkFilter(node: Statement & { kind: "setBlock" }): void {
    const frame = this.frames.get(node)!
    namesRead(node.filter, (name) => {
      if (!frame.knows(name)) throw new TemplateError(`'${name}' is read where jinja2 knows no variable of that name`)
    })
  }

  private openMacro(macro: MacroBody, outer: Symbols): void {
    const parameters = macro.parameters.map(({ name }) => name)
    const frame = new Symbols(outer)
    for (const name of parameters) frame.declare(name)
    for (const { fallback } of macro.parameters) loads(fallback, frame)
    for (const node of macro.body) visit(node, frame)
    const read = readsFirst(macro.body, ["caller", "kwargs", "varargs"])
    const place = parameters.indexOf("caller")
    if (read.has("caller") && place >= 0 && !macro.parameters[place]!.fallback)
      throw new TemplateError("the special 'caller' argument must be omitted or be given a default")
    const own = (name: string) => read.has(name) && !parameters.includes(name)
    macro.takes = { caller: read.has("caller"), varargs: own("varargs"), kwargs: own("kwargs") }
    for (const name of ["caller", "kwargs", "varargs"]) if (own(name)) frame.declare(name)
    this.enter(macro, frame, macro.body)
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
