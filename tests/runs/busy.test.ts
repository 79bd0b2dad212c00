import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { type OpenOptions, openLocal } from "../../lib/engine/local"
import { rng } from "../../lib/rng"
import { runRows } from "../../lib/runs/store"

let dir: string
beforeEach(async () => {
  await useBackend()
  dir = mkdtempSync(join(tmpdir(), "musc-busy-"))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

/** Most tokens of 400 answers, lognormal with a median of 9: most are short, some are long. */
const random = rng(5, "lengths")
const normal = () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
const lengths = Array.from({ length: 400 }, () => Math.max(1, Math.min(60, Math.round(Math.exp(2.2 + 0.8 * normal())))))
const slots = 8

/**
 * A stage over answers of these lengths: its rows, and the share of the slots that were busy from its start to its end.
 */
async function stage(name: string, replay: boolean | null, options: OpenOptions = {}) {
  const local = openLocal("world-small", options)
  const engine = local.engine(null, { batchSize: slots })
  const file = join(dir, `${name}.jsonl`)
  await runRows({
    ...{ stage: "write", file, key: "k", rows: () => lengths.keys(), chunk: () => 2 * slots },
    replay: () => replay ?? !engine.independent,
    work: async (row: number) => {
      const content = `Write about a sailor, ${row}.`
      const reply = await engine.generate({
        ...{ messages: [{ role: "user", content }], temperature: 1, seed: row, maxTokens: lengths[row]! },
      })
      return { row, ...reply }
    },
  })
  engine.dispose()
  tf.dispose(local.model.params)
  const { steps, rows } = engine.totals
  return { text: readFileSync(file, "utf8"), steps, busy: rows / (slots * steps) }
}

test("a stage keeps more than nine slots of ten of a local model busy, writes the same rows as in chunks, and wastes less", async () => {
  const [window, chunks] = [await stage("window", null), await stage("chunks", true)]
  expect(window.text).toBe(chunks.text)

  if (process.env.MUSC_SHOW) console.log(window.busy, chunks.busy, window.steps, chunks.steps)
  expect(window.busy).toBeGreaterThan(0.9)
  expect(chunks.busy).toBeLessThan(0.8)
})

test("workers write the same rows", async () => {
  const [one, two] = [await stage("one", null), await stage("two", null, { workers: 2 })]
  expect(two.text).toBe(one.text)
})
