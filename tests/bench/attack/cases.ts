import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cachedGenerator } from "../../../lib/engine/cached"
import { openaiGenerator } from "../../../lib/engine/openai"
import { replyOf } from "../../../lib/engine/reply"
import { MuscError } from "../../../lib/errors"
import { sleep } from "./child"
import { Count, type Tally } from "./table"

/** A program that plays a chat server whose replies go by a name: of the path, or of the model. */
interface Played {
  file: string
  port: number
  names: RegExp
  address(name: string): { baseURL: string; model: string }
}

const played: readonly Played[] = [
  {
    ...{ file: "server-that-misbehaves.mjs", port: 8801, names: /(\w+): \((?:q, s)?\) =>/g },
    address: (name) => ({ baseURL: `http://127.0.0.1:8801/${name}/v1`, model: "m" }),
  },
  {
    ...{ file: "server-replies-by-model-name.cjs", port: 18733, names: /^ "([\w.-]+)":\(/gm },
    address: (model) => ({ baseURL: "http://127.0.0.1:18733/v1", model }),
  },
]

const secret = "sk-attack-1234567890abcdef"

/**
 * Plays the servers that lie in a folder, in all of their modes: an answer, a counted problem or a clear error each
 * time, soon, in bounded memory, nothing believed from elsewhere, no secret kept, and a cache that can be read again.
 * What came is told line by line.
 */
export async function servedCases(folder: string): Promise<Tally[]> {
  const tallies: Tally[] = []
  for (const { file, port, names, address } of played) {
    const count = new Count(`served by ${file}`)
    tallies.push(count)
    const path = join(folder, file)
    const all = [...readFileSync(path, "utf8").matchAll(names)].map(([, name]) => name!)
    const server = spawn(process.execPath, [path], { stdio: ["ignore", "pipe", "pipe"] })
    let heard = ""
    server.stderr.on("data", (text) => {
      heard += text
    })
    try {
      await listening(port, server)
      for (const name of all) {
        heard = ""
        const problem = await tried(name, address(name))
        count.add(problem ?? (heard.includes("STOLEN") ? `${name}: the prompt was sent elsewhere` : undefined))
      }
    } finally {
      server.kill("SIGKILL")
    }
  }
  return tallies
}

async function listening(port: number, server: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 100 && server.exitCode === null; tries++) {
    await sleep(100)
    const up = await fetch(`http://127.0.0.1:${port}/`, { method: "POST" }).catch(() => undefined)
    await up?.text()
    if (up) return
  }
  throw new Error(`no server on port ${port}`)
}

/** Asks once, through the cache; what is wrong with what came, or undefined. */
async function tried(name: string, address: { baseURL: string; model: string }): Promise<string | undefined> {
  const dir = mkdtempSync(join(tmpdir(), "attack-cases-"))
  const file = join(dir, "calls.jsonl")
  process.env.ATTACK_KEY = secret
  const options = { ...address, keyVariable: "ATTACK_KEY", maxRetries: 3, timeout: 3 }
  const open = () => cachedGenerator(openaiGenerator(options), { file, id: "m" })
  const messages = [{ role: "user" as const, content: "Sing." }]
  const request = { messages, temperature: 0, maxTokens: 10, seed: 1 }
  const began = Date.now()
  let peak = 0
  const before = process.memoryUsage().rss
  const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss - before)), 20)
  try {
    const engine = await open()
    const answer = await replyOf(engine, request).catch((error) => error)
    await engine.close()
    await (await open()).close()
    const seconds = (Date.now() - began) / 1000
    const what = answer instanceof Error ? `${answer.name}: ${answer.message}` : JSON.stringify(answer)
    console.log(`  ${name}: ${seconds.toFixed(1)} s, ${what.slice(0, 200)}`)
    if (answer instanceof Error && !(answer instanceof MuscError)) return `${name}: ${answer.stack?.slice(0, 300)}`
    if (what.includes(secret)) return `${name}: the key stands in what is told`
    if (/STOLEN|SMUGGLED/.test(what)) return `${name}: believed another answer`
    if (!(answer instanceof Error) && !answer.text && !answer.problem && answer.finish !== "length")
      return `${name}: an empty answer without a reason`
    if (seconds > 30) return `${name}: ${seconds.toFixed(0)} s`
    if (peak > 512 * 2 ** 20) return `${name}: ${(peak / 2 ** 20).toFixed(0)} MiB`
    if (readFileSync(file, { encoding: "utf8", flag: "a+" }).includes(secret)) return `${name}: the cache holds the key`
    return undefined
  } catch (error) {
    return `${name}: ${(error as Error).stack?.slice(0, 300)}`
  } finally {
    clearInterval(watch)
    rmSync(dir, { recursive: true })
    delete process.env.ATTACK_KEY
  }
}
