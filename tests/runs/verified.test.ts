import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { readConfig } from "../../lib/cli/support"
import { parseConfig, type RunConfig } from "../../lib/config/config"
import { useBackend } from "../../lib/device/tf"
import { broughtBy, notesOf } from "../../lib/runs/notes"
import { type RunOptions, run } from "../../lib/runs/run"
import { readInstruction } from "../../lib/world/inverse"
import { satisfies } from "../../lib/world/kinds"
import { worldInstructions } from "../../lib/world/spec"
import { oracleModel } from "../support/oracle"

const small: Partial<RunConfig> = {
  ...{
    instructions: 12,
    evalInstructions: 3,
    maxConstraints: 5,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, epochs: 1 },
}
const runs = mkdtempSync(join(tmpdir(), "musc-verified-"))
const start = (
  name: string,
  change: Partial<RunConfig>,
  { local = oracleModel(), ...options }: Partial<RunOptions> = {},
) => run(parseConfig({ ...small, ...change }), { dir: join(runs, name), cache: null, local, ...options })

const lines = (file: string) =>
  readFileSync(join(runs, file), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
const trainedRows = (file: string) => lines(file).filter((row) => !row.failure)

/** By the embedded world's own checks, written without the code under test. */
const share = (row: { clean_instruction: string }, answer: string) => {
  const asked = readInstruction(row.clean_instruction)!
  return asked.filter((item) => satisfies(item, answer)).length / asked.length
}

beforeAll(async () => void (await useBackend()))

describe("verified contrast", () => {
  it("keeps the pairs whose chosen answer keeps more, counts the others with the reason, and weighs only those", async () => {
    const results = await start("kept", { keepPairs: "verified", methods: ["base", "coarse"] })
    const answered = trainedRows("kept/seed-0/respond.jsonl")
    const better = answered.filter((row) => share(row, row.chosen) > share(row, row.rejected))
    expect(better.length).toBeGreaterThan(0)
    expect(better.length).toBeLessThan(answered.length)
    const weighed = trainedRows("kept/seed-0/weigh.jsonl")
    expect(weighed.map(({ id }) => id)).toEqual(better.map(({ id }) => id))
    const failures = lines("kept/seed-0/verify.jsonl").filter(({ failure }) => failure?.stage === "verify")
    expect(failures.length).toBe(answered.length - better.length)
    const counts = { n: better.length, of: answered.length, by: "exact checks" }
    expect(results.pairs[0]).toMatchObject({ n: better.length, verified: counts })
    expect(results.notes).toContain(`Seed 0: ${counts.n} of ${counts.of} pairs verified, by exact checks.`)
    expect(readFileSync(join(runs, "kept/results.md"), "utf8")).toContain(`${counts.n} of ${counts.of} pairs verified`)
    expect(readFileSync(join(runs, "kept/report.html"), "utf8")).toContain(`${counts.n} of ${counts.of} pairs verified`)
  })

  it("is a method of its own beside all pairs, trained as if the others had been left out", async () => {
    const results = await start("beside", { methods: ["coarse", "coarse-verified", "musc-verified"], weighting: "kl" })
    const steps = (method: string) => lines(`beside/seed-0/train/${method}/metrics.jsonl`)
    const { n, verified } = results.pairs[0]!
    expect(steps("coarse")).toHaveLength(Math.ceil(n / 2))
    expect(steps("coarse-verified")).toHaveLength(Math.ceil(verified!.n / 2))
    expect(steps("musc-verified")).toHaveLength(Math.ceil(verified!.n / 2))
    const alone = (file: string) => readFileSync(join(runs, file), "utf8")
    await start("alone", { keepPairs: "verified", methods: ["coarse"] })
    expect(alone("beside/seed-0/train/coarse-verified/metrics.jsonl")).toBe(
      alone("alone/seed-0/train/coarse/metrics.jsonl"),
    )
  })

  it("asks the model's own verdicts for instructions that no world knows, and says so", async () => {
    const seeds = join(runs, "seeds.jsonl")
    const texts = worldInstructions({ n: 16, seed: 5, split: "train" }).map(({ instruction }) => instruction)
    writeFileSync(seeds, texts.map((instruction) => `${JSON.stringify({ instruction })}\n`).join(""))
    const local = oracleModel()
    const change: Partial<RunConfig> = {
      instructionsFrom: seeds,
      keepPairs: "verified",
      methods: ["coarse"],
      evalInstructions: 0,
    }
    const results = await start("own", change, { local })
    expect(results.pairs[0]!.verified?.by).toBe("the model's own verdicts")
    expect(local.calls["Judge the answer"]).toBeGreaterThan(0)
    for (const row of trainedRows("own/seed-0/weigh.jsonl"))
      expect(share(row, row.chosen)).toBeGreaterThan(share(row, row.rejected))
  })
})

describe("a run whose world does the first stages", () => {
  it("asks the model for answers alone, says so in table and report, and grades the spoiled constraints apart", async () => {
    const local = oracleModel()
    const results = await start("exact", { stages: "world", methods: ["base", "coarse"] }, { local })
    expect(Object.keys(local.calls)).toEqual(["respond"])
    const note = "Rules decompose, corrupt and recombine the instructions"
    for (const file of ["results.md", "report.html"])
      expect(readFileSync(join(runs, "exact", file), "utf8")).toContain(note)
    const { chosen_spoiled, rejected_spoiled } = results.pairs[0]!
    expect(chosen_spoiled).toBeGreaterThan(rejected_spoiled!)
  })

  it("makes plain English pairs with questions, edits and exact grades", async () => {
    const methods: RunConfig["methods"] = ["base", "self-reward-verifier"]
    const config = { instructionsFrom: "checkable", stages: "world", methods, samples: 2 } as const
    const results = await start("english", { ...config, evalInstructions: 4, evalSplit: "development" }).catch((e) => e)
    // The oracle speaks no plain English, so the run may end without a pair; its rows are there all the same.
    expect(existsSync(join(runs, "english/seed-0/sample.jsonl")), `${results}`).toBe(true)
    const [row] = lines("english/seed-0/decompose.jsonl")
    expect(row).toMatchObject({ source: "checkable", decomposed_by: "world" })
    expect(row.constraints.length).toBe(row.checkable.constraints.length + 1)
  })

  it("refuses instructions that a model writes, and the embedded model for plain English", () => {
    expect(() => parseConfig({ instructionsFrom: "self-instruct", stages: "world" })).toThrow(
      /stages: world needs instructions/,
    )
    expect(() => readConfig({ recipe: "smoke", instructionsFrom: "checkable", set: [] })).toThrow(
      /must be a chat model/,
    )
  })
})

describe("a seed file that brings its constraints", () => {
  it("is not decomposed by the model, and the table says how many rows did", async () => {
    const seeds = join(runs, "brought.jsonl")
    const rows = worldInstructions({ n: 12, seed: 6, split: "train" })
    const questions = (text: string) => text.split(" and ").map((_, i) => `Question ${i}?`)
    writeFileSync(
      seeds,
      rows
        .map(({ instruction }, i) => {
          const brought = [...questions(instruction), "Is it a text?", "Is it short?"]
          return `${JSON.stringify({ instruction, ...(i % 2 ? { decomposed_questions: brought } : { constraints: brought }) })}\n`
        })
        .join(""),
    )
    const local = oracleModel()
    await start(
      "brought",
      { instructionsFrom: seeds, methods: ["base"], evalInstructions: 2, holdout: 0.3 },
      { local },
    ).catch(() => {})
    expect(local.calls["Split the"]).toBeUndefined()
    const decomposed = lines("brought/seed-0/decompose.jsonl").filter((row) => !row.failure)
    expect(decomposed.length).toBeGreaterThan(0)
    expect(decomposed.every((row) => row.decomposed_by === "seed file" && row.calls.decompose === undefined)).toBe(true)
    const file = join(runs, "brought/seed-0/decompose.jsonl")
    const output = { file, rows: lines("brought/seed-0/decompose.jsonl").length, failures: {}, key: "" }
    const brought = await broughtBy(0, output as never)
    expect(brought).toEqual({ seed: 0, constraints: decomposed.length, system: 0, of: output.rows })
    const said = notesOf(parseConfig({ instructionsFrom: seeds }), [{ ...brought, system: 3 }])
    expect(said).toEqual([
      `Seed 0: the seed file holds the constraints of ${decomposed.length} of ${output.rows} instructions.`,
      `Seed 0: the system messages of 3 of ${output.rows} instructions are left out.`,
    ])
  })
})
