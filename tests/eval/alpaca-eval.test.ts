import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { type AlpacaData, alpacaEval, alpacaRequest, modelFirst, shareOfM } from "../../lib/eval/alpaca-eval"
import type { Judge, JudgeReply } from "../../lib/eval/benchmark"
import { lengthControlledRate } from "../../lib/eval/length-controlled"

/** The first instruction of its kind whose seeded order shows the model where asked. */
const instructionWith = (first: boolean) =>
  ["Add 2 and 2.", "Name a colour.", "Say hello.", "Count to 3.", "Draw a line.", "Sing."].find(
    (instruction) => modelFirst(instruction) === first,
  )!

const data = (instruction: string, changes: Partial<AlpacaData> = {}): AlpacaData => ({
  dataset: "koala",
  instruction,
  output: "base",
  generator: "gpt4_1106_preview",
  gamed: null,
  ...changes,
})

const item = (of: AlpacaData) => ({
  id: "0",
  unit: "0",
  turns: [of.instruction],
  temperature: 0,
  maxTokens: 1,
  data: of,
})

/** A reply whose first token has these probabilities. */
const reply = (probabilities: Record<string, number>): JudgeReply => ({
  text: Object.keys(probabilities)[0]!,
  first: Object.entries(probabilities).map(([token, p]) => ({ token, logprob: Math.log(p) })),
})

describe("the judge's reply", () => {
  it("gives P(m) / (P(m) + P(M)), a label that is missing having probability 0", () => {
    expect(shareOfM(reply({ m: 0.6, M: 0.2, Both: 0.1 }), "official")).toBeCloseTo(0.75, 12)
    expect(shareOfM(reply({ M: 0.9 }), "official")).toBe(0)
    expect(shareOfM(reply({ m: 0.9, The: 0.1 }), "official")).toBe(1)
    expect(shareOfM(reply({ The: 1 }), "official")).toBeUndefined()
    expect(shareOfM({ text: "m" }, "official")).toBeUndefined()
  })

  it("decides by its text in corrected scoring where the server gives no log-probs", () => {
    expect([" m\n", '"M".', "The answer is m", ""].map((text) => shareOfM({ text }, "corrected"))).toEqual([
      ...[1, 0, undefined, undefined],
    ])
    expect(shareOfM({ text: "m", first: [{ token: "The", logprob: 0 }] }, "corrected")).toBeUndefined()
    const result = alpacaEval.score(item(data("Sing.")), ["x"], [{ text: "m" }], "corrected")
    expect(result.byText).toBe(true)
    expect(alpacaEval.notes!([result], "corrected")[0]).toBe(
      "1 comparisons are decided by the reply's text, as the server gives no log-probs",
    )
  })

  it("has its tokens read with blanks and quotes only in corrected scoring", () => {
    const spaced = reply({ " m": 0.3, M: 0.3, m: 0.3 })
    expect(shareOfM(spaced, "official")).toBeCloseTo(0.5, 12)
    expect(shareOfM(spaced, "corrected")).toBeCloseTo(2 / 3, 12)
  })
})

describe("a comparison", () => {
  it("is turned to the model's side, whichever answer was shown first", () => {
    const probabilities = { m: 0.8, M: 0.2 }
    const score = (first: boolean) =>
      alpacaEval.score(item(data(instructionWith(first))), ["model"], [reply(probabilities)], "official").preference
    // The model is m with .8: preference 1 + .8. It is M with .2: 1 + .2.
    expect(score(true)).toBeCloseTo(1.8, 12)
    expect(score(false)).toBeCloseTo(1.2, 12)
  })

  it("shows both answers in the seeded order and asks for one token with log-probs", () => {
    for (const first of [true, false]) {
      const request = alpacaRequest(data(instructionWith(first)), "the model's answer")
      const { content } = request.messages.at(-1)!
      expect(content.indexOf("the model's answer") < content.indexOf("base")).toBe(first)
      expect(request).toMatchObject({ temperature: 1, maxTokens: 1, topLogprobs: 5 })
    }
    const orders = Array.from({ length: 400 }, (_, i) => Number(modelFirst(`instruction ${i}`)))
    // 400 fair draws: 200 expected, standard deviation 10.
    expect(Math.abs(orders.reduce((a, b) => a + b) - 200)).toBeLessThan(40)
  })

  it("of equal answers is a draw without a call", async () => {
    const same = item(data("Sing."))
    const never: Judge = () => Promise.reject(new Error("asked"))
    expect(await alpacaEval.collect(same, ["base"], never)).toBeNull()
    expect(alpacaEval.score(same, ["base"], null, "official").preference).toBe(1.5)
  })

  it("is asked again until a label is among the first tokens; official scoring reads the first reply", async () => {
    const one = item(data(instructionWith(true)))
    const replies = [reply({ The: 1 }), reply({ m: 1 })]
    const judge: Judge = async (_request, readable) => {
      expect(replies.map(readable)).toEqual([false, true])
      return { replies, parsed: true }
    }
    const collected = await alpacaEval.collect(one, ["x"], judge)
    expect(alpacaEval.score(one, ["x"], collected, "official").preference).toBeNull()
    expect(alpacaEval.score(one, ["x"], collected, "corrected").preference).toBe(2)
  })
})

