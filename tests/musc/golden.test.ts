import { createHash } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { type InstructionRow, instructionRow } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import type { ScoreRequest } from "../../lib/engine/engine"
import { type RowStageName, stageNamed } from "../../lib/musc/stages"
import { rng } from "../../lib/rng"
import { instructionOf, sampleSpec } from "../../lib/world/spec"
import { oracleModel } from "../support/oracle"

// What each stage writes for the same rows, by a model whose answers follow from their seeds, as a hash. Stored outputs are
// taken for those of a stage as long as its version is the same: a stage that writes something else must raise it. Then
// MUSC_GOLDEN=write npx vitest run tests/musc/golden.test.ts notes the new hash.

const file = join(__dirname, "../fixtures/stages/golden.json")
type Golden = Record<string, { version: number; sha256: string }>
const golden: Golden = JSON.parse(readFileSync(file, "utf8"))
const names: RowStageName[] = ["decompose", "corrupt", "recombine", "respond", "weigh"]

/** Signals that follow from the words alone, so that no processor's last digits are among them. */
async function score({ clean, noised, responses }: ScoreRequest) {
  return responses.map((response) => {
    const tokens = response.split(/(?<= )/)
    const numbers = (what: string) => {
      const random = rng(1, what, clean.at(-1)!.content, noised.at(-1)!.content, response)
      return tokens.map(() => -Math.round(1000 * random.next()) / 256)
    }
    const positive = (what: string) => numbers(what).map((x) => -x)
    return {
      tokens,
      logprob: numbers("clean"),
      logprob_noised: numbers("noised"),
      logprob_empty: numbers("empty"),
      entropy: positive("entropy"),
      entropy_noised: positive("entropy noised"),
      kl: positive("kl"),
      kl_reverse: positive("kl reverse"),
    }
  })
}

describe("the output of a stage", () => {
  const found: Golden = {}
  beforeAll(async () => {
    await useBackend("cpu")
    const engine = { ...oracleModel().engine(), score }
    let rows: InstructionRow[] = Array.from({ length: 24 }, (_, i) =>
      instructionRow.parse({ id: `g${i}`, instruction: instructionOf(sampleSpec(4, "train", rng("golden", i))) }),
    )
    for (const name of names) {
      const stage = stageNamed(name)
      const outcomes = await Promise.all(rows.map((row) => stage.work(engine, row, {})))
      const sha256 = createHash("sha256").update(JSON.stringify(outcomes)).digest("hex")
      found[name] = { version: stage.version, sha256 }
      rows = outcomes.filter((outcome) => !outcome.failure) as InstructionRow[]
      expect(rows.length).toBeGreaterThan(8)
    }
    if (process.env.MUSC_GOLDEN === "write") writeFileSync(file, `${JSON.stringify(found, null, 2)}\n`)
  })

  it.each(names)("%s is what its version says", (name) => {
    if (process.env.MUSC_GOLDEN === "write") return
    const { version, sha256 } = golden[name]!
    const now = found[name]!
    if (now.sha256 !== sha256 && now.version === version)
      throw new Error(`${name} writes something else than version ${version} did; raise its version in musc/stages.ts`)
    expect(now, "new version: note its hash with MUSC_GOLDEN=write").toEqual({ version, sha256 })
  })
})
