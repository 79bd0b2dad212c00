import { expect, it } from "vitest"
import { paceOf } from "../../lib/runs/pace"

it("says how fast work goes and how long the rest takes", () => {
  // 30 of 31 rows were made here, in 10 s: 3 rows/s, so that the 89 to go take 89 / 3 = 29.7 s.
  const rows = { unit: "rows", done: 31, total: 120 } as const
  expect(paceOf(rows, { seconds: 10, start: 1, tokens: 350 })).toBe("3.0 rows/s, 35 tokens/s, 30 s left")
  // 50 steps in 1,000 s: .05 a second, 950 to go take 19,000 s = 5.3 h.
  const steps = { unit: "steps", done: 50, total: 1000, note: "loss 0.412" } as const
  expect(paceOf(steps, { seconds: 1000 })).toBe("0.1 steps/s, loss 0.412, 5.3 h left")
  expect(paceOf({ ...rows, done: 120 }, { seconds: 10 })).toBe("12 rows/s")
  expect(paceOf({ ...rows, done: 0 }, { seconds: 0 })).toBe("")
})

it("tells no rate of what is done at once", () => {
  expect(paceOf({ unit: "rows", done: 500, total: 500 }, { seconds: 0.001 })).toBe("")
})
