import { createHash } from "node:crypto"
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { parseConfig, type RunConfig } from "../../lib/config/config"
import { evalItem, metricsLine, results } from "../../lib/data/results"
import { weighedRow } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import { StoppedError } from "../../lib/errors"
import { readAdapter } from "../../lib/model/adapter"
import { type RunOptions, run } from "../../lib/runs/run"
import { isHeldOut } from "../../lib/runs/stages"
import { readInstruction } from "../../lib/world/inverse"
import { satisfies } from "../../lib/world/kinds"
import { worldInstructions } from "../../lib/world/spec"
import { type OracleModel, oracleModel } from "../support/oracle"

const small: Partial<RunConfig> = {
  ...{
    instructions: 6,
    evalInstructions: 3,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ methods: ["base", "coarse", "musc"], rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, checkpointEvery: 2, epochs: 1 },
}
const runs = mkdtempSync(join(tmpdir(), "musc-runs-"))
let folders = 0
const newFolder = () => join(runs, `run-${folders++}`)

const start = (
  dir: string,
  change: Partial<RunConfig> = {},
  { local = oracleModel(), ...options }: Partial<RunOptions> = {},
) => run(parseConfig({ ...small, ...change }), { dir, cache: null, local, ...options })

/** sha256 of the files of a run that must be the same each time: all but manifest (times) and the report made of it. */
function filesOf(dir: string): Record<string, string> {
  const files = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const names = files.map((entry) => relative(dir, join(entry.parentPath, entry.name))).sort()
  return Object.fromEntries(
    names
      .filter((name) => !/^(manifest\.json|report\.html)$/.test(name))
      .map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(dir, name)))
          .digest("hex"),
      ]),
  )
}

const whole = newFolder()
let calledBy: OracleModel
beforeAll(async () => {
  await useBackend()
  calledBy = oracleModel()
  await start(whole, {}, { local: calledBy })
})

const lines = (dir: string, file: string) =>
  readFileSync(join(dir, file), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))

