import { beforeAll, describe, expect, it } from "vitest"
import { satisfies } from "../../lib/checkable/kinds"
import { checkableInstructions, questionsOf } from "../../lib/checkable/spec"
import { checkableWorld } from "../../lib/checkable/world"
import type { RecombinedRow } from "../../lib/data/schema"
import { loadLanguages } from "../../lib/eval/ifeval/language"
import { type ExactWorld, exactCorrupt, exactDecompose, exactRecombine } from "../../lib/musc/exact"
import { hasPassed } from "../../lib/musc/row"
import { embeddedWorld } from "../../lib/world/exact"
import { readInstruction, readQuestion } from "../../lib/world/inverse"
import { sameConstraint } from "../../lib/world/kinds"
import { worldInstructions } from "../../lib/world/spec"
import { writeAnswer } from "../support/checkable-writer"

beforeAll(() => loadLanguages())

/** Stages 1 to 3 by a world; rows that failed are left out. */
function recombined<Item, Row extends Parameters<typeof exactDecompose>[1]>(
  world: ExactWorld<Item>,
  rows: readonly Row[],
) {
  return rows.flatMap((row) => {
    const decomposed = exactDecompose(world, row)
    const corrupted = hasPassed(decomposed) ? exactCorrupt(world, decomposed, { seed: 3 }) : decomposed
    const out = hasPassed(corrupted) ? exactRecombine(world, corrupted as never, { seed: 3 }) : corrupted
    return hasPassed(out) ? [{ row, out: out as RecombinedRow }] : []
  })
}

describe("the world does the first three stages", () => {
  const checkable = recombined(checkableWorld, checkableInstructions({ n: 300, seed: 0, split: "train" }))
  const embedded = recombined(embeddedWorld, worldInstructions({ n: 300, seed: 0, split: "train" }))

  it("for nearly every instruction, and the clean one is the instruction as it was", () => {
    expect(checkable.length).toBeGreaterThan(290)
    expect(embedded.length).toBe(300)
    for (const { row, out } of [...checkable, ...embedded]) {
      expect(out.clean_instruction).toBe(row.instruction)
      expect(out.noised_instruction).not.toBe(row.instruction)
      expect(out.decomposed_by).toBe("world")
    }
  })

  it("with the questions of the row's own constraints, and edits that leave the task alone", () => {
    for (const { row, out } of checkable) {
      expect(out.constraints).toEqual(questionsOf(row.checkable))
      for (const { index, before, after, kind } of out.edits) {
        expect(index).toBeGreaterThan(0)
        expect(before).toBe(out.constraints[index])
        expect(after === null).toBe(kind === "constraint-dropout")
        expect(after).not.toBe(before)
      }
    }
  })

  it("so that the noised instruction says what its constraints say: read back in the embedded world", () => {
    for (const { out } of embedded) {
      const said = readInstruction(out.noised_instruction)!
      const wanted = out.noised_constraints.map((question) => readQuestion(question)!)
      expect(said.length).toBe(wanted.length)
      for (const item of wanted) expect(said.some((other) => sameConstraint(item, other))).toBe(true)
    }
  })

  it("so that an answer that keeps a negated constraint breaks the original", () => {
    for (const { row } of checkable.slice(0, 100)) {
      for (const item of row.checkable.constraints) {
        const opposite = { ...item, negated: !item.negated }
        const answer = writeAnswer([item])!
        expect([satisfies(item, answer), satisfies(opposite, answer)], JSON.stringify(item)).toEqual([true, false])
      }
    }
  })

  it("alike for the same seed, otherwise for another", () => {
    const [first] = checkableInstructions({ n: 1, seed: 0, split: "train" })
    const row = exactDecompose(checkableWorld, first!)
    const edits = (seed: number) => JSON.stringify(exactCorrupt(checkableWorld, row as never, { seed }).edits)
    expect(edits(1)).toBe(edits(1))
    expect(new Set([1, 2, 3, 4, 5, 6].map(edits)).size).toBeGreaterThan(1)
  })

  it("and says of an instruction that it does not know that it cannot", () => {
    const stranger = { id: "a", instruction: "Sing.", input: null, source: "x", calls: {} }
    expect(exactDecompose(checkableWorld, stranger).failure?.reason).toBe("the world does not know this instruction")
  })
})
