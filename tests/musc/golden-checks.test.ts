import { createHash } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { kindNames } from "../../lib/checkable/kinds"
import { checkableInstructions } from "../../lib/checkable/spec"
import { loadLanguages } from "../../lib/eval/ifeval/language"
import { rng } from "../../lib/rng"
import { checksVersion, exactGrader } from "../../lib/runs/graders"
import { worldInstructions } from "../../lib/world/spec"

// What exact checks say of fixed texts, as a hash: checks that say something else must raise checksVersion, so that
// stored verdicts are not taken for theirs. Then MUSC_GOLDEN=write npx vitest run tests/musc/golden-checks.test.ts
// notes the new hash.

const checksFile = join(__dirname, "../fixtures/stages/golden-checks.json")

/** Texts that keep some constraints of either world and break others, without a model. */
function texts(): string[] {
  const [words, ends] = [rng("golden", "words"), ["", ".", "?", "!", "\n\n", "\n- ", " *so* ", ", "]]
  const list = "light The sailor SINGS about 12 rivers P.S. <<Title>> quietly 'old' \"harbor\" slowly [name] ***".split(
    " ",
  )
  return Array.from({ length: 40 }, () =>
    Array.from({ length: 3 + Math.floor(40 * words.next()) }, () => words.pick(list) + words.pick(ends)).join(" "),
  )
}

/** The verdicts of exact checks, a character each. */
async function verdicts(): Promise<string> {
  const rows = [
    ...checkableInstructions({ n: 150, seed: 7, split: "train", constraints: [2, 5] }),
    ...worldInstructions({ n: 60, seed: 7, split: "train", constraints: [3, 6] }),
  ]
  const prompts = new Set(kindNames.map((kind) => JSON.stringify(kind)))
  for (const name of prompts) expect(JSON.stringify(rows), "a kind without an instruction").toContain(name)
  const found: string[] = []
  for (const row of rows)
    for (const text of [...texts(), row.instruction])
      for (const { satisfied } of await exactGrader(row)!(row, text)) found.push(satisfied ? "1" : "0")
  return found.join("")
}

describe("exact checks", () => {
  it("say what their version says", async () => {
    await loadLanguages()
    const all = await verdicts()
    const kept = all.replaceAll("0", "").length / all.length
    expect(kept).toBeGreaterThan(0.2)
    expect(kept).toBeLessThan(0.8)
    const now = { version: checksVersion, sha256: createHash("sha256").update(all).digest("hex") }
    if (process.env.MUSC_GOLDEN === "write") return void writeFileSync(checksFile, `${JSON.stringify(now, null, 2)}\n`)
    const before = JSON.parse(readFileSync(checksFile, "utf8"))
    if (now.sha256 !== before.sha256 && now.version === before.version)
      throw new Error(`exact checks say something else; raise checksVersion in runs/graders.ts, now ${now.version}`)
    expect(now, "new version: note its hash with MUSC_GOLDEN=write").toEqual(before)
  })
})