describe("a run", () => {
  it("leaves its records as declared, an adapter, a report and a manifest without a gap", () => {
    for (const row of lines(whole, "seed-0/weigh.jsonl").filter((one) => !one.failure)) weighedRow.parse(row)
    for (const line of lines(whole, "seed-0/train/musc/metrics.jsonl")) metricsLine.parse(line)
    for (const item of lines(whole, "seed-0/evaluate/musc-T0.jsonl")) evalItem.parse(item)
    expect(readAdapter(join(whole, "seed-0/train/musc/adapter")).rank).toBe(2)
    expect(statSync(join(whole, "report.html")).size).toBeGreaterThan(1000)
    const made = results.parse(JSON.parse(readFileSync(join(whole, "results.json"), "utf8")))
    expect(Object.keys(made.methods)).toEqual(["base", "coarse", "musc"])
    expect(made.differences.map(({ method, against }) => `${method}-${against}`)).toEqual([
      "coarse-base",
      "musc-base",
      "musc-coarse",
    ])
    const manifest = JSON.parse(readFileSync(join(whole, "manifest.json"), "utf8"))
    expect(manifest.files).toEqual(filesOf(whole))
    expect(manifest).toMatchObject({ model: { fingerprint: "oracle" }, seeds: [0], node: process.version })
  })

  it("starts training at a loss of ln 2, with the log-probs of the weigh stage as reference", () => {
    expect(lines(whole, "seed-0/train/coarse/metrics.jsonl")[0].loss).toBeCloseTo(Math.LN2, 5)
    expect(lines(whole, "seed-0/train/musc/metrics.jsonl")[0].loss).toBeCloseTo(Math.LN2, 5)
  })

  it("grades pairs against the clean instruction", () => {
    const pairs = lines(whole, "seed-0/respond.jsonl").filter((row) => !row.failure)
    const kept = (row: Record<string, string>, side: string) => {
      const asked = readInstruction(row.clean_instruction!)!
      return asked.filter((item) => satisfies(item, row[side]!)).length / asked.length
    }
    const mean = (side: string) => pairs.reduce((sum, row) => sum + kept(row, side), 0) / pairs.length
    const made = JSON.parse(readFileSync(join(whole, "results.json"), "utf8")).pairs[0]
    expect(made.n).toBe(pairs.length)
    expect(made.chosen_csr).toBeCloseTo(mean("chosen"))
    expect(made.rejected_csr).toBeCloseTo(mean("rejected"))
  })

  it("does nothing again when it is started again", async () => {
    const before = filesOf(whole)
    const local = oracleModel()
    await start(whole, {}, { local })
    expect(local.calls).toEqual({})
    expect(filesOf(whole)).toEqual(before)
  })

  const repeated = async (change: Partial<RunConfig>) => {
    const dir = newFolder()
    cpSync(whole, dir, { recursive: true })
    const before = filesOf(dir)
    const local = oracleModel()
    await start(dir, change, { local })
    const after = filesOf(dir)
    const changed = Object.keys(after).filter((name) => name.endsWith(".key.json") || name.endsWith("/key.json"))
    return { calls: local.calls, changed: changed.filter((name) => before[name] !== after[name]) }
  }

  it("leaves a finished run as it is when the model is not there", async () => {
    const dir = newFolder()
    cpSync(whole, dir, { recursive: true })
    const finished = ["manifest.json", "config.json", "results.json"]
    const texts = () => finished.map((name) => readFileSync(join(dir, name), "utf8"))
    const before = texts()
    await expect(run(parseConfig({ ...small, model: "nowhere" }), { dir, cache: null })).rejects.toThrow(/got nowhere/)
    expect(texts()).toEqual(before)
  })

  it("repeats only training and evaluation when the loss changes", async () => {
    const { calls, changed } = await repeated({ beta: 0.5 })
    expect(calls).toEqual({ respond: 2 * 3 }) // two trained methods answer three instructions
    expect(changed).toEqual([
      ...["seed-0/evaluate/coarse-T0.key.json", "seed-0/evaluate/musc-T0.key.json"],
      ...["seed-0/train/coarse/key.json", "seed-0/train/musc/key.json"],
    ])
  })

  it("repeats only one method when its weighting changes, and no model call when one more is to be written down", async () => {
    const { changed } = await repeated({ weighting: "contrast" })
    expect(changed).toEqual(["seed-0/evaluate/musc-T0.key.json", "seed-0/train/musc/key.json"])
    const more = await repeated({ weightings: ["uniform", "contrast", "kl", "pmi"] })
    expect(more).toEqual({ calls: {}, changed: ["seed-0/weigh.key.json"] })
  })

  it("leaves the stages before a changed one alone", async () => {
    const { calls } = await repeated({ recombineTemperature: 0.2 })
    expect(calls["Split the"]).toBeUndefined()
    expect(calls["Write one instruction"]).toBeGreaterThan(0)
  })

  it("takes finished stages and adapters of the run beside it from the cache", async () => {
    const cache = join(runs, "cache")
    const dir = newFolder()
    await start(newFolder(), {}, { cache })
    const local = oracleModel()
    await start(dir, {}, { cache, local })
    expect(local.calls).toEqual({})
    expect(filesOf(dir)).toEqual(filesOf(whole))
  })
})

