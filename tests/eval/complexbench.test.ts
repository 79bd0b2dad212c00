import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import type { Judge, Judgement, JudgeRequest } from "../../lib/eval/benchmark"
import { type ComplexbenchData, complexbench, complexbenchEn } from "../../lib/eval/complexbench/complexbench"
import type { ComplexbenchResult } from "../../lib/eval/complexbench/figures"
import { parseExtraction, parseVerdict } from "../../lib/eval/complexbench/prompts"

type Question = ComplexbenchData["scoring_questions"][number]

const question = (changes: Partial<Question> = {}): Question => ({
  question: "是否写了诗？",
  rule: null,
  constraint_dimensions: ["Helpfulness"],
  composition_types: [],
  dep: [],
  ...changes,
})

const record = (questions: Question[], changes: Partial<ComplexbenchData> = {}): ComplexbenchData => ({
  main_id: 0,
  group: null,
  instruction: "写一首诗，以“完”结尾。",
  task_types: "Creative Writing",
  composition_types: ["And"],
  category: "And_1",
  scoring_questions: questions,
  ...changes,
})

const item = (data: ComplexbenchData) => ({ id: "0", unit: "0", turns: [""], temperature: 0, maxTokens: 1, data })
const says = (...texts: string[]): Judgement => ({ replies: texts.map((text) => ({ text })), parsed: true })
const grade = (data: ComplexbenchData, replies: Judgement[], scoring: "official" | "corrected" = "official") =>
  complexbench.score(item(data), ["春眠不觉晓。完"], replies, scoring)
const finals = ({ questions }: ComplexbenchResult) => questions.map(({ final }) => final)

const yes = says("分析：好\n答案：是")
const no = says("分析：不好\n答案：否")

describe("verdicts of the judge", () => {
  it("come from the one marker, or officially from 是 without 否", () => {
    for (const scoring of ["official", "corrected"] as const) {
      expect(parseVerdict("分析：不是很好\n答案：是", scoring)).toBe(true)
      expect(parseVerdict("分析：是\n答案：否", scoring)).toBe(false)
    }
    expect(parseVerdict("是", "official")).toBe(true)
    expect(parseVerdict("是否满足：是", "official")).toBe(false)
    expect(parseVerdict("", "official")).toBe(false)
    for (const reply of ["是", "", "答案：是 答案：否", "答案：是否", "答案：是 或 否", "答案：是/否"])
      expect(parseVerdict(reply, "corrected")).toBeNull()
    expect(parseVerdict("**答案**: **是**", "corrected")).toBe(true)
  })
})

describe("extraction", () => {
  const read = (reply: string, scoring: "official" | "corrected" = "official") =>
    parseExtraction(reply, "全文", scoring)

  it("takes what follows the last marker, without a closing note, split at ||", () => {
    for (const scoring of ["official", "corrected"] as const) {
      expect(read("分析：评分对象：假\n评分对象： 一 || 二\n\n注意：三", scoring)).toEqual(["一", "二"])
      expect(read("评分对象：all", scoring)).toEqual(["全文"])
      expect(read("评分对象：None", scoring)).toEqual([])
    }
  })

  it("officially falls back on other colons and on the whole reply, and takes all and None wherever they stand", () => {
    expect(read("评测对象：一")).toEqual(["一"])
    expect(read("结果：一")).toEqual(["一"])
    expect(read("一")).toEqual(["一"])
    expect(read("评分对象：all of it")).toEqual(["全文"])
    expect(read("评分对象：None of it")).toEqual([])
  })

  it("looks behind the heading of the judge's task first, of the official wording alone when official", () => {
    // As in the official script: behind the heading the markers are looked for again, before it they count for nothing.
    expect(read("评分对象：假\n【模型回复中评分问题的评测对象】\n一||二")).toEqual(["一", "二"])
    expect(read("【模型回复中评分问题的评测对象】\n评分对象：一")).toEqual(["一"])
    expect(read("【模型回复中评分问题的评测对象】\n题：一")).toEqual(["一"])
    expect(read("【评分对象】\n一：二")).toEqual(["二"])
    for (const heading of [
      "【模型回复中评分问题的评测对象】\n",
      "**【评分对象】**\n",
      "【模型回复中评分问题的评分对象】：",
    ])
      expect(read(`分析：好\n${heading}一：二`, "corrected"), heading).toEqual(["一：二"])
  })

  it("is trimmed as Python trims", () => {
    expect(read("评分对象：\u001c一\u0085||\ufeff二")).toEqual(["一", "\ufeff二"])
  })

  it("is not read without a marker when corrected, and takes all and None only alone", () => {
    expect(read("结果：一", "corrected")).toBeNull()
    expect(read("评测对象: 一", "corrected")).toEqual(["一"])
    expect(read("评分对象：all of it", "corrected")).toEqual(["all of it"])
    expect(read("评分对象：None of it", "corrected")).toEqual(["None of it"])
    expect(read("评分对象：“all”。", "corrected")).toEqual(["全文"])
  })
})

