import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig, type RunConfig } from "../../lib/config/config"
import type { BenchmarkResults, Results } from "../../lib/data/results"
import { useBackend } from "../../lib/device/tf"
import type { GenerateRequest } from "../../lib/engine/engine"
import { scripted } from "../../lib/engine/scripted"
import { figuresOfMethods } from "../../lib/eval/method-figures"
import { run } from "../../lib/runs/run"
import { worldInstructions } from "../../lib/world/spec"
import { oracleModel } from "../support/oracle"

const dir = mkdtempSync(join(tmpdir(), "musc-table-"))
beforeAll(async () => {
  await useBackend()
})
afterAll(() => rmSync(dir, { recursive: true }))

describe("figures of methods", () => {
  const figures = (results: readonly number[]) => ({
    mean: results.reduce((sum, one) => sum + one, 0) / results.length,
  })
  const rows = (...results: number[]) => results.map((result, i) => ({ id: `${i}`, unit: `${i}`, result }))
  const options = { samples: 200, seed: 0 }

  it("are means over seeds, with differences paired by item", () => {
    const base = rows(0, 1, 0, 1)
    const seeds = [rows(1, 1, 0, 1), rows(1, 1, 1, 1)]
    const found = figuresOfMethods(
      figures,
      [
        { method: "base", seeds: [base, base] },
        { method: "musc", seeds },
      ],
      [["musc", "base"]],
      options,
    )
    // musc: (3/4 + 4/4) / 2; base: 2/4
    expect(found.methods.musc!.mean!.value).toBe(0.875)
    expect(found.methods.base!.mean!.value).toBe(0.5)
    expect(found.differences[0]).toMatchObject({ method: "musc", against: "base", figure: "mean", value: 0.375 })
    expect(found.items).toBe(4)
  })

  it("have no width where all items differ alike, however much items differ from each other", () => {
    const pair = [
      { method: "base", seeds: [rows(0, 5, 10)] },
      { method: "musc", seeds: [rows(1, 6, 11)] },
    ]
    const { methods, differences } = figuresOfMethods(figures, pair, [["musc", "base"]], options)
    for (const bound of differences[0]!.interval) expect(bound).toBeCloseTo(1, 12)
    expect(methods.base!.mean!.interval[1] - methods.base!.mean!.interval[0]).toBeGreaterThan(2)
  })

  it("count only items that every method has in every seed", () => {
    const some = [
      { method: "base", seeds: [rows(0, 1, 0)] },
      { method: "musc", seeds: [rows(1, 1, 1).slice(1)] },
    ]
    const found = figuresOfMethods(figures, some, [["musc", "base"]], options)
    expect([found.items, found.leftOut, found.methods.base!.mean!.value]).toEqual([2, 1, 0.5])
  })
})

