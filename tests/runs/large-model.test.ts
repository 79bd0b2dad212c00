import { spawnSync } from "node:child_process"
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { describeModel } from "../../lib/engine/description"
import { openSafetensors } from "../../lib/model/safetensors"
import { sparseModel } from "../support/sparse"

// Weights of 29 GB, as files that take no space on disks that can leave holes in files.
const root = mkdtempSync(join(tmpdir(), "musc-large-"))
const model = join(root, "large")
const support = join(__dirname, "../support")
afterAll(() => rmSync(root, { recursive: true }))
beforeAll(async () => {
  await useBackend()
  sparseModel(model)
})
const weights = () => readdirSync(model).filter((name) => name.endsWith(".safetensors"))

describe("a model of 29 GB whose weights are read elsewhere", () => {
  it("has a fingerprint of samples, at once, that each tensor matters to", () => {
    const size = weights().reduce((sum, name) => sum + statSync(join(model, name)).size, 0)
    expect(size).toBeGreaterThan(28e9)
    const print = () => describeModel(model, { elsewhere: true }).fingerprint
    const before = print()
    expect(before).toMatch(/^[0-9a-f]{64}$/)
    expect(print()).toBe(before)
    const file = join(model, weights()[2]!)
    const { tensors, close } = openSafetensors(file)
    close()
    const { begin, end } = tensors.get("model.layers.20.mlp.down_proj.weight")!
    const prints = [begin, Math.floor((begin + end) / 2), end - 1].map((at) => {
      const handle = openSync(file, "r+")
      const put = (byte: number) => writeSync(handle, Buffer.from([byte]), 0, 1, at)
      put(1)
      const changed = print()
      put(0)
      closeSync(handle)
      return changed
    })
    expect(new Set([before, ...prints]).size).toBe(4)
    expect(print()).toBe(before)
  })

  it("goes through a whole run with little memory: texts by a server, signals and training by jobs", () => {
    const peaks = join(root, "peaks")
    const node = JSON.stringify(process.execPath)
    const command = [
      ...["run", "smoke", "--model", model, "--out", join(root, "run"), "--no-cache"],
      ...["--serve", `${node} ${JSON.stringify(join(support, "serve-stub.cjs"))} {model} --port {port} SEED`],
      ...["--torch", `${node} ${JSON.stringify(join(support, "torch-stub.cjs"))}`],
      ...[
        "stages=world",
        "instructions=6",
        "evalInstructions=3",
        "methods=base,coarse,musc",
        "rank=1",
        "workers=1",
      ].flatMap((setting) => ["--set", setting]),
    ]
    const env = { ...process.env, NODE_OPTIONS: `--require ${join(support, "peak.cjs")}`, PEAKS: peaks }
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(support, "../../lib/cli/bin.cjs"), ...command],
      {
        ...{ env, encoding: "utf8" },
      },
    )
    expect([stderr, status]).toEqual([expect.stringContaining("server: starting node with 2 adapters"), 0])
    expect(stdout).toMatch(/^musc +T0 /m)
    const all = readFileSync(peaks, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { name: string; peak: number })
    expect(all.map(({ name }) => name)).toContain(join(support, "../../lib/cli/bin.cjs"))
    expect(Math.max(...all.map(({ peak }) => peak))).toBeLessThan(1000)
  }, 300_000)
})
