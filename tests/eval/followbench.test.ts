import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { InputError } from "../../lib/errors"
import type { BenchmarkItem, Judge, JudgeRequest } from "../../lib/eval/benchmark"
import { type FollowBenchResult, followbench } from "../../lib/eval/followbench/followbench"
import { judgeRequest, verdicts } from "../../lib/eval/followbench/judge"
import type { FollowBenchData } from "../../lib/eval/followbench/load"

let root = ""
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "musc-followbench-"))
})
afterAll(() => rm(root, { recursive: true }))

type Row = Record<string, unknown>

/** A group of the official shape, written for these tests. */
function group(category: string, exampleId: number, source: string, target = ""): Row[] {
  const levels = category === "example" ? [1, 2, 3, 4, 5] : [0, 1, 2, 3, 4, 5]
  return levels.map((level) => ({
    example_id: exampleId,
    category: category === "mixed" && level > 0 ? Array(level).fill("format").join(", ") : category,
    source,
    level,
    instruction: category === "content" && level === 0 ? "" : `${category} ${exampleId}, step ${level}`,
    target,
  }))
}

const files = (): Record<string, Row[]> => ({
  content: [...group("content", 1, "letters"), ...group("content", 2, "E2E", "name[Owl]")],
  situation: group("situation", 1, "BBH_logical", "(B)"),
  style: [...group("style", 1, "letters"), ...group("style", 2, "letters")],
  format: group("format", 1, "letters"),
  mixed: group("mixed", 1, "gigaword"),
  example: group("example", 1, "quiz", "{instruction}\nAnswer: {answer}"),
})

async function written(contents: Record<string, Row[]>): Promise<string> {
  const folder = await mkdtemp(join(root, "data-"))
  for (const [category, rows] of Object.entries(contents)) {
    await writeFile(join(folder, `${category}_constraints.json`), JSON.stringify(rows, null, 1))
  }
  return folder
}

const coach = "two people die in a southern bus blast"

/**
 * What is answered or judged, by group, at levels 1 to 5: an answer where a rule decides, else verdicts (Y, N; ?
 * unread).
 */
const script: Record<string, string[]> = {
  "content/1": ["Y", "YY", "YNY", "YYYY", "?"],
  "content/2": ["name[Owl]", "name[Owl]", "Owl", "Owl", "name[Owl]"],
  "situation/1": Array(5).fill("It is (B)."),
  "style/1": ["Y", "?", "YYY", "YYYY", "YYYYN"],
  "style/2": ["N", "YY", "YYN", "NNNN", "YYYYY"],
  "format/1": ["N", "NN", "NNN", "NNNN", "NNNNN"],
  "mixed/1": Array(5).fill(coach),
  "example/1": ["Answer: 4", "4", "4", "4", "4"],
}

const list = (marks: string) => `[${[...marks].map((mark) => (mark === "Y" ? "'YES'" : "'NO'")).join(", ")}]`

/** A judge that says something else first, then `reply`. */
function judgeOf(reply: string, asked: JudgeRequest[] = []): Judge {
  return async (request, readable) => {
    asked.push(request)
    const replies = [{ text: "Let me think." }, { text: reply }]
    return { replies, parsed: readable(replies[1]!) }
  }
}

async function graded(items: readonly BenchmarkItem<FollowBenchData>[], asked: JudgeRequest[] = []) {
  const results: FollowBenchResult[] = []
  for (const item of items) {
    const text = script[item.unit]![item.data.level - 1]!
    const collected = await followbench.collect(item, [text], judgeOf(text === "?" ? "Well." : list(text), asked))
    expect(collected?.parsed).toBe(item.data.path.length ? text !== "?" : undefined)
    results.push(followbench.score(item, [text], collected, "official"))
  }
  return results
}

it("a judge's reply that was cut off is asked for again, and has no verdict in corrected scoring", async () => {
  const items = await followbench.load(await written(files()))
  const item = items.find(({ id }) => id === "style/1/1")!
  const reply = { text: "The answer has NO rhyme in its", cut: true } as const
  const judge: Judge = async (_, readable) => ({ replies: [reply], parsed: readable(reply) })
  const collected = await followbench.collect(item, ["Roses."], judge)
  expect(collected!.parsed).toBe(false)
  const hard = (scoring: "official" | "corrected") => followbench.score(item, ["Roses."], collected, scoring).hard
  expect([hard("official"), hard("corrected")]).toEqual([0, null])
})