describe("an item", () => {
  it("fails questions whose direct dependency is answered with no, by that one's own verdict", () => {
    // 0 no; 1 depends on 0; 2 depends on 1, whose own verdict is yes: so 2 stays.
    const data = record([question(), question({ dep: [0] }), question({ dep: [1] })])
    expect(finals(grade(data, [no, yes, yes]))).toEqual([false, false, true])
    expect(finals(grade(data, [yes, no, yes]))).toEqual([true, false, false])
  })

  it("applies a rule to what the judge extracts", () => {
    const data = record([question({ rule: "endswith:完" }), question({ rule: "model_number_each:[2,2]" })])
    expect(finals(grade(data, [says("评分对象：all"), says("评分对象：春||眠")]))).toEqual([true, true])
    expect(finals(grade(data, [says("评分对象：春眠不觉晓。"), says("评分对象：None")]))).toEqual([false, false])
  })

  it("has no verdict where a reply cannot be read, and fails nothing by it, in corrected scoring only", () => {
    const data = record([question(), question({ dep: [0] })])
    expect(finals(grade(data, [says("嗯"), yes], "corrected"))).toEqual([null, true])
    expect(finals(grade(data, [says("嗯"), yes], "official"))).toEqual([false, false])
    // Officially the first reply counts, corrected the last.
    expect(finals(grade(data, [says("嗯", "答案：是"), yes], "corrected"))).toEqual([true, true])
    expect(complexbench.notes!([grade(data, [says("嗯"), yes], "corrected")], "corrected")[0]).toContain("1 of 2")
  })

  it("asks one question a call, extraction for rules, several objects for each", async () => {
    const data = record([question(), question({ rule: "endswith:完" }), question({ rule: "model_length_each:[1,9]" })])
    const seen: JudgeRequest[] = []
    const judge: Judge = async (request, readable) => {
      seen.push(request)
      const readables = ["答案：是", "评分对象：一", "嗯"].map((text) => readable({ text }))
      expect(readables).toEqual(seen.length === 1 ? [true, false, false] : [false, true, false])
      return says("x")
    }
    const long = `${"长".repeat(4000)}尾`
    const collected = await complexbench.collect(item(data), [long], judge)
    expect(collected).toHaveLength(3)
    const prompts = seen.map(({ messages }) => messages[0]!.content)
    expect(prompts.map((prompt) => [prompt.includes("评分对象"), prompt.includes("||")])).toEqual([
      [false, false],
      [true, false],
      [true, true],
    ])
    for (const prompt of prompts) {
      expect(prompt).toContain(data.instruction)
      // The response is cut to 4000 characters.
      expect(prompt).toContain("长".repeat(4000))
      expect(prompt).not.toContain("长尾")
    }
    expect(seen.every(({ temperature }) => temperature === 0)).toBe(true)
  })
})

