import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { EvalItem } from "../../lib/data/results"
import type { PairRow } from "../../lib/data/schema"
import { writeReport } from "../../lib/report/report"
import { editOutcome, readRun, sampler } from "../../lib/report/report-data"
import { summary, verdictsOf, wonAndLost } from "../../lib/report/report-sections"
import { rng } from "../../lib/rng"
import { questionOf } from "../../lib/world/kinds"
import { realise } from "../../lib/world/realise"
import { worldInstructions } from "../../lib/world/spec"
import { madeRun, writeMadeRun } from "../runs/made-run"

const root = mkdtempSync(join(tmpdir(), "musc-report-"))
afterAll(() => rmSync(root, { recursive: true }))

const reportOf = async (dir: string) => readFileSync(await writeReport(dir), "utf8")
/** The page without what its scripts hold. */
const shell = (text: string) => text.replace(/(<script[^>]*>)[\s\S]*?(<\/script>)/g, "$1$2")
const headings = (text: string) => [...shell(text).matchAll(/<h2>(.*?)<\/h2>/g)].map(([, title]) => title)

describe("the report of a finished run", () => {
  const dir = join(root, "whole")
  let text = ""
  beforeAll(async () => {
    writeMadeRun(dir)
    text = await reportOf(dir)
  })

  it("has every section, and a row for every method at every temperature", () => {
    expect(headings(text)).toEqual([
      "Results",
      "Data card",
      "Edits of the constraints",
      "Pairs",
      "Token weights",
      "Training",
      "Learning rate and gradient norm",
      "By kind and by number of constraints",
      "Answers won and lost",
      "Length of answers",
      "Samples",
      "How to reproduce",
    ])
    const results = /<section id="results">[\s\S]*?<\/table>/.exec(text)![0]
    expect(results.match(/<tr>/g)).toHaveLength(1 + Object.keys(madeRun.methods).length * madeRun.temperatures.length)
  })

  it("loads nothing from anywhere", () => {
    expect(shell(text)).not.toMatch(/\ssrc=|<link|<img|<iframe|@import|url\(|href="(?!#)/)
    expect(shell(text)).not.toMatch(/https?:/)
  })

  it("holds figures that can be read back, each with data and a title", () => {
    const figures = [...text.matchAll(/<script type="application\/json">([\s\S]*?)<\/script>/g)].map(([, json]) =>
      JSON.parse(json!),
    )
    expect(figures).toHaveLength(10)
    for (const { data, layout } of figures) {
      expect(data.length).toBeGreaterThan(0)
      expect(layout.title.text).toMatch(/\w/)
    }
  })

  it("is the same each time, and leaves no other file behind", async () => {
    expect(await reportOf(dir)).toBe(text)
    expect(readdirSync(dir).sort()).toEqual([
      "config.json",
      "manifest.json",
      "report.html",
      "results.json",
      "seed-0",
      "seed-1",
    ])
  })

  it("counts every row of the source once", async () => {
    const { stages } = await readRun(dir)
    const lost = stages.flatMap(({ reasons }) => Object.values(reasons)).reduce((a, b) => a + b, 0)
    expect(stages[0]!.rows).toBe(madeRun.pairs * madeRun.seeds.length)
    expect(stages.at(-1)!.passed + lost).toBe(stages[0]!.rows)
    stages.slice(1).forEach(({ rows }, i) => {
      expect(rows).toBe(stages[i]!.passed)
    })
  })
})

describe("the report of a run that was stopped", () => {
  for (const [last, there] of [
    ["source", ["Data card", "How to reproduce"]],
    ["corrupt", ["Data card", "Edits of the constraints", "Samples", "How to reproduce"]],
    ["respond", ["Data card", "Edits of the constraints", "Pairs", "Samples", "How to reproduce"]],
    ["weigh", ["Data card", "Edits of the constraints", "Pairs", "Token weights", "Samples", "How to reproduce"]],
  ] as const) {
    it(`shows what there is after ${last}`, async () => {
      const dir = join(root, `until-${last}`)
      writeMadeRun(dir, madeRun, last)
      const text = await reportOf(dir)
      expect(headings(text)).toEqual(there)
      expect(text).toContain(`the last stage with an output is ${last}`)
      expect(text).toContain("The run has not finished. No data for: results,")
    })
  }

  it("leaves out what earlier settings have left in the folder", async () => {
    const dir = join(root, "again")
    writeMadeRun(dir, { ...madeRun, pairs: 5, evals: 3 })
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8"))
    writeFileSync(
      join(dir, "config.json"),
      JSON.stringify({ ...config, seed: 1, repeat: 1, methods: ["base", "musc"], evalTemperatures: [0.5] }),
    )
    rmSync(join(dir, "manifest.json"))
    const { seeds, logs, items, results } = await readRun(dir)
    expect([seeds, results]).toEqual([[1], undefined])
    expect(logs.map(({ method, seed }) => `${method} ${seed}`)).toEqual(["musc 1"])
    expect(new Set(items.map(({ method, seed, temperature }) => `${method} ${seed} ${temperature}`))).toEqual(
      new Set(["base 1 0.5", "musc 1 0.5"]),
    )
  })

  it("passes over a torn last line, and over a run that has only its settings", async () => {
    const dir = join(root, "torn")
    writeMadeRun(dir, madeRun, "respond")
    const before = await readRun(dir)
    appendFileSync(join(dir, "seed-0", "respond.jsonl"), '{"id": "half')
    expect((await readRun(dir)).stages).toEqual(before.stages)
    const bare = join(root, "bare")
    mkdirSync(bare)
    writeFileSync(join(bare, "config.json"), "{}")
    expect(await reportOf(bare)).toContain("The run has written nothing yet.")
  })

  it("says of a damaged file where it is damaged, and of another folder that it is no run", async () => {
    const dir = join(root, "damaged")
    writeMadeRun(dir, madeRun, "source")
    appendFileSync(join(dir, "seed-0", "source.jsonl"), '{"id": 7, "instruction": "x"}\n')
    await expect(writeReport(dir)).rejects.toThrow(/source\.jsonl, line 41, id: /)
    await expect(writeReport(join(root, "nowhere"))).rejects.toThrow("must be the folder of a run, got no such folder")
  })
})

it("No text of a run becomes markup or code", async () => {
  const hostile = `</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"'`
  const dir = join(root, "hostile <b>&")
  writeMadeRun(dir, { ...madeRun, pairs: 12, evals: 8, seeds: [0], methods: { base: 0, musc: 1 } })
  // Every text of every file, and the names of methods, weightings, settings and facts.
  const named = new Set(["weights", "methods", "files"])
  const facts = new Set(["lr", "beta", "finished"])
  const fixed =
    /^(constraint-(dropout|negate|substitute)|source|decompose|corrupt|recombine|respond|weigh|base|T\d.*|[\d.]+)$/
  const spoil = (value: unknown, key = ""): unknown => {
    if (key === "world") return value
    if (key === "methods" && Array.isArray(value)) return undefined // else the folder of a training has no such name
    if (typeof value === "string") return fixed.test(value) ? value : `${value}${hostile}`
    if (Array.isArray(value)) return value.map((entry) => spoil(entry))
    if (typeof value !== "object" || value === null) return value
    const spoilt = (name: string) => (named.has(key) && name !== "base") || facts.has(name)
    return Object.fromEntries(
      Object.entries(value).map(([name, entry]) => [spoilt(name) ? `${name}${hostile}` : name, spoil(entry, name)]),
    )
  }
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const file = join(folder, entry.name)
      if (entry.isDirectory()) walk(file)
      else if (!file.endsWith("metrics.jsonl")) {
        const texts = file.endsWith(".jsonl")
          ? readFileSync(file, "utf8").trim().split("\n")
          : [readFileSync(file, "utf8")]
        writeFileSync(file, texts.map((text) => `${JSON.stringify(spoil(JSON.parse(text)))}\n`).join(""))
      }
    }
  }
  walk(dir)
  const text = await reportOf(dir)
  expect(text.split("alert(1)").length).toBeGreaterThan(100)
  expect(headings(text)).toHaveLength(12)
  const tags = [...text.matchAll(/<script[^>]*>/g)].map(([tag]) => tag)
  expect(new Set(tags)).toEqual(
    new Set([
      "<script>",
      '<script type="application/json">',
      '<script type="application/json" id="sample-data">',
      '<script type="application/json" id="token-styles">',
    ]),
  )
  expect(tags.filter((tag) => tag === "<script>")).toHaveLength(4)
  expect(text.match(/<\/script/g)).toHaveLength(tags.length)
  expect(text).not.toContain("<!--")
  expect(text).not.toContain("<img")
  expect(text).not.toContain("<b>&</")
  for (const [, json] of text.matchAll(/<script type="application\/json"[^>]*>([\s\S]*?)<\/script>/g)) JSON.parse(json!)
})

