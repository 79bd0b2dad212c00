import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { InputError } from "../../lib/errors"
import type { Judge, JudgeRequest } from "../../lib/eval/benchmark"
import { type MtBenchResult, mtBench, mtBenchRequests, ratingOf } from "../../lib/eval/mt-bench"

let root = ""
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "musc-mt-bench-"))
})
afterAll(() => rm(root, { recursive: true }))

type Row = Record<string, unknown>
type Files = Record<string, Row[]>

/** Records of the official shape, written for these tests. */
const files = (): Files => ({
  "question.jsonl": [
    { question_id: 81, category: "writing", turns: ["Write.", "Again."] },
    { question_id: 111, category: "math", turns: ["1 + 1?", "And 2 + 2?"], reference: ["unused", "unused"] },
    { question_id: 151, category: "stem", turns: ["What is heat?", "And cold?"] },
  ],
  "reference_answer/gpt-4.jsonl": [{ question_id: 111, model_id: "any", choices: [{ index: 0, turns: ["2", "4"] }] }],
  "judge_prompts.jsonl": [
    { name: "single-v1", system_prompt: "S", prompt_template: "Q {question} A {answer}" },
    { name: "single-math-v1", system_prompt: "M", prompt_template: "Q {question} R {ref_answer_1} A {answer}" },
    {
      name: "single-v1-multi-turn",
      system_prompt: "S2",
      prompt_template: "{question_1} {answer_1} {question_2} {answer_2}",
    },
    {
      name: "single-math-v1-multi-turn",
      system_prompt: "M2",
      prompt_template: "{ref_answer_1} {ref_answer_2} {question_1} {answer_1} {question_2} {answer_2}",
    },
    { name: "pair-v2", system_prompt: "P", prompt_template: "{answer_a} {answer_b}" },
  ],
})

async function written(contents: Files): Promise<string> {
  const folder = await mkdtemp(join(root, "data-"))
  for (const [name, rows] of Object.entries(contents)) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
  }
  return folder
}

describe("MT-Bench's files", () => {
  it("give two turns an item, at the temperature of the category, with references for math, reasoning and coding", async () => {
    const items = await mtBench.load(await written(files()))
    expect(items.map(({ id, unit, temperature, maxTokens }) => [id, unit, temperature, maxTokens])).toEqual([
      ["81", "81", 0.7, 1024],
      ["111", "111", 0, 1024],
      ["151", "151", 0.1, 1024],
    ])
    expect(items[0]!.turns).toEqual(["Write.", "Again."])
    expect(items.map(({ data }) => data.reference)).toEqual([undefined, ["2", "4"], undefined])
  })

  it("may have the judge's prompts one folder up, as in FastChat", async () => {
    const contents = files()
    const folder = await written({
      "mt_bench/question.jsonl": contents["question.jsonl"]!,
      "mt_bench/reference_answer/gpt-4.jsonl": contents["reference_answer/gpt-4.jsonl"]!,
      "judge_prompts.jsonl": contents["judge_prompts.jsonl"]!,
    })
    expect(await mtBench.load(join(folder, "mt_bench"))).toHaveLength(3)
    expect(await mtBench.load(join(folder, "mt_bench", "question.jsonl"))).toHaveLength(3)
  })

  const questions = (contents: Files) => contents["question.jsonl"]!
  const prompts = (contents: Files) => contents["judge_prompts.jsonl"]!
  const broken: [string, (contents: Files) => void, string, Partial<InputError>, RegExp][] = [
    ["one turn", (all) => (questions(all)[1]!.turns = ["1"]), "question.jsonl", { line: 2, field: "turns" }, /2 items/],
    [
      "an unknown category",
      (all) => (questions(all)[0]!.category = "poems"),
      "question.jsonl",
      { line: 1, field: "category" },
      /"writing"/,
    ],
    [
      "an id that comes twice",
      (all) => (questions(all)[2]!.question_id = 81),
      "question.jsonl",
      { line: 3, field: "question_id" },
      /must be unique, got 81 again .first on line 1./,
    ],
    [
      "no reference",
      (all) => (all["reference_answer/gpt-4.jsonl"]![0]!.question_id = 112),
      "question.jsonl",
      { line: 2, field: "question_id" },
      /reference answer in .*gpt-4\.jsonl, as all of math/,
    ],
    [
      "a reference without turns",
      (all) => (all["reference_answer/gpt-4.jsonl"]![0]!.choices = []),
      "reference_answer/gpt-4.jsonl",
      { line: 1, field: "choices" },
      /1 items/,
    ],
    [
      "a prompt that lacks a placeholder",
      (all) => (prompts(all)[0]!.prompt_template = "Q {question}"),
      "judge_prompts.jsonl",
      { line: 1, field: "prompt_template" },
      /question, answer, got question;/,
    ],
    [
      "a prompt missing",
      (all) => prompts(all).splice(2, 1),
      "judge_prompts.jsonl",
      {},
      /single-v1-multi-turn, got none/,
    ],
    ["no prompts", (all) => delete all["judge_prompts.jsonl"], "judge_prompts.jsonl", {}, /got no file; fetch/],
    ["no questions", (all) => delete all["question.jsonl"], "question.jsonl", {}, /ENOENT.*check the path/],
  ]
  it.each(broken)("with %s are refused by file, line and field", async (_, breaking, name, place, message) => {
    const contents = files()
    breaking(contents)
    const folder = await written(contents)
    const error = await mtBench.load(folder).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(InputError)
    expect(error).toMatchObject({ file: join(folder, name), ...place })
    expect((error as Error).message).toMatch(message)
  })
})

