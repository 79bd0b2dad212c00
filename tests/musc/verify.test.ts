import { describe, expect, it } from "vitest"
import type { PairRow } from "../../lib/data/schema"
import type { Verdicts } from "../../lib/eval/grader"
import { verify } from "../../lib/musc/verify"

const pair: PairRow = {
  ...{
    id: "a",
    instruction: "x",
    input: null,
    source: "s",
    calls: {},
    constraints: ["q", "r"],
    noised_constraints: ["q"],
  },
  ...{ edits: [{ index: 1, kind: "constraint-dropout", before: "r", after: null }], clean_instruction: "x" },
  ...{ noised_instruction: "y", chosen: "c", rejected: "d" },
}
const verdicts = (...satisfied: (boolean | null)[]): Verdicts =>
  satisfied.map((one, i) => ({ question: `q${i}`, kind: "", satisfied: one }))

describe("a verified pair", () => {
  const judged = (chosen: Verdicts, rejected: Verdicts) => verify(pair, async () => ({ chosen, rejected }))

  it("goes on where chosen keeps a larger share of the constraints, with the verdicts in the row", async () => {
    const row = await judged(verdicts(true, true), verdicts(true, false))
    expect(row.failure).toBeUndefined()
    expect(row.verdicts).toEqual({ chosen: verdicts(true, true), rejected: verdicts(true, false) })
  })

  it("fails with the reason where both keep as much, or rejected keeps more", async () => {
    for (const [chosen, rejected] of [
      [verdicts(true, false), verdicts(false, true)],
      [verdicts(false, false), verdicts(true, false)],
    ] as const) {
      const row = await judged(chosen, rejected)
      expect(row.failure).toEqual({ stage: "verify", reason: "chosen keeps no more constraints than rejected" })
      expect(row.verdicts).toBeDefined()
    }
  })

  it("counts no verdict that could not be read, and fails where an answer has none", async () => {
    expect((await judged(verdicts(true, null), verdicts(true, false))).failure).toBeUndefined()
    const row = await judged(verdicts(null, null), verdicts(true, false))
    expect(row.failure).toEqual({ stage: "verify", reason: "no verdict could be read" })
  })
})
