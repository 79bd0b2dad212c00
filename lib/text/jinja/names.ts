import type { Args, Expr, MacroBody, Statement, Target } from "./nodes"

/** The names in a template's tree. */

export type OnName = (ctx: "load" | "store" | "parameter", name: string) => void

export const targetNames = (target: Target): string[] =>
  target.kind === "targets" ? target.items.flatMap(targetNames) : target.kind === "name" ? [target.name] : []

/** Shows all names of a statement and of what is in it, in the order of jinja2's tree. */
export function uses(node: Statement, onName: OnName): void {
  const reads = (expression: Expr | null) => namesRead(expression, (name) => onName("load", name))
  const stores = (target: Target) => {
    for (const name of targetNames(target)) onName("store", name)
  }
  const each = (body: readonly Statement[]) => {
    for (const inner of body) uses(inner, onName)
  }
  switch (node.kind) {
    case "output":
      reads(node.value)
      break
    case "if":
      for (const { test, body } of node.branches) {
        reads(test)
        each(body)
      }
      each(node.otherwise)
      break
    case "for":
      stores(node.target)
      reads(node.list)
      each(node.body)
      each(node.empty)
      reads(node.test)
      break
    case "set":
      stores(node.target)
      reads(node.value)
      break
    case "setBlock":
      stores(node.target)
      reads(node.filter)
      each(node.body)
      break
    case "macro":
      usesOfMacro(node.macro, onName)
      break
    case "callBlock":
      reads(node.call)
      usesOfMacro(node.caller, onName)
      break
    case "generation":
      usesOfMacro(node.caller, onName)
      break
    case "filterBlock":
      each(node.body)
      reads(node.filter)
      break
    case "with":
      for (const name of node.bindings.flatMap(([target]) => targetNames(target))) onName("parameter", name)
      for (const [, value] of node.bindings) reads(value)
      each(node.body)
      break
    default:
  }
}

function usesOfMacro({ parameters, body }: MacroBody, onName: OnName): void {
  for (const { name } of parameters) onName("parameter", name)
  for (const { fallback } of parameters) namesRead(fallback, (name) => onName("load", name))
  for (const node of body) uses(node, onName)
}

/** Shows the names that an expression reads. */
export function namesRead(node: Expr | null | undefined, onName: (name: string) => void): void {
  if (!node) return
  if (node.kind === "name") onName(node.name)
  for (const part of partsOf(node)) namesRead(part, onName)
}

/** The expressions that one is made of, in the order of jinja2's tree. */
function partsOf(node: Expr): readonly (Expr | null)[] {
  switch (node.kind) {
    case "const":
    case "name":
      return []
    case "list":
    case "tuple":
      return node.items
    case "dict":
      return node.pairs.flat()
    case "attr":
      return [node.object]
    case "item":
      return [node.object, node.index]
    case "slice":
    case "concat":
      return node.parts
    case "call":
      return [node.callee, ...argsOf(node.args)]
    case "filter":
    case "test":
      return [node.input, ...argsOf(node.args)]
    case "not":
    case "neg":
    case "pos":
      return [node.operand]
    case "and":
    case "or":
    case "binary":
      return [node.left, node.right]
    case "compare":
      return [node.first, ...node.rest.map(({ operand }) => operand)]
    case "cond":
      return [node.test, node.value, node.otherwise]
  }
}

const argsOf = ({ positional, keyword, star, doubleStar }: Args): (Expr | null)[] => [
  ...positional,
  ...keyword.map(([, value]) => value),
  star,
  doubleStar,
]
