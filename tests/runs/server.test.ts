import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { useBackend } from "../../lib/device/tf"
import { run } from "../../lib/runs/run"
import { chatServer } from "../support/chat-server"
import { oracleModel } from "../support/oracle"

const root = mkdtempSync(join(tmpdir(), "musc-run-server-"))
afterAll(() => rmSync(root, { recursive: true }))
beforeAll(() => useBackend().then(() => {}))

const config = parseConfig({
  ...{
    instructions: 4,
    evalInstructions: 2,
    maxConstraints: 4,
    shots: 0,
    evalTemperatures: [0],
    bootstrapSamples: 100,
  },
  ...{ methods: ["base", "musc"], rank: 2, alpha: 4, lr: 1e-3, batchSize: 2, epochs: 1 },
})

it("a server writes the texts of a run; signals, training and evaluation stay; a finished run needs no server", async () => {
  const oracle = oracleModel()
  const writer = oracle.engine(null)
  const pending = new Map<string, string>()
  const server = await chatServer((body, response) => {
    const { messages, temperature, seed } = body as never as Parameters<typeof writer.generate>[0]
    void writer.generate({ messages, temperature, seed, maxTokens: 200 }).then(({ text }) => {
      pending.set(JSON.stringify(messages), text)
      response.setHeader("content-type", "application/json")
      response.end(
        JSON.stringify({ choices: [{ message: { content: `<think>hm</think>\n${text}` }, finish_reason: "stop" }] }),
      )
    })
    return undefined
  })
  const dir = join(root, "a")
  const local = oracleModel()
  const options = { dir, cache: null, local, server: { model: "m", baseURL: server.url, concurrency: 4 } }
  const results = await run(config, options)
  expect(Object.keys(results.methods)).toEqual(["base", "musc"])
  const asked = server.bodies.length
  expect(asked).toBeGreaterThan(8)
  expect(local.calls["Split the"] ?? 0).toBe(0)
  const manifest = JSON.parse(readFileSync(join(dir, "manifest.json"), "utf8"))
  expect(manifest.model).toMatchObject({ fingerprint: "oracle", text: { model: "m" } })
  expect(JSON.stringify(manifest)).not.toContain(server.url)
  expect(readFileSync(join(dir, "seed-0/decompose.jsonl"), "utf8")).not.toContain(server.url)
  expect(readdirSync(dir).filter((name) => name.endsWith("calls.jsonl"))).toEqual([])
  server.close()
  const notes: string[] = []
  const again = await run(config, { ...options, onNote: (line) => notes.push(line) })
  expect(again).toEqual(results)
  expect(server.bodies).toHaveLength(asked)
  expect(notes.join("\n")).toMatch(/refused.*going on with what is finished/)
  expect(existsSync(join(dir, "manifest.json"))).toBe(true)
})
