import { TemplateError } from "./errors"
import type { Token } from "./lexer"
import type { Args, Expr } from "./nodes"

/** Deepest nesting of brackets and blocks: the parser and the renderer call themselves once a level. */
const maxDepth = 200

const comparisons = new Set(["==", "!=", ">", ">=", "<", "<="])

/** Tokens, and the expressions of jinja2 3.1, level by level; statements are in parser.ts. */
export class ExpressionParser {
  protected at = 0
  private depth = 0

  constructor(private readonly tokens: readonly Token[]) {}

  protected get token(): Token {
    return this.tokens[this.at]!
  }
  protected next(): Token {
    return this.tokens[this.at++]!
  }
  protected is(type: "operator" | "name", value: string, ahead = 0): boolean {
    const token = this.tokens[this.at + ahead]
    return token?.type === type && token.value === value
  }
  protected skip(type: "operator" | "name", value: string): boolean {
    if (!this.is(type, value)) return false
    this.at++
    return true
  }
  protected expect(value: string): void {
    if (!this.skip("operator", value)) throw this.unexpected(`'${value}'`)
  }
  protected expectName(): string {
    if (this.token.type !== "name") throw this.unexpected("a name")
    return this.next().value as string
  }
  protected unexpected(wanted?: string): TemplateError {
    const got = `${this.token.value}`.slice(0, 40)
    return new TemplateError(wanted ? `expected ${wanted}, got '${got}'` : `unexpected '${got}'`, this.token.line)
  }
  /** The error at the token before. */
  protected back(wanted: string): TemplateError {
    this.at--
    return this.unexpected(wanted)
  }
  protected deeper<T>(work: () => T): T {
    if (++this.depth > maxDepth) throw new TemplateError(`nested deeper than ${maxDepth}`, this.token.line)
    try {
      return work()
    } finally {
      this.depth--
    }
  }

  /** One expression, or a tuple of several without brackets. */
  protected tuple(withCondition = true, inBrackets = false): Expr {
    const items: Expr[] = []
    let isTuple = false
    for (;;) {
      if (items.length) this.expect(",")
      if (this.tupleEnds()) break
      items.push(withCondition ? this.expression() : this.or())
      if (!this.is("operator", ",")) break
      isTuple = true
    }
    if (isTuple || (inBrackets && !items.length)) return { kind: "tuple", items }
    if (!items.length) throw this.unexpected("an expression")
    return items[0]!
  }
  private tupleEnds(): boolean {
    return /^(variable_end|block_end|end)$/.test(this.token.type) || this.is("operator", ")")
  }

  protected expression(): Expr {
    return this.deeper(() => {
      let value = this.or()
      while (this.skip("name", "if")) {
        const test = this.or()
        const otherwise = this.skip("name", "else") ? this.expression() : null
        value = { kind: "cond", test, value, otherwise }
      }
      return value
    })
  }
  private or(): Expr {
    let left = this.and()
    while (this.skip("name", "or")) left = { kind: "or", left, right: this.and() }
    return left
  }
  private and(): Expr {
    let left = this.not()
    while (this.skip("name", "and")) left = { kind: "and", left, right: this.not() }
    return left
  }
  private not(): Expr {
    return this.skip("name", "not") ? { kind: "not", operand: this.deeper(() => this.not()) } : this.compare()
  }
  private compare(): Expr {
    const first = this.sum()
    const rest: { operator: string; operand: Expr }[] = []
    for (;;) {
      const { type, value } = this.token
      if (type === "operator" && comparisons.has(value)) {
        this.at++
        rest.push({ operator: value, operand: this.sum() })
      } else if (this.skip("name", "in")) rest.push({ operator: "in", operand: this.sum() })
      else if (this.is("name", "not") && this.is("name", "in", 1)) {
        this.at += 2
        rest.push({ operator: "not in", operand: this.sum() })
      } else return rest.length ? { kind: "compare", first, rest } : first
    }
  }
  private binary(operators: readonly string[], operand: () => Expr): Expr {
    let left = operand()
    for (;;) {
      const { type, value } = this.token
      if (type !== "operator" || !operators.includes(value)) return left
      this.at++
      left = { kind: "binary", operator: value, left, right: operand() }
    }
  }
  private sum(): Expr {
    return this.binary(["+", "-"], () => this.concat())
  }
  private concat(): Expr {
    const parts = [this.product()]
    while (this.skip("operator", "~")) parts.push(this.product())
    return parts.length > 1 ? { kind: "concat", parts } : parts[0]!
  }
  private product(): Expr {
    return this.binary(["*", "/", "//", "%"], () => this.binary(["**"], () => this.unary()))
  }
  private unary(withFilter = true): Expr {
    const sign = this.skip("operator", "-") ? "neg" : this.skip("operator", "+") ? "pos" : null
    const base: Expr = sign ? { kind: sign, operand: this.deeper(() => this.unary(false)) } : this.primary()
    const value = this.postfix(base)
    return withFilter ? this.filtersAndTests(value) : value
  }