describe("MT-Bench's judge", () => {
  it("rates turn 1 alone and turn 2 with both in view, in the words of the data, braces and dollars kept", async () => {
    const [writing, math] = await mtBench.load(await written(files()))
    const answers = ["{answer} $&", "two"]
    expect(mtBenchRequests(writing!, answers)).toEqual(
      [
        ["S", "Q Write. A {answer} $&"],
        ["S2", "Write. {answer} $& Again. two"],
      ].map(([system, user]) => ({
        messages: [
          { role: "system", content: system },
          { role: "user", content: user },
        ],
        temperature: 0,
        maxTokens: 2048,
      })),
    )
    expect(mtBenchRequests(math!, ["a", "b"]).map(({ messages }) => messages.map(({ content }) => content))).toEqual([
      ["M", "Q 1 + 1? R 2 A a"],
      ["M2", "2 4 1 + 1? a And 2 + 2? b"],
    ])
  })

  it("is read as the first [[n]] or else the first [n] when official", () => {
    expect(ratingOf("[3] points. Rating: [[7]] or [[8]]", "official")).toBe(7)
    expect(ratingOf("[[8.5]]", "official")).toBe(8.5)
    expect(ratingOf("As in [1], I say [9]", "official")).toBe(1)
    expect(ratingOf("Rating: [[50]]", "official")).toBe(50)
    for (const text of ["Rating: 7", "[[rating]]", "[[-1]]", "[[7/10]]", ""])
      expect(ratingOf(text, "official")).toBeNull()
  })

  it("is read as the last one from 1 to 10 when corrected", () => {
    expect(ratingOf("[3] points. I say [[7]] or [[8]]", "corrected")).toBe(8)
    expect(ratingOf("As in [1], I say [9]", "corrected")).toBe(9)
    expect(ratingOf("Rating: [[10]] of [[100]]", "corrected")).toBe(10)
    expect(ratingOf("**Rating:** [[9]]. A [[1]] would be unfair.", "corrected")).toBe(9)
    expect(ratingOf('As asked for, "Rating: [[5]]". Rating: [[7]]', "corrected")).toBe(7)
    for (const text of ["[[50]]", "[[0]] for [1]", "Rating: 7"]) expect(ratingOf(text, "corrected")).toBeNull()
  })

  it("is asked twice an item, and its first readable reply counts under either scoring", async () => {
    const [item] = await mtBench.load(await written(files()))
    const asked: JudgeRequest[] = []
    const judge: Judge = async (request, readable) => {
      asked.push(request)
      const texts = asked.length === 1 ? ["Good.", "[[0]]", "[[6]]"] : ["Bad."]
      const replies = texts.map((text) => ({ text }))
      return { replies, parsed: readable(replies.at(-1)!) }
    }
    const collected = await mtBench.collect(item!, ["a", "b"], judge)
    expect(collected!.map(({ parsed }) => parsed)).toEqual([true, false])
    expect(asked).toHaveLength(2)
    const score = (scoring: "official" | "corrected") => mtBench.score(item!, ["a", "b"], collected, scoring)
    expect(score("official")).toEqual({ category: "writing", ratings: [0, null] })
    expect(score("corrected")).toEqual({ category: "writing", ratings: [6, null] })
  })
})

describe("MT-Bench's figures", () => {
  const results: MtBenchResult[] = [
    { category: "writing", ratings: [8, 6] },
    { category: "writing", ratings: [9, null] },
    { category: "math", ratings: [2, 1] },
    { category: "stem", ratings: [null, null] },
  ]

  it("are means over the rated turns, overall, by turn and by category", () => {
    // turn 1: 8, 9, 2; turn 2: 6, 1; writing: 8, 6, 9
    const figures = mtBench.figures(results, "official")
    expect(figures).toEqual({
      "rating (1-10)": 26 / 5,
      "rating turn 1": 19 / 3,
      "rating turn 2": 7 / 2,
      "type: writing": 23 / 3,
      "type: math": 3 / 2,
      "type: stem": Number.NaN,
    })
  })

  it("come with the number of turns that were dropped", () => {
    expect(mtBench.notes!(results, "official")).toContain("Turns without a readable rating, dropped: 3 of 8")
    const wild: MtBenchResult[] = [{ category: "math", ratings: [50, 5] }]
    expect(mtBench.notes!(wild, "official")).toContain("Ratings outside 1 to 10, counted as they are: 1")
    expect(mtBench.notes!(wild, "official").join()).not.toMatch(/dropped/)
  })
})
