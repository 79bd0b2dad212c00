import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import type { Judge, JudgeRequest } from "../../lib/eval/benchmark"
import {
  type CfbenchRecord,
  type CfbenchResult,
  cfbench,
  cfbenchRecord,
  parseCfbench,
  parseCfbenchLeniently,
  round2,
} from "../../lib/eval/cfbench"

const record = (priorities: string, changes: Partial<CfbenchRecord> = {}): CfbenchRecord => ({
  idx: 0,
  prompt: "写一首诗。",
  gold: "",
  split: "easy",
  criteria: [...priorities].map((p, i) => [
    `标准${i}`,
    p === "P" ? "主需" : "次需",
    i % 2 ? "数值约束" : "内容约束",
    "x",
  ]),
  ...changes,
})

const item = (data: CfbenchRecord) => ({
  id: `${data.idx}`,
  unit: `${data.idx}`,
  turns: [data.prompt],
  temperature: 0,
  maxTokens: 1,
  data,
})

/** The official form of these verdicts, e.g. "101". */
const echo = (data: CfbenchRecord, verdicts: string) =>
  data.criteria.map(([text], i) => `${text}\t${verdicts[i]}`).join("\n\n")

const grade = (data: CfbenchRecord, replies: string[], scoring: "official" | "corrected" = "official") =>
  cfbench.score(item(data), ["诗"], { replies: replies.map((text) => ({ text })), parsed: true }, scoring)

const judged = (priorities: string, verdicts: string, scoring?: "official" | "corrected") => {
  const data = record(priorities)
  const { csr, isr, psr } = grade(data, [echo(data, verdicts)], scoring)
  return [csr, isr, psr]
}

describe("rounding", () => {
  it("to two decimals goes half to even on doubles", () => {
    // 100 x .125 = 12.5 exactly: to 12. 100 x .375 = 37.5: to 38. 100 x .625 = 62.5: to 62. 1/8, 3/8 and 5/8 are shares
    // of eight criteria. .285 x 100 is 28.499999999999996 in doubles: down.
    expect([0.125, 0.375, 0.625, 0.875, 0.285, 2 / 3, 1, 0].map(round2)).toEqual([
      0.12, 0.38, 0.62, 0.88, 0.28, 0.67, 1, 0,
    ])
  })
})

describe("an item", () => {
  it("fails PSR when one primary criterion fails", () => {
    // PPS with verdicts 1 0 1: CSR 2/3 -> .67
    expect(judged("PPS", "101")).toEqual([0.67, 0, 0])
  })

  it("passes PSR when only primary criteria stand and all are kept", () => {
    expect(judged("PP", "11")).toEqual([1, 1, 1])
  })

  it("needs more than .6 of the secondary criteria, and exactly .6 fails", () => {
    // P + 5 S: 3 of 5 kept -> .5 + .5 x .6 = .8, not above; CSR 4/6 -> .67
    expect(judged("PSSSSS", "111100")).toEqual([0.67, 0, 0])
    // 4 of 5 kept -> .5 + .5 x .8 = .9; CSR 5/6 -> .83
    expect(judged("PSSSSS", "111110")).toEqual([0.83, 0, 1])
    // P + 8 S, 5 of 8 kept = .625 -> rounded .62 -> .81 > .8
    expect(judged("PSSSSSSSS", "111111000")).toEqual([0.67, 0, 1])
  })

  it("without primary criteria passes PSR above a CSR of .8", () => {
    // 4 of 5 = .8 fails; 5 of 6 = .83 passes
    expect(judged("SSSSS", "11110")).toEqual([0.8, 0, 0])
    expect(judged("SSSSSS", "111110")).toEqual([0.83, 0, 1])
  })

  it("is not rounded in corrected scoring", () => {
    expect(judged("PSSSSS", "111110", "corrected")).toEqual([5 / 6, 0, 1])
  })
})

describe("parsing", () => {
  const texts = ["标准0", "标准1"]

  it("wants as many blocks as criteria, in order, with exact text, one tab and 0 or 1", () => {
    expect(parseCfbench("标准0\t1\n\n标准1\t0", texts)).toEqual([true, false])
    expect(parseCfbench("标准0\t1.0\n\n标准1\t 0\n", texts)).toEqual([true, false])
    for (const reply of [
      "标准0\t1",
      "标准1\t1\n\n标准0\t0",
      "标准0。\t1\n\n标准1\t0",
      "标准0 1\n\n标准1 0",
      "标准0\t1\t\n\n标准1\t0",
      "标准0\t2\n\n标准1\t0",
      "标准0\t\n\n标准1\t0",
      "标准0\t1\n\n标准1\t0\n\n",
      "",
    ])
      expect(parseCfbench(reply, texts), JSON.stringify(reply)).toBeUndefined()
  })

  it("reads numbers as Python's float does: digits of any script, blanks around them", () => {
    // float("１") == 1.0, float("٠") == 0.0, float(" 1\\u3000") == 1.0, float("𝟏") == 1.0, float("1_0") == 10.0
    expect(parseCfbench("标准0\t１\n\n标准1\t٠", texts)).toEqual([true, false])
    expect(parseCfbench("标准0\t 1\u3000\n\n标准1\t𝟏", texts)).toEqual([true, true])
    expect(parseCfbench("标准0\t1_0\n\n标准1\t1", texts)).toBeUndefined()
    expect(parseCfbenchLeniently("标准0 １\n\n标准1。\t０", texts)).toEqual([true, false])
  })

  it("forgives blanks and punctuation where it is lenient, and nothing else", () => {
    expect(parseCfbenchLeniently(" 标准0。\t1 \n\n\n标准1 0\n\n", texts)).toEqual([true, false])
    expect(parseCfbenchLeniently("标准0\t1\r\n\r\n标准1\t0", texts)).toEqual([true, false])
    for (const reply of ["标准1\t1\n\n标准0\t0", "标准0\t1", "标准0\t1\n\n标准2\t0", "标准0\t1\n\n标准1\t是"])
      expect(parseCfbenchLeniently(reply, texts), reply).toBeUndefined()
  })

  it("officially gives full marks for any 1 in an unparsed reply, and nothing where there is none", () => {
    const data = record("PPS")
    // 标准0 alone was echoed rightly; the zeros of the other lines are passed over, mean of [1] = 1.
    expect(grade(data, ["标准0\t1\n标准1x\t0\n标准2\t0"])).toMatchObject({
      parsing: "fallback",
      csr: 1,
      isr: 1,
      psr: 1,
    })
    expect(grade(data, ["标准0\t0\n标准1x\t0"])).toMatchObject({ parsing: "none", csr: 0, isr: 0, psr: 0 })
    expect(grade(data, ["Error"])).toMatchObject({ parsing: "none", csr: 0, isr: 0, psr: 0 })
  })

  it("leaves an unparsed item out in corrected scoring, or takes the last reply that can be read", () => {
    const data = record("PS")
    expect(grade(data, ["标准0\t1"], "corrected")).toMatchObject({ parsing: "none", csr: null, isr: null, psr: null })
    expect(grade(data, ["标准0。\t1\n\n标准1\t0", "no"], "corrected")).toMatchObject({ parsing: "parsed", csr: 0.5 })
    expect(grade(data, ["标准0。\t1\n\n标准1\t0", "no"], "official")).toMatchObject({ parsing: "none", csr: 0 })
  })
})

