import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Message } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import { writeAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { initLora, toAdapter } from "../../lib/model/lora"
import { rng } from "../../lib/rng"
import { encodeChat } from "../../lib/text/chat"
import { loadTokenizer } from "../../lib/text/tokenizer"
import { realise } from "../../lib/world/realise"
import { instructionOf, worldInstructions } from "../../lib/world/spec"

/** Files that ours and the peers work on: the same token ids, in the same order, and the same fresh adapter. */
export interface Workload {
  dir: string
  /** JSONL of `prompt`, `chosen`, `rejected` as ids */
  pairs: string
  /** JSONL of `clean`, `noised`, `empty`, `answers` as ids, and of the same as messages for our scorer */
  signals: string
  /** JSONL of `prompt` as ids */
  prompts: string
  /** PEFT folder: rank 16, alpha 32, all linear layers, B zero */
  adapter: string
}

/** Instructions of the embedded world, answered as they should be and with half of the constraints forgotten. */
export async function makeWorkload(model: string, pairs: number): Promise<Workload> {
  const dir = mkdtempSync(join(tmpdir(), "musc-bench-"))
  const tokenizer = loadTokenizer(model)
  const ask = (content: string): Message[] => [{ role: "user", content }]
  const rows = worldInstructions({ n: Math.max(pairs, 64), seed: 1, split: "train" }).map(({ world }, i) => {
    const half = Math.ceil(world.constraints.length / 2)
    const part = <T>(list: readonly T[]) => list.slice(0, half)
    const noised = {
      ...world,
      constraints: part(world.constraints),
      wording: part(world.wording),
      joined: part(world.joined),
    }
    const random = rng(1, "bench", i)
    const texts = {
      clean: ask(instructionOf(world)),
      noised: ask(instructionOf(noised)),
      empty: ask(""),
      responses: [realise(world, random), realise(world, random, (_, k) => k < half)],
    }
    const [chosen, rejected] = texts.responses.map((text) => encodeChat(tokenizer, texts.clean, text).responseIds)
    const promptOf = (messages: Message[]) => encodeChat(tokenizer, messages, "").promptIds
    const [prompt, other, empty] = [texts.clean, texts.noised, texts.empty].map(promptOf)
    return {
      pair: { prompt, chosen, rejected },
      signals: { clean: prompt, noised: other, empty, answers: [chosen, rejected], texts },
    }
  })
  const write = (name: string, list: readonly unknown[]) => {
    const file = join(dir, name)
    writeFileSync(file, list.map((row) => `${JSON.stringify(row)}\n`).join(""))
    return file
  }
  await useBackend("cpu")
  const config = loadConfig(model)
  const lora = initLora(config, { rank: 16, alpha: 32, seed: 1 })
  const adapter = join(dir, "adapter")
  mkdirSync(adapter)
  await writeAdapter(adapter, await toAdapter(lora, config), model)
  tf.dispose(lora.params)
  return {
    dir,
    adapter,
    pairs: write(
      "pairs.jsonl",
      rows.map(({ pair }) => pair),
    ),
    signals: write(
      "signals.jsonl",
      rows.map(({ signals }) => signals),
    ),
    prompts: write(
      "prompts.jsonl",
      rows.map(({ pair }) => ({ prompt: pair.prompt })),
    ),
  }
}