describe("figures", () => {
  const selection = question({ composition_types: ["Selection"], constraint_dimensions: ["Factuality"] })
  const pair = (id: number, group: string, count: number, replies: Judgement[]) => {
    const data = record([...Array(count).fill(selection), question({ constraint_dimensions: ["Length"] })], {
      main_id: id,
      group,
      category: `Selection_${count}`,
      task_types: "Logical Reasoning",
      composition_types: ["Selection", "And"],
    })
    return grade(data, replies)
  }
  // Group a (one Selection question): members yes yes, yes no. Group b: one member, yes yes. Group c (two Selection
  // questions): one member, yes yes no. A lone And item with a rule that is not of the language (2 officially) and a
  // yes.
  const lone = record([question({ rule: "colour:red", constraint_dimensions: ["Keywords"] }), question()], {
    main_id: 9,
  })
  const results = [
    pair(1, "a", 1, [yes, yes]),
    pair(2, "a", 1, [yes, no]),
    pair(3, "b", 1, [yes, yes]),
    pair(4, "c", 2, [yes, yes, no]),
    grade(lone, [says("评分对象：all"), yes]),
  ]

  it("are hand-computed rates over questions, and the coherence test over groups", () => {
    // All: 2+1+2+2+1 = 8 yes of 2+2+2+3+2 = 11; the unknown rule counts as no. Selection_1: 5 of 6; Selection: 7 of 9.
    // Factuality: 5 Selection questions, all yes. Length: yes no yes no. Types: Structure = Length; Utility =
    // Factuality and Helpfulness: 6 of 6; Lexical = the unknown rule: 1 of 1.
    // Single: members kept 2 of 3 (1 and 3), groups kept 1 of 2 (b): drop (2/3 - 1/2) / (2/3) = 1/4. Multiple: 0 of 1.
    expect(complexbench.figures(results, "official")).toEqual({
      DRFR: 8 / 11,
      "category group: And": 1 / 2,
      "category group: Selection": 7 / 9,
      "category: And_1": 1 / 2,
      "category: Selection_1": 5 / 6,
      "category: Selection_2": 2 / 3,
      "task: Creative Writing": 1 / 2,
      "task: Logical Reasoning": 7 / 9,
      "composition: And": 1 / 2,
      "composition: And_Selection": 7 / 9,
      "type: Lexical": 1,
      "type: Structure": 1 / 2,
      "type: Utility": 1,
      "dimension: Factuality": 1,
      "dimension: Helpfulness": 1,
      "dimension: Keywords": 1,
      "dimension: Length": 1 / 2,
      "question composition: Selection": 1,
      "single origin": 2 / 3,
      "single coherent": 1 / 2,
      "single drop": expect.closeTo(1 / 4, 12),
      "multiple origin": 0,
      "multiple coherent": 0,
      "multiple drop": Number.NaN,
    })
  })

  it("leave questions without a verdict out when corrected", () => {
    // The unknown rule is gone: 8 of 10, and nothing is left of its type.
    const figures = complexbench.figures(results, "corrected")
    expect(figures).toMatchObject({ DRFR: 0.8, "category: And_1": 1 })
    expect(figures).not.toHaveProperty("type: Lexical")
  })

  it("count a group as often as it was drawn", () => {
    // a, a, b: members kept 3 of 5, groups kept 1 of 3.
    const drawn = [results[0]!, results[1]!, results[0]!, results[1]!, results[2]!]
    const figures = complexbench.figures(drawn, "official")
    expect(figures["single origin"]).toBeCloseTo(3 / 5, 12)
    expect(figures["single coherent"]).toBeCloseTo(1 / 3, 12)
  })
})

describe("loading", () => {
  const folder = mkdtempSync(join(tmpdir(), "complexbench-"))
  const write = (records: unknown[]) => {
    const file = join(folder, "data_final.json")
    writeFileSync(file, JSON.stringify(records, null, 1))
    return file
  }
  const full = {
    ...record([{ ...question({ dep: [1] }), question_en: "Is it a poem?" }, question({ question_en: "Is it long?" })]),
    group: "complex_1",
    idx_in_group: 1,
    instruction_en: "Write a poem.",
    constraint_dimensions: ["Helpfulness"],
  }

  it("reads records of the official shape, with the selection group as the unit, in either language", async () => {
    const file = write([full, { ...full, main_id: 1, group: "" }])
    const items = await complexbench.load(file)
    expect(items.map(({ id, unit, turns }) => [id, unit, ...turns])).toEqual([
      ["0", "complex_1", full.instruction],
      ["1", "1", full.instruction],
    ])
    const [english] = await complexbenchEn.load(file)
    expect(english!.turns).toEqual(["Write a poem."])
    expect(english!.data.scoring_questions[1]!.question).toBe("Is it long?")
  })

  it("names file, line and field of what is wrong", async () => {
    await expect(complexbench.load(write([full, full]))).rejects.toThrow(
      /data_final\.json, line \d+, main_id: .*unique/,
    )
    const wrong = record([question({ dep: [3] })])
    await expect(complexbench.load(write([wrong]))).rejects.toThrow(
      /line 2, scoring_questions\.0\.dep: .*1 questions.*got 3/,
    )
    const text = { ...full, scoring_questions: [{ ...question(), rule: 5 }] }
    await expect(complexbench.load(write([text]))).rejects.toThrow(/line 2, scoring_questions\.0\.rule/)
    await expect(complexbenchEn.load(write([record([question()])]))).rejects.toThrow(
      /line 2, instruction_en: .*English/,
    )
  })
})
