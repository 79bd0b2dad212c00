import { spawn, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { processOf } from "../../lib/data/process"
import { useBackend } from "../../lib/device/tf"
import { runJob } from "../../lib/engine/torch"
import { PendingJobError } from "../../lib/errors"
import { run } from "../../lib/runs/run"
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
  expect(existsSync(join(dir, "seed-0/train/musc.job"))).toBe(false)
  expect(await start()).toEqual(results)
}, 120_000)

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
