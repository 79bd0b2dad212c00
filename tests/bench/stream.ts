import { readFileSync } from "node:fs"
import type { PairRow, WeighedRow } from "../../lib/data/schema"
import { openLocal } from "../../lib/engine/local"
import { type TrainSettings, trainAdapter, trainDefaults } from "../../lib/musc/train"
import { weigh } from "../../lib/musc/weigh"
import type { Answer, Job } from "./jobs"

/** Pairs that are really trained on; the others are read, tokenised, stored and dealt out, which takes the memory. */
const trained = 256

/** Token-weighted DPO over a stream of `count` pairs, 64 different ones over and over, cut off after the first 256. */
export async function streamed({ model, signals, count }: Job): Promise<Partial<Answer>> {
  const local = openLocal(model)
  const engine = local.engine()
  const lines = readFileSync(signals, "utf8").trimEnd().split("\n").slice(0, 64)
  const rows: WeighedRow[] = []
  for (const line of lines) {
    const { clean, noised, responses } = JSON.parse(line).texts
    const pair = {
      id: "",
      input: null,
      clean_instruction: clean[0].content,
      noised_instruction: noised[0].content,
      chosen: responses[0],
      rejected: responses[1],
    } as PairRow
    const row = await weigh(engine, pair, { weightings: ["contrast"] })
    if (!row.failure) rows.push(row as WeighedRow)
  }
  async function* stream() {
    for (let i = 0; i < count!; i++) yield { ...rows[i % rows.length]!, id: `${i}` }
  }
  const settings: TrainSettings = { ...trainDefaults, epochs: trained / count! }
  const start = performance.now()
  await trainAdapter(local, stream(), settings)
  return { done: count!, seconds: (performance.now() - start) / 1000 }
}
