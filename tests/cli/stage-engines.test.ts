import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { weighedRow } from "../../lib/data/schema"

const dir = mkdtempSync(join(tmpdir(), "musc-stage-engines-"))
afterAll(() => rmSync(dir, { recursive: true }))
const support = join(__dirname, "../support")
const node = (name: string) => `${JSON.stringify(process.execPath)} ${JSON.stringify(join(support, name))}`
const serve = ["--serve", `${node("serve-stub.cjs")} {model} --port {port} SEED`]
const torch = ["--torch", node("torch-stub.cjs")]

function musc(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(__dirname, "../../lib/cli/bin.cjs"), ...args], {
    ...{ cwd: dir, encoding: "utf8", env: { ...process.env, NODE_OPTIONS: "" } },
  })
  return { status, stdout, stderr }
}
const set = (...settings: string[]) => settings.flatMap((setting) => ["--set", setting])
const weighed = (name: string) =>
  readFileSync(join(dir, name), "utf8")
    .trim()
    .split("\n")
    .map((line) => weighedRow.parse(JSON.parse(line)))

beforeAll(() => {
  const row = (i: number) => ({
    ...{ id: `r${i}`, instruction: "write a line with snow .", constraints: ["is it a line ?", "does it name snow ?"] },
    ...{ noised_constraints: ["is it a line ?"], clean_instruction: `write ${i} lines with snow .` },
    edits: [{ index: 1, kind: "constraint-dropout", before: "does it name snow ?", after: null }],
    noised_instruction: `write ${i} lines .`,
  })
  writeFileSync(join(dir, "recombined.jsonl"), [1, 2, 3].map((i) => `${JSON.stringify(row(i))}\n`).join(""))
  expect(musc("respond", "recombined.jsonl", "-o", "pairs.jsonl", ...serve)).toMatchObject({
    ...{ status: 0, stdout: "3 of 3 rows passed: pairs.jsonl\n" },
    stderr: expect.stringContaining("server: starting"),
  })
}, 120_000)

describe("a stage by a server that the command starts, or by a job", () => {
  it("keeps the server's log beside the output, and no calls when it is done", () => {
    expect(readdirSync(dir).filter((name) => name.startsWith(".pairs"))).toEqual([".pairs.jsonl.server.log"])
    expect(musc("respond", "recombined.jsonl", "-o", "pairs.jsonl", ...serve).stderr).not.toContain("starting")
  }, 120_000)

  it("weighs by a Python job, also one that somebody else runs", () => {
    const command = ["weigh", "pairs.jsonl", "-o", "weighed.jsonl", ...set("weightings=uniform,kl")]
    const { status, stdout } = musc(...command, "--torch", "job")
    expect([stdout, status]).toEqual([
      expect.stringMatching(/^the job is written;.*\n\n {2}bash .*weighed\.job\/run\.sh\n/),
      0,
    ])
    expect(existsSync(join(dir, "weighed.jsonl.lock"))).toBe(false)
    expect(musc(...command, ...torch)).toMatchObject({ status: 0, stdout: "3 of 3 rows passed: weighed.jsonl\n" })
    expect(Object.keys(weighed("weighed.jsonl")[2]!.weights)).toEqual(["uniform", "kl"])
    expect(existsSync(join(dir, "weighed.job"))).toBe(false)
  }, 120_000)

  it("weighs by the log-probs of a started server what can be made of them", () => {
    const command = ["weigh", "pairs.jsonl", "-o", "contrast.jsonl", ...serve]
    const refused = musc(...command, ...set("weightings=uniform,kl"))
    expect(refused.stderr).toMatch(/weightings: must do with the log-probs of a server, got kl; .*--torch/)
    expect(musc(...command, ...set("weightings=uniform,contrast"))).toMatchObject({ status: 0 })
    const [{ signals, weights }] = weighed("contrast.jsonl") as [ReturnType<typeof weighed>[0]]
    expect(Object.keys(weights)).toEqual(["uniform", "contrast"])
    expect(signals.chosen.kl).toEqual([])
  }, 120_000)
})

describe("a run whose signals come from its server", () => {
  const run = (...more: string[]) =>
    musc("run", "smoke", "--out", "run", "--no-cache", ...set("stages=world", "instructions=6"), ...more)

  it("is refused without a server, and for weightings or methods that take whole distributions", () => {
    expect(run("--server-signals").stderr).toMatch(
      /--server-signals: takes signals from a server, got none; add --endpoint/,
    )
    expect(run("--server-signals", ...serve).stderr).toMatch(
      /weightings: must do with the log-probs of a server, got .*kl/,
    )
    const methods = run("--server-signals", ...serve, ...set("weightings=uniform,contrast", "methods=base,musc"))
    expect(methods.stderr).toMatch(/methods: must do with .* got musc \(kl\); .*--set weighting=contrast/)
  }, 120_000)

  it("scores by the server and trains by a job, without a weight in this process", () => {
    const settings = set(
      "weightings=uniform,contrast",
      "weighting=contrast",
      "methods=base,coarse,musc",
      "evalInstructions=2",
    )
    const { status, stdout, stderr } = run("--server-signals", ...serve, ...torch, ...settings)
    expect([stderr, status]).toEqual([expect.stringContaining("with 2 adapters"), 0])
    expect(stdout).toMatch(/^musc +T0 /m)
    expect(stderr).not.toContain("load world")
    const [row] = weighed("run/seed-0/weigh.jsonl")
    expect(row!.signals.chosen.entropy).toEqual([])
    const key = JSON.parse(readFileSync(join(dir, "run/manifest.json"), "utf8"))
    expect(JSON.stringify(key)).not.toMatch(/127\.0\.0\.1/)
  }, 240_000)
})
