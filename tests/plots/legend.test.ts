import { expect, it } from "vitest"
import { layoutOf, legendRows } from "../../lib/plots/theme"

it("a legend of many long names gets lines of its own above the plot", () => {
  // An entry takes 60 + 7.3 x 20 = 206 px of 1,000, so four stand on a line: nine need three.
  const names = Array.from({ length: 9 }, (_, i) => `self-reward-verifier${i}`.slice(-20))
  expect([legendRows(["base", "musc"]), legendRows(names)]).toEqual([1, 3])
  const top = (legend: number) => (layoutOf("t", 100, { legend }).margin as { t: number }).t
  expect(top(3) - top(1)).toBe(layoutOf("t", 100, { legend: 3 }).height - layoutOf("t", 100).height)
  expect(top(3)).toBeGreaterThan(top(1))
})
