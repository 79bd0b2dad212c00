import { describe, expect, it } from "vitest"
import { lossWarning, stageCountOf } from "../../lib/report/losses"

describe("rows that a stage loses", () => {
  it("are counted among those that reached it", () => {
    // 35 of 90 rows fail at decompose, so 55 come to respond, 20 of which fail.
    expect(stageCountOf("decompose", 90, { "decompose: x": 35 })).toMatchObject({ rows: 90, passed: 55 })
    expect(stageCountOf("respond", 90, { "decompose: x": 35, "respond: identical answers": 20 })).toEqual({
      stage: "respond",
      rows: 55,
      passed: 35,
      reasons: { "identical answers": 20 },
    })
  })

  it("are warned of when they are more than half, with the most frequent reason and its remedy", () => {
    const count = (passed: number, reasons: Record<string, number>) =>
      lossWarning({ stage: "decompose", rows: 40, passed, reasons })
    expect(count(20, { "cut off at the token limit": 20 })).toBeUndefined()
    expect(count(19, { "cut off at the token limit": 21 })).toBe(
      "decompose: 21 of 40 rows failed; most frequent reason: cut off at the token limit; remedy: raise decomposeMaxTokens",
    )
    expect(count(1, { "cut off at the token limit": 9, "fewer than 2 constraints": 30 })).toMatch(
      /39 of 40 rows failed; most frequent reason: fewer than 2 constraints \(30 of 39\); remedy: .*shots=0/,
    )
  })

  it("are not those that are held out on purpose", () => {
    const reasons = { "held out for evaluation": 30, "near-duplicate": 4 }
    expect(lossWarning({ stage: "source", rows: 40, passed: 6, reasons })).toBeUndefined()
    expect(lossWarning({ stage: "source", rows: 40, passed: 4, reasons: { ...reasons, "near-duplicate": 6 } })).toMatch(
      /^source: 6 of 10 rows failed; .*nearDuplicate/,
    )
  })
})
