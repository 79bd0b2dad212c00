import { TemplateError, UnsupportedError } from "./errors"
import { type Spend, str } from "./print"
import { compareValues, contains, equal, Markup, Tuple, typeName, Undefined } from "./values"

/** Python's arithmetic. A whole number may grow, so its size is charged. */

type Numeric = bigint | number
const numeric = (value: unknown): Numeric | null =>
  typeof value === "boolean" ? BigInt(value) : typeof value === "bigint" || typeof value === "number" ? value : null

export function binary(operator: string, left: unknown, right: unknown, spend: Spend): unknown {
  if (left instanceof Undefined) left.fail()
  if (operator === "%" && typeof left === "string") return formatted(left, right, spend)
  if (right instanceof Undefined) right.fail()
  if (left instanceof Markup || right instanceof Markup) throw new UnsupportedError(`'${operator}' on a safe text`)
  const [a, b] = [numeric(left), numeric(right)]
  if (a !== null && b !== null) return arithmetic(operator, a, b, spend)
  if (operator === "+") {
    if (typeof left === "string" && typeof right === "string") {
      spend(left.length + right.length)
      return left + right
    }
    if (Array.isArray(left) && Array.isArray(right)) {
      spend(left.length + right.length)
      return [...left, ...right]
    }
    if (left instanceof Tuple && right instanceof Tuple) {
      spend(left.items.length + right.items.length)
      return new Tuple([...left.items, ...right.items])
    }
  }
  if (operator === "*") {
    if (typeof b === "bigint") return repeated(left, b, spend) ?? unfit(operator, left, right)
    if (typeof a === "bigint") return repeated(right, a, spend) ?? unfit(operator, left, right)
  }
  return unfit(operator, left, right)
}

function unfit(operator: string, left: unknown, right: unknown): never {
  const types = `'${typeName(left)}' and '${typeName(right)}'`
  throw new TemplateError(`unsupported operand type(s) for ${operator}: ${types}`)
}

function repeated(value: unknown, times: bigint, spend: Spend): unknown {
  const n = times < 0n ? 0 : Number(times)
  const many = (items: readonly unknown[]) => {
    spend(items.length * n)
    return Array.from({ length: items.length * n }, (_, i) => items[i % items.length])
  }
  if (typeof value === "string") {
    spend(value.length * n)
    return value.repeat(n)
  }
  if (Array.isArray(value)) return many(value)
  return value instanceof Tuple ? new Tuple(many(value.items)) : undefined
}

/** Python itself writes out no longer ones. */
const largest = 10n ** 4300n
function bounded(value: bigint): bigint {
  if (value >= largest || value <= -largest) throw new UnsupportedError("a whole number of more than 4300 digits")
  return value
}
const bitsOf = (value: bigint): number => value.toString(2).length

function arithmetic(operator: string, a: Numeric, b: Numeric, spend: Spend): Numeric {
  if (typeof a === "bigint" && typeof b === "bigint") {
    if (operator === "+") return bounded(a + b)
    if (operator === "-") return bounded(a - b)
    if (operator === "*") {
      spend((bitsOf(a) + bitsOf(b)) / 8)
      return bounded(a * b)
    }
    if (operator === "**" && b >= 0n) {
      if (bitsOf(a) * Number(b) > 30_000) throw new UnsupportedError("a whole number of more than 4300 digits")
      return bounded(a ** b)
    }
    if (b === 0n && operator !== "**") throw new TemplateError("division by zero")
    if (operator === "//" || operator === "%") {
      const rest = a % b
      const wrong = rest !== 0n && rest < 0n !== b < 0n
      return operator === "%" ? (wrong ? rest + b : rest) : a / b - (wrong ? 1n : 0n)
    }
  }
  const [x, y] = [Number(a), Number(b)]
  if (operator === "+") return x + y
  if (operator === "-") return x - y
  if (operator === "*") return x * y
  if (operator === "**") {
    if (x === 0 && y < 0) throw new TemplateError("zero to a negative power")
    if (x < 0 && !Number.isInteger(y)) throw new UnsupportedError("a complex number")
    return x ** y
  }
  if (y === 0) throw new TemplateError("division by zero")
  if (operator === "/") return x / y
  const rest = x % y
  const mod = rest === 0 ? (y < 0 ? -0 : 0) : rest < 0 !== y < 0 ? rest + y : rest
  return operator === "%" ? mod : Math.floor((x - mod) / y + 0.5)
}

export function unary(sign: "neg" | "pos", value: unknown): unknown {
  if (value instanceof Undefined) value.fail()
  const number = numeric(value)
  if (number === null) throw new TemplateError(`bad operand type for unary ${sign}: '${typeName(value)}'`)
  return sign === "neg" ? -number : number
}

/** Python's comparison of two values, membership included. */
export function holds(operator: string, left: unknown, right: unknown): boolean {
  if (operator === "==") return equal(left, right)
  if (operator === "!=") return !equal(left, right)
  if (operator === "in") return contains(right, left)
  if (operator === "not in") return !contains(right, left)
  const order = compareValues(left, right, operator)
  if (operator === "<") return order < 0
  if (operator === "<=") return order <= 0
  return operator === ">" ? order > 0 : order >= 0
}

/** `text % values`, for the common conversions. */
export function formatted(text: string, values: unknown, spend: Spend): string {
  const list = values instanceof Tuple ? values.items : null
  let at = 0
  const next = (): unknown => {
    const value = list ? list[at] : values
    if (at >= (list ? list.length : 1)) throw new TemplateError("not enough arguments for format string")
    at++
    return value
  }
  const done = text.replace(/%(\(|[-+ #0]*)(\*|\d+)?(?:\.(\d+))?(.)?/gs, (whole, flags, width, digits, type) => {
    if (whole === "%%") return "%"
    if (flags || width || !/^[sdif]$/.test(type ?? "") || (digits && type !== "f"))
      throw new UnsupportedError(`the format ${whole}`)
    const value = next()
    if (type === "s") return str(value, spend)
    const number = numeric(value)
    if (number === null) throw new TemplateError(`%${type} format: a number is required, not ${typeName(value)}`)
    if (type === "f") {
      if (Math.abs(Number(number)) >= 1e21) throw new UnsupportedError("%f of so large a number")
      if (Number(digits) > 100) throw new UnsupportedError(`the format ${whole}`)
      return Number(number).toFixed(Number(digits ?? 6))
    }
    return typeof number === "bigint" ? number.toString() : BigInt(Math.trunc(number)).toString()
  })
  if (list ? at < list.length : !at && !(values instanceof Map) && !Array.isArray(values))
    throw new TemplateError("not all arguments converted during string formatting")
  spend(done.length)
  return done
}
