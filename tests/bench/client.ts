import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cachedGenerator } from "../../lib/engine/cached"
import { openaiGenerator } from "../../lib/engine/openai"
import { rng } from "../../lib/rng"
import { runRows } from "../../lib/runs/store"

/**
 * What a call to a server costs this side, and how many of the slots are busy: a stage of many rows against a stub in
 * another process, whose answers take lognormal times, as texts of different lengths do.
 *
 *     npx tsx tests/bench/client.ts [calls] [in flight]
 */

export interface ClientLoad {
  calls: number
  inFlight: number
  seconds: number
  callsPerSecond: number
  /** Milliseconds of CPU of this process for a call. */
  cpu: number
  /** Share of the slots that were busy while calls were left to begin. */
  busy: number
}

/** Answers after the milliseconds that the prompt names. */
const stub = `
const http = require("node:http")
const server = http.createServer((request, response) => {
  let body = ""
  request.on("data", (part) => { body += part })
  request.on("end", () => {
    const wait = Number(/wait (\\d+)/.exec(body)[1])
    setTimeout(() => {
      response.writeHead(200, { "content-type": "application/json" })
      const message = { role: "assistant", content: "word ".repeat(200) }
      response.end(JSON.stringify({ choices: [{ message, finish_reason: "stop" }], usage: { prompt_tokens: 900, completion_tokens: 200 } }))
    }, wait)
  })
})
server.listen(0, "127.0.0.1", () => process.send(server.address().port))
`

async function startStub(): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, ["-e", stub], { stdio: ["ignore", "inherit", "inherit", "ipc"] })
  const port = await new Promise<number>((resolve) => child.once("message", (sent) => resolve(sent as number)))
  return { child, port }
}

/** Milliseconds with median `median` and a standard deviation of 1 of their logarithm. */
function lognormal(seed: number, median: number): number {
  const stream = rng(seed, "client")
  const normal = Math.sqrt(-2 * Math.log(1 - stream.next())) * Math.cos(2 * Math.PI * stream.next())
  return Math.round(median * Math.exp(normal))
}

export async function measureClient({ calls, inFlight }: { calls: number; inFlight: number }): Promise<ClientLoad> {
  const { child, port } = await startStub()
  const dir = mkdtempSync(join(tmpdir(), "musc-client-"))
  try {
    const server = openaiGenerator({ model: "m", baseURL: `http://127.0.0.1:${port}/v1`, concurrency: inFlight })
    let [under, area, since, begun, counted] = [0, 0, performance.now(), 0, 0]
    const note = (change: number) => {
      const now = performance.now()
      if (begun < calls) {
        area += under * (now - since)
        counted += now - since
      }
      since = now
      under += change
    }
    const watched = {
      ...server,
      async generate(request: Parameters<typeof server.generate>[0]) {
        note(1)
        begun++
        try {
          return await server.generate(request)
        } finally {
          note(-1)
        }
      },
    }
    const engine = await cachedGenerator(watched, { file: join(dir, "calls.jsonl"), id: "m" })
    const example = "An example that every prompt shows, so that it is about as long as those of a stage. ".repeat(40)
    const work = async (i: number) => {
      const content = `${example} Row ${i}, wait ${lognormal(i, 300)}.`
      const { text } = await engine.generate({
        messages: [{ role: "user", content }],
        temperature: 1,
        maxTokens: 9,
        seed: i,
      })
      return { i, text }
    }
    const rows = () => Array.from({ length: calls }, (_, i) => i)
    const file = join(dir, "rows.jsonl")
    const began = performance.now()
    const before = process.cpuUsage()
    await runRows({ stage: "client", file, key: "k", rows, work, chunk: () => inFlight, replay: () => false })
    const { user, system } = process.cpuUsage(before)
    const seconds = (performance.now() - began) / 1000
    await engine.close()
    return {
      ...{ calls, inFlight, seconds, callsPerSecond: calls / seconds },
      ...{ cpu: (user + system) / 1000 / calls, busy: area / counted / inFlight },
    }
  } finally {
    child.kill()
    rmSync(dir, { recursive: true })
  }
}

if (require.main === module) {
  const [calls = 2000, inFlight = 256] = process.argv.slice(2).map(Number)
  measureClient({ calls, inFlight }).then((load) => {
    console.log(
      `${load.calls} calls, ${load.inFlight} in flight: ${load.seconds.toFixed(1)} s, ${load.callsPerSecond.toFixed(0)} calls/s`,
    )
    console.log(
      `${load.cpu.toFixed(2)} ms of CPU a call; ${(100 * load.busy).toFixed(1)} % of the slots busy while calls are left`,
    )
  })
}
