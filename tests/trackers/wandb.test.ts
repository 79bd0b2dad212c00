import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, afterEach, describe, expect, it, vi } from "vitest"
import { configDefaults } from "../../lib/config/config"
import { openTrackers } from "../../lib/trackers/trackers"

const root = mkdtempSync(join(tmpdir(), "musc-wandb-"))
afterAll(() => rmSync(root, { recursive: true }))
afterEach(() => vi.unstubAllEnvs())

/**
 * Reads an offline run: LevelDB's log format (blocks of 32 KiB, records of crc, length and type, after a head of 7
 * bytes) around wandb's own protobuf messages. Prints its name, settings and history.
 */
const reader = `
import json, struct, sys
from wandb.proto import wandb_internal_pb2
data, at, whole, out = open(sys.argv[1], "rb").read(), 7, b"", {"config": {}, "history": []}
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    _, length, kind = struct.unpack("<IHB", data[at : at + 7])
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind not in (1, 4):  # not yet the last part of a record
        continue
    record, whole = wandb_internal_pb2.Record.FromString(whole), b""
    if record.HasField("run"):
        out["name"] = record.run.display_name
        out["config"].update({item.key: json.loads(item.value_json) for item in record.run.config.update})
    if record.HasField("history"):
        out["history"].append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
print(json.dumps(out))
`

/** The active Python, if it has the client. */
const python = (() => {
  try {
    execFileSync("python3", ["-c", "import wandb"], { stdio: "ignore" })
    return "python3"
  } catch {
    return ""
  }
})()

describe.skipIf(!python)("the Python client of wandb (skipped where python3 does not have it)", () => {
  it("writes every step of a training to an offline run, those before a stop too", async () => {
    vi.stubEnv("WANDB_MODE", "offline")
    const line = (step: number) => ({ step, steps: 3, loss: 1 / step, lr: 1e-4, grad_norm: 2, tokens: 10 })
    const metrics = join(root, "metrics.jsonl")
    writeFileSync(metrics, `${JSON.stringify(line(1))}\n`)
    const runs = () => readdirSync(join(root, "wandb")).filter((name) => name.startsWith("offline-run-"))
    for (let again = 0; again < 2; again++) {
      const tracking = await openTrackers(root, configDefaults, ["wandb"])
      const training = tracking.training("seed-0/musc", metrics)
      for (const step of [2, 3]) await training.step(line(step))
      await training.finish()
      expect(runs()).toHaveLength(1) // a training that is logged again replaces its run
    }
    const folder = join(root, "wandb", runs()[0]!)
    const file = readdirSync(folder).find((name) => name.endsWith(".wandb"))!
    const read = JSON.parse(execFileSync(python, ["-c", reader, join(folder, file)], { encoding: "utf8" }))
    expect(read).toMatchObject({ name: "seed-0/musc", config: { beta: 0.1 } })
    expect(read.history.map((row: Record<string, number>) => [row._step, row.loss])).toEqual([
      [1, 1],
      [2, 1 / 2],
      [3, 1 / 3],
    ])
  }, 120_000)
})

it("without the client, --log wandb says how to install it", async () => {
  vi.stubEnv("PATH", root)
  vi.stubEnv("MUSC_PYTHON", join(root, "venv"))
  await expect(openTrackers(root, configDefaults, ["wandb"])).rejects.toThrow(
    `install it: ${join(root, "venv", "bin", "python")} -m pip install wandb`,
  )
})
