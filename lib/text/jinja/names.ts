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
  const macro = ({ parameters, body }: MacroBody) => {
    for (const { name } of parameters) onName("parameter", name)
    for (const { fallback } of parameters) reads(fallback)
    each(body)
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
      macro(node.macro)
      break
    case "callBlock":
      reads(node.call)
      macro(node.caller)
      break
    case "generation":
      macro(node.caller)
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

/** Shows the names that an expression reads. */
export function namesRead(node: Expr | null | undefined, onName: (name: string) => void): void {
  if (!node) return
  const all = (nodes: readonly (Expr | null)[]) => {
    for (const inner of nodes) namesRead(inner, onName)
  }
  const args = ({ positional, keyword, star, doubleStar }: Args) => {
    all(positional)
    for (const [, value] of keyword) namesRead(value, onName)
    all([star, doubleStar])
  }
  switch (node.kind) {
    case "const":
      return
    case "name":
      onName(node.name)
      break
    case "list":
    case "tuple":
      all(node.items)
      break
    case "dict":
      for (const pair of node.pairs) all(pair)
      break
    case "attr":
      namesRead(node.object, onName)
      break
    case "item":
      all([node.object, node.index])
      break
    case "slice":
    case "concat":
      all(node.parts)
      break
    case "call":
      namesRead(node.callee, onName)
      args(node.args)
      break
    case "filter":
    case "test":
      namesRead(node.input, onName)
      args(node.args)
      break
    case "not":
    case "neg":
    case "pos":
      namesRead(node.operand, onName)
      break
    case "and":
    case "or":
    case "binary":
      all([node.left, node.right])
      break
    case "compare":
      namesRead(node.first, onName)
      all(node.rest.map(({ operand }) => operand))
      break
    case "cond":
      all([node.test, node.value, node.otherwise])
      break
  }
}
