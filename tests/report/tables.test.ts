import { describe, expect, it } from "vitest"
import type { Difference, Results, Score } from "../../lib/data/results"
import { differenceBetween, resultFrame, toCsv, toMarkdown } from "../../lib/report/tables"

const score = (isr: number): Score => ({
  csr: isr,
  csr_interval: [isr - 0.1, isr + 0.1],
  isr,
  isr_interval: [isr - 0.1, isr + 0.1],
  n: 20,
  unreadable: 0,
  seeds: [],
})
const difference = (method: string, against: string, isr: number): Difference => ({
  ...{ method, against, temperature: "T0", csr: isr, csr_interval: [isr - 0.05, isr + 0.05] },
  ...{ isr, isr_interval: [isr - 0.05, isr + 0.05] },
})
const results: Results = {
  methods: { musc: { T0: score(0.75) }, base: { T0: score(0.25) }, "self-correct": { T0: score(0.5) } },
  differences: [
    difference("musc", "base", 0.5),
    difference("self-correct", "base", 0.25),
    difference("self-correct", "musc", -0.25),
  ],
  seeds: [0],
  pairs: [],
}

describe("the table of results", () => {
  it("turns a difference round where the results hold the other one", () => {
    const gap = differenceBetween(results, "musc", "self-correct", "T0")!
    expect([gap.isr, ...gap.isr_interval]).toEqual([0.25, 0.2, 0.3])
  })

  it("has a line a method in percent with intervals, and its differences from base and to musc", async () => {
    const lines = toMarkdown(await resultFrame(results))
      .trimEnd()
      .split("\n")
    expect(lines).toEqual([
      "| method | temperature | CSR | ISR | ISR − base | musc − it, ISR | answers |",
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
      "| base | 0 | 25.0 [15.0, 35.0] | 25.0 [15.0, 35.0] | – | +50.0 [+45.0, +55.0] | 20 |",
      "| self-correct | 0 | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | +25.0 [+20.0, +30.0] | +25.0 [+20.0, +30.0] | 20 |",
      "| musc | 0 | 75.0 [65.0, 85.0] | 75.0 [65.0, 85.0] | +50.0 [+45.0, +55.0] | – | 20 |",
    ])
  })

  it("measures a method against the model that it started from, where a study has several", async () => {
    const methods = { "base small": { T0: score(0.25) }, "small musc": { T0: score(0.5) } }
    const own = { ...results, methods, differences: [difference("small musc", "base small", 0.25)] }
    const frame = await resultFrame({ ...own, bases: { "small musc": "base small" } })
    expect(toMarkdown(frame)).toContain(
      "| small musc | 0 | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | +25.0 [+20.0, +30.0] |",
    )
  })

  it("is CSV with a field a number, nothing for what is missing, and odd names in quotes", async () => {
    const odd = { ...results, methods: { 'a,"b"': { T0: score(0.5) }, base: results.methods.base! }, differences: [] }
    const [head, ...rows] = toCsv(await resultFrame(odd))
      .trimEnd()
      .split("\n")
    const columns = head!.split(",")
    expect(columns.slice(0, 5)).toEqual(["method", "temperature", "csr", "csr_low", "csr_high"])
    expect(rows[0]!.split(",")).toHaveLength(columns.length)
    expect(rows[0]).toMatch(/^base,0,0\.25,0\.15,0\.35,/)
    expect(rows[0]).toMatch(/,,,,20,0$/)
    expect(rows[1]).toMatch(/^"a,""b""",0,0\.5,/)
  })
})
