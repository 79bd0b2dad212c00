/** Trains so many steps, or writes so many rows, and prints now and then what it holds: `training 3000`. */
import { tf, useBackend } from "../../../lib/device/tf"
import { openLocal } from "../../../lib/engine/local"
import { type TrainRow, type TrainSettings, trainAdapter, trainDefaults } from "../../../lib/musc/train"
import { held } from "./endurance"

const [kind, amount] = [process.argv[2], Number(process.argv[3])]
const look = (done: number) => {
  if (done % Math.ceil(amount / 100) === 0) console.log(JSON.stringify(held(done, tf.memory().numTensors)))
}

async function main(): Promise<void> {
  await useBackend()
  const local = openLocal("world-small")
  if (kind === "training") {
    const rows: TrainRow[] = Array.from({ length: 8 }, (_, i) => ({
      ...{ id: `${i}`, input: null, clean_instruction: `Write about ${"a sailor and ".repeat(i)}a queen.` },
      ...{ chosen: `The sailor sings ${"and sings ".repeat(i)}.`, rejected: "The queen sleeps." },
    }))
    const own = { weighting: "uniform" as const, batchSize: 2, epochs: Math.ceil(amount / 4), rank: 4, lr: 1e-5 }
    const settings = { ...(trainDefaults as TrainSettings & { kind: "preference" }), ...own }
    const lora = await trainAdapter(local, rows, settings, { onStep: ({ step }) => look(step), onNote: () => {} })
    tf.dispose(lora.params)
  } else {
    const engine = local.engine()
    let done = 0
    const lane = async (first: number, lanes: number) => {
      for (let i = first; i < amount; i += lanes) {
        const messages = [{ role: "user" as const, content: `Write ${"so ".repeat(i % 20)}about a sailor.` }]
        await engine.generate({ messages, temperature: 1, maxTokens: 4 + (i % 12), seed: i })
        look(++done)
      }
    }
    await Promise.all(Array.from({ length: 64 }, (_, i) => lane(i, 64)))
    engine.dispose()
  }
}

main()
