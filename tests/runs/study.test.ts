import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig, type RunConfig } from "../../lib/config/config"
import { useBackend } from "../../lib/device/tf"
import { writeStudyReport } from "../../lib/report/study-report"
import { run } from "../../lib/runs/run"
import { runStudy } from "../../lib/runs/study"
import { satisfies } from "../../lib/world/kinds"
import { worldInstructions, worldSpec } from "../../lib/world/spec"
import { type OracleModel, oracleModel } from "../support/oracle"

const root = mkdtempSync(join(tmpdir(), "musc-study-"))
beforeAll(() => useBackend())
afterAll(() => rmSync(root, { recursive: true }))

const small: Partial<RunConfig> = {
  ...{
    instructions: 8,
    evalInstructions: 3,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ rank: 2, alpha: 4, lr: 1e-3, batchSize: 4, epochs: 1, weightings: ["kl"], weighting: "kl" },
}
const config = (change: Partial<RunConfig>) => parseConfig({ ...small, ...change })
const lines = (file: string) =>
  readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))

describe("a run with baselines", () => {
  const dir = join(root, "baselines")
  const methods = ["base", "self-reward-yesno", "self-reward-points", "self-reward-verifier", "self-correct"] as const
  const settings = config({ methods: [...methods], pointsFrom: "verdicts" })
  let local: OracleModel
  beforeAll(() => {
    local = oracleModel()
    return run(settings, { dir, cache: null, local })
  })

  it("makes pairs of judged answers, trains on them and evaluates each, with no stage of the method but decompose", () => {
    const results = JSON.parse(readFileSync(join(dir, "results.json"), "utf8"))
    expect(Object.keys(results.methods)).toEqual(methods)
    expect(results.baselines.map(({ method }: { method: string }) => method)).toEqual(methods.slice(1))
    for (const { n, failures, unreadable } of results.baselines) {
      const lost = Object.values(failures as Record<string, number>).reduce((a, b) => a + b, 0)
      expect(n).toBeGreaterThan(0)
      expect(n + lost).toBe(8)
      expect(unreadable).toBe(0)
    }
    expect(local.calls["Write one instruction"]).toBeUndefined()
    const first = lines(join(dir, "seed-0/train/self-correct/metrics.jsonl"))[0]
    expect(first.loss).toBeCloseTo(Math.LN2, 5)
  })

  // The oracle judges without a mistake, so its pairs must be those of the exact checks, counted here once more.
  it("takes the answer that keeps most against the one that keeps least", () => {
    const kept = (row: { world: unknown }, text: string) =>
      worldSpec.parse(row.world).constraints.filter((item) => satisfies(item, text)).length
    const rows = lines(join(dir, "seed-0/self-reward-yesno.jsonl"))
    for (const row of rows.filter(({ failure }) => !failure)) {
      const all = row.answers.map((text: string) => kept(row, text))
      expect([kept(row, row.chosen), kept(row, row.rejected)]).toEqual([Math.max(...all), Math.min(...all)])
    }
    const pairs = (name: string) =>
      lines(join(dir, `seed-0/${name}.jsonl`)).map(({ chosen, rejected }) => [chosen, rejected])
    expect(pairs("self-reward-verifier")).toEqual(pairs("self-reward-yesno"))
  })

  it("judges once for the baselines that share a judge, and does nothing again when started again", async () => {
    const sampled = lines(join(dir, "seed-0/sample.jsonl")).filter(({ failure }) => !failure)
    const asked = sampled.reduce((n, { answers, constraints }) => n + answers.length * constraints.length, 0)
    expect(local.calls["Judge the answer"]).toBe(asked)
    const again = oracleModel()
    await run(settings, { dir, cache: null, local: again })
    expect(again.calls).toEqual({})
  })

  it("leaves methods that the settings no longer name out of manifest and report", async () => {
    await run({ ...settings, methods: ["base", "self-correct"] }, { dir, cache: null, local: oracleModel() })
    const { files } = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8"))
    const named = Object.keys(files).filter((file) => /\/(train|evaluate)\//.test(file))
    expect(named.filter((file) => !/\/(base-T|self-correct)/.test(file))).toEqual([])
    expect(named).toContain("seed-0/train/self-correct/metrics.jsonl")
    expect(readFileSync(join(dir, "report.html"), "utf8")).not.toContain("evaluate/self-reward-yesno-T0.jsonl")
  })

  it("leaves a baseline out that gets no pair, and says so", async () => {
    const notes: string[] = []
    const options = {
      dir: join(root, "none"),
      cache: null,
      local: oracleModel(),
      onNote: (line: string) => notes.push(line),
    }
    // The oracle does not know the five-point prompt: none of its replies can be read.
    const results = await run(config({ methods: ["base", "self-reward-points"] }), options)
    expect(Object.keys(results.methods)).toEqual(["base"])
    expect(results.baselines).toMatchObject([{ n: 0, failures: { "select: fewer than 2 answers with a score": 8 } }])
    expect(results.baselines![0]!.unreadable).toBeGreaterThan(8)
    expect(notes.join("\n")).toContain("self-reward-points is left out, as it has no pairs")
  })
})

describe("fine only, and equal numbers of pairs", () => {
  const dir = join(root, "fine")
  const methods: RunConfig["methods"] = ["base", "self-reward-yesno", "fine", "coarse", "musc"]
  const settings = config({ methods, evalSplit: "development" })
  beforeAll(() => run(settings, { dir, cache: null, local: oracleModel() }))
  const trainedOn = (results: { trained: { method: string; pairs: number }[] }) =>
    Object.fromEntries(results.trained.map(({ method, pairs }) => [method, pairs]))

  it("weighs the pairs of Self-Reward by the clean against the empty prompt, and says on how many each was trained", () => {
    const rows = lines(join(dir, "seed-0/weigh-fine.jsonl")).filter(({ failure }) => !failure)
    const pairs = lines(join(dir, "seed-0/self-reward-yesno.jsonl")).filter(({ failure }) => !failure)
    expect(rows.map(({ chosen, rejected }) => [chosen, rejected])).toEqual(
      pairs.map(({ chosen, rejected }) => [chosen, rejected]),
    )
    for (const row of rows) {
      expect(row.rejected_from).toBe("clean")
      expect(row.weights.kl.chosen).toHaveLength(row.signals.chosen.tokens.length)
    }
    const results = JSON.parse(readFileSync(join(dir, "results.json"), "utf8"))
    const all = lines(join(dir, "seed-0/weigh.jsonl")).filter(({ failure }) => !failure).length
    const own = pairs.length
    expect(trainedOn(results)).toEqual({ "self-reward-yesno": own, fine: own, coarse: all, musc: all })
    expect(results.split).toBe("development")
    for (const { id } of lines(join(dir, "holdout.jsonl"))) expect(id).toMatch(/^world-development-0-/)
  })

  it("trains all methods on as many pairs as the one with fewest, if so asked", async () => {
    const results = await run({ ...settings, equalPairs: true }, { dir, cache: null, local: oracleModel() })
    const counts = Object.values(trainedOn(results as Parameters<typeof trainedOn>[0]))
    expect(new Set(counts).size).toBe(1)
    const fewest = Math.min(
      ...["weigh", "weigh-fine"].map(
        (name) => lines(join(dir, `seed-0/${name}.jsonl`)).filter(({ failure }) => !failure).length,
      ),
    )
    expect(counts[0]).toBe(fewest)
    expect(readFileSync(join(dir, "results.md"), "utf8")).toMatch(/\| pairs \|/)
  })
})

describe("an external judge", () => {
  // The server says yes to every question about an answer of even length, and no otherwise.
  const asked: { model: string }[] = []
  const server = createServer((request, response) => {
    let body = ""
    request.on("data", (part) => {
      body += part
    })
    request.on("end", () => {
      if (request.method === "GET") return response.writeHead(404).end() // no list of models
      const { model, messages } = JSON.parse(body)
      asked.push({ model })
      const answer = /\n\nAnswer: (.*)$/s.exec(messages[0].content)![1]!
      const message = { role: "assistant", content: answer.length % 2 ? "It is odd.\nno" : "It is even.\nyes" }
      response.setHeader("content-type", "application/json")
      response.end(JSON.stringify({ choices: [{ message, finish_reason: "stop" }] }))
    })
  })
  beforeAll(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", done)))
  afterAll(() => new Promise((done) => server.close(done)))

  it("decides the pairs of self-reward-external, and is not asked again when the run is started again", async () => {
    const judgeEndpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
    const settings = config({ methods: ["base", "self-reward-external"], judgeEndpoint, judgeModel: "judge-1" })
    const dir = join(root, "external")
    await run(settings, { dir, cache: null, local: oracleModel() })
    const pairs = lines(join(dir, "seed-0/self-reward-external.jsonl")).filter(({ failure }) => !failure)
    expect(pairs.length).toBeGreaterThan(0)
    for (const { chosen, rejected } of pairs) expect([chosen.length % 2, rejected.length % 2]).toEqual([0, 1])
    const calls = asked.length
    expect(new Set(asked.map(({ model }) => model))).toEqual(new Set(["judge-1"]))
    await run(settings, { dir, cache: null, local: oracleModel() })
    expect(asked).toHaveLength(calls)
  })

  it("must be named", () => {
    expect(() => config({ methods: ["self-reward-external"] })).toThrow(
      /judgeEndpoint, judgeModel: self-reward-external/,
    )
  })
})

describe("a study", () => {
  const dir = join(root, "study")
  const variant = (name: string, changes: Partial<RunConfig>) => ({
    name,
    changes,
    config: config({ methods: ["base", "musc"], ...changes }),
  })
  const variants = [variant("pairs-2", { pairs: 2 }), variant("pairs-4", { pairs: 4 })]
  let local: OracleModel
  beforeAll(() => {
    local = oracleModel()
    return runStudy({ axis: "pairs", variants }, { dir, local, command: "musc run some-study" })
  })

  it("names a variant's only trained method by the variant, and the shared base once", () => {
    const results = JSON.parse(readFileSync(join(dir, "results.json"), "utf8"))
    expect(Object.keys(results.methods)).toEqual(["base", "pairs-2", "pairs-4"])
    expect(results.methods.base.T0.n).toBe(3)
    expect(results.differences).toHaveLength(3)
  })

  it("does common stages once, and trains each variant on as many pairs as it says", () => {
    expect(local.calls["Split the"]).toBe(8)
    expect(local.calls.respond).toBe(2 * 8 + 3 * 3) // pairs once; three held-out answers of base and of each variant
    const steps = (name: string) => lines(join(dir, name, "seed-0/train/musc/metrics.jsonl")).length
    expect([steps("pairs-2"), steps("pairs-4")]).toEqual([1, 1])
    const tokens = (name: string) => lines(join(dir, name, "seed-0/train/musc/metrics.jsonl"))[0].tokens
    expect(tokens("pairs-4")).toBeGreaterThan(tokens("pairs-2"))
  })

  it("reports the table, the curve over its setting, and a link to each run", () => {
    const report = readFileSync(join(dir, "report.html"), "utf8")
    for (const text of ["pairs-2/report.html", "Instructions kept whole by pairs", "musc run some-study"])
      expect(report).toContain(text)
    expect(readFileSync(join(dir, "results.md"), "utf8")).toContain("| pairs-4 | 0 |")
  })

  it("does nothing again when it is started again, and one more variant repeats only what it changes", async () => {
    const again = oracleModel()
    await runStudy({ variants: [...variants, variant("beta", { beta: 0.5 })] }, { dir, local: again })
    expect(again.calls).toEqual({ respond: 3 })
  })

  it("has the table of benchmarks over its runs, base asked once for all, and says who judged", async () => {
    const data = join(root, "data")
    mkdirSync(join(data, "ifeval"), { recursive: true })
    const prompts = worldInstructions({ n: 6, seed: 31, split: "eval" }).map(({ instruction }) => instruction)
    const rows = prompts.map((prompt, key) => ({
      ...{ key, prompt, instruction_id_list: ["punctuation:no_comma"], kwargs: [{}] },
    }))
    writeFileSync(join(data, "ifeval/input_data.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
    const shared = { evalInstructions: 0, benchmarks: ["ifeval"], benchmarkData: data }
    const two = ["one", "two"].map((name, i) => variant(name, { beta: 0.1 * (i + 1), ...shared }))
    const folder = join(root, "benchmarked")
    const asked = oracleModel()
    const results = await runStudy({ variants: two }, { dir: folder, local: asked })
    expect(asked.calls).toEqual({ respond: 3 * 6 }) // base, one and two; the pairs are in the cache of the study beside
    const answers = (file: string): string[] => lines(join(folder, file)).map(({ responses }) => responses[0])
    const noComma = (list: readonly string[]) => list.filter((text) => !text.includes(",")).length / list.length
    const [ifeval] = results.benchmarks!
    expect(Object.keys(ifeval!.methods)).toEqual(["base", "one", "two"])
    for (const name of ["one", "two"])
      expect(ifeval!.methods[name]!["prompt strict"]!.value).toBeCloseTo(
        noComma(answers(`${name}/seed-0/benchmarks/ifeval/musc/answers.jsonl`)),
        12,
      )
    expect(ifeval!.differences.map(({ method, against }) => `${method} ${against}`)).toContain("two one")
    expect(readFileSync(join(folder, "benchmarks.md"), "utf8")).toMatch(/\| two \| [\d.]+ \[/)
    expect(readFileSync(join(folder, "report.html"), "utf8")).toContain("Difference from base")
    const { files } = JSON.parse(readFileSync(join(folder, "study.json"), "utf8"))
    expect(Object.keys(files)).toContain("benchmarks.csv")
    const again = oracleModel()
    await runStudy({ variants: two }, { dir: folder, local: again })
    expect(again.calls).toEqual({})
    expect(JSON.parse(readFileSync(join(dir, "results.json"), "utf8")).judged_by).toBe("exact checks")
  }, 60_000)

  it("says which file is broken", async () => {
    writeFileSync(join(dir, "study.json"), '{"variants": 3}')
    await expect(writeStudyReport(dir)).rejects.toThrow(/study\.json/)
  })
})
