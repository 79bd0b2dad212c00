import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync } from "node:fs"
import { createServer, request as send } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { z } from "zod"
import { readJsonl } from "../../lib/data/jsonl"
import type { EvalItem } from "../../lib/data/results"
import type { WeighedRow } from "../../lib/data/schema"
import { wordsOf } from "../../lib/engine/torch"
import { argumentsOf } from "./arguments"

/**
 * Runs against a real server of the embedded model:
 *
 *     npx tsx tests/bench/server.ts --engine vllm --python .venv-vllm/bin/python
 *     npx tsx tests/bench/server.ts "COMMAND with {model} and {port}" [--parts writing,killed,signals,adapters]
 *
 * - writing: two runs at 64 calls in flight and one at 4 must write equal stage files.
 * - killed: a run whose server is killed in the middle goes on with one at another port, writes the same, and asks no
 *   finished call again. The calls are counted by a listener before the server, and in the server's own log.
 * - signals: log-probs of the server (`--server-signals`) and the weights made of them against those in process.
 * - adapters: a server that `--serve` starts answers with the adapters of its run. The same texts, trained on and
 *   answered in process, give the same adapters, and must give the same answers at temperature 0.
 *
 * --greedy sets every temperature to 0, for servers without seeds. Ends with exit code 1 when anything differs.
 */

const { values: given, positionals } = argumentsOf(__filename, {
  allowPositionals: true,
  options: {
    model: { type: "string", default: join(__dirname, "../../data/models/world") },
    engine: { type: "string" },
    python: { type: "string", default: "python3" },
    parts: { type: "string" },
    limit: { type: "string", default: "30" },
    out: { type: "string" },
    greedy: { type: "boolean", default: false },
    concurrency: { type: "string", default: "64,64,4" },
  },
})
const bin = join(__dirname, "../../lib/cli/bin.cjs")
const stageFiles = ["decompose", "corrupt", "recombine", "respond"]

/**
 * Engines whose command is known. vLLM on a CPU, in float32 as in process; its CPU build dies of a request with a seed
 * where prompts are read in chunks. Without TORCH_COMPILE_DISABLE the first log-probs wait for a compiler, and the engine
 * ends where that takes 300 s.
 */
const engines: Record<string, (python: string) => string> = {
  vllm: (python) =>
    "env VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 TORCH_COMPILE_DISABLE=1 " +
    `"${python}" -m vllm.entrypoints.openai.api_server --model {model} --port {port} ` +
    "--dtype float32 --max-model-len 512 --max-num-seqs 64 --enforce-eager --no-enable-chunked-prefill " +
    "--max-num-batched-tokens 8192",
}
/** Added for adapters alone: with it vLLM's CPU build dies of a request for prompt_logprobs. */
const withLora = "--enable-lora --max-lora-rank 16"

/** What a server may differ by from this process, in nats and in weights. */
const BOUND = 1e-3

interface Server {
  url: string
  model: string
  log: string
  kill(): void
}

/** A call as the server got it, and whether its answer arrived. */
interface Call {
  print: string
  finished: boolean
}

