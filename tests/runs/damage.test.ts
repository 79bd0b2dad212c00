import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { useBackend } from "../../lib/device/tf"
import { StoppedError } from "../../lib/errors"
import { type RunOptions, run } from "../../lib/runs/run"
import { oracleModel } from "../support/oracle"

const config = parseConfig({
  ...{
    instructions: 5,
    evalInstructions: 2,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ methods: ["base", "coarse"], rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, checkpointEvery: 1, epochs: 1 },
})
const runs = mkdtempSync(join(tmpdir(), "musc-damage-"))
const cache = join(runs, "cache")
const whole = join(runs, "whole")
const start = (dir: string, options: Partial<RunOptions> = {}) =>
  run(config, { dir, cache: null, local: oracleModel(), ...options })

beforeAll(async () => {
  await useBackend()
  await start(whole, { cache })
})
afterAll(() => rmSync(runs, { recursive: true }))

const training = "seed-0/train/coarse"
const weights = `${training}/adapter/adapter_model.safetensors`
const outputs = [weights, `${training}/adapter/adapter_config.json`, `${training}/metrics.jsonl`, "results.json"]

/** The last byte of a file changed: the size stays. */
function flip(file: string): void {
  const bytes = readFileSync(file)
  bytes[bytes.length - 2]! ^= 1
  writeFileSync(file, bytes)
}

let copies = 0
function copyOfRun(): string {
  const dir = join(runs, `copy-${copies++}`)
  cpSync(whole, dir, { recursive: true })
  return dir
}

function expectWhole(dir: string): void {
  for (const file of outputs)
    expect(readFileSync(join(dir, file)).equals(readFileSync(join(whole, file))), file).toBe(true)
}

describe("a finished training", () => {
  it.each([
    ["weights that are cut off", (dir: string) => truncateSync(join(dir, weights), 1000)],
    ["weights with another bit", (dir: string) => flip(join(dir, weights))],
    ["no weights", (dir: string) => rmSync(join(dir, weights))],
    ["another adapter_config.json", (dir: string) => flip(join(dir, outputs[1]!))],
    ["no metrics", (dir: string) => rmSync(join(dir, training, "metrics.jsonl"))],
    ["a key file without hashes", (dir: string) => dropHashes(join(dir, training, "key.json"))],
  ])("with %s is made again, with a note", async (_, damage) => {
    const dir = copyOfRun()
    damage(dir)
    const notes: string[] = []
    await start(dir, { onNote: (line) => notes.push(line) })
    expectWhole(dir)
    expect(notes.filter((line) => /note: .*train\/coarse.*the training is made again/.test(line))).toHaveLength(1)
  })

  it("in the cache is checked too, and replaced by a sound one", async () => {
    const entry = join(cache, readdirSync(cache).find((name) => name.startsWith("train-"))!)
    flip(join(entry, "adapter/adapter_model.safetensors"))
    const dir = join(runs, "beside")
    const notes: string[] = []
    await start(dir, { cache, onNote: (line) => notes.push(line) })
    expectWhole(dir)
    expect(notes.some((line) => line.includes(entry) && line.includes("the training is made again"))).toBe(true)
    const third = join(runs, "third")
    const steps: string[] = []
    await start(third, { cache, onProgress: ({ unit }) => steps.push(unit) })
    expectWhole(third)
    expect(steps).not.toContain("steps")
  })

  it("that was copied in part is taken from the cache anew", async () => {
    const dir = copyOfRun()
    rmSync(join(dir, training, "adapter"), { recursive: true })
    rmSync(join(dir, training, "metrics.jsonl"))
    await start(dir, { cache })
    expectWhole(dir)
  })
})

const dropHashes = (file: string) => {
  const { files: _, ...rest } = JSON.parse(readFileSync(file, "utf8"))
  writeFileSync(file, JSON.stringify(rest))
}

describe("a training that was stopped", () => {
  it.each([
    ["a checkpoint with another bit", (dir: string) => flip(join(dir, "checkpoint.safetensors"))],
    ["a checkpoint that is cut off", (dir: string) => truncateSync(join(dir, "checkpoint.safetensors"), 200)],
    ["metrics of zeros", (dir: string) => zeros(join(dir, "metrics.jsonl"))],
  ])("and finds %s starts anew, to the same adapter", async (_, damage) => {
    const dir = join(runs, `stopped-${copies++}`)
    const controller = new AbortController()
    const onProgress: RunOptions["onProgress"] = ({ unit, done }) => {
      if (unit === "steps" && done === 2) controller.abort()
    }
    await expect(start(dir, { onProgress, signal: controller.signal })).rejects.toBeInstanceOf(StoppedError)
    expect(existsSync(join(dir, training, "checkpoint.safetensors"))).toBe(true)
    damage(join(dir, training))
    const notes: string[] = []
    await start(dir, { onNote: (line) => notes.push(line) })
    expectWhole(dir)
    expect(notes.some((line) => line.includes("the training starts over"))).toBe(true)
  })
})

const zeros = (file: string) => writeFileSync(file, Buffer.alloc(readFileSync(file).length))

describe("two runs at once in one process", () => {
  it("share a cache without a clash", async () => {
    const shared = join(runs, "shared")
    const dirs = [join(runs, "one"), join(runs, "two")]
    await Promise.all(dirs.map((dir) => start(dir, { cache: shared })))
    for (const dir of dirs) expectWhole(dir)
  })
})

describe("a run whose seed file is missing", () => {
  it("names that file, and leaves no run folder behind", async () => {
    const dir = join(runs, "none")
    const seeds = join(runs, "absent.jsonl")
    const started = run(parseConfig({ ...config, instructionsFrom: seeds }), { dir, cache: null, local: oracleModel() })
    await expect(started).rejects.toThrow(`${seeds}: could not read: no such file or folder (ENOENT)`)
    expect(existsSync(dir)).toBe(false)
  })

  it("says that a folder is no seed file", async () => {
    const started = run(parseConfig({ ...config, instructionsFrom: runs }), {
      dir: join(runs, "none"),
      local: oracleModel(),
    })
    await expect(started).rejects.toThrow(`${runs}: must be a file, which is read more than once, got a folder`)
  })
})