describe("what the sections say", () => {
  const rates = (isr: number) => ({
    csr: 0.9,
    csr_interval: [0.8, 1] as [number, number],
    isr,
    isr_interval: [isr - 0.05, isr + 0.05] as [number, number],
    n: 9,
    unreadable: 0,
    seeds: [],
  })
  const run = (base: number, musc: number, interval: [number, number]) => ({
    stages: [],
    results: {
      methods: { base: { T0: rates(base) }, musc: { T0: rates(musc) } },
      differences: [
        {
          method: "musc",
          against: "base",
          temperature: "T0",
          csr: 0,
          csr_interval: [0, 0] as [number, number],
          isr: musc - base,
          isr_interval: interval,
        },
      ],
      seeds: [0],
      pairs: [],
    },
  })

  it("calls a gain, a loss and no clear difference by their names", () => {
    expect(summary(run(0.3, 0.7, [0.3, 0.5]))).toBe(
      "musc keeps every constraint in 70.0 % of its answers (95 % interval 65.0 to 75.0 %) at temperature 0, the base model in 30.0 %: a gain of +40.0 points (+30.0 to +50.0).",
    )
    expect(summary(run(0.5, 0.4, [-0.15, -0.05]))).toMatch(/a loss of −10\.0 points \(−15\.0 to −5\.0\)\.$/)
    expect(summary(run(0.5, 0.52, [-0.02, 0.06]))).toMatch(/no clear difference, \+2\.0 points/)
  })

  it("grades answers by the world where the row has its spec, and else asks only", () => {
    const [row] = worldInstructions({ n: 1, seed: 5, split: "train" })
    const pair = { ...row!, constraints: row!.world.constraints.map(questionOf) } as unknown as PairRow
    const verdicts = verdictsOf(pair, realise(row!.world, rng(1)))
    expect(verdicts.map(({ satisfied }) => satisfied)).toEqual(row!.world.constraints.map(() => true))
    expect(verdictsOf(pair, "").some(({ satisfied }) => satisfied === false)).toBe(true)
    expect(verdictsOf({ ...pair, world: undefined }, "x")).toEqual(pair.constraints.map((question) => ({ question })))
  })

  it("tells what the model made of an edit", () => {
    const edit = (kind: "constraint-negate" | "constraint-substitute", after: string) =>
      editOutcome({ index: 1, kind, before: "Is the hero brave?", after }).got
    expect(edit("constraint-negate", "Is the hero not brave?")).toBe("negated")
    expect(edit("constraint-negate", "Is the hero old?")).toBe("substituted")
    expect(edit("constraint-substitute", "Is the hero not old?")).toBe("changed otherwise")
    expect(edit("constraint-substitute", "Is it?")).toBe("changed otherwise")
    expect(editOutcome({ index: 1, kind: "constraint-negate", before: "Is it long?", after: "Is it short?" }).got).toBe(
      "not checked",
    )
    expect(editOutcome({ index: 1, kind: "constraint-dropout", before: "Is it?", after: null }).got).toBe("dropped")
  })

  it("compares answers to the same instruction of the same seed", () => {
    const item = (method: string, seed: number, ...verdicts: (boolean | null)[]): EvalItem => ({
      id: "a",
      seed,
      method,
      temperature: 0,
      instruction: "i",
      answer: "t",
      constraints: verdicts.map((satisfied) => ({ question: "q", kind: "", satisfied })),
    })
    const items = [
      ...[item("base", 0, true, false), item("musc", 0, true, true)], // won
      ...[item("base", 1, true), item("musc", 1, false)], // lost
      ...[item("base", 2, true), item("musc", 2, true)], // same
      ...[item("base", 3, null), item("musc", 3, true)], // cannot be compared
      ...[item("musc", 4, true)],
    ]
    const { won, lost, compared } = wonAndLost(items, "musc")
    expect(won.map(([before, after]) => [before.method, after.method, after.seed])).toEqual([["base", "musc", 0]])
    expect(lost.map(([, after]) => after.seed)).toEqual([1])
    expect(compared).toBe(3)
  })

  it("draws the same examples whatever the order of the rows", () => {
    const names = Array.from({ length: 500 }, (_, i) => `row ${i}`)
    const draw = (list: string[]) => {
      const chosen = sampler<string>("test", 4)
      for (const name of list) chosen.add(name, name)
      return chosen.rows()
    }
    expect(draw([...names].reverse())).toEqual(draw(names))
    expect(draw(names)).toHaveLength(4)
    expect(draw(names)).not.toEqual(names.slice(0, 4))
  })
})
