import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type RunData, readRun } from "../../lib/report/report-data"
import { timeSection } from "../../lib/report/run-sections"
import { failedSample, MOST_SAMPLES, samplesSection } from "../../lib/report/samples"
import { madeRun, writeMadeRun } from "../runs/made-run"

const dir = mkdtempSync(join(tmpdir(), "musc-samples-"))
afterAll(() => rmSync(dir, { recursive: true }))

describe("the samples of a report", () => {
  let data: RunData
  beforeAll(async () => {
    writeMadeRun(dir)
    data = await readRun(dir)
  })

  it("hold pairs, failed rows and answers of every method, each with a verdict", () => {
    const { samples, stages } = data
    const of = (stage: string) => samples.filter((sample) => sample.stage === stage)
    const pairs = stages.find(({ stage }) => stage === "respond")!.passed
    expect(of("respond").filter(({ verdict }) => verdict.startsWith("pair"))).toHaveLength(
      Math.min(MOST_SAMPLES, pairs),
    )
    for (const { stage, rows, passed } of stages.filter(({ stage }) => stage !== "respond"))
      expect(of(stage)).toHaveLength(rows - passed)
    const answers = Math.min(MOST_SAMPLES, madeRun.evals * madeRun.seeds.length)
    for (const method of Object.keys(madeRun.methods))
      for (const temperature of madeRun.temperatures) {
        const own = of(`${method}, temperature ${temperature}`)
        expect(own).toHaveLength(answers)
        expect(own.every(({ verdict }) => ["keeps all", "misses some"].includes(verdict))).toBe(true)
      }
  })

  it("show the raw reply of a call that failed, as text that cannot end the script that holds it", () => {
    const row = {
      ...{ id: "a", source: "x", instruction: "Write.", input: null },
      calls: {
        decompose: [{ prompt: "", text: "</script><img src=x onerror=alert(1)>", tokens: 1, finish: "stop" as const }],
      },
      failure: { stage: "decompose" as const, reason: "fewer than 2 constraints" },
    }
    const sample = failedSample(row, 0)
    expect(sample).toMatchObject({ stage: "decompose", verdict: "failed: fewer than 2 constraints" })
    const text = `${samplesSection([sample])}`
    expect(text).toContain("onerror=alert(1)")
    expect(text.match(/<\/script>/g)).toHaveLength(1)
  })
})

it("the time of each stage is told with its rate and tokens a second", () => {
  const stages = { "seed-0/respond": { seconds: 4, unit: "rows", done: 100, tokens: 2000 }, odd: { seconds: "<b>" } }
  const text = `${timeSection({ manifest: { stages } })}`
  expect(text).toContain(
    '<td class="">seed-0/respond</td><td class="number">100 rows</td><td class="number">4 s</td><td class="number">25 rows/s</td>' +
      '<td class="number">2,000</td><td class="number">500</td>',
  )
  expect(text).not.toContain("odd")
})
