import { checks } from "../eval/ifeval/checks"
import type { Task } from "./tasks"

/** A substituted constraint is of the same family: another number, another word, another mark. */
export type Family = "word" | "length" | "start" | "end" | "case" | "punctuation" | "layout" | "addition"

/** A kind of constraint: its values, its words in an instruction, its question, and its strict check. */
export interface Kind {
  family: Family
  /** how often instructions hold it, against the shares of the others */
  share: number
  /** share of the instructions that ask for its opposite */
  negated: number
  values(task: Task): readonly string[]
  /** every wording, a sentence without its full stop */
  ask(value: string, negated: boolean): readonly string[]
  question(value: string, negated: boolean): string
  label(value: string, negated: boolean): string
  /** whether a text that is not blank has the property */
  holds(value: string, text: string): boolean
  /** whether it keeps the negated constraint, where that asks for more than the property's absence */
  lacks?(value: string, text: string): boolean
  /** whether every text that keeps value `a` also keeps `b`: such a substitute would spoil nothing */
  entails?(a: string, b: string): boolean
  /** parts and properties of the answer that this constraint speaks for; two with a common one are not combined */
  claims(value: string): readonly string[]
}

/** A check of IFEval, in its corrected form. */
export const follows = (id: string, kwargs: Record<string, unknown>, text: string): boolean =>
  checks[id]!.follows(text, kwargs, "corrected")

export const numberWords = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"] as const

/** "at least 3" as relation and number. */
export function amount(value: string): { relation: "at least" | "at most" | "exactly"; n: number } {
  const [, relation, n] = /^(at least|at most|exactly) (\d+)$/.exec(value)!
  return { relation: relation as "at least", n: Number(n) }
}

/** "at least a" entails "at least b". */
export const atLeast = (a: string, b: string): boolean => Number(a) >= Number(b)

/** Whether amount `a` entails amount `b`. */
export function entailsAmount(a: string, b: string): boolean {
  const [from, to] = [amount(a), amount(b)]
  if (to.relation === "at least") return from.relation !== "at most" && from.n >= to.n
  return to.relation === "at most" && from.relation !== "at least" && from.n <= to.n
}
