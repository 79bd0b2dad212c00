import { describe, expect, it } from "vitest"
import { type InstructionRow, instructionRow, pairRow } from "../../lib/data/schema"
import { scripted } from "../../lib/engine/scripted"
import { StoppedError } from "../../lib/errors"
import { makePairs } from "../../lib/musc/pipeline"
import { failed, type Outcome } from "../../lib/musc/row"
import { runStage, stageTally } from "../../lib/musc/run-stage"

const rows = (n: number): Outcome<InstructionRow>[] =>
  Array.from({ length: n }, (_, i) => ({
    ...instructionRow.parse({ id: `r${i}`, instruction: `Write ${i} lines.` }),
    failure: undefined,
  }))

const collect = async <T>(items: AsyncIterable<T>) => {
  const out: T[] = []
  for await (const item of items) out.push(item)
  return out
}

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms))

describe("runStage", () => {
  it("keeps the order of the input and the limit, whatever finishes first", async () => {
    let running = 0
    let most = 0
    const stage = async (row: InstructionRow): Promise<Outcome<InstructionRow>> => {
      most = Math.max(most, ++running)
      await pause((Number(row.id.slice(1)) * 7) % 5)
      running--
      return { ...row, failure: undefined }
    }
    const out = await collect(runStage(rows(40), stage, { concurrency: 5 }))
    expect(out.map((row) => row.id)).toEqual(rows(40).map((row) => row.id))
    expect(most).toBe(5)
  })

  it("passes failed rows through without running the stage", async () => {
    const [good, bad] = rows(2) as [InstructionRow, InstructionRow]
    const gone = failed(bad, "source", "near-duplicate")
    const seen: string[] = []
    const stage = async (row: InstructionRow): Promise<Outcome<InstructionRow>> => {
      seen.push(row.id)
      return { ...row, failure: undefined }
    }
    const out = await collect(runStage([gone, { ...good, failure: undefined }], stage, { concurrency: 2 }))
    expect(out[0]).toEqual(gone)
    expect(seen).toEqual(["r0"])
  })

  it("reads ahead no more than four times the concurrency", async () => {
    let read = 0
    async function* endless() {
      for (let i = 0; ; i++) {
        read++
        yield { ...instructionRow.parse({ id: `${i}`, instruction: "x" }), failure: undefined }
      }
    }
    let taken = 0
    const same = async (row: InstructionRow) => ({ ...row, failure: undefined })
    for await (const _ of runStage(endless(), same, { concurrency: 3 })) {
      expect(read - taken).toBeLessThanOrEqual(12)
      if (++taken === 1000) break
    }
  })

  it("hands on the rows before an error of the stage, then throws it", async () => {
    const stage = async (row: InstructionRow): Promise<Outcome<InstructionRow>> => {
      if (row.id === "r3") throw new Error("engine down")
      return { ...row, failure: undefined }
    }
    const out: string[] = []
    const run = async () => {
      for await (const row of runStage(rows(6), stage, { concurrency: 6 })) out.push(row.id)
    }
    await expect(run()).rejects.toThrow("engine down")
    expect(out).toEqual(["r0", "r1", "r2"])
  })

  it("hands on the rows before an error of the input, then throws it", async () => {
    async function* broken() {
      yield* rows(3)
      throw new Error("line 4")
    }
    const out: string[] = []
    const same = async (row: InstructionRow) => {
      await pause(2)
      return { ...row, failure: undefined }
    }
    const run = async () => {
      for await (const row of runStage(broken(), same, { concurrency: 6 })) out.push(row.id)
    }
    await expect(run()).rejects.toThrow("line 4")
    expect(out).toEqual(["r0", "r1", "r2"])
  })

  it("finishes what is under way when aborted, starts nothing more, and throws StoppedError", async () => {
    const abort = new AbortController()
    const started: string[] = []
    const stage = async (row: InstructionRow): Promise<Outcome<InstructionRow>> => {
      started.push(row.id)
      if (row.id === "r4") abort.abort()
      await pause(1)
      return { ...row, failure: undefined }
    }
    const out: string[] = []
    const run = async () => {
      for await (const row of runStage(rows(50), stage, { concurrency: 2, signal: abort.signal })) out.push(row.id)
    }
    await expect(run()).rejects.toThrow(StoppedError)
    expect(out).toEqual(started)
    expect(started.length).toBeLessThanOrEqual(6)
  })
})

describe("makePairs", () => {
  // A model whose answers follow from the prompt: enough to carry a row through every stage, and to fail some.
  const model = () =>
    scripted(async ({ messages, seed }) => {
      await pause(seed % 3)
      const prompt = messages.at(-1)!.content
      const lines = /Write (\d+) lines/g.exec(prompt.split("\n\n").at(-1)!)?.[1]
      if (prompt.startsWith("Split")) {
        return lines === "3" ? "no idea" : `##1. Is it text?\n##2. Has it ${lines} lines?\n##3. Does it rhyme?`
      }
      if (prompt.startsWith("Change")) return `Has it ${seed} lines?`
      if (prompt.startsWith("Write one"))
        return `Please ${prompt
          .split("\n\n")
          .at(-1)!
          .replaceAll(/[#\n]+/g, " ")}`
      return prompt.includes("5 lines") ? "always this" : `answer to ${prompt}`
    })

  it("takes instructions to pairs in order, and counts what failed where", async () => {
    const stages: string[] = []
    const tally = stageTally()
    const onRow = (stage: string) => stages.push(stage)
    const out = await collect(
      makePairs(model(), rows(12), { corrupt: { drop: 0, substitute: 0 }, concurrency: 4, onRow }),
    )
    for (const row of out) tally.add(row)
    expect(out.map((row) => row.id)).toEqual(rows(12).map((row) => row.id))
    expect(out.filter((row) => !row.failure)).toHaveLength(11)
    expect(out[3]!.failure).toEqual({ stage: "decompose", reason: "fewer than 2 constraints" })
    const pair = pairRow.parse(out[0])
    expect(pair.chosen).toBe(`answer to ${pair.clean_instruction}`)
    expect(pair.rejected).toBe(`answer to ${pair.noised_instruction}`)
    expect(Object.keys(pair.calls)).toEqual(["decompose", "corrupt", "recombine", "respond"])
    expect(stages.filter((stage) => stage === "respond")).toHaveLength(12)
    expect(tally.counts()).toEqual([
      { stage: "source", rows: 12, passed: 12, reasons: {} },
      { stage: "decompose", rows: 12, passed: 11, reasons: { "fewer than 2 constraints": 1 } },
      { stage: "corrupt", rows: 11, passed: 11, reasons: {} },
      { stage: "recombine", rows: 11, passed: 11, reasons: {} },
      { stage: "respond", rows: 11, passed: 11, reasons: {} },
    ])
  })

  it("makes the same pairs at any concurrency and in any order", async () => {
    const one = await collect(makePairs(model(), rows(10), { concurrency: 1 }))
    const many = await collect(makePairs(model(), rows(10).reverse(), { concurrency: 7 }))
    expect(many.reverse()).toEqual(one)
  })

  it("hands on whole rows under way when aborted", async () => {
    const abort = new AbortController()
    const out: string[] = []
    const run = async () => {
      for await (const row of makePairs(model(), rows(40), { concurrency: 2, signal: abort.signal })) {
        out.push(row.id)
        if (out.length === 5) abort.abort()
      }
    }
    await expect(run()).rejects.toThrow(StoppedError)
    expect(out).toEqual(rows(out.length).map((row) => row.id))
  })
})
