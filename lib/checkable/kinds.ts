import { type ContentKind, contentKinds } from "./content"
import { type FormKind, formKinds } from "./form"
import type { Kind } from "./kind"

/** Name of a kind of constraint that rules can check in plain English. */
export type KindName = ContentKind | FormKind

/** The table of constraints by kind: those on words and length, and those on form. */
export const kinds: Readonly<Record<KindName, Kind>> = { ...contentKinds, ...formKinds }
export const kindNames = Object.keys(kinds) as [KindName, ...KindName[]]

/** One constraint: a kind, one of its values, and whether the opposite is asked for. */
export interface Constraint {
  kind: KindName
  value: string
  negated: boolean
}

/** Kind as figures by kind name it: a ban apart from a demand, "at most" apart from "at least". */
export const labelOf = ({ kind, value, negated }: Constraint): string => kinds[kind].label(value, negated)

/** The one yes/no question that means a constraint. */
export const questionOf = ({ kind, value, negated }: Constraint): string => kinds[kind].question(value, negated)

/** Whether a text keeps a constraint: a pure function of the text. An empty text keeps none. Needs loadLanguages. */
export function satisfies({ kind, value, negated }: Constraint, text: string): boolean {
  if (!text.trim()) return false
  const { holds, lacks } = kinds[kind]
  if (negated) return lacks ? lacks(value, text) : !holds(value, text)
  return holds(value, text)
}

/** Whether two constraints may stand in each other's way: both lay claim to the same part or property of the answer. */
export function conflict(a: Constraint, b: Constraint): boolean {
  const claims = new Set(kinds[a.kind].claims(a.value))
  return kinds[b.kind].claims(b.value).some((claim) => claims.has(claim))
}