/** Starts the server, and before it a listener that notes every call. */
async function start(command: string, out: string, calls: Call[]): Promise<Server> {
  const [port, began] = [await freePort(), performance.now()]
  const server = join(out, `server-${port}.log`)
  const [program, ...args] = wordsOf(command).map((word) =>
    word.replaceAll("{model}", given.model).replaceAll("{port}", `${port}`),
  )
  const child = spawn(program!, args, { stdio: ["ignore", "pipe", "pipe"], detached: true })
  const log = createWriteStream(server)
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
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}; see ${server}`)
    if (listed?.ok) {
      const { data } = (await listed.json()) as { data: { id: string }[] }
      // Servers of a folder of models list them all, and are asked by the path.
      const model = data.length === 1 ? data[0]!.id : given.model
      console.log(`${model} is served after ${seconds(began)} s; log: ${server}`)
      return { url, model, log: server, kill }
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

const set = (...settings: string[]) => settings.flatMap((one) => ["--set", one])
const short = set("methods=base", "evalTemperatures=0", "evalInstructions=5")
const zero = set(...stageFiles.map((stage) => `${stage}Temperature=0`))
const seconds = (began: number) => ((performance.now() - began) / 1000).toFixed(0)

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

const against = ({ url, model }: Server, concurrency: string, more: string[] = []) => [
  ...["--endpoint", url, "--endpoint-model", model, "--concurrency", concurrency, "--retries", "1", ...more],
]

async function ran(dir: string, more: string[]): Promise<string> {
  const { status, text } = await musc(dir, more).done
  if (status !== 0) throw new Error(`${dir} ended with ${status}:\n${text.slice(-3000)}`)
  return text
}

const hashOf = (file: string) => createHash("sha256").update(readFileSync(file)).digest("hex")
const printOf = (dir: string) => stageFiles.map((stage) => hashOf(join(dir, `seed-0/${stage}.jsonl`))).join()

async function rowsOf<Row>(file: string): Promise<Row[]> {
  const rows: Row[] = []
  for await (const row of readJsonl(file, z.looseObject({}))) rows.push(row as Row)
  return rows
}

let failures = 0
/** Says what was found, and remembers that it is not as it must be. */
function say(good: boolean, line: string): void {
  if (!good) failures++
  console.log(`${good ? "" : "NOT AS IT MUST BE: "}${line}`)
}

/** Runs at several numbers of calls in flight; gives the print of their stage files and the calls of one. */
async function writing(server: Server, out: string, calls: Call[]): Promise<{ print: string; whole: number }> {
  let print = ""
  let whole = 0
  for (const [i, concurrency] of given.concurrency.split(",").entries()) {
    const [before, began] = [calls.length, performance.now()]
    const dir = join(out, `run-${i}`)
    await ran(dir, against(server, concurrency, short))
    print ||= printOf(dir)
    whole ||= calls.length - before
    const equal = printOf(dir) === print
    const took = `${calls.length - before} calls, ${seconds(began)} s`
    say(equal, `${concurrency} in flight: ${took}${i ? `, stage files ${equal ? "equal" : "differ"}` : ""}`)
  }
  return { print, whole }
}

/** Kills the server in the middle of a run, which goes on with the one that is returned. */
async function killed(
  { server, again, out, calls }: { server: Server; again: () => Promise<Server>; out: string; calls: Call[] },
  { print, whole }: { print: string; whole: number },
): Promise<Server> {
  const first = calls.length
  const dir = join(out, "killed")
  const logged = postsIn(server.log)
  const stopped = musc(dir, against(server, "4", short))
  while (calls.length - first < whole / 2) await sleep(50)
  server.kill()
  const { status, text } = await stopped.done
  const asked = calls.length - first
  console.log(`server killed after ${asked} calls; the run ended with ${status}: ${text.trim().split("\n").at(-1)}`)
  const next = await again()
  await ran(dir, against(next, "4", short))
  const own = calls.slice(first)
  const seen = new Set<string>()
  let twice = 0
  for (const { print, finished } of own) {
    if (seen.has(print)) twice++
    if (finished) seen.add(print)
  }
  const equal = printOf(dir) === print
  const posts = postsIn(server.log) - logged + postsIn(next.log)
  say(
    equal && !twice && posts <= whole + 4, // those under way when it was killed
    `another port: stage files ${equal ? "equal" : "differ"}; finished calls asked again: ${twice} of ${own.length}; ` +
      `answered calls in the servers' logs: ${posts}, in those of a whole run: ${whole}`,
  )
  return next
}

/** Lines of answered chat calls in the log of a server that writes as uvicorn does. */
const postsIn = (log: string) =>
  readFileSync(log, "utf8").match(/"POST \/v1\/chat\/completions HTTP\/1\.1" 200/g)?.length ?? 0

const fromLogProbs = set("weightings=uniform,contrast,pmi,logprob", "weighting=contrast")

