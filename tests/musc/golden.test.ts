import { createHash } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { type InstructionRow, instructionRow } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import type { ScoreRequest } from "../../lib/engine/engine"
import { openLocal } from "../../lib/engine/local"
import { evaluate, evaluateVersion } from "../../lib/musc/evaluate"
import { type RowStageName, stageNamed } from "../../lib/musc/stages"
import { type TrainRow, type TrainSettings, trainAdapter, trainDefaults, trainVersion } from "../../lib/musc/train"
import { rng } from "../../lib/rng"
import { worldGrader } from "../../lib/runs/graders"
import type { StepLog } from "../../lib/train/loop"
import { instructionOf, sampleSpec } from "../../lib/world/spec"
import { oracleModel } from "../support/oracle"

// What each stage writes for the same rows, by a model whose answers follow from their seeds, as a hash. Stored outputs
// are taken for those of a stage as long as its version is the same: a stage that writes something else must raise it.
// Then MUSC_GOLDEN=write npx vitest run tests/musc/golden.test.ts notes the new hash. Training is computed by plain
// JavaScript, whose digits no processor changes, and four of them count: kernels may round otherwise without another
// version.

const file = join(__dirname, "../fixtures/stages/golden.json")
type Golden = Record<string, { version: number; sha256: string }>
const golden: Golden = JSON.parse(readFileSync(file, "utf8"))
const rowStages: RowStageName[] = ["decompose", "corrupt", "recombine", "respond", "weigh"]
const names = [...rowStages, "train", "evaluate"]
const hashOf = (value: unknown) => createHash("sha256").update(JSON.stringify(value)).digest("hex")

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

/** Losses and norms of a short training of the small embedded model, and its adapter in short. */
async function trained(rows: readonly TrainRow[]) {
  const local = openLocal("world-small")
  const plain = rows.slice(0, 4).map(({ signals: _, weights: __, ...row }) => row)
  const base = trainDefaults as Extract<TrainSettings, { kind: "preference" }>
  const settings: TrainSettings = { ...base, weighting: "uniform", lr: 1e-3, epochs: 2, batchSize: 2, warmup: 0 }
  const steps: number[][] = []
  const onStep = ({ loss, gradNorm, tokens }: StepLog) => void steps.push([digits(loss), digits(gradNorm), tokens])
  const { params } = await trainAdapter(local, plain, settings, { onStep })
  const sizes = Object.entries(params).map(([name, x]) => [name, x.shape, digits(x.abs().sum().dataSync()[0]!)])
  tf.dispose([params, local.model.params])
  return { steps, sizes }
}
const digits = (x: number) => Number(x.toPrecision(4))

describe("the output of a stage", () => {
  const found: Golden = {}
  beforeAll(async () => {
    await useBackend("cpu")
    const engine = { ...oracleModel().engine(), score }
    let rows: InstructionRow[] = Array.from({ length: 24 }, (_, i) =>
      instructionRow.parse({ id: `g${i}`, instruction: instructionOf(sampleSpec(4, "train", rng("golden", i))) }),
    )
    for (const name of rowStages) {
      const stage = stageNamed(name)
      const outcomes = await Promise.all(rows.map((row) => stage.work(engine, row, {})))
      found[name] = { version: stage.version, sha256: hashOf(outcomes) }
      rows = outcomes.filter((outcome) => !outcome.failure) as InstructionRow[]
      expect(rows.length).toBeGreaterThan(8)
    }
    found.train = { version: trainVersion, sha256: hashOf(await trained(rows as unknown as TrainRow[])) }
    const options = { method: "musc", seed: 0, temperature: 1, maxTokens: 60 }
    const world = Array.from({ length: 12 }, (_, i) => sampleSpec(4, "eval", rng("golden held out", i)))
    const answers = await Promise.all(
      world.map((spec, i) => {
        const row = instructionRow.parse({ id: `h${i}`, instruction: instructionOf(spec), world: spec })
        return evaluate(engine, row, worldGrader, options)
      }),
    )
    found.evaluate = { version: evaluateVersion, sha256: hashOf(answers) }
    if (process.env.MUSC_GOLDEN === "write") writeFileSync(file, `${JSON.stringify(found, null, 2)}\n`)
  })

  it.each(names)("%s is what its version says", (name) => {
    if (process.env.MUSC_GOLDEN === "write") return
    const { version, sha256 } = golden[name]!
    const now = found[name]!
    if (now.sha256 !== sha256 && now.version === version)
      throw new Error(
        `${name} writes something else than version ${version} did; raise its version (musc/stages.ts, trainVersion, evaluateVersion)`,
      )
    expect(now, "new version: note its hash with MUSC_GOLDEN=write").toEqual({ version, sha256 })
  })
})
