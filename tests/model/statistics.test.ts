import { readFileSync } from "node:fs"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { loadConfig } from "../../lib/model/config"
import { contrast, pack } from "../../lib/model/logprobs"
import { bind } from "../../lib/model/lora"
import { loadModel } from "../../lib/model/weights"
import { largestGap } from "../support/tensors"

// Expected numbers by transformers: see tests/reference/make_statistics.py.

const models = {
  world: join(__dirname, "../../data/models/world"),
  "gemma3-270m": process.env.MUSC_TEST_GEMMA,
}

beforeAll(async () => {
  await useBackend()
})

describe.each(Object.entries(models))("of %s", (name, dir) => {
  const why = dir ? "" : " (skipped: MUSC_TEST_GEMMA names no folder with google/gemma-3-270m)"

  it.skipIf(!dir)(`log-probs, entropies and divergences are those of transformers within 1e-4${why}`, async () => {
    const file = join(__dirname, `../fixtures/statistics/${name}.json`)
    const { rows } = JSON.parse(readFileSync(file, "utf8"))
    const model = loadModel(dir!, loadConfig(dir!))
    const bound = bind(model)
    type Row = { prompt: number[]; other: number[]; response: number[] } & Record<string, number[]>
    const under = (side: "prompt" | "other") =>
      pack(rows.map((row: Row) => ({ prompt: row[side], responses: [row.response] })))
    const got = await contrast(bound, under("prompt"), under("other"))
    const wanted = (of: string): number[] => rows.flatMap((row: Row) => row[of])
    expect(largestGap(got.logprob, wanted("logprob"))).toBeLessThan(1e-4)
    expect(largestGap(got.logprobOther, wanted("logprob_other"))).toBeLessThan(1e-4)
    expect(largestGap(got.entropy, wanted("entropy"))).toBeLessThan(1e-4)
    expect(largestGap(got.entropyOther, wanted("entropy_other"))).toBeLessThan(1e-4)
    expect(largestGap(got.kl, wanted("kl"))).toBeLessThan(1e-4)
    expect(largestGap(got.klReverse, wanted("kl_reverse"))).toBeLessThan(1e-4)
    tf.dispose(model.params)
  })
})