/** Signals of the server against those of this process, for the same pairs. */
async function signals(server: Server, out: string): Promise<void> {
  const [theirs, ours] = [join(out, "signals-server"), join(out, "signals-here")]
  await ran(theirs, against(server, "64", [...short, ...fromLogProbs, "--server-signals"]))
  await ran(ours, against(server, "64", [...short, ...fromLogProbs]))
  const [a, b] = await Promise.all([theirs, ours].map((dir) => rowsOf<WeighedRow>(join(dir, "seed-0/weigh.jsonl"))))
  const most: Record<string, number> = {}
  const note = (name: string, x: readonly number[], y: readonly number[]) => {
    if (x.length !== y.length) throw new Error(`${name}: must have ${y.length} tokens, got ${x.length}`)
    most[name] = Math.max(most[name] ?? 0, ...x.map((value, t) => Math.abs(value - y[t]!)))
  }
  let tokens = 0
  const pairs = b!.filter(({ signals }) => signals)
  for (const [i, row] of b!.entries()) {
    if (!row.signals) continue
    for (const side of ["chosen", "rejected"] as const) {
      tokens += row.signals[side].logprob.length
      for (const name of ["logprob", "logprob_noised", "logprob_empty"] as const)
        note(name, a![i]!.signals[side][name], row.signals[side][name])
      for (const [name, weights] of Object.entries(row.weights))
        note(`weights ${name}`, a![i]!.weights[name]![side], weights[side])
    }
  }
  const told = Object.entries(most).map(([name, value]) => `${name} ${value.toExponential(1)}`)
  const good = pairs.length > 0 && Object.values(most).every((value) => value <= BOUND)
  say(good, `signals of ${pairs.length} pairs, ${tokens} tokens, largest differences: ${told.join(", ")}`)
}

/** Answers of a server with adapters against those in process, of the same adapters. */
async function adapters(command: string, server: Server, out: string): Promise<void> {
  const methods = ["base", "coarse", "musc"]
  const settings = set(`methods=${methods}`, "evalTemperatures=0")
  const [served, here] = [join(out, "served"), join(out, "here")]
  await ran(here, against(server, "64", settings))
  server.kill()
  await ran(served, ["--serve", `${command} ${withLora}`, "--concurrency", "64", ...settings])
  const texts = printOf(served) === printOf(here)
  say(texts, `--serve: stage files ${texts ? "equal" : "differ from"} those of --endpoint`)
  for (const method of methods) {
    const weights = `seed-0/train/${method}/adapter/adapter_model.safetensors`
    const adapter = method === "base" || hashOf(join(served, weights)) === hashOf(join(here, weights))
    const file = `seed-0/evaluate/${method}-T0.jsonl`
    const [a, b] = await Promise.all([served, here].map((dir) => rowsOf<EvalItem>(join(dir, file))))
    const other = a!.filter(({ answer }, i) => answer !== b![i]!.answer)
    for (const { id, answer } of other.slice(0, 3))
      console.log(`  ${method} ${id}\n    served  ${answer}\n    here    ${b!.find((row) => row.id === id)!.answer}`)
    say(
      adapter && a!.length === b!.length && !other.length,
      `${method}: ${adapter ? "same" : "OTHER"} adapter; ${a!.length - other.length} of ${b!.length} answers alike`,
    )
  }
}

async function main(): Promise<void> {
  const engine = given.engine === undefined ? undefined : engines[given.engine]
  const command = engine ? engine(given.python) : positionals[0]
  if (!command) throw new Error(`name a server: a command with {model} and {port}, or --engine ${Object.keys(engines)}`)
  const parts = (given.parts ?? (engine ? "writing,killed,signals,adapters" : "writing,killed")).split(",")
  const out = given.out ?? mkdtempSync(join(tmpdir(), "musc-server-"))
  mkdirSync(out, { recursive: true })
  const calls: Call[] = []
  const again = () => start(command, out, calls)
  let server = await again()
  const wrote = parts.some((part) => part === "writing" || part === "killed") && (await writing(server, out, calls))
  if (wrote && parts.includes("killed")) server = await killed({ server, again, out, calls }, wrote)
  if (parts.includes("signals")) await signals(server, out)
  if (parts.includes("adapters")) await adapters(command, server, out)
  server.kill()
  process.exitCode = failures ? 1 : 0
}

void main()
