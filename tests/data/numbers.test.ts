import { describe, expect, it } from "vitest"
import { fixed, percent, signed } from "../../lib/data/numbers"
import { points } from "../../lib/report/tables"

describe("numbers as text", () => {
  it("have no minus sign where they round to zero", () => {
    expect([fixed(-0.04, 1), fixed(-0.06, 1), fixed(-0, 0), fixed(12.34, 1)]).toEqual(["0.0", "-0.1", "0", "12.3"])
    expect([percent(-0.0004), percent(-0.0006), percent(0.5)]).toEqual(["0.0", "-0.1", "50.0"])
    expect([points(-0.0004), points(-0.0006), points(0), points(0.021)]).toEqual(["+0.0", "−0.1", "+0.0", "+2.1"])
    expect([signed(-0.0004, 3, ""), signed(-0.0005, 3, ""), signed(Number.NaN, 1, "")]).toEqual([
      "0.000",
      "−0.001",
      "NaN",
    ])
  })
})
