import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"

// A program that writes texts natively for `argv[2]` rounds, so that others can disturb it.
process.on("SIGUSR2", () => {})

async function main(): Promise<void> {
  await useBackend("tensorflow")
  const engine = openLocal("data/models/world", { workers: 1 }).engine()
  const messages = [{ role: "user" as const, content: "Write about a sailor. Use the word lantern." }]
  for (let round = 0; round < Number(process.argv[2]); round++) {
    const rows = Array.from({ length: 8 }, (_, i) => i + 8 * round)
    await Promise.all(rows.map((seed) => engine.generate({ messages, seed, temperature: 1, maxTokens: 60 })))
    if (round === 0) process.send?.("writing")
  }
  process.disconnect?.()
}
main()