  private primary(): Expr {
    const token = this.next()
    if (token.type === "name") {
      if (/^(true|True|false|False)$/.test(token.value)) return { kind: "const", value: /^t/i.test(token.value) }
      if (/^(none|None)$/.test(token.value)) return { kind: "const", value: null }
      return { kind: "name", name: token.value }
    }
    if (token.type === "string") {
      let { value } = token
      while (this.token.type === "string") value += this.next().value
      return { kind: "const", value }
    }
    if (token.type === "integer" || token.type === "float") return { kind: "const", value: token.value }
    if (token.type === "operator" && token.value === "(") {
      const value = this.deeper(() => this.tuple(true, true))
      this.expect(")")
      return value
    }
    if (token.type === "operator" && token.value === "[") return { kind: "list", items: this.items("]") }
    if (token.type === "operator" && token.value === "{") return this.dict()
    this.at--
    throw this.unexpected()
  }
  private items(end: string): Expr[] {
    const items: Expr[] = []
    while (!this.skip("operator", end)) {
      if (items.length) {
        this.expect(",")
        if (this.skip("operator", end)) break
      }
      items.push(this.expression())
    }
    return items
  }
  private dict(): Expr {
    const pairs: [Expr, Expr][] = []
    while (!this.skip("operator", "}")) {
      if (pairs.length) {
        this.expect(",")
        if (this.skip("operator", "}")) break
      }
      const key = this.expression()
      this.expect(":")
      pairs.push([key, this.expression()])
    }
    return { kind: "dict", pairs }
  }

  private postfix(base: Expr): Expr {
    let value = base
    for (;;) {
      if (this.skip("operator", ".")) {
        const token = this.next()
        if (token.type === "name") value = { kind: "attr", object: value, name: token.value }
        else if (token.type === "integer")
          value = { kind: "item", object: value, index: { kind: "const", value: token.value } }
        else throw this.back("name or number")
      } else if (this.skip("operator", "[")) value = { kind: "item", object: value, index: this.subscript() }
      else if (this.is("operator", "(")) value = { kind: "call", callee: value, args: this.args() }
      else return value
    }
  }
  private subscript(): Expr {
    const parts: Expr[] = []
    while (!this.skip("operator", "]")) {
      if (parts.length) this.expect(",")
      parts.push(this.subscripted())
    }
    if (!parts.length) throw new TemplateError("expected subscript expression", this.token.line)
    return parts.length === 1 ? parts[0]! : { kind: "tuple", items: parts }
  }
  private subscripted(): Expr {
    const ends = () => this.is("operator", "]") || this.is("operator", ",") || this.is("operator", ":")
    const first = this.is("operator", ":") ? null : this.expression()
    if (!this.skip("operator", ":")) return first!
    const second = ends() ? null : this.expression()
    const third = this.skip("operator", ":") && !ends() ? this.expression() : null
    return { kind: "slice", parts: [first, second, third] }
  }

  private args(): Args {
    const args: Args = { positional: [], keyword: [], star: null, doubleStar: null }
    this.expect("(")
    for (let first = true; !this.skip("operator", ")"); first = false) {
      if (!first) {
        this.expect(",")
        if (this.skip("operator", ")")) break
      }
      const invalid = new TemplateError("invalid syntax for function call expression", this.token.line)
      if (this.skip("operator", "*")) {
        if (args.star || args.doubleStar) throw invalid
        args.star = this.expression()
      } else if (this.skip("operator", "**")) {
        if (args.doubleStar) throw invalid
        args.doubleStar = this.expression()
      } else if (this.token.type === "name" && this.is("operator", "=", 1)) {
        if (args.doubleStar) throw invalid
        const key = this.expectName()
        this.at++
        args.keyword.push([key, this.expression()])
      } else {
        if (args.star || args.doubleStar || args.keyword.length) throw invalid
        args.positional.push(this.expression())
      }
    }
    return args
  }
  private maybeArgs(): Args {
    return this.is("operator", "(") ? this.args() : { positional: [], keyword: [], star: null, doubleStar: null }
  }

  private dotted(): string {
    let name = this.expectName()
    while (this.skip("operator", ".")) name += `.${this.expectName()}`
    return name
  }
  /** Filters one after another; with `inline` the first comes without a bar. */
  protected filters(input: Expr | null, inline = false): Expr {
    let value = input
    for (let first = inline; first || this.skip("operator", "|"); first = false)
      value = { kind: "filter", input: value, name: this.dotted(), args: this.maybeArgs() }
    return value!
  }
  private filtersAndTests(base: Expr): Expr {
    let value = base
    for (;;) {
      if (this.is("operator", "|")) value = this.filters(value)
      else if (this.skip("name", "is")) value = this.test(value)
      else if (this.is("operator", "(")) value = { kind: "call", callee: value, args: this.args() }
      else return value
    }
  }
  private test(input: Expr): Expr {
    const negated = this.skip("name", "not")
    const name = this.dotted()
    let args = this.maybeArgs0()
    if (!args) {
      args = { positional: [], keyword: [], star: null, doubleStar: null }
      if (this.startsArgument()) {
        if (this.is("name", "is")) throw new TemplateError("You cannot chain multiple tests with is", this.token.line)
        args.positional.push(this.postfix(this.primary()))
      }
    }
    const test: Expr = { kind: "test", input, name, args }
    return negated ? { kind: "not", operand: test } : test
  }
  private maybeArgs0(): Args | null {
    return this.is("operator", "(") ? this.args() : null
  }
  private startsArgument(): boolean {
    const { type, value } = this.token
    if (type === "name") return value !== "else" && value !== "or" && value !== "and"
    return /^(string|integer|float)$/.test(type) || (type === "operator" && (value === "[" || value === "{"))
  }
}
