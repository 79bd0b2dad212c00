import { describe, expect, it } from "vitest"
import { parsePoints, pointsOf, pointsPrompt } from "../../lib/baselines/points"

const verdicts = (list: readonly (boolean | null)[]) =>
  list.map((satisfied, i) => ({ question: `${i}?`, kind: "", satisfied }))

describe("the five-point judge", () => {
  it("shows five statements, the instruction and the answer", () => {
    const prompt = pointsPrompt("Do it.", "Done.")
    expect(prompt.match(/^\d\. /gm)).toHaveLength(5)
    expect(prompt).toMatch(/\n\nInstruction: Do it\.\n\nAnswer: Done\.$/)
  })

  it.each([
    ["It keeps all.\nScore: 5", 5],
    ["**Score:** 3/5", 3],
    ["Score: 1 at first, but then\nscore: 4 out of 5.", 4],
    ["Total = 2 points", 2],
    ["All is well.\n\n0", 0],
    ["The score is 3.5", 3.5],
    ["Score: 1 + 1 + 0 + 1 + 0 = 3", 3],
    ["1 + 1 + 1 = 3", 3],
    ["Score: 4 - it misses one.", 4],
    ["Score: 1 + 1 + 0", undefined],
    ["Score: 3-4", undefined],
    ["Score: 3 or 4", undefined],
    ["Score: 0 to 5", undefined],
    ["Score: 1\n\nThe maximum score is 5.", 1],
    ["Score: 10", undefined],
    ["Score: 3/10", undefined],
    ["It has 4 sentences.", undefined],
    ["Score:", undefined],
    ["", undefined],
  ])("reads %j as %s", (text, points) => {
    expect(parsePoints(text)).toBe(points)
  })

  // One point each for: the task (the first), one further, at least half, all but one, all.
  it.each([
    [[true, true, true, true], 5],
    [[true, true, true, false], 4],
    [[true, true, false, false], 3], // task, one further, half
    [[true, false, false, false], 1], // task alone
    [[false, true, true, true], 3 + 0], // one further, half, all but one
    [[false, true, false, false], 1],
    [[false, false, false, false], 0],
    [[true, null, true, false], 4], // of the three read: task, one further, 2 of 3, all but one
    [[null, null], null],
  ] as [(boolean | null)[], number | null][])("counts %j as %s", (kept, points) => {
    expect(pointsOf(verdicts(kept))).toBe(points)
  })
})
