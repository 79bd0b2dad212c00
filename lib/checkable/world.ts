import type { InstructionRow } from "../data/schema"
import type { ExactWorld } from "../musc/exact"
import { type Constraint, questionOf } from "./kinds"
import { type CheckableSpec, checkableSpec, instructionOf, questionsOf, substitute } from "./spec"

/** The task of an instruction, or one of its constraints. */
export type Item = { topic: string; question: string } | Constraint

const isTask = (item: Item): item is Extract<Item, { topic: string }> => "topic" in item

const specOf = (row: InstructionRow): CheckableSpec | undefined => checkableSpec.safeParse(row.checkable).data

const constraintOf = (item: Item): Constraint => {
  if (isTask(item)) throw new Error(`the task "${item.topic}" is never edited`)
  return item
}

/** Decomposition, edits and recombination of the checkable instructions, exactly. */
export const checkableWorld: ExactWorld<Item> = {
  name: "checkable",
  version: 1,

  itemsOf(row) {
    const spec = specOf(row)
    return spec && [{ topic: spec.task, question: questionsOf(spec)[0]! }, ...spec.constraints]
  },

  question: (item) => (isTask(item) ? item.question : questionOf(item)),

  negate(item) {
    const constraint = constraintOf(item)
    return { ...constraint, negated: !constraint.negated }
  },

  substitute(item, [first, ...others], random) {
    const task = isTask(first!) ? first.topic : ""
    return substitute(constraintOf(item), { task, constraints: others.map(constraintOf) }, random)
  },

  reword(row, changes) {
    const spec = specOf(row)!
    const items = spec.constraints.flatMap((constraint, i) => {
      const change = changes.get(i + 1)
      if (change === null) return []
      return [{ constraint: change ? constraintOf(change) : constraint, wording: spec.wording[i]! }]
    })
    return instructionOf({
      ...spec,
      constraints: items.map(({ constraint }) => constraint),
      wording: items.map(({ wording }) => wording),
    })
  },
}