/** Two benchmarks made of instructions of the embedded world, which the model of the test can answer. */
const prompts = worldInstructions({ n: 8, seed: 31, split: "eval" }).map(({ instruction }) => instruction)
const write = (name: string, rows: readonly object[]) => {
  mkdirSync(join(dir, "data", name), { recursive: true })
  const file = { ifeval: "input_data.jsonl", infobench: "InfoBench.json", "mt-bench": "question.jsonl" }[name]!
  writeFileSync(join(dir, "data", name, file), rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
}
const ifevalRows = prompts.map((prompt, key) => ({
  ...{ key, prompt, instruction_id_list: ["punctuation:no_comma"], kwargs: [{}] },
}))
const infobenchRows = prompts.map((instruction, i) => ({
  ...{ id: `i${i}`, input: "", category: "c", instruction, subset: i < 4 ? "Easy_set" : "Hard_set" },
  decomposed_questions: ["Is it long?", "Does it keep all?"],
  question_label: [["Format"], ["Content"]],
}))

/** Says yes to the first question where the text has an even number of characters, to the second where it keeps all. */
const judged = (request: GenerateRequest) => {
  const first = request.messages[0]!.content
  const question = request.messages.at(-1)!.content.trim().split("\n").at(-1)!
  const text = /Generated Text:\n"([\s\S]*)"\n\nQuestion/.exec(first)?.[1] ?? ""
  return question === "Is it long?" ? (text.length % 2 ? "NO" : "YES") : "YES"
}

const small: Partial<RunConfig> = {
  ...{
    instructions: 6,
    evalInstructions: 3,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ methods: ["base", "coarse"], rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, epochs: 1, seed: 0, repeat: 1 },
  ...{ benchmarkData: join(dir, "data"), benchmarks: ["ifeval"] },
}
const start = (change: Partial<RunConfig>, judge = scripted(judged, { name: "J" }), local = oracleModel()) =>
  run(parseConfig({ ...small, ...change }), { dir: join(dir, "run"), cache: null, local, evalJudge: judge })
const answersOf = (name: string, method: string, seed = 0): string[] =>
  lines(`seed-${seed}/benchmarks/${name}/${method}/answers.jsonl`).map(({ responses }) => responses[0])
const lines = (file: string) =>
  readFileSync(join(dir, "run", file), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
const of = ({ benchmarks }: Results, name: string): BenchmarkResults =>
  benchmarks!.find(({ benchmark }) => benchmark === name)!
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe("a run with benchmarks", () => {
  beforeAll(() => {
    write("ifeval", ifevalRows)
    write("infobench", infobenchRows)
  })

  it("fills one table, methods by benchmarks, and asks only for what is new", async () => {
    await start({})
    const judge = scripted(judged, { name: "J" })
    const local = oracleModel()
    const results = await start({ benchmarks: ["ifeval", "infobench"] }, judge, local)
    // Figures by hand: the share of answers without a comma; yes to an even length and yes always, over two questions
    // each.
    for (const method of ["base", "coarse"]) {
      const noComma = answersOf("ifeval", method).map((answer) => Number(!answer.includes(",")))
      expect(of(results, "ifeval").methods[method]!["prompt strict"]!.value).toBeCloseTo(mean(noComma), 12)
      const even = answersOf("infobench", method).map((answer) => Number(answer.length % 2 === 0))
      expect(of(results, "infobench").methods[method]!.DRFR!.value).toBeCloseTo((mean(even) + 1) / 2, 12)
    }
    const { differences, judge: who, items } = of(results, "infobench")
    const [base, coarse] = ["base", "coarse"].map((m) => of(results, "infobench").methods[m]!.DRFR!.value!)
    expect(differences.find(({ figure }) => figure === "DRFR")).toMatchObject({ method: "coarse", against: "base" })
    expect(differences.find(({ figure }) => figure === "DRFR")!.value).toBeCloseTo(coarse! - base!, 12)
    expect([who, items, of(results, "ifeval").judge]).toEqual(["J", 8, null])
    expect(judge.requests.length).toBeGreaterThan(0)
    // Only InFoBench's answers were new to the model: 8 for each method.
    expect(local.calls).toEqual({ respond: 16 })

    const again = scripted(judged, { name: "J" })
    const model = oracleModel()
    await start({ benchmarks: ["ifeval", "infobench"] }, again, model)
    expect([again.requests.length, model.calls]).toEqual([0, {}])

    const table = readFileSync(join(dir, "run", "benchmarks.md"), "utf8")
    expect(table).toMatch(/^\| method \| ifeval prompt strict \| ifeval inst strict \| infobench DRFR \|\n/)
    expect(table).toContain("Difference from base:")
    expect(table).toContain("infobench: official scoring, 8 items, judged by J")
    const csv = readFileSync(join(dir, "run", "benchmarks.csv"), "utf8").split("\n")
    expect(csv[0]).toMatch(/^benchmark,figure,method,value,value_low,value_high,minus_base,/)
    expect(csv.find((line) => line.startsWith("infobench,DRFR,coarse,"))!.split(",")[3]).toBe(`${coarse}`)
    expect(readFileSync(join(dir, "run", "report.html"), "utf8")).toContain("Methods on benchmarks")
  }, 120_000)

  it("asks the model of a method that is added for its own answers alone, and answers of base once for all seeds", async () => {
    const local = oracleModel()
    const results = await start(
      { methods: ["base", "coarse", "musc"], repeat: 2, benchmarks: ["ifeval"] },
      undefined,
      local,
    )
    expect(Object.keys(of(results, "ifeval").methods)).toEqual(["base", "coarse", "musc"])
    for (const seed of [0, 1]) expect(answersOf("ifeval", "musc", seed)).toHaveLength(8)
    expect(() => answersOf("ifeval", "base", 1)).toThrow()
    const values = [0, 1].map((seed) =>
      mean(answersOf("ifeval", "musc", seed).map((one) => Number(!one.includes(",")))),
    )
    expect(of(results, "ifeval").methods.musc!["prompt strict"]!.value).toBeCloseTo(mean(values), 12)
  }, 120_000)

  it("says before any work which data and which judge are missing", async () => {
    const config = (change: Partial<RunConfig>) => parseConfig({ ...small, ...change })
    const begin = (change: Partial<RunConfig>) =>
      run(config(change), { dir: join(dir, "none"), cache: null, local: oracleModel() })
    await expect(begin({ benchmarks: ["infobench"] })).rejects.toThrow(
      /infobench must have a judge, got none; add --judge/,
    )
    await expect(begin({ benchmarks: ["ifeval"], benchmarkData: "" })).rejects.toThrow(
      /official data of ifeval, got nothing/,
    )
    await expect(begin({ benchmarks: ["glue"] })).rejects.toThrow(/must be one of ifeval, .*got glue/)
    expect(() => config({ evalJudgeEndpoint: "http://127.0.0.1:1/v1" })).toThrow(/a judge has both, got one/)
  })
})

describe("the final evaluation", () => {
  const seeds = join(dir, "seeds.jsonl")
  const own: Partial<RunConfig> = {
    instructionsFrom: seeds,
    instructions: 6,
    holdout: 0.4,
    evalInstructions: 3,
    benchmarks: [],
    methods: ["base"],
  }
  beforeAll(() => {
    const texts = worldInstructions({ n: 24, seed: 5, split: "train" }).map(({ instruction }) => instruction)
    writeFileSync(seeds, texts.map((instruction) => `${JSON.stringify({ instruction })}\n`).join(""))
  })

  it("is judged by the server that is named, which sees the instruction, and says so at the head of the table", async () => {
    const prompts: string[] = []
    const judge = scripted(
      (request) => {
        prompts.push(request.messages.at(-1)!.content)
        return "nothing\nno"
      },
      { name: "J" },
    )
    const results = await start({ ...own, evalJudgeModel: "", seed: 3 }, judge)
    expect(prompts.every((prompt) => prompt.includes("Instruction: "))).toBe(true)
    expect(results.methods.base!.T0!.csr).toBe(0)
    expect(results.judged_by).toBe("the judge J")
    expect(readFileSync(join(dir, "run", "results.md"), "utf8")).toMatch(/^Judged by: the judge J\.\n/)
    expect(readFileSync(join(dir, "run", "report.html"), "utf8")).toContain("Judged by: the judge J.")
  }, 60_000)

  it("is the model's own without one, and says so; the world's answers are checked exactly", async () => {
    const config = parseConfig({ ...small, ...own })
    const results = await run(config, { dir: join(dir, "self"), cache: null, local: oracleModel() })
    expect(results.judged_by).toMatch(/^the model itself \(.*, untrained\), which leans to its own answers$/)
    const world = parseConfig({ ...small, benchmarks: [], methods: ["base"] })
    const exact = await run(world, { dir: join(dir, "world"), cache: null, local: oracleModel() })
    expect(exact.judged_by).toBe("exact checks")
  }, 60_000)
})
