import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { fixture } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "musc-export-"))
const bin = join(__dirname, "../../lib/cli/bin.cjs")
const musc = (...args: string[]) =>
  spawnSync(process.execPath, [bin, ...args], { cwd: dir, encoding: "utf8", timeout: 110_000 })
const llama = fixture("llama")
const adapter = join(llama, "adapter")

describe("musc export", () => {
  it("takes its former kind merged as musc merge, with a note, and writes the same bytes", () => {
    const former = musc(
      "export",
      "merged",
      adapter,
      "--model",
      llama,
      "--to",
      "gguf-ready",
      "--dtype",
      "f32",
      "-o",
      "a",
    )
    expect([former.status, former.stdout]).toEqual([0, "a\n"])
    expect(former.stderr).toContain("note: `musc export merged` is now called `musc merge`")
    const now = musc("merge", "--adapter", adapter, "--model", llama, "--dtype", "f32", "--out", "b")
    expect(now.status).toBe(0)
    for (const file of ["config.json", "model.safetensors"]) {
      expect(readFileSync(join(dir, "a", file)).equals(readFileSync(join(dir, "b", file)))).toBe(true)
    }
    const { stderr, status } = musc("export", "merged", adapter, "-o", "c")
    expect([status, stderr]).toEqual([1, expect.stringContaining("--model: must name the adapter's base model")])
  })

  it("does not offer that kind in its help, and names musc merge", () => {
    const { stdout } = musc("export", "--help")
    expect(stdout).toContain("musc merge")
    expect(stdout).not.toMatch(/merged|--dtype/)
  })

  it("writes the ranking file of LLaMA-Factory from a TRL file, with its entry", () => {
    const pair = { prompt: "Name a colour.", chosen: "Red.", rejected: "Seven." }
    writeFileSync(join(dir, "trl.jsonl"), `${JSON.stringify(pair)}\n`)
    const { stdout, status } = musc("export", "pairs", "trl.jsonl", "--to", "llama-factory", "-o", "musc.json")
    expect(status).toBe(0)
    expect(stdout).toMatch(/^musc\.json: 1 pairs\nentry for dataset_info\.json:\n/)
    const [record] = JSON.parse(readFileSync(join(dir, "musc.json"), "utf8"))
    expect(record).toMatchObject({ instruction: "Name a colour.", chosen: "Red.", rejected: "Seven." })
  })

  it("refuses options that the kind does not read", () => {
    const { stderr, status } = musc("export", "adapter", adapter, "--weighting", "kl", "-o", "never")
    expect([status, stderr]).toEqual([1, "InputError: --weighting: has no effect on adapter, got kl; leave it out\n"])
    expect(existsSync(join(dir, "never"))).toBe(false)
  })
})
