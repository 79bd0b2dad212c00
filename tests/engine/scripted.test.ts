import { expect, it } from "vitest"
import { scripted } from "../../lib/engine/scripted"

const request = (content: string) => ({
  messages: [{ role: "user" as const, content }],
  temperature: 0,
  maxTokens: 9,
  seed: 1,
})

it("answers by the last message, and counts words and the end of turn as tokens", async () => {
  const engine = scripted({ hi: "hello there", cut: { text: "hel", finish: "length", tokens: 3 } })
  expect(await engine.generate(request("hi"))).toEqual({ text: "hello there", finish: "stop", tokens: 3 })
  expect(await engine.generate(request("cut"))).toEqual({ text: "hel", finish: "length", tokens: 3 })
  expect(engine.requests.map(({ messages }) => messages[0]!.content)).toEqual(["hi", "cut"])
})

it("throws scripted errors, and an error that quotes a message it has no answer to", async () => {
  await expect(scripted(() => new Error("down")).generate(request("hi"))).rejects.toThrow("down")
  await expect(scripted({}).generate(request("toString"))).rejects.toThrow(/answer to "toString", got none; add it/)
})
