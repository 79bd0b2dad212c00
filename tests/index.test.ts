import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "vitest"
import {
  makePairs,
  openAdapter,
  type PairRow,
  readInstructions,
  toAdapter,
  trainAdapter,
  trainDefaults,
  useBackend,
  weigh,
  worldInstructions,
  writeAdapter,
} from "../lib/index"
import { oracleModel } from "./support/oracle"

it("five lines lead from instructions to pairs, and three from pairs to an adapter", async () => {
  const dir = mkdtempSync(join(tmpdir(), "musc-index-"))
  const seeds = join(dir, "seeds.jsonl")
  const instructions = worldInstructions({ n: 5, seed: 0, split: "train" })
  writeFileSync(seeds, instructions.map(({ instruction }) => `${JSON.stringify({ instruction })}\n`).join(""))

  await useBackend()
  const local = oracleModel()
  const engine = local.engine()
  const pairs: PairRow[] = []
  for await (const row of makePairs(engine, readInstructions(seeds))) if (!row.failure) pairs.push(row)

  const weighed = await Promise.all(pairs.map((pair) => weigh(engine, pair)))
  const lora = await trainAdapter(local, weighed, { ...trainDefaults, lr: 1e-3, batchSize: 1 })
  await writeAdapter(join(dir, "adapter"), await toAdapter(lora, local.config), local.name)

  expect(pairs.length).toBeGreaterThan(1)
  const read = openAdapter(join(dir, "adapter"), local)
  for (const [name, tensor] of Object.entries(lora.params)) {
    expect([...read.params[name]!.dataSync()]).toEqual([...tensor.dataSync()])
  }
  expect(
    Object.entries(lora.params).some(([name, B]) => name.endsWith(".B") && B.dataSync().some((x) => x !== 0)),
  ).toBe(true)
}, 120_000)
