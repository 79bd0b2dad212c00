import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync } from "node:fs"
import { createServer, request as send } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"
import { wordsOf } from "../../lib/engine/torch"

/**
 * Runs against a real server of the embedded model:
 *
 *     npx tsx tests/bench/server.ts "vllm serve {model} --port {port} --max-model-len 512 --enforce-eager" [--limit 30]
 *
 * Two runs at 64 calls in flight and one at 4 must write equal stage files. A run whose server is killed in the middle
 * goes on with one at another port, writes the same, and asks no finished call again. With --adapters the server is
 * also started by `--serve` and answers with adapters. --greedy sets every temperature to 0, for servers without seeds.
 */

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", default: join(__dirname, "../../data/models/world") },
    limit: { type: "string", default: "30" },
    out: { type: "string" },
    adapters: { type: "boolean", default: false },
    greedy: { type: "boolean", default: false },
    concurrency: { type: "string", default: "64,64,4" },
  },
})
const bin = join(__dirname, "../../lib/cli/bin.cjs")
const stageFiles = ["decompose", "corrupt", "recombine", "respond"]

interface Server {
  url: string
  model: string
  kill(): void
}

/** A call as the server got it, and whether its answer arrived. */
interface Call {
  print: string
  finished: boolean
}

/** Starts the server, and before it a listener that notes every call. */
async function start(command: string, out: string, calls: Call[]): Promise<Server> {
  const port = await freePort()
  const [program, ...args] = wordsOf(command).map((word) =>
    word.replaceAll("{model}", given.model).replaceAll("{port}", `${port}`),
  )
  const child = spawn(program!, args, { stdio: ["ignore", "pipe", "pipe"], detached: true })
  const log = createWriteStream(join(out, "server.log"), { flags: "a" })
  for (const stream of [child.stdout, child.stderr]) stream.pipe(log, { end: false })
  const listener = createServer((incoming, reply) => {
    const parts: Buffer[] = []
    incoming.on("data", (part: Buffer) => parts.push(part))
    incoming.on("end", () => {
      const body = Buffer.concat(parts)
      const call: Call = { print: createHash("sha256").update(body).digest("hex"), finished: false }
      if (incoming.method === "POST") calls.push(call)
      const { method, url: path, headers } = incoming
      const onward = send({ host: "127.0.0.1", port, method, path, headers }, (answer) => {
        reply.writeHead(answer.statusCode!, answer.headers)
        answer.pipe(reply)
        answer.on("end", () => {
          call.finished = answer.statusCode === 200
        })
      })
      onward.on("error", () => reply.destroy())
      onward.end(body)
    })
  })
  await new Promise<void>((done) => listener.listen(0, "127.0.0.1", done))
  const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}/v1`
  const kill = () => {
    listener.closeAllConnections()
    listener.close()
    end(child)
  }
  process.once("exit", kill)
  for (;;) {
    const listed = await fetch(`http://127.0.0.1:${port}/v1/models`).catch(() => undefined)
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}; see ${out}/server.log`)
    if (listed?.ok) {
      const { data } = (await listed.json()) as { data: { id: string }[] }
      // Servers of a folder of models list them all, and are asked by the path.
      return { url, model: data.length === 1 ? data[0]!.id : given.model, kill }
    }
    await sleep(1000)
  }
}

function end(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, "SIGKILL")
  } catch {} // it has ended
}

const freePort = (): Promise<number> =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => done(port))
    })
  })

const zero = ["decompose", "corrupt", "recombine", "respond"].flatMap((stage) => ["--set", `${stage}Temperature=0`])
const settings = ["methods=base", "evalTemperatures=0", "evalInstructions=5"].flatMap((one) => ["--set", one])

function musc(
  dir: string,
  more: string[],
): { child: ChildProcess; done: Promise<{ status: number | null; text: string }> } {
  const args = ["run", "smoke", "--model", given.model, "--limit", given.limit, "--out", dir, "--no-cache", ...more]
  const child = spawn(process.execPath, [bin, ...args, ...(given.greedy ? zero : [])], {
    stdio: ["ignore", "pipe", "pipe"],
  })
  let text = ""
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (part) => {
      text += part
    })
  return { child, done: new Promise((done) => child.on("close", (status) => done({ status, text }))) }
}

const against = ({ url, model }: Server, concurrency: string) => [
  ...["--endpoint", url, "--endpoint-model", model, "--concurrency", concurrency, "--retries", "1", ...settings],
]

async function ran(dir: string, more: string[]): Promise<string> {
  const { status, text } = await musc(dir, more).done
  if (status !== 0) throw new Error(`${dir} ended with ${status}:\n${text.slice(-3000)}`)
  return text
}

const printOf = (dir: string) =>
  stageFiles.map((stage) =>
    createHash("sha256")
      .update(readFileSync(join(dir, `seed-0/${stage}.jsonl`)))
      .digest("hex"),
  )

async function main(command: string): Promise<void> {
  const out = given.out ?? mkdtempSync(join(tmpdir(), "musc-server-"))
  mkdirSync(out, { recursive: true })
  const calls: Call[] = []
  let server = await start(command, out, calls)
  console.log(`${server.model} is served; log: ${out}/server.log`)
  const prints: string[][] = []
  for (const [i, concurrency] of given.concurrency.split(",").entries()) {
    const [before, began] = [calls.length, performance.now()]
    const dir = join(out, `run-${i}`)
    await ran(dir, against(server, concurrency))
    prints.push(printOf(dir))
    const equal = prints[i]!.join() === prints[0]!.join() ? "" : ", stage files DIFFER from the first run"
    const seconds = (performance.now() - began) / 1000
    console.log(`${concurrency} in flight: ${calls.length - before} calls, ${seconds.toFixed(0)} s${equal}`)
  }
  const firstCall = calls.length
  const dir = join(out, "killed")
  const stopped = musc(dir, against(server, "4"))
  const whole = firstCall / given.concurrency.split(",").length
  while (calls.length - firstCall < whole / 2) await sleep(50)
  server.kill()
  const { status, text } = await stopped.done
  console.log(
    `server killed after ${calls.length - firstCall} calls; the run ended with ${status}: ${text.trim().split("\n").at(-1)}`,
  )
  server = await start(command, out, calls)
  await ran(dir, against(server, "4"))
  server.kill()
  const own = calls.slice(firstCall)
  const twice = own.filter(({ print }, i) =>
    own.slice(0, i).some((call) => call.finished && call.print === print),
  ).length
  const equal = printOf(dir).join() === prints[0]!.join()
  console.log(
    `another port: stage files ${equal ? "equal" : "DIFFER"}; finished calls asked again: ${twice} of ${own.length}`,
  )
  if (given.adapters) {
    const methods = ["methods=base,musc", "evalTemperatures=0"].flatMap((one) => ["--set", one])
    await ran(join(out, "served"), ["--serve", `${command} --enable-lora`, ...methods])
    await ran(join(out, "here"), methods)
    console.log(
      "--serve with adapters: see the tables in",
      join(out, "served/results.md"),
      "and",
      join(out, "here/results.md"),
    )
  }
}

void main(positionals[0]!)