describe("a run on instructions of one's own", () => {
  it("holds out some, never trains on them, and lets the model judge its answers", async () => {
    const seeds = join(runs, "seeds.jsonl")
    const texts = worldInstructions({ n: 30, seed: 5, split: "train" }).map(({ instruction }) => instruction)
    writeFileSync(seeds, [...texts, texts[0]!].map((instruction) => `${JSON.stringify({ instruction })}\n`).join(""))
    const dir = newFolder()
    const local = oracleModel()
    await start(
      dir,
      { instructionsFrom: seeds, instructions: 8, holdout: 0.4, evalInstructions: 4, methods: ["base", "coarse"] },
      { local },
    )
    const heldOut = texts.filter((instruction) => isHeldOut({ instruction, input: null }, 0.4))
    const source = lines(dir, "seed-0/source.jsonl")
    expect(source.filter((row) => !row.failure)).toHaveLength(8)
    const trained = lines(dir, "seed-0/weigh.jsonl").filter((row) => !row.failure)
    expect(trained.length).toBeGreaterThan(3)
    expect(trained.some(({ instruction }) => heldOut.includes(instruction))).toBe(false)
    const evaluated = lines(dir, "seed-0/evaluate/base-T0.jsonl")
    expect(evaluated.map((row) => row.instruction)).toEqual(heldOut.slice(0, 4))
    // The oracle's verdicts are those of the world's own verifiers.
    for (const { instruction, answer, constraints } of evaluated) {
      const exact = readInstruction(instruction)!.map((item) => satisfies(item, answer))
      expect(constraints.map((one: { satisfied: boolean }) => one.satisfied)).toEqual(exact)
    }
    expect(local.calls["Judge the answer"]).toBeGreaterThan(0)
  })

  it("can let the model write them", async () => {
    const dir = newFolder()
    await start(dir, {
      instructionsFrom: "self-instruct",
      instructions: 5,
      holdout: 0.3,
      evalInstructions: 2,
      methods: ["base"],
    })
    expect(lines(dir, "seed-0/self-instruct.jsonl").length).toBe(8)
    expect(lines(dir, "seed-0/source.jsonl").every((row) => row.source === "self-instruct")).toBe(true)
    expect(lines(dir, "seed-0/evaluate/base-T0.jsonl").length).toBeGreaterThan(0)
  })

  it("says why when no pair comes out", async () => {
    const seeds = join(runs, "odd.jsonl")
    writeFileSync(seeds, '{"instruction": ""}\n{"instruction": " "}\n')
    const dir = newFolder()
    await expect(start(dir, { instructionsFrom: seeds })).rejects.toThrow(
      /source\.jsonl: no row passed source: 2 of 2 rows failed; most frequent reason: no instruction; remedy: look at the seed file/,
    )
    // The report, written all the same, says it too.
    expect(readFileSync(join(dir, "report.html"), "utf8")).toContain("2 of 2 rows failed")
  })
})

describe("a run that is stopped", () => {
  it("in any stage goes on to the same files", async () => {
    const total = Object.values(calledBy.calls).reduce((a, b) => a + b, 0)
    for (const at of [1, 9, 21, total - 2]) {
      const dir = newFolder()
      const controller = new AbortController()
      let calls = 0
      const local = oracleModel(() => {
        if (++calls === at) controller.abort()
      })
      await expect(start(dir, {}, { local, signal: controller.signal })).rejects.toBeInstanceOf(StoppedError)
      await start(dir)
      expect(filesOf(dir), `stopped at call ${at}`).toEqual(filesOf(whole))
    }
  })

  it("while training goes on from its checkpoint to the same adapter and metrics", async () => {
    for (const at of [1, 2]) {
      const dir = newFolder()
      const controller = new AbortController()
      const onProgress: RunOptions["onProgress"] = ({ stage, done }) => {
        if (stage.endsWith("train/coarse") && done === at) controller.abort()
      }
      await expect(start(dir, {}, { signal: controller.signal, onProgress })).rejects.toBeInstanceOf(StoppedError)
      expect(readdirSync(join(dir, "seed-0/train/coarse"))).toContain("checkpoint.safetensors")
      await start(dir)
      expect(filesOf(dir)).toEqual(filesOf(whole))
    }
  })

  it("is freed for the next one, and leaves no tensors behind", async () => {
    const dir = newFolder()
    await expect(
      start(dir, {}, { local: oracleModel(() => Promise.reject(new Error("out of memory"))) }),
    ).rejects.toThrow("out of memory")
    const local = oracleModel()
    const before = tf.memory().numTensors
    await start(dir, {}, { local })
    expect(tf.memory().numTensors).toBe(before)
    expect(filesOf(dir)).toEqual(filesOf(whole))
    rmSync(runs, { recursive: true })
  })
})
