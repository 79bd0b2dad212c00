import { spawn, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig, type RunConfig } from "../../lib/config/config"
import { processOf } from "../../lib/data/process"
import { useBackend } from "../../lib/device/tf"
import { runJob, type TorchOptions } from "../../lib/engine/torch"
import { PendingJobError } from "../../lib/errors"
import { type RunOptions, run } from "../../lib/runs/run"
import { oracleModel } from "../support/oracle"

const root = mkdtempSync(join(tmpdir(), "musc-torch-job-"))
const stub = join(__dirname, "../support/torch-stub.cjs")
afterAll(() => rmSync(root, { recursive: true }))
beforeAll(() => useBackend().then(() => {}))

const config = parseConfig({
  ...{ instructions: 6, evalInstructions: 2, maxConstraints: 4, shots: 0, evalTemperatures: [0] },
  ...{ bootstrapSamples: 100, methods: ["base", "coarse", "musc"], rank: 2, batchSize: 2, epochs: 1 },
})

it("a run whose jobs somebody else runs ends with what to run, and the same run goes on from there", async () => {
  const dir = join(root, "run")
  const start = () => {
    const torch = { command: "job", rowsPerPass: 4, dtype: "float32" as const }
    return run(config, { dir, cache: null, local: oracleModel(), torch }).catch((error: unknown) => error)
  }
  const pending = async (jobs: readonly string[]) => {
    const error = (await start()) as PendingJobError
    expect(error).toBeInstanceOf(PendingJobError)
    expect(error.folders).toEqual(jobs.map((job) => join(dir, job)))
    for (const folder of error.folders) {
      const command = `bash ${folder}/run.sh`
      expect(error.message).toContain(command)
      const launch = { ...process.env, LAUNCH: `${process.execPath} ${stub}` }
      expect(spawnSync("bash", ["-c", command], { env: launch, encoding: "utf8" })).toMatchObject({ status: 0 })
    }
  }
  await pending(["seed-0/weigh.job"])
  await pending(["seed-0/train/coarse.job", "seed-0/train/musc.job"]) // both at once
  const results = (await start()) as { trained: object[] }
  expect(results.trained).toMatchObject([
    { method: "coarse", pairs: expect.any(Number) },
    { method: "musc", pairs: expect.any(Number) },
  ])
  expect(existsSync(join(dir, "seed-0/train/musc/adapter/adapter_model.safetensors"))).toBe(true)
  const jobs = ["seed-0/weigh.job", "seed-0/train/musc.job", "seed-0/train/musc.job-references"]
  const left = () => jobs.filter((job) => existsSync(join(dir, job)))
  expect(left()).toEqual([])
  // What a kill leaves, after a stage or a training is whole and before its folder is gone.
  for (const job of jobs) {
    mkdirSync(join(dir, job))
    writeFileSync(join(dir, job, "key.txt"), "a key")
  }
  mkdirSync(join(dir, "seed-0/train/coarse.job")) // nobody's job
  expect(await start()).toEqual(results)
  expect(left()).toEqual([])
  expect(existsSync(join(dir, "seed-0/train/coarse.job"))).toBe(true)
}, 120_000)

describe("a job whose result is not yet taken over", () => {
  const torch = (command: string) => ({ command, rowsPerPass: 4, dtype: "float32" as const })
  const byStub = torch([process.execPath, stub].map((word) => JSON.stringify(word)).join(" "))
  const short: RunConfig = { ...config, methods: ["base", "coarse"] }
  const start = (dir: string, by: TorchOptions, onProgress?: RunOptions["onProgress"]) =>
    run(short, { dir, cache: null, local: oracleModel(), torch: by, onProgress })

  it("stays where its signals cannot be read", async () => {
    const dir = join(root, "signals")
    await expect(start(dir, torch("job"))).rejects.toBeInstanceOf(PendingJobError)
    const job = join(dir, "seed-0/weigh.job")
    spawnSync(process.execPath, [stub, "score.py", "."], { cwd: job })
    const shard = join(job, "signals-0-of-1.jsonl")
    const whole = readFileSync(shard, "utf8")
    writeFileSync(shard, whole.replace(/"logprob":\[[^\]]*\]/, '"logprob":[]'))
    await expect(start(dir, torch("job"))).rejects.toThrow(/must have a number for each of \d+ tokens/)
    expect(existsSync(shard)).toBe(true)
    writeFileSync(shard, whole) // the same job, not asked again
    await expect(start(dir, torch("job"))).rejects.toThrow(/coarse\.job/)
    expect(existsSync(job)).toBe(false)
  }, 120_000)

  it("stays until its training is complete, which then needs no second job", async () => {
    const dir = join(root, "training")
    const key = join(dir, "seed-0/train/coarse/key.json")
    const block = ({ stage }: { stage: string }) => {
      if (stage !== "seed-0/train/coarse" || statSync(key).isDirectory()) return
      rmSync(key)
      mkdirSync(join(key, "in the way of the last file"), { recursive: true })
    }
    await expect(start(dir, byStub, block)).rejects.toThrow()
    expect(existsSync(join(dir, "seed-0/train/coarse.job/adapter/adapter_config.json"))).toBe(true)
    rmSync(key, { recursive: true })
    await start(dir, torch("job"))
    expect(existsSync(join(dir, "seed-0/train/coarse.job"))).toBe(false)
  }, 120_000)
})

it("a job that outlived its killed program is ended before it is started again", async () => {
  const folder = mkdtempSync(join(root, "folder-"))
  const earlier = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { detached: true, stdio: "ignore" })
  const ended = new Promise((done) => earlier.once("exit", (_, signal) => done(signal)))
  writeFileSync(join(folder, "process.json"), JSON.stringify(processOf(earlier.pid!)))
  const command = `${process.execPath} -e "fs.copyFileSync('process.json', 'seen.json')" --`
  await runJob({ folder, script: "score.py", command })
  expect(await ended).toBe("SIGKILL")
  expect(JSON.parse(readFileSync(join(folder, "seen.json"), "utf8")).pid).not.toBe(earlier.pid)
  expect(existsSync(join(folder, "process.json"))).toBe(false)
})
