import { TemplateError, UnsupportedError } from "./errors"
import { ExpressionParser } from "./expressions"
import { tokenize } from "./lexer"
import type { Expr, MacroBody, Statement, Target } from "./nodes"

/**
 * The statements of a template. @throws TemplateError with the line, UnsupportedError for tags of jinja2 that we lack.
 */
export function parse(template: string): Statement[] {
  return new Parser(tokenize(template)).template()
}

const unsupportedTags = new Set(["block", "extends", "include", "import", "from", "autoescape", "print"])

/** The statements of jinja2 3.1. */
class Parser extends ExpressionParser {
  private loops = 0

  template(): Statement[] {
    const body = this.statements([])
    if (this.token.type !== "end") throw this.unexpected()
    return body
  }

  /** Statements up to a tag among `ends`, whose name is the next token then. */
  private statements(ends: readonly string[]): Statement[] {
    return this.deeper(() => {
      const body: Statement[] = []
      for (;;) {
        const token = this.token
        if (token.type === "end") {
          if (ends.length)
            throw new TemplateError(`unexpected end of template; expected ${ends.join(" or ")}`, token.line)
          return body
        }
        this.at++
        if (token.type === "data") body.push({ kind: "data", text: token.value })
        else if (token.type === "variable_begin") {
          body.push({ kind: "output", value: this.tuple() })
          if (this.next().type !== "variable_end") throw this.back("end of print statement")
        } else if (token.type === "block_begin") {
          if (this.token.type === "name" && ends.includes(this.token.value)) return body
          body.push(this.statement())
          this.blockEnd()
        } else throw this.unexpected()
      }
    })
  }
  private blockEnd(): void {
    if (this.next().type !== "block_end") throw this.back("end of statement block")
  }
  /** The body of a tag up to its end tag, which is passed over; the closing bracket is the caller's. */
  private body(end: string): Statement[] {
    this.skip("operator", ":")
    this.blockEnd()
    const body = this.statements([end])
    this.at++
    return body
  }

  private statement(): Statement {
    const { line } = this.token
    const tag = this.expectName()
    if (tag === "for") return this.forLoop()
    if (tag === "if") return this.conditional()
    if (tag === "set") return this.set()
    if (tag === "macro") return { kind: "macro", macro: this.macro(this.expectName(), "endmacro") }
    if (tag === "call") return this.callBlock()
    if (tag === "filter") return { kind: "filterBlock", filter: this.filters(null, true), body: this.body("endfilter") }
    if (tag === "with") return this.withBlock()
    // In Transformers its body is a macro without arguments.
    if (tag === "generation") return { kind: "generation", caller: this.macro("caller", "endgeneration", []) }
    if (tag === "break" || tag === "continue") {
      if (!this.loops) throw new TemplateError(`'${tag}' outside a loop`, line)
      return { kind: tag }
    }
    if (unsupportedTags.has(tag)) throw new UnsupportedError(`the tag '${tag}'`)
    throw new TemplateError(`Encountered unknown tag '${tag}'`, line)
  }

  /** A body that loop controls cannot leave. */
  private apart<T>(work: () => T): T {
    const { loops } = this
    this.loops = 0
    const done = work()
    this.loops = loops
    return done
  }

  private forLoop(): Statement {
    const target = this.target(["in"])
    if (!this.skip("name", "in")) throw this.unexpected("'in'")
    const list = this.tuple(false)
    const test = this.skip("name", "if") ? this.expression() : null
    const recursive = this.skip("name", "recursive")
    this.skip("operator", ":")
    this.blockEnd()
    this.loops++
    const body = this.statements(["endfor", "else"])
    this.loops--
    let empty: Statement[] = []
    if (this.next().value === "else") {
      this.skip("operator", ":")
      this.blockEnd()
      const otherwise = () => this.statements(["endfor"])
      empty = recursive ? this.apart(otherwise) : otherwise()
      this.at++
    }
    return { kind: "for", target, list, test, recursive, body, empty }
  }

  private conditional(): Statement {
    const branches: { test: Expr; body: Statement[] }[] = []
    for (;;) {
      const test = this.tuple(false)
      this.skip("operator", ":")
      this.blockEnd()
      branches.push({ test, body: this.statements(["elif", "else", "endif"]) })
      const end = this.next().value
      if (end === "elif") continue
      if (end === "endif") return { kind: "if", branches, otherwise: [] }
      return { kind: "if", branches, otherwise: this.body("endif") }
    }
  }

  private set(): Statement {
    const target = this.target([], true)
    if (this.skip("operator", "=")) return { kind: "set", target, value: this.tuple() }
    const filter = this.is("operator", "|") ? this.filters(null) : null
    return { kind: "setBlock", target, filter, body: this.body("endset") }
  }

  private macro(name: string, end: string, parameters = this.parameters()): MacroBody {
    const body = this.apart(() => this.body(end))
    return { name, parameters, body, takes: { varargs: false, kwargs: false, caller: false } }
  }

  private parameters(): MacroBody["parameters"] {
    const parameters: MacroBody["parameters"] = []
    this.expect("(")
    while (!this.skip("operator", ")")) {
      if (parameters.length) this.expect(",")
      const name = this.expectName()
      const fallback = this.skip("operator", "=") ? this.expression() : null
      if (!fallback && parameters.at(-1)?.fallback)
        throw new TemplateError("non-default argument follows default argument", this.token.line)
      parameters.push({ name, fallback })
    }
    return parameters
  }

  private callBlock(): Statement {
    const parameters = this.is("operator", "(") ? this.parameters() : []
    const call = this.expression()
    if (call.kind !== "call") throw new TemplateError("expected call", this.token.line)
    return { kind: "callBlock", call, caller: this.macro("caller", "endcall", parameters) }
  }

  private withBlock(): Statement {
    const bindings: [Target, Expr][] = []
    while (this.token.type !== "block_end") {
      if (bindings.length) this.expect(",")
      const target = this.target([])
      this.expect("=")
      bindings.push([target, this.expression()])
    }
    return { kind: "with", bindings, body: this.body("endwith") }
  }

  private target(ends: readonly string[], withNamespace = false): Target {
    const items: Target[] = []
    let isTuple = false
    do {
      if (items.length) isTuple = true
      if (isTuple && (this.is("operator", "=") || ends.some((end) => this.is("name", end)))) break
      items.push(this.oneTarget(withNamespace))
    } while (this.skip("operator", ","))
    return isTuple ? { kind: "targets", items } : items[0]!
  }

  private oneTarget(withNamespace: boolean): Target {
    if (this.skip("operator", "(")) {
      const inner = this.target([], withNamespace)
      this.expect(")")
      return inner
    }
    const name = this.expectName()
    if (/^(true|false|none|True|False|None)$/.test(name))
      throw new TemplateError("can't assign to const", this.token.line)
    if (withNamespace && this.skip("operator", ".")) return { kind: "namespace", name, attribute: this.expectName() }
    return { kind: "name", name }
  }
}
