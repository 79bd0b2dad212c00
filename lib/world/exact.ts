import type { InstructionRow } from "../data/schema"
import type { ExactWorld } from "../musc/exact"
import { type Constraint, kinds, negate, questionOf } from "./kinds"
import { instructionOf, substitute, type WorldSpec, worldSpec } from "./spec"

const specOf = (row: InstructionRow): WorldSpec | undefined => worldSpec.safeParse(row.world).data

/** Decomposition, edits and recombination of the embedded world's instructions, exactly. */
export const embeddedWorld: ExactWorld<Constraint> = {
  name: "world",
  version: 1,
  itemsOf: (row) => specOf(row)?.constraints,
  question: questionOf,
  negate,
  substitute,

  reword(row, changes) {
    const spec = specOf(row)!
    const parts = spec.constraints.flatMap((item, i) => {
      const change = changes.get(i)
      if (change === null) return []
      if (!change) return [{ item, wording: spec.wording[i]!, joined: spec.joined[i]! }]
      // A ban has no wording inside the opening, and not as many others as a demand.
      const forms = kinds[change.kind].clauses(change.value, change.negated).length
      const wording = spec.wording[i]! < 0 ? (change.negated ? 0 : -1) : spec.wording[i]! % forms
      return [{ item: change, wording, joined: spec.joined[i]! && wording >= 0 }]
    })
    return instructionOf({
      ...spec,
      constraints: parts.map(({ item }) => item),
      wording: parts.map(({ wording }) => wording),
      joined: parts.map(({ joined }) => joined),
    })
  },
}
