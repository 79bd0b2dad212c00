import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import type { GenerateRequest, ScoreRequest } from "../../lib/engine/engine"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { usualWorkers } from "../../lib/engine/workers"
import { RefusedError, StoppedError } from "../../lib/errors"
import { initLora, type Lora } from "../../lib/model/lora"
import { worldInstructions } from "../../lib/world/spec"
import { randomValues } from "../support/tensors"

const dir = join(__dirname, "../../data/models/world")
const root = join(__dirname, "../..")
const opened: LocalModel[] = []
let alone: LocalModel
let lora: Lora

beforeAll(async () => {
  await useBackend()
  alone = openLocal(dir)
  lora = initLora(alone.config, { rank: 2, alpha: 4, seed: 1 })
  for (const [name, tensor] of Object.entries(lora.params)) {
    if (name.endsWith(".B")) lora.params[name] = tf.tensor(randomValues(tensor.size, 0.2, name), tensor.shape)
  }
})
afterEach(() => {
  for (const { model } of opened.splice(0)) tf.dispose(model.params)
})

const withWorkers = (workers: number) => {
  const local = openLocal(dir, { workers })
  opened.push(local)
  return local
}
const instructions = worldInstructions({ n: 11, seed: 1, split: "train" }).map(({ instruction }) => instruction)
const requests = instructions.map(
  (content, i): GenerateRequest => ({
    messages: [{ role: "user", content }],
    ...{ seed: 100 + i, temperature: i % 2, maxTokens: 4 + 3 * i },
  }),
)
const user = (content = "") => [{ role: "user" as const, content }]
const pairs = instructions.slice(0, 5).map(
  (content, i): ScoreRequest => ({
    ...{ clean: user(content), noised: user(instructions[i + 5]), empty: user() },
    responses: ["The sea is calm.", "No."],
  }),
)
const alive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
/** Waits for processes to be gone. */
const gone = async (pids: readonly number[]) => {
  for (let tries = 0; pids.some(alive) && tries < 300; tries++) await new Promise((done) => setTimeout(done, 100))
  return !pids.some(alive)
}

