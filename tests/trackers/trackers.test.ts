import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { configDefaults } from "../../lib/config/config"
import type { MetricsLine } from "../../lib/data/results"
import { maskedCrc, record } from "../../lib/trackers/tensorboard"
import { openTrackers, parseTrackers } from "../../lib/trackers/trackers"

const root = mkdtempSync(join(tmpdir(), "musc-trackers-"))
afterAll(() => rmSync(root, { recursive: true }))

const line = (step: number): MetricsLine => ({ step, steps: 3, loss: 1 / step, lr: 1e-4, grad_norm: 2, tokens: 10 })

/** A run folder whose training has done its first step, as after a stop. */
function folder(name: string) {
  const dir = join(root, name)
  mkdirSync(dir)
  const metrics = join(dir, "metrics.jsonl")
  writeFileSync(metrics, `${JSON.stringify(line(1))}\n`)
  return { dir, metrics }
}

describe("TensorBoard's files", () => {
  it("are framed with the CRC-32C of their bytes", () => {
    // RFC 3720, B.4: 32 bytes of 0 give 8a9136aa, 32 of ff give 62a8ab43; masked as in TFRecord's description.
    const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
    expect(maskedCrc(new Uint8Array(32))).toBe(masked(0x8a9136aa))
    expect(maskedCrc(new Uint8Array(32).fill(255))).toBe(masked(0x62a8ab43))
    const framed = record(Buffer.from("abc"))
    expect([framed.length, framed.readBigUInt64LE(0)]).toEqual([8 + 4 + 3 + 4, 3n])
  })

  it("hold every step once, those before a stop too", async () => {
    const { dir, metrics } = folder("tensorboard")
    const training = (await openTrackers(dir, configDefaults, ["tensorboard"])).training("seed-0/musc", metrics)
    for (const step of [2, 3]) await training.step(line(step))
    await training.finish()
    const [file] = readdirSync(join(dir, "tensorboard/seed-0/musc"))
    const bytes = readFileSync(join(dir, "tensorboard/seed-0/musc", file!))
    const records: Buffer[] = []
    for (let at = 0; at < bytes.length; ) {
      const length = Number(bytes.readBigUInt64LE(at))
      const data = bytes.subarray(at + 12, at + 12 + length)
      expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc(bytes.subarray(at, at + 8)))
      expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc(data))
      records.push(data)
      at += 16 + length
    }
    // Field 1 is the time (9 bytes), then comes field 2, the step, as tag 0x10 and a varint.
    expect(records[0]!.toString("latin1")).toContain("brain.Event:2")
    expect(records.slice(1).map((data) => [data[9], data[10]])).toEqual([1, 2, 3].map((step) => [0x10, step]))
    expect(records[1]!.toString("latin1")).toContain("train/loss")
  })
})

it("MLflow's store holds a file a metric, with the time, value and step of each line", async () => {
  const { dir, metrics } = folder("mlflow")
  const training = (await openTrackers(dir, configDefaults, ["mlflow"])).training("seed-0/musc", metrics)
  await training.step(line(2))
  await training.finish()
  const [experiment] = readdirSync(join(dir, "mlruns"))
  const run = readdirSync(join(dir, "mlruns", experiment!)).find((name) => /^[0-9a-f]{32}$/.test(name))!
  const read = (...path: string[]) => readFileSync(join(dir, "mlruns", experiment!, run, ...path), "utf8")
  expect(read("metrics", "loss").replace(/^\d+ /gm, "")).toBe("1 1\n0.5 2\n")
  expect(read("params", "beta")).toBe("0.1")
  expect(read("meta.yaml")).toMatch(/^status: 3$/m)
})

it("a CSV holds all trainings, a line a step", async () => {
  const { dir, metrics } = folder("csv")
  const tracking = await openTrackers(dir, configDefaults, ["csv"])
  await tracking.training("seed-0/coarse", metrics).finish()
  const musc = tracking.training("seed-0/musc", metrics)
  await musc.step(line(2))
  await musc.finish()
  expect(readFileSync(join(dir, "metrics.csv"), "utf8")).toBe(
    "training,step,loss,lr,grad_norm,tokens\nseed-0/coarse,1,1,0.0001,2,10\nseed-0/musc,1,1,0.0001,2,10\nseed-0/musc,2,0.5,0.0001,2,10\n",
  )
})

it("an unknown tracker is refused with the names of the known ones", () => {
  expect(parseTrackers("tensorboard, csv")).toEqual(["tensorboard", "csv"])
  expect(() => parseTrackers("tb")).toThrow("--log: must be one or more of tensorboard, wandb, mlflow, csv, got tb")
})
