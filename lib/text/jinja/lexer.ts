import { TemplateError, UnsupportedError } from "./errors"

/** A piece of a template. Values are as in jinja2: newlines normalised, escapes of texts resolved. */
export type Token =
  | { type: TextType; value: string; line: number }
  | { type: "integer"; value: bigint; line: number }
  | { type: "float"; value: number; line: number }
type TextType =
  | ("data" | "name" | "string" | "operator" | "end")
  | ("variable_begin" | "variable_end" | "block_begin" | "block_end")

/** What Python's `str.strip` and `\s` take for blanks; JavaScript's differs on U+FEFF, U+0085 and U+001C to U+001F. */
export const blanks = "\\t\\n\\v\\f\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
const blank = new RegExp(`[${blanks}]`)
const blankStart = new RegExp(`[${blanks}]*`, "y")
const onlyBlank = new RegExp(`^[${blanks}]+$`)

const opening = /\{%[-+]?|\{\{[-+]?|\{#[-+]?/g
const rawBegin = new RegExp(`\\{%([-+]?)[${blanks}]*raw[${blanks}]*(?:(-%\\})[${blanks}]*|%\\})`, "y")
const rawEnd = new RegExp(`\\{%([-+]?)[${blanks}]*endraw[${blanks}]*(?:\\+%\\}|-%\\}[${blanks}]*|%\\}\\n?)`, "g")
const commentEnd = new RegExp(`\\+#\\}|-#\\}[${blanks}]*|#\\}\\n?`, "g")
const blockEnd = new RegExp(`\\+%\\}|-%\\}[${blanks}]*|%\\}\\n?`, "y")
const variableEnd = new RegExp(`-\\}\\}[${blanks}]*|\\}\\}`, "y")

const number = /(?<!\.)(?:\d+_)*\d+(?:\.(?:\d+_)*\d+[eE][+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+|[eE][+-]?(?:\d+_)*\d+)/y
const integer = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y
const name = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}_]*/uy
const text = /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y
const operator = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y

/**
 * The tokens of a template, with `trim_blocks` and `lstrip_blocks` on and the last newline dropped, as Transformers
 * sets jinja2 up. @throws TemplateError with the line of what is not Jinja.
 */
export function tokenize(template: string): Token[] {
  return new Lexer(template.replace(/\r\n?/g, "\n").replace(/\n$/, "")).all()
}

const closing: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" }

class Lexer {
  private readonly tokens: Token[] = []
  private at = 0
  private line = 1
  private lineStarting = true

  constructor(private readonly source: string) {}

  all(): Token[] {
    while (this.at < this.source.length) {
      const tag = this.match(opening)
      if (!tag) {
        this.push("data", this.source.slice(this.at))
        break
      }
      this.data(tag.index, tag[0][2] ?? "", tag[0].startsWith("{{"))
      this.tag(tag[0])
    }
    this.push("end", "end of template")
    return this.tokens
  }

  private push(type: TextType, value: string): void {
    this.tokens.push({ type, value, line: this.line })
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at
    return pattern.exec(this.source)
  }

  private advance(to: number): void {
    for (let i = this.at; i < to; i++) if (this.source[i] === "\n") this.line++
    if (to > this.at) this.lineStarting = this.source[to - 1] === "\n"
    this.at = to
  }

  /** Text up to a tag, with the blanks gone that its sign or `lstrip_blocks` takes. */
  private data(end: number, sign: string, isVariable: boolean): void {
    const value = this.source.slice(this.at, end)
    let kept = value
    if (sign === "-") kept = withoutBlankEnd(value)
    else if (sign !== "+" && !isVariable) {
      const lineStart = value.lastIndexOf("\n") + 1
      const isLine = lineStart > 0 || this.lineStarting
      if (isLine && onlyBlank.test(value.slice(lineStart))) kept = value.slice(0, lineStart)
    }
    if (kept) this.push("data", kept)
    this.advance(end)
  }

  /** A tag that begins here, with what is in it. */
  private tag(mark: string): void {
    const raw = mark.startsWith("{%") ? this.match(rawBegin) : null
    if (raw) {
      this.advance(this.at + raw[0].length)
      const end = this.match(rawEnd)
      if (!end) throw new TemplateError("Missing end of raw directive", this.line)
      this.data(end.index, end[1]!, false)
      this.advance(end.index + end[0].length)
      return
    }
    this.advance(this.at + mark.length)
    if (mark.startsWith("{#")) {
      const end = this.match(commentEnd)
      if (!end) throw new TemplateError("Missing end of comment tag", this.line)
      this.advance(end.index + end[0].length)
      return
    }
    const kind = mark.startsWith("{{") ? "variable" : "block"
    this.push(`${kind}_begin`, mark)
    this.inside(kind)
  }

  /** The tokens of an expression or statement, its end included. */
  private inside(kind: "variable" | "block"): void {
    const open: string[] = []
    while (this.at < this.source.length) {
      const end = open.length ? null : this.match(kind === "variable" ? variableEnd : blockEnd)
      if (end) {
        this.push(`${kind}_end`, end[0])
        this.advance(this.at + end[0].length)
        return
      }
      const blank = this.match(blankStart)![0]
      if (blank) {
        this.advance(this.at + blank.length)
        continue
      }
      const token =
        this.match(number) ?? this.match(integer) ?? this.match(name) ?? this.match(text) ?? this.match(operator)
      if (!token) throw new TemplateError(`unexpected char ${JSON.stringify(this.source[this.at])}`, this.line)
      const [value] = token
      this.tokens.push(tokenOf(value, this.line))
      if (/^[([{]$/.test(value)) open.push(closing[value]!)
      if (/^[)\]}]$/.test(value) && open.pop() !== value) throw new TemplateError(`unexpected '${value}'`, this.line)
      this.advance(this.at + value.length)
    }
    throw new TemplateError("unexpected end of template", this.line)
  }
}

/** A pattern such as `\s+$` would try every run of blanks within the text, from each of its places. */
function withoutBlankEnd(value: string): string {
  let end = value.length
  while (end && blank.test(value[end - 1]!)) end--
  return value.slice(0, end)
}

/** Longest whole number in digits, as in Python, which reads and writes no longer ones. */
const maxDigits = 4300

function tokenOf(value: string, line: number): Token {
  if (/^['"]/.test(value)) return { type: "string", value: unescapeText(value.slice(1, -1), line), line }
  if (/^\d/.test(value)) {
    const digits = value.replaceAll("_", "")
    if (digits.length > maxDigits) throw new TemplateError(`a number of more than ${maxDigits} digits`, line)
    if (/^0[xXoObB]/.test(digits)) return { type: "integer", value: BigInt(digits.toLowerCase()), line }
    return /^\d+$/.test(digits)
      ? { type: "integer", value: BigInt(digits), line }
      : { type: "float", value: Number(digits), line }
  }
  return { type: /^[\p{L}\p{Nl}_]/u.test(value) ? "name" : "operator", value, line }
}

const simpleEscapes: Record<string, string> = {
  ...{ "\n": "", "\\": "\\", "'": "'", '"': '"', a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" },
}

/** Python's unicode-escape of a text whose non-ASCII characters were written as escapes before. */
function unescapeText(value: string, line: number): string {
  const ascii = value.replace(/[^\0-\x7f]/gu, (char) => {
    const hex = char.codePointAt(0)!.toString(16)
    return hex.length <= 2 ? `\\x${hex}` : hex.length <= 4 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`
  })
  const code = /\\(?:([0-7]{1,3})|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([\s\S]))/g
  return ascii.replace(code, (whole, octal, hex, short, long, char) => {
    if (octal) return String.fromCodePoint(Number.parseInt(octal, 8))
    const digits = hex ?? short ?? long
    if (digits) {
      const point = Number.parseInt(digits, 16)
      if (point > 0x10ffff) throw new TemplateError("illegal Unicode character", line)
      return String.fromCodePoint(point)
    }
    if (char === "N") throw new UnsupportedError("a character by its name, \\N{…}")
    if (/[xuU]/.test(char)) throw new TemplateError(`cannot decode the escape ${whole}`, line)
    return simpleEscapes[char] ?? whole
  })
}