describe("workers", () => {
  it("give the answers and scores of one process, of the model and of an adapter that is nowhere on disk", async () => {
    const local = withWorkers(2)
    for (const adapter of [null, lora]) {
      const made: number[] = []
      // Batches of 3 for 11 requests: some wait until a process is free again.
      const options = { batchSize: 3, onTokens: (n: number) => made.push(n) }
      const [one, many] = [alone.engine(adapter, { batchSize: 3 }), local.engine(adapter, options)]
      const answers = await Promise.all(requests.map(many.generate))
      expect(local.pool!.pids).toHaveLength(2)
      expect(answers).toEqual(await Promise.all(requests.map(one.generate)))
      expect(made.reduce((a, b) => a + b)).toBe(answers.reduce((n, { tokens }) => n + tokens, 0))
      const [scores, expected] = await Promise.all([many, one].map((engine) => Promise.all(pairs.map(engine.score))))
      expect(scores).toEqual(expected)
      many.dispose()
      one.dispose()
    }
  })

  it("keep the adapter as it was when the engine was made", async () => {
    const local = withWorkers(2)
    const passing: Lora = { ...lora, params: {} }
    for (const [name, tensor] of Object.entries(lora.params)) passing.params[name] = tensor.clone()
    const engine = local.engine(passing)
    tf.dispose(passing.params)
    const kept = alone.engine(lora)
    expect(await engine.generate(requests[2]!)).toEqual(await kept.generate(requests[2]!))
    engine.dispose()
    kept.dispose()
  })

  it("end with the last engine, and begin again with the next", async () => {
    const local = withWorkers(2)
    const [first, second] = [local.engine(), local.engine(lora)]
    await Promise.all([first.generate(requests[0]!), second.generate(requests[0]!)])
    const { pids } = local.pool!
    first.dispose()
    expect(pids.every(alive)).toBe(true)
    second.dispose()
    expect(await gone(pids)).toBe(true)
    const third = local.engine()
    await third.generate(requests[0]!)
    expect(local.pool!.pids.filter((pid) => pids.includes(pid))).toEqual([])
    third.dispose()
  })

  it("that die end the work with an error that names the remedy", async () => {
    const local = withWorkers(2)
    const engine = local.engine(null, { batchSize: 1 })
    await engine.generate(requests[0]!)
    const { pids } = local.pool!
    process.kill(pids[1]!, "SIGSTOP") // so that its own answer never comes
    const [answer, other] = [engine.generate(requests[0]!), engine.generate(requests[1]!)]
    process.kill(pids[0]!, "SIGKILL")
    const rule = "worker 1 of 2 was killed by SIGKILL (out of memory?); run with --workers 1 or free memory"
    await expect(answer).rejects.toThrow(rule)
    await expect(other).rejects.toThrow(rule)
    await expect(engine.generate(requests[0]!)).rejects.toThrow(rule)
    expect(await gone(pids)).toBe(true)
    engine.dispose()
  })

  it("are stopped by the signal, the one that works and what waits, and end", async () => {
    const local = withWorkers(2)
    const stop = new AbortController()
    const engine = local.engine(null, { batchSize: 1, signal: stop.signal, onTokens: () => stop.abort() })
    const results = await Promise.allSettled(requests.map((request) => engine.generate({ ...request, maxTokens: 400 })))
    const broken = results.filter(({ status }) => status === "rejected")
    expect(broken.length).toBeGreaterThan(requests.length - 4)
    for (const result of broken) expect((result as PromiseRejectedResult).reason).toBeInstanceOf(StoppedError)
    await expect(engine.generate(requests[0]!)).rejects.toThrow(StoppedError)
    const { pids } = local.pool!
    engine.dispose()
    expect(await gone(pids)).toBe(true)
  })

  it("end with a parent that is killed, and do not keep one alive that has finished", async () => {
    const program = (ending: string) => `
      const { useBackend } = require(${JSON.stringify(join(root, "lib/device/tf"))})
      const { openLocal } = require(${JSON.stringify(join(root, "lib/engine/local"))})
      useBackend().then(async () => {
        const local = openLocal(${JSON.stringify(dir)}, { workers: 2 })
        await local.engine().generate(${JSON.stringify(requests[0])})
        console.log(JSON.stringify(local.pool.pids))
        ${ending}
      })`
    for (const ending of ["setInterval(() => {}, 1000)", ""]) {
      const parent = spawn(process.execPath, ["-r", "tsx/cjs", "-e", program(ending)], {
        cwd: root,
        stdio: ["ignore", "pipe", "inherit"],
      })
      const exit = once(parent, "exit")
      const [line] = await once(parent.stdout!, "data")
      const pids: number[] = JSON.parse(`${line}`)
      expect(pids).toHaveLength(2)
      if (ending) parent.kill("SIGKILL")
      await exit
      expect(await gone(pids)).toBe(true)
    }
  })

  it("refuse a request that cannot be encoded without harm to the others of its batch", async () => {
    const folder = mkdtempSync(join(tmpdir(), "workers-"))
    cpSync(dir, folder, { recursive: true })
    const file = join(folder, "tokenizer.json")
    const json = JSON.parse(readFileSync(file, "utf8"))
    const { vocab_size: rows } = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"))
    json.added_tokens.push({ ...json.added_tokens[0], id: rows, content: "<|extra|>" })
    writeFileSync(file, JSON.stringify(json))
    const local = openLocal(folder, { workers: 2, onNote: () => {} })
    opened.push(local)
    const engine = local.engine()
    const odd = { ...pairs[0]!, responses: ["The sea <|extra|>", "No."] }
    const settled = await Promise.allSettled([
      ...[pairs[1]!, odd, pairs[2]!].map(engine.score),
      engine.generate({ ...requests[0]!, messages: user("<|extra|>") }),
      engine.generate(requests[0]!),
    ])
    expect(settled.map(({ status }) => status)).toEqual([
      ...["fulfilled", "rejected", "fulfilled"],
      ...["rejected", "fulfilled"],
    ])
    for (const result of settled.filter((one) => one.status === "rejected")) {
      expect(result.reason).toBeInstanceOf(RefusedError)
      expect(result.reason.reason).toBe(`the model has no embedding for the token "<|extra|>" (id ${rows})`)
    }
    const alike = alone.engine()
    expect(settled[0]).toMatchObject({ value: await alike.score(pairs[1]!) })
    alike.dispose()
    engine.dispose()
    rmSync(folder, { recursive: true })
  })

  it("that do not stop in time are ended", async () => {
    const folder = mkdtempSync(join(tmpdir(), "workers-"))
    cpSync(dir, folder, { recursive: true })
    const file = join(folder, "tokenizer.json")
    const json = JSON.parse(readFileSync(file, "utf8"))
    json.pre_tokenizer = { type: "Split", pattern: { Regex: "(z+)+$" }, behavior: "Isolated", invert: false }
    writeFileSync(file, JSON.stringify(json))
    const local = openLocal(folder, { workers: 2 })
    opened.push(local)
    const stop = new AbortController()
    const engine = local.engine(null, { signal: stop.signal })
    await engine.generate(requests[0]!)
    const { pids } = local.pool!
    // So long a text has 41 s for its tokens.
    const asked = engine.generate({ ...requests[0]!, messages: user(`${"z".repeat(2e6)}!`) })
    asked.catch(() => {})
    await new Promise((done) => setTimeout(done, 1000))
    const began = performance.now()
    stop.abort()
    await expect(asked).rejects.toThrow(StoppedError)
    expect(performance.now() - began).toBeLessThan(5000)
    expect(await gone(pids)).toBe(true)
    engine.dispose()
    rmSync(folder, { recursive: true })
  })

  it("are not started for little work when their number is left open", async () => {
    const local = withWorkers(0)
    const engine = local.engine()
    await engine.generate(requests[0]!)
    expect(local.pool?.pids ?? []).toEqual([])
    engine.dispose()
  })

  it("are by default no more than cores, nor than the memory has room for", () => {
    const threads = process.env.TF_NUM_INTRAOP_THREADS
    try {
      process.env.TF_NUM_INTRAOP_THREADS = "1"
      expect(usualWorkers(1e6)).toBe(1)
      process.env.TF_NUM_INTRAOP_THREADS = "64"
      expect(usualWorkers(1e12)).toBe(1)
    } finally {
      if (threads === undefined) delete process.env.TF_NUM_INTRAOP_THREADS
      else process.env.TF_NUM_INTRAOP_THREADS = threads
    }
  })
})
