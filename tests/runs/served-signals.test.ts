import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { z } from "zod"
import { parseConfig } from "../../lib/config/config"
import { recipes } from "../../lib/config/recipes"
import { readJsonl } from "../../lib/data/jsonl"
import type { PairRow, WeighedRow } from "../../lib/data/schema"
import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { StoppedError } from "../../lib/errors"
import { weigh } from "../../lib/musc/weigh"
import { type RunOptions, run } from "../../lib/runs/run"

// A run whose texts, token signals and answers all come from one server that it starts: the embedded model, served by
// a process of its own over the wire.
const root = mkdtempSync(join(tmpdir(), "musc-served-signals-"))
const program = [process.execPath, "--require", "tsx/cjs", join(__dirname, "../support/model-server.ts")]
const command = `${program.map((word) => JSON.stringify(word)).join(" ")} {model} --port {port}`
const folder = join(__dirname, "../../data/models/world")
const config = parseConfig({
  ...{ ...recipes.smoke!.config, instructions: 8, evalInstructions: 3, evalTemperatures: [0], bootstrapSamples: 100 },
  ...{ methods: ["base", "coarse", "musc"], epochs: 1, batchSize: 4, rank: 2 },
  ...{ weightings: ["uniform", "contrast", "pmi", "logprob"], weighting: "contrast" },
})
const stages = ["decompose", "corrupt", "recombine", "respond", "weigh"]
const dirOf = (name: string) => join(root, name)
const bytesOf = (name: string) =>
  stages.map((stage) => readFileSync(join(dirOf(name), `seed-0/${stage}.jsonl`), "utf8"))
const start = (name: string, more: Partial<RunOptions>) =>
  run(config, { dir: dirOf(name), cache: null, serverSignals: true, ...more })
const serve = { command, startTimeout: 300, client: { concurrency: 4, maxRetries: 0 } }
/** The processes of the servers that a run started, in their order. */
const pidsOf = (name: string) =>
  [...readFileSync(join(dirOf(name), "server.log"), "utf8").matchAll(/process (\d+) is ready/g)].map(([, pid]) => +pid!)

let server: ChildProcess | undefined
beforeAll(() => useBackend().then(() => {}))
afterAll(() => {
  server?.kill("SIGKILL")
  rmSync(root, { recursive: true })
})

describe("a run whose texts and signals come from the server that it starts", () => {
  it("writes what it writes with a server that runs already, and stops its own for the training", async () => {
    const notes: string[] = []
    const results = await start("served", { serve, onNote: (line) => notes.push(line) })
    const starts = notes.filter((line) => line.startsWith("server: starting"))
    expect(starts).toEqual([expect.not.stringContaining("adapters"), expect.stringContaining("with 2 adapters")])
    expect(pidsOf("served")).toHaveLength(2)
    const port = await new Promise<number>((done) => {
      const probe = createServer().listen(0, "127.0.0.1", () => {
        const { port } = probe.address() as { port: number }
        probe.close(() => done(port))
      })
    })
    server = spawn(program[0]!, [...program.slice(1), folder, "--port", `${port}`], { stdio: "ignore" })
    const baseURL = `http://127.0.0.1:${port}/v1`
    while (!(await fetch(`${baseURL}/models`).catch(() => undefined))?.ok) await sleep(100)
    const by = await start("endpoint", { server: { model: folder, baseURL, concurrency: 4 } })
    server.kill("SIGKILL")
    expect(bytesOf("endpoint")).toEqual(bytesOf("served"))
    expect(by.methods).toEqual(results.methods) // answers of this process, and of the server with adapters
  }, 600_000)

  it("has the signals of this process", async () => {
    const engine = openLocal("world").engine()
    let compared = 0
    for await (const line of readJsonl(join(dirOf("served"), "seed-0/weigh.jsonl"), z.looseObject({}))) {
      const row = line as unknown as WeighedRow
      if (!row.signals) continue // a failed row
      const ours = (await weigh(engine, row as PairRow, { weightings: ["contrast"] })) as WeighedRow
      for (const side of ["chosen", "rejected"] as const) {
        for (const name of ["logprob", "logprob_noised", "logprob_empty"] as const) {
          for (const [t, value] of row.signals[side][name].entries()) {
            expect(Math.abs(value - ours.signals[side][name][t]!)).toBeLessThan(1e-4)
            compared++
          }
        }
        expect(row.signals[side].kl).toEqual([])
      }
    }
    engine.dispose()
    expect(compared).toBeGreaterThan(100)
  }, 300_000)

  it("goes on after its server was killed in the middle of writing and of scoring, and after Ctrl-C", async () => {
    const at = (stage: string, done: number, what: () => void): Partial<RunOptions> => ({
      onProgress(progress) {
        if (progress.stage === `seed-0/${stage}` && progress.done === done) what()
      },
    })
    const kill = () => process.kill(-pidsOf("stopped").at(-1)!, "SIGKILL")
    for (const stage of ["respond", "weigh"])
      await expect(start("stopped", { serve, ...at(stage, 2, kill) })).rejects.toThrow(/the server ended; see its log/)
    const stop = new AbortController()
    const aborted = start("stopped", { serve, signal: stop.signal, ...at("weigh", 3, () => stop.abort()) })
    await expect(aborted).rejects.toBeInstanceOf(StoppedError)
    for (const pid of pidsOf("stopped")) expect(() => process.kill(pid, 0)).toThrow() // it has ended
    await start("stopped", { serve })
    expect(bytesOf("stopped")).toEqual(bytesOf("served"))
  }, 600_000)
})