describe("FollowBench's files", () => {
  it("give an item for levels 1 to 5 of each group, and the judge's path only where a judge is needed", async () => {
    const items = await followbench.load(await written(files()))
    expect(items).toHaveLength(8 * 5)
    expect(items[1]).toMatchObject({
      id: "content/1/2",
      unit: "content/1",
      turns: ["content 1, step 2"],
      temperature: 0,
      maxTokens: 2048,
      data: { language: "en", path: ["", "content 1, step 1", "content 1, step 2"] },
    })
    expect(items.filter(({ data }) => data.path.length)).toHaveLength(4 * 5)
  })

  it("are told to be Chinese by their text, where format 30 is judged", async () => {
    const chinese = group("format", 30, "koala").map((row) => ({ ...row, instruction: `第${row.level}步` }))
    const folder = await written({ ...files(), format: chinese })
    const items = await followbench.load(join(folder, "format_constraints.json"))
    expect(items.map(({ data }) => [data.language, data.path.length])).toEqual([2, 3, 4, 5, 6].map((n) => ["zh", n]))
    expect((await followbench.load(folder))[0]!.data.language).toBe("en")
  })

  const broken: [string, (contents: Record<string, Row[]>) => void, Partial<InputError>, RegExp][] = [
    ["a field of another type", ({ style }) => (style![3]!.level = "3"), { field: "level", line: 26 }, /number/],
    ["a field that is missing", ({ style }) => delete style![1]!.target, { field: "target", line: 10 }, /string/],
    ["a level left out", ({ mixed }) => mixed!.splice(2, 1), { field: "level", line: 18 }, /must be 2 .*got 3/],
    ["a group cut short", ({ mixed }) => mixed!.pop(), { field: "level", line: 34 }, /on to 5 in group 1, got 4/],
    [
      "a group that comes twice",
      ({ style }) => style!.push(...group("style", 1, "letters")),
      { field: "example_id", line: 98 },
      /must be new, got 1/,
    ],
    ["a category of another file", ({ style }) => (style![0]!.category = "format"), { field: "category" }, /"style"/],
    ["no instruction", ({ format }) => (format![2]!.instruction = " "), { field: "instruction" }, /must hold text/],
    ["a form without place", ({ example }) => (example![0]!.target = "x"), { field: "target" }, /\{answer\}/],
    [
      "a target that is no list",
      ({ content }) => content!.push(...group("content", 9, "CONLL2003", "Rome")),
      { field: "target" },
      /Python list/,
    ],
  ]
  it.each(broken)("with %s are refused by file, line and field", async (_, breaking, place, message) => {
    const contents = files()
    breaking(contents)
    const error = await followbench.load(await written(contents)).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(InputError)
    expect(error).toMatchObject(place)
    expect((error as InputError).file).toMatch(/_constraints\.json$/)
    expect((error as Error).message).toMatch(message)
  })

  it("that are missing, have another name or are no JSON are refused", async () => {
    const { mixed: _, ...five } = files()
    const folder = await written(five)
    await expect(followbench.load(folder)).rejects.toThrow(/six files, mixed_constraints.json not found; name/)
    await expect(followbench.load(join(folder, "nothing"))).rejects.toThrow(/got nothing; check the path/)
    await writeFile(join(folder, "other.json"), "[]")
    await expect(followbench.load(join(folder, "other.json"))).rejects.toThrow(/name must be one of content_/)
    await writeFile(join(folder, "style_constraints.json"), "[{,}]")
    await expect(followbench.load(join(folder, "style_constraints.json"))).rejects.toThrow(/line 1: must be JSON/)
  })
})

