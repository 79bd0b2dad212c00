import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { sha256File } from "../../lib/data/files"
import { useBackend } from "../../lib/device/tf"
import { run } from "../../lib/runs/run"
import { changedFiles, verdictText, verify } from "../../lib/runs/verify"
import { oracleModel } from "../support/oracle"

const root = mkdtempSync(join(tmpdir(), "musc-verify-"))
const whole = join(root, "whole")
const config = parseConfig({
  ...{
    instructions: 5,
    evalInstructions: 3,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ methods: ["base", "coarse"], rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, epochs: 1 },
})

beforeAll(async () => {
  await useBackend()
  await run(config, { dir: whole, cache: null, local: oracleModel() })
})
afterAll(() => rmSync(root, { recursive: true }))

let copies = 0
/** What is found in a copy of the run, to which something was done. */
async function problemsAfter(change: (dir: string) => unknown): Promise<string> {
  const dir = join(root, `copy-${copies++}`)
  cpSync(whole, dir, { recursive: true })
  await change(dir)
  const [verdict] = await verify(dir)
  return verdict!.problems.join("\n")
}

const answers = "seed-0/evaluate/coarse-T0.jsonl"
function replaceIn(file: string, from: string | RegExp, to: string): void {
  const text = readFileSync(file, "utf8")
  const changed = text.replace(from, to)
  expect(changed).not.toBe(text)
  writeFileSync(file, changed)
}

/** Verdicts changed, the file's size unchanged. */
const flipVerdicts = (dir: string) => {
  const text = readFileSync(join(dir, answers), "utf8")
  const flipped = text.replaceAll('"satisfied":true', '"satisfied":null')
  writeFileSync(join(dir, answers), flipped)
}

describe("the check of a run", () => {
  it("finds nothing in a sound run, nor in a copy of another name", async () => {
    const [verdict] = await verify(whole)
    expect(verdict!.problems).toEqual([])
    expect(verdict!.files).toBeGreaterThan(20)
    expect(verdictText(verdict!)).toMatch(/files are as recorded$/)
    expect(await problemsAfter(() => {})).toBe("")
  })

  it("is shorter for a report, which names files that are not those of the manifest", async () => {
    expect(await changedFiles(whole)).toEqual([])
    const dir = join(root, "changed")
    cpSync(whole, dir, { recursive: true })
    flipVerdicts(dir)
    expect(await changedFiles(dir)).toEqual([`${answers} is not the one of manifest.json`])
    rmSync(join(dir, "manifest.json"))
    expect(await changedFiles(dir)).toEqual([])
  })

  it("would not tell two runs apart within each other, so that a run inside of another is refused", async () => {
    const inner = run(config, { dir: join(whole, "seed-0", "inner"), cache: null, local: oracleModel() })
    await expect(inner).rejects.toThrow(`must lie outside of other runs, got one inside of ${whole}; choose another`)
    expect(existsSync(join(whole, "seed-0", "inner"))).toBe(false)
  })

  it("goes on behind a file that cannot be read, and finds what else there is", async () => {
    const found = await problemsAfter((dir) => {
      writeFileSync(join(dir, "seed-0/decompose.key.json"), "[]")
      writeFileSync(join(dir, "seed-0/corrupt.jsonl"), "")
      writeFileSync(join(dir, answers), "\0\0")
    })
    for (const line of [
      "decompose.key.json: must hold a JSON object",
      "seed-0/corrupt.jsonl has 0 bytes instead of",
      `${answers} is not the one of manifest.json`,
      `${answers}, line 1: must be JSON`,
    ])
      expect(found).toContain(line)
  })

  it("takes no device or broken link for a file", async () => {
    const found = await problemsAfter((dir) => {
      for (const [name, to] of [
        ["results.csv", "/dev/zero"],
        ["report.html", "/dev/zero"],
        ["results.md", "/nowhere"],
      ] as const) {
        rmSync(join(dir, name))
        symlinkSync(to, join(dir, name))
      }
    })
    for (const line of ["results.csv is missing", "results.md is missing", "report.html is no file"])
      expect(found).toContain(line)
  })

  it("finds verdicts that were turned round, by manifest, key file, results and report", async () => {
    const found = await problemsAfter(flipVerdicts)
    for (const line of [
      `${answers} is not the one of manifest.json`,
      `${answers} has other content than when it was finished`,
      "results.json: methods do not follow from the graded answers",
      "report.html is not the one of these files",
    ])
      expect(found).toContain(line)
  })

  it("finds them although the manifest was written anew, and although the key file was too", async () => {
    const remake = async (dir: string, file: string) => {
      const manifest = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8"))
      manifest.files[file] = await sha256File(join(dir, file))
      writeFileSync(join(dir, "manifest.json"), JSON.stringify(manifest))
    }
    const fresh = await problemsAfter(async (dir) => {
      flipVerdicts(dir)
      await remake(dir, answers)
    })
    expect(fresh).toContain("has other content than when it was finished")
    const both = await problemsAfter(async (dir) => {
      flipVerdicts(dir)
      const key = answers.replace(".jsonl", ".key.json")
      replaceIn(join(dir, key), /"sha256": "\w+"/, `"sha256": "${await sha256File(join(dir, answers))}"`)
      await remake(dir, answers)
      await remake(dir, key)
    })
    expect(both).not.toContain("has other content")
    expect(both).toContain("results.json: methods do not follow from the graded answers")
  })

  it("finds a missing file, an added one, a changed table and a changed report", async () => {
    expect(await problemsAfter((dir) => rmSync(join(dir, "seed-0/weigh.jsonl")))).toMatch(/weigh\.jsonl is missing/)
    expect(await problemsAfter((dir) => writeFileSync(join(dir, "seed-0/evaluate/musc-T0.jsonl"), ""))).toBe("")
    expect(await problemsAfter((dir) => writeFileSync(join(dir, "seed-0/more.jsonl"), ""))).toMatch(
      /is not in manifest/,
    )
    expect(await problemsAfter((dir) => replaceIn(join(dir, "results.csv"), /\d/, "7"))).toMatch(/results\.csv is not/)
    expect(await problemsAfter((dir) => replaceIn(join(dir, "report.html"), "</h1>", "!</h1>"))).toMatch(
      /report\.html is not/,
    )
    expect(await problemsAfter((dir) => rmSync(join(dir, "manifest.json")))).toMatch(/the run has not finished/)
    const training = "seed-0/train/coarse/adapter/adapter_config.json"
    expect(await problemsAfter((dir) => replaceIn(join(dir, training), '"r"', '"R"'))).toMatch(
      /adapter_config\.json has other content/,
    )
  })

  it("reads no file outside the run, whatever a stranger's manifest names", async () => {
    const named = (dir: string, name: string) => {
      const manifest = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8"))
      writeFileSync(
        join(dir, "manifest.json"),
        JSON.stringify({ ...manifest, files: { ...manifest.files, [name]: "0" } }),
      )
    }
    for (const name of ["/etc/passwd", "../whole/config.json", "seed-0/../../x"])
      expect(await problemsAfter((dir) => named(dir, name))).toMatch(/manifest\.json names ".*", outside/)
  })
})