describe("figures", () => {
  const easy = record("PS")
  const hard = record("PSS", { idx: 1, split: "hard" })

  it("are means over items by split, and over criteria by type", () => {
    // easy 1 1: CSR 1, ISR 1, PSR 1. hard 1 1 0: CSR .67, ISR 0, PSR: .5 + .5 x round(1/2) = .75 -> 0.
    // Full: CSR (1 + .67) / 2 = .835. Types: even positions 内容 (1; 1, 0) 2 of 3, odd ones 数值 (1; 1) 2 of 2.
    const results = [grade(easy, [echo(easy, "11")]), grade(hard, [echo(hard, "110")])]
    expect(cfbench.figures(results, "official")).toEqual({
      CSR: 0.835,
      ISR: 0.5,
      PSR: 0.5,
      "CSR easy": 1,
      "ISR easy": 1,
      "PSR easy": 1,
      "CSR hard": 0.67,
      "ISR hard": 0,
      "PSR hard": 0,
      "type: 内容约束": 2 / 3,
      "type: 数值约束": 1,
    })
  })

  it("leave unparsed items out when corrected, and say so", () => {
    const results: CfbenchResult[] = [grade(easy, [echo(easy, "10")], "corrected"), grade(hard, ["?"], "corrected")]
    const figures = cfbench.figures(results, "corrected")
    expect(figures).toMatchObject({ CSR: 0.5, "CSR easy": 0.5, "CSR hard": Number.NaN, "type: 数值约束": 0 })
    expect(cfbench.notes!(results, "corrected")[0]).toContain("1 items without a readable judgement")
  })
})

describe("the judge", () => {
  it("is shown prompt, reference, answer and the criteria in order, once, until the echo is exact", async () => {
    const data = record("PS", { gold: "参考诗" })
    let seen: JudgeRequest | undefined
    const judge: Judge = async (request, readable) => {
      seen = request
      const replies = [{ text: "标准0\t1" }, { text: echo(data, "10") }]
      expect(replies.map(readable)).toEqual([false, true])
      return { replies, parsed: true }
    }
    const collected = await cfbench.collect(item(data), ["床前明月光"], judge)
    const { content } = seen!.messages[0]!
    for (const part of [data.prompt, "参考诗", "床前明月光", "标准0\n\n标准1"]) expect(content).toContain(part)
    expect(seen).toMatchObject({ temperature: 0.01 })
    expect(cfbench.score(item(data), ["床前明月光"], collected, "official")).toMatchObject({ csr: 0.5, psr: 0 })
  })
})

describe("loading", () => {
  const folder = mkdtempSync(join(tmpdir(), "cfbench-"))
  const write = (name: string, records: unknown[]) => {
    const file = join(folder, name)
    writeFileSync(file, JSON.stringify(records, null, 1))
    return file
  }
  const full = { ...record("PS"), isanswer: "否", doamin: "医疗", scenario: "其他", source: "tob" }

  it("reads records of the official shape", async () => {
    const items = await cfbench.load(write("ok.json", [full, { ...full, idx: 1 }]))
    expect(items.map(({ id, turns }) => [id, turns])).toEqual([
      ["0", ["写一首诗。"]],
      ["1", ["写一首诗。"]],
    ])
    expect(items[0]!.data).toEqual(cfbenchRecord.parse(full))
  })

  it("names file, line and field of what is wrong", async () => {
    await expect(cfbench.load(write("twice.json", [full, full]))).rejects.toThrow(
      /twice\.json, line \d+, idx: .*unique/,
    )
    const bad = { ...full, criteria: [["标准", "主要", "a", "b"]] }
    await expect(cfbench.load(write("priority.json", [bad]))).rejects.toThrow(/priority\.json, line 2, criteria\.0\.1/)
    await expect(cfbench.load(join(folder, "none.json"))).rejects.toThrow(/none\.json.*ENOENT/)
  })
})