describe("FollowBench's judge", () => {
  it("sees the kind of constraint, the whole path in order, and the answer", () => {
    const { messages, temperature, maxTokens } = judgeRequest("en", "situation", ["", "one", "two"], "the answer")
    expect([temperature, maxTokens, messages.length]).toEqual([0, 1024, 1])
    const { content } = messages[0]!
    const order = ["2 steps", "situation constraint", "# Initial Instruction\n\n", "+ 1 constraint\none"]
    const places = [...order, "+ 2 constraints\ntwo", "the answer", "Python list of 2"].map((part) =>
      content.indexOf(part),
    )
    expect(places).toEqual([...places].sort((a, b) => a - b))
    expect(places[0]).toBeGreaterThan(0)
    expect(judgeRequest("zh", "style", ["零", "一"], "答").messages[0]!.content).toMatch(
      /1步.*风格约束[\s\S]*# 初始指令\n零[\s\S]*1个约束\n一[\s\S]*答[\s\S]*1个字符串/,
    )
  })

  it("is read from the last line alone: YES or NO at level 1, above a list of as many known words", () => {
    expect(verdicts("NO, no.\nYES", 1, "en")).toEqual([true])
    expect(verdicts("['NO']\n", 1, "en")).toEqual([false])
    expect(verdicts("YES\nIt does.", 1, "en")).toBeUndefined()
    const corrected = (line: string) => verdicts(line, 1, "en", "corrected")
    expect(verdicts("YES or NO: ['NO']", 1, "en")).toEqual([true])
    expect(["YES or NO: ['NO']", "['YES'], not NO"].map(corrected)).toEqual([[false], [true]])
    expect(["YES or NO", "['YES or NO']"].map(corrected)).toEqual([undefined, undefined])
    expect(["YES", "['NO']"].map(corrected)).toEqual([[true], [false]])
    expect(verdicts("```\nSo:\n['YES', \"NO\"]```", 2, "en")).toEqual([true, false])
    expect(verdicts("['PARTIAL', 'N/A', 'YES',]", 3, "en")).toEqual([false, false, true])
    for (const text of ["['YES']", "['YES','YES','YES']", "[YES, NO]", "['YES', 'OK']", "['YES' 'NO']", "YES, NO", ""])
      expect(verdicts(text, 2, "en")).toBeUndefined()
  })

  it("may in Chinese leave out quotes, use curly ones, or list too much", () => {
    expect(verdicts("[YES, NO]", 2, "zh")).toEqual([true, false])
    expect(verdicts("[“YES”, “PARTIALLY”, “YES”]", 2, "zh")).toEqual([true, false])
    expect(verdicts("['YES', 'N/A']", 2, "zh")).toBeUndefined()
    expect(verdicts("['YES']", 2, "zh")).toBeUndefined()
  })

  it("is asked once for each judged answer and never where a rule decides", async () => {
    const asked: JudgeRequest[] = []
    await graded(await followbench.load(await written(files())), asked)
    expect(asked).toHaveLength(4 * 5)
  })
})

