/** The syntax tree of a template. */

export type Expr =
  | { kind: "const"; value: unknown }
  | { kind: "name"; name: string }
  | { kind: "list" | "tuple"; items: Expr[] }
  | { kind: "dict"; pairs: [Expr, Expr][] }
  | { kind: "attr"; object: Expr; name: string }
  | { kind: "item"; object: Expr; index: Expr }
  | { kind: "slice"; parts: [Expr | null, Expr | null, Expr | null] }
  | { kind: "call"; callee: Expr; args: Args }
  | { kind: "filter"; input: Expr | null; name: string; args: Args }
  | { kind: "test"; input: Expr; name: string; args: Args }
  | { kind: "not" | "neg" | "pos"; operand: Expr }
  | { kind: "and" | "or"; left: Expr; right: Expr }
  | { kind: "binary"; operator: string; left: Expr; right: Expr }
  | { kind: "concat"; parts: Expr[] }
  | { kind: "compare"; first: Expr; rest: { operator: string; operand: Expr }[] }
  | { kind: "cond"; test: Expr; value: Expr; otherwise: Expr | null }

export interface Args {
  positional: Expr[]
  keyword: [string, Expr][]
  /** `*args` and `**kwargs` of a call */
  star: Expr | null
  doubleStar: Expr | null
}

export type Target =
  | { kind: "name"; name: string }
  | { kind: "namespace"; name: string; attribute: string }
  | { kind: "targets"; items: Target[] }

export interface Signature {
  parameters: { name: string; fallback: Expr | null }[]
}

export interface MacroBody extends Signature {
  name: string
  body: Statement[]
  /** names that the body reads (found by `framesOf`), so that surplus arguments are refused where it does not */
  takes: { varargs: boolean; kwargs: boolean; caller: boolean }
}

export type Statement =
  | { kind: "data"; text: string }
  | { kind: "output"; value: Expr }
  | {
      kind: "for"
      target: Target
      list: Expr
      test: Expr | null
      recursive: boolean
      body: Statement[]
      empty: Statement[]
    }
  | { kind: "if"; branches: { test: Expr; body: Statement[] }[]; otherwise: Statement[] }
  | { kind: "set"; target: Target; value: Expr }
  | { kind: "setBlock"; target: Target; filter: Expr | null; body: Statement[] }
  | { kind: "macro"; macro: MacroBody }
  | { kind: "callBlock"; call: Expr; caller: MacroBody }
  | { kind: "filterBlock"; filter: Expr; body: Statement[] }
  | { kind: "with"; bindings: [Target, Expr][]; body: Statement[] }
  | { kind: "generation"; caller: MacroBody }
  | { kind: "break" | "continue" }
