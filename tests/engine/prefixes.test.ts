import { beforeAll, describe, expect, it } from "vitest"
import type { Message } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { Prefixes, sharedIds } from "../../lib/engine/prefixes"
import { bind, release } from "../../lib/model/lora"
import { encodePrompt } from "../../lib/text/chat"
import { fixture, tensorsLeft } from "../support/tensors"

let local: LocalModel
beforeAll(async () => {
  await useBackend()
  local = openLocal(fixture("llama"))
})

const shown: Message[] = [
  { role: "user", content: "words and ".repeat(12) },
  { role: "assistant", content: "That is it." },
]
const shared = (messages: Message[]) => sharedIds(local.tokenizer, messages, encodePrompt(local.tokenizer, messages))

describe("what prompts share", () => {
  it("is their demonstrations, whatever is asked behind them", () => {
    const [a, b] = ["Write.", "Say no more than that."].map((content) => [...shown, { role: "user" as const, content }])
    expect(shared(a!).length).toBeGreaterThan(32)
    expect(shared(a!)).toEqual(shared(b!))
    const prompt = encodePrompt(local.tokenizer, a!)
    expect(prompt.slice(0, shared(a!).length)).toEqual(shared(a!))
  })

  it("is nothing without demonstrations, or with short ones", () => {
    expect(shared([{ role: "user", content: "words and ".repeat(20) }])).toEqual([])
    const short = shown.map((message) => ({ ...message, content: "So" }))
    expect(shared([...short, { role: "user", content: "Write." }])).toEqual([])
  })

  it("is read once and kept for the last few, and given back", async () => {
    const bound = bind(local.model)
    const left = await tensorsLeft(() => {
      const prefixes = new Prefixes(bound, 2)
      const used = (key: string) => {
        const prefix = prefixes.hold(key)
        prefixes.release(key)
        return prefix
      }
      const first = prefixes.hold("5,6,7")
      expect(prefixes.hold("5,6,7")).toBe(first)
      expect(used("")).toBeUndefined()
      for (const key of ["5,6,8", "5,6,9", "5,6,4"]) used(key)
      expect(used("5,6,7")).toBe(first) // in use all the time
      prefixes.release("5,6,7")
      prefixes.release("5,6,7")
      for (const key of ["5,6,8", "5,6,9"]) used(key)
      expect(used("5,6,7")).not.toBe(first)
      prefixes.dispose()
    })
    expect(left).toBe(0)
    release(bound)
  })
})
