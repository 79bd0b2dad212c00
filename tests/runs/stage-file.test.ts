import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import type { InstructionRow } from "../../lib/data/schema"
import type { Generator, Scorer } from "../../lib/engine/engine"
import { runStageFile, stageInput } from "../../lib/runs/stage-file"
import { measureRows, type StageLoad, scriptedWriter } from "../bench/rows"

const dir = mkdtempSync(join(tmpdir(), "musc-stage-file-"))
afterAll(() => rmSync(dir, { recursive: true }))
const seeds = (name: string, lines: readonly object[]) => {
  const file = join(dir, name)
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""))
  return file
}
const notes = (n: number) => Array.from({ length: n }, (_, i) => ({ instruction: `Write a note on the number ${i}.` }))

describe("a stage over a file", () => {
  it("holds no more rows than its window, however many the file has", async () => {
    const input = await stageInput("decompose", seeds("window.jsonl", notes(400)))
    expect(input.count).toBe(400)
    let read = 0
    let answered = 0
    let most = 0
    async function* counted(): AsyncGenerator<InstructionRow> {
      for await (const row of input.rows()) {
        most = Math.max(most, ++read - answered)
        yield row
      }
    }
    const writer = scriptedWriter()
    const engine: Generator = {
      ...{ name: "script", concurrency: 4, independent: true },
      async generate(request) {
        await new Promise((done) => setTimeout(done, 1))
        answered++
        return writer.generate(request)
      },
    }
    const done = await runStageFile({
      ...{
        name: "decompose",
        input: { ...input, rows: counted as typeof input.rows },
        out: join(dir, "window-out.jsonl"),
      },
      ...{ key: "k", engine: engine as Scorer, settings: { shots: 0 } },
    })
    expect(done.rows).toBe(400)
    // Eight rows begun for each call under way, and the one that waits for a place.
    expect(most).toBeLessThanOrEqual(8 * 4 + 1)
  })

  it("tells a bad line before anything is asked", async () => {
    const file = seeds("bad.jsonl", [...notes(50), { nothing: 1 }])
    await expect(stageInput("decompose", file)).rejects.toThrow(/bad\.jsonl, line 51: .*must have instruction/)
    expect((await stageInput("decompose", file, 50)).count).toBe(50)
  })
})

it("all text stages go from file to file, with their calls in a file, and every row comes through", async () => {
  const loads: StageLoad[] = []
  await measureRows(300, join(dir, "rows"), (load) => loads.push(load))
  expect(loads.map(({ stage, rows, failed }) => [stage, rows, failed])).toEqual(
    ["decompose", "corrupt", "recombine", "respond"].map((stage) => [stage, 300, 0]),
  )
  const last = readFileSync(join(dir, "rows/respond.jsonl"), "utf8").trim().split("\n")
  expect(JSON.parse(last[299]!)).toMatchObject({ id: "seeds.jsonl-300", chosen: expect.stringMatching(/^A note/) })
})