describe("figures", () => {
  const row = (preference: number | null, length = 10) => ({ preference, length, baselineLength: 12, gamed: null })

  it("are the mean preference, the share above a half with draws as halves, and the mean length", () => {
    // Preferences 2, 1.2, 1.5, 1.6: win rate (1 + .2 + .5 + .6) / 4 = .575; discrete (1 + 0 + .5 + 1) / 4 = .625.
    // The unread one counts in the length only: (10 + 10 + 10 + 10 + 13) / 5 = 10.6, officially cut to 10.
    const results = [row(2), row(1.2), row(1.5), row(1.6), row(null, 13)]
    const official = alpacaEval.figures(results, "official")
    expect(official["win rate"]).toBeCloseTo(0.575, 12)
    expect(official["discrete win rate"]).toBe(0.625)
    expect(official["average length (characters)"]).toBe(10)
    expect(alpacaEval.figures(results, "corrected")["average length (characters)"]).toBeCloseTo(10.6, 12)
    expect(alpacaEval.notes!(results, "official").join("\n")).toMatch(/^1 of 5 comparisons.*\nno length-controlled/)
  })

  it("have no length-controlled rate without the gamed rows", () => {
    expect(alpacaEval.figures([row(2)], "official")).not.toHaveProperty("length-controlled win rate")
  })

  it("count an answer's length in code points", () => {
    expect(alpacaEval.score(item(data("Sing.")), ["😀é"], [], "official")).toMatchObject({
      length: 2,
      baselineLength: 4,
    })
  })
})

describe("loading", () => {
  const folder = () => mkdtempSync(join(tmpdir(), "alpaca-"))
  const records = Array.from({ length: 6 }, (_, i) => ({
    dataset: "koala",
    instruction: `Instruction ${i}`,
    output: "b".repeat(20 + i),
    generator: "gpt4_1106_preview",
  }))
  const header = ",preference,index,model,std_delta_len,instruction_difficulty,not_gamed_baseline"
  const gamed = [0, 1].flatMap((model) =>
    records.map((_, i) => `${i},${(i + model) / 8},${i},m${model},${model ? 1.5 : -0.5},${i / 4 - 1},False`),
  )
  const write = (at: string, rows: unknown, csv?: string[]) => {
    writeFileSync(join(at, "model_outputs.json"), JSON.stringify(rows, null, 1))
    if (csv) writeFileSync(join(at, "df_gamed.csv"), `${csv.join("\n")}\n`)
    return at
  }

  it("reads the baseline's outputs from a file or a folder", async () => {
    const at = write(folder(), records)
    const items = await alpacaEval.load(at)
    expect(items.map(({ id, turns }) => [id, ...turns])).toEqual(records.map((r, i) => [`${i}`, r.instruction]))
    expect(await alpacaEval.load(join(at, "model_outputs.json"))).toEqual(items)
    expect(items[0]!.data.gamed).toBeNull()
  })

  it("takes gamed rows from the folder and computes the length-controlled rate with them, in the file's order", async () => {
    const items = await alpacaEval.load(write(folder(), records, [header, ...gamed]))
    expect(items[2]!.data.gamed).toEqual([
      { preference: 2 / 8, lengthDifference: -0.5, difficulty: -0.5 },
      { preference: 3 / 8, lengthDifference: 1.5, difficulty: -0.5 },
    ])
    const shares = [0.9, 0.2, 0.6, 0.8, 0.3, 0.7]
    const results = items.map((one, i) => {
      const m = modelFirst(one.turns[0]!) ? shares[i]! : 1 - shares[i]!
      return alpacaEval.score(one, ["x".repeat(10 + i * i)], [reply({ m, M: 1 - m })], "official")
    })
    // Differences are baseline minus model: (20 + i) - (10 + i²); difficulty i / 4 - 1.
    const own = shares.map((preference, i) => ({
      preference,
      lengthDifference: 10 + i - i * i,
      difficulty: i / 4 - 1,
    }))
    const rows = [0, 1].flatMap((model) =>
      records.map((_, i) => ({
        preference: (i + model) / 8,
        lengthDifference: model ? 1.5 : -0.5,
        difficulty: i / 4 - 1,
      })),
    )
    const rate = alpacaEval.figures(results, "official")["length-controlled win rate"]
    expect(rate).toBeCloseTo(lengthControlledRate(own, rows), 10)
    expect(rate).toBeGreaterThan(0.4)
    expect(alpacaEval.notes!(results, "official").join()).not.toContain("no length-controlled")
  })

  it("names file, line and field of what is wrong", async () => {
    const load = (rows: unknown, csv?: string[]) => alpacaEval.load(write(folder(), rows, csv))
    await expect(load([...records, records[0]])).rejects.toThrow(/model_outputs\.json, line \d+, instruction: .*unique/)
    await expect(load([{ instruction: "a" }])).rejects.toThrow(/model_outputs\.json, line 2, output/)
    const nameless = header.replace("preference", "pref")
    await expect(load(records, [nameless, ...gamed])).rejects.toThrow(
      /df_gamed\.csv, line 2, preference: expected string/,
    )
    await expect(load(records, ["a,b", ...gamed])).rejects.toThrow(/df_gamed\.csv, line 2: must have 2 cells, got 7/)
    await expect(load(records, [header, gamed[0]!.replace("False", "False,1")])).rejects.toThrow(
      /line 2: .*7 cells, got 8/,
    )
    await expect(load(records, [header, gamed[1]!.replace("0.125", "1.5")])).rejects.toThrow(
      /line 2, preference: .*<=1/,
    )
    await expect(load(records, [header, gamed[1]!.replace("-0.5", "")])).rejects.toThrow(/line 2, std_delta_len/)
    await expect(load(records, [header, ...gamed.slice(0, 3)])).rejects.toThrow(/df_gamed\.csv, index: .*instruction 3/)
    await expect(alpacaEval.load(folder())).rejects.toThrow(/must hold alpaca_eval_gpt4_baseline\.json/)
    await expect(alpacaEval.load(join(folder(), "none.json"))).rejects.toThrow(/none\.json.*ENOENT/)
  })
})
