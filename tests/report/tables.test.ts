import { describe, expect, it } from "vitest"
import type { Difference, Results, Score } from "../../lib/data/results"
import { frameOf } from "../../lib/plots/frame"
import { belowTable } from "../../lib/report/answers"
import { differenceBetween, resultFrame, resultLines, tableNote, toCsv, toMarkdown } from "../../lib/report/tables"

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
      "| method | temperature | CSR | ISR | ISR − base | musc − this, ISR | answers |",
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
      "| base | 0 | 25.0 [15.0, 35.0] | 25.0 [15.0, 35.0] | – | +50.0 [+45.0, +55.0] | 20 |",
      "| self-correct | 0 | 50.0 [40.0, 60.0] | 50.0 [40.0, 60.0] | +25.0 [+20.0, +30.0] | +25.0 [+20.0, +30.0] | 20 |",
      "| musc | 0 | 75.0 [65.0, 85.0] | 75.0 [65.0, 85.0] | +50.0 [+45.0, +55.0] | – | 20 |",
    ])
  })

  it("marks the differences that stand after Holm's correction for their column, says so once, and counts pairs", () => {
    // of .02 and .04 in a column of two: .02 · 2 = .04 stands, .04 · 1 = .04 too; of .03 twice: .06 both
    const p = (gap: Difference, isr_p: number) => ({ ...gap, csr_p: isr_p, isr_p })
    const [musc, correct, other] = results.differences as [Difference, Difference, Difference]
    const trained = ["musc", "self-correct"].flatMap((method) =>
      [100, 301].map((pairs, seed) => ({ method, seed, pairs, left_out: 0, shortened: 0 })),
    )
    const marked = {
      ...results,
      differences: [p(musc, 0.03), p(correct, 0.03), p(other, 0.01)],
      trained,
      seeds: [0, 1],
    }
    const lines = toMarkdown(frameOf(resultLines(marked))).split("\n")
    expect(lines[0]).toBe("| method | temperature | CSR | ISR | ISR − base | musc − this, ISR | pairs | answers |")
    // column of ISR − base: .03 and .03 -> .06; column of musc − it: .03 (base) and .01 -> .03 and .02
    expect(lines[2]).toContain("| – | +50.0 [+45.0, +55.0] \\* | – | 20 |")
    expect(lines[3]).toContain("| +25.0 [+20.0, +30.0] | +25.0 [+20.0, +30.0] \\* | 201 | 20 |")
    expect(tableNote(marked)).toMatch(/95 % intervals over 2 seeds and the instructions\..*Holm's correction/)
    expect(tableNote(results)).toMatch(/over the instructions, of one seed\./)
    expect(tableNote({ ...marked, split: "development" })).toMatch(/the development split/)
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
    expect(rows[0]).toMatch(/,,,,,20,0$/)
    expect(rows[1]).toMatch(/^"a,""b""",0,0\.5,/)
  })

  it("gives a table calculator no formula to run, and leaves numbers below 0 as they are", () => {
    const values = [["=1+2", "+x", "-x", "@x", "\tx", "＝1+2", "x=1", -0.5]]
    const [, row] = toCsv({ columns: ["a", "b", "c", "d", "e", "f", "g"], values }).split("\n")
    expect(row).toBe("'=1+2,'+x,'-x,'@x,'\tx,'＝1+2,x=1,-0.5")
  })
})

it("shows names of kinds in Markdown as they are", () => {
  const kinds = { base: { T0: { "n *highlights*": { kept: 1, n: 2 }, "<<title>> [x]": { kept: 1, n: 4 } } } }
  const table = belowTable({ methods: { base: { T0: {} } }, pairs: [], kinds } as unknown as Results)
  expect(table).toContain("| n \\*highlights\\* | 50.0 | 2 |")
  expect(table).toContain("| \\<\\<title\\>\\> \\[x\\] | 25.0 | 4 |")
})
