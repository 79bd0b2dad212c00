import { TemplateError, UnsupportedError } from "./errors"
import {
  Callable,
  compareValues,
  contains,
  DictView,
  equal,
  iterate,
  Loop,
  lengthOf,
  Markup,
  Range,
  Tuple,
  Undefined,
} from "./values"

/** The tests of jinja2: `x is name(arguments)`. */
export type Test = (value: unknown, ...args: unknown[]) => boolean

const isNumber = (value: unknown) => /^(bigint|number|boolean)$/.test(typeof value)
const fails = (value: unknown) => {
  if (value instanceof Undefined) value.fail()
}
const ordered =
  (operator: string, test: (order: number) => boolean): Test =>
  (a, b) => {
    fails(a)
    return test(compareValues(a, b, operator))
  }
const same: Test = (a, b) => equal(a, b)
const differs: Test = (a, b) => !equal(a, b)
const above = ordered(">", (order) => order > 0)
const below = ordered("<", (order) => order < 0)
const atLeast = ordered(">=", (order) => order >= 0)
const atMost = ordered("<=", (order) => order <= 0)
const cased =
  (change: (text: string) => string): Test =>
  (value) => {
    if (typeof value !== "string") throw new UnsupportedError("the case of what is no text")
    return /\p{Uppercase}|\p{Lowercase}|\p{Lt}/u.test(value) && change(value) === value
  }

export const tests: Readonly<Record<string, Test>> = {
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === "bigint",
  float: (value) => typeof value === "number",
  number: isNumber,
  string: (value) => typeof value === "string" || value instanceof Markup,
  mapping: (value) => value instanceof Map,
  iterable: (value) => value instanceof Markup || value instanceof Loop || iterate(value) !== null,
  sequence: (value) => lengthOf(value) !== null && !(value instanceof DictView),
  callable: (value) => value instanceof Callable || value instanceof Undefined || value instanceof Loop,
  escaped: (value) => value instanceof Markup,
  odd: (value) => remainder(value, 2n) === 1n,
  even: (value) => remainder(value, 2n) === 0n,
  divisibleby: (value, by) => remainder(value, by) === 0n,
  lower: cased((text) => text.toLowerCase()),
  upper: cased((text) => text.toUpperCase()),
  in: (value, list) => contains(list, value),
  sameas(a, b) {
    if (a === null || b === null || typeof a === "boolean" || typeof b === "boolean") return a === b
    const isObject = (value: unknown) => Array.isArray(value) || value instanceof Map || value instanceof Tuple
    if ((isObject(a) && isObject(b)) || a instanceof Range) return a === b
    throw new UnsupportedError("'is sameas' of texts and numbers")
  },
  ...{ eq: same, equalto: same, "==": same, ne: differs, "!=": differs },
  ...{ gt: above, greaterthan: above, ">": above, ge: atLeast, ">=": atLeast },
  ...{ lt: below, lessthan: below, "<": below, le: atMost, "<=": atMost },
}

function remainder(value: unknown, by: unknown): bigint {
  fails(value)
  const [a, b] = [value, by].map((one) => (typeof one === "boolean" ? BigInt(one) : one))
  if (typeof a === "number" || typeof b === "number") throw new UnsupportedError("the remainder of a float in a test")
  if (typeof a !== "bigint" || typeof b !== "bigint") throw new TemplateError("a whole number is required")
  if (b === 0n) throw new TemplateError("integer modulo by zero")
  const rest = a % b
  return rest !== 0n && rest < 0n !== b < 0n ? rest + b : rest
}
