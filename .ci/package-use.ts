// Five lines of a library user, as a CommonJS and as an ES module; see .ci/package.
import {
  makePairs,
  openLocal,
  type PairRow,
  toAdapter,
  trainAdapter,
  trainDefaults,
  useBackend,
  weigh,
  worldInstructions,
  writeAdapter,
} from "musc"

async function main(): Promise<void> {
  const { name } = await useBackend()
  const local = openLocal("world")
  const engine = local.engine()
  const pairs: PairRow[] = []
  for await (const row of makePairs(engine, worldInstructions({ n: 20, seed: 0, split: "train" })))
    if (!row.failure) pairs.push(row as PairRow)
  const weighed = await Promise.all(pairs.map((pair) => weigh(engine, pair)))
  const lora = await trainAdapter(local, weighed, { ...trainDefaults, lr: 1e-3, batchSize: 8 })
  await writeAdapter("adapter", await toAdapter(lora, local.config), local.name)
  console.log(`${name}: ${pairs.length} pairs of 20 instructions, and an adapter`)
  if (pairs.length < 15) throw new Error(`at least 15 of 20 instructions must give a pair, got ${pairs.length}`)
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