describe("FollowBench's figures", () => {
  let results: FollowBenchResult[] = []
  beforeAll(async () => {
    results = await graded(await followbench.load(await written(files())))
  })
  const close = (figures: Record<string, number>, expected: Record<string, number>) => {
    for (const [name, value] of Object.entries(expected)) expect(figures[name], name).toBeCloseTo(value, 12)
  }

  // Hard by level (1 2 3 4 5), from the script:      soft where it differs:
  //   content/1    1 1 0 1 ?   run 2                 2/3 at level 3 (YNY)
  //   content/2    1 1 0 0 1   run 2
  //   situation/1  1 1 1 1 1   run 5
  //   style/1      1 ? 1 1 0   run 1                 4/5 at level 5 (YYYYN)
  //   style/2      0 1 0 0 1   run 0                 2/3 at level 3 (YYN)
  //   format/1     0 0 0 0 0   run 0
  //   mixed/1      1 1 1 0 0   run 3 (8 words, no mark, lower case; but "bus")
  //   example/1    1 0 0 0 0   run 1
  // Official, ? = -1:
  //   content HSR  1  1  0    .5  0      SSR  1  1  1/3  .5  0     CSL (2+2)/2
  //   style HSR   .5  0  .5   .5  .5     SSR .5  0  5/6  .5  .9    CSL (1+0)/2
  it("are the paper's and the aggregator's, with unread replies as -1 when official", () => {
    const figures = followbench.figures(results, "official")
    close(figures, {
      "type: content HSR level 1": 1,
      "type: content HSR level 4": 1 / 2,
      "type: content HSR level 5": 0,
      "type: content SSR level 3": 1 / 3,
      "type: content HSR": 2.5 / 5,
      "type: content SSR": (1 + 1 + 1 / 3 + 0.5 + 0) / 5,
      "type: content CSL": 2,
      "type: style HSR level 2": 0,
      "type: style SSR level 3": 5 / 6,
      "type: style SSR level 5": 0.9,
      "type: style CSL": 0.5,
      "type: situation HSR": 1,
      "type: format SSR": 0,
      "type: mixed HSR": 3 / 5,
      "type: mixed CSL": 3,
      "type: example HSR": 1 / 5,
      "type: example SSR": 1 / 5,
      "type: example CSL": 1,
      // over content, situation, style, format, mixed, example
      "HSR level 1": (1 + 1 + 0.5 + 0 + 1 + 1) / 6,
      "HSR level 2": (1 + 1 + 0 + 0 + 1 + 0) / 6,
      "HSR level 3": (0 + 1 + 0.5 + 0 + 1 + 0) / 6,
      "HSR level 4": (0.5 + 1 + 0.5 + 0 + 0 + 0) / 6,
      "HSR level 5": (0 + 1 + 0.5 + 0 + 0 + 0) / 6,
      HSR: (4.5 + 3 + 2.5 + 2 + 1.5) / 30,
      "SSR level 3": (1 / 3 + 1 + 5 / 6 + 0 + 1 + 0) / 6,
      "SSR level 5": (0 + 1 + 0.9 + 0 + 0 + 0) / 6,
      SSR: (4.5 + 3 + 19 / 6 + 2 + 1.9) / 30,
      CSL: (2 + 5 + 0.5 + 0 + 3 + 1) / 6,
      // levels weighted 1 to 5 over 15: content 1+2+0+2+0, style .5+0+1.5+2+2.5, mixed 1+2+3; five categories
      "aggregator HSR": (5 / 15 + 1 + 6.5 / 15 + 0 + 6 / 15) / 5,
      // content 1+2+1+2+0, style .5+0+2.5+2+4.5
      "aggregator SSR": (6 / 15 + 1 + 9.5 / 15 + 0 + 6 / 15) / 5,
    })
    expect(Object.keys(figures).slice(0, 4)).toEqual(["HSR", "SSR", "CSL", "HSR level 1"])
  })

  // Corrected: content level 5 is content/2 alone, 1; style level 2 is style/2 alone, 1. content/1 fails at level 3,
  // before the unread one, so its run stays 2; style/1 is at the unread one after one level, so only style/2 counts: 0.
  it("leave unread replies out when corrected, and groups whose run reaches one", () => {
    close(followbench.figures(results, "corrected"), {
      "type: content HSR level 5": 1,
      "type: style HSR level 2": 1,
      "type: style SSR level 2": 1,
      "type: content CSL": 2,
      "type: style CSL": 0,
      HSR: (4.5 + 4 + 2.5 + 2 + 2.5) / 30,
      SSR: (4.5 + 4 + 19 / 6 + 2 + 2.9) / 30,
      CSL: (2 + 5 + 0 + 0 + 3 + 1) / 6,
    })
  })

  it("count a group as often as a resample draws it, in any order", () => {
    const style = results.filter(({ category }) => category === "style")
    const first = style.filter((result) => result.group === "style/1")
    // CSL (1 + 1 + 0) / 3; level 5 soft (.8 + .8 + 1) / 3
    close(followbench.figures([...style, ...first].reverse(), "official"), { CSL: 2 / 3, "SSR level 5": 2.6 / 3 })
    close(followbench.figures([...results, ...results], "official"), followbench.figures(results, "official"))
  })

  it("come with notes on unread replies, missing categories and groups cut short", () => {
    expect(followbench.notes!(results, "official")).toContain("2 of 20 judged answers unread: -1 each")
    expect(followbench.notes!(results, "corrected")).toContain("2 of 20 judged answers unread: left out")
    const notes = followbench.notes!(results.slice(0, 7), "official")
    expect(notes).toContain("Headline figures over 1 of 6 categories: content")
    expect(notes).toContain("Groups without all five levels, in no CSL: 1")
    // content/1 whole, content/2 two levels: the CSL is that of content/1
    close(followbench.figures(results.slice(0, 7), "official"), { CSL: 2 })
  })
})
