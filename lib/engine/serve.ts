import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { createWriteStream, mkdirSync } from "node:fs"
import { createServer } from "node:net"
import { basename, dirname, resolve } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { InputError, MuscError, RefusedError, StoppedError } from "../errors"
import { withPython } from "../native/python-env"
import type { ModelDescription } from "./description"
import type { Generator, SignalScorer } from "./engine"
import { type OpenAIOptions, openConnection } from "./openai"
import { serverAs } from "./server"
import { jsonOf, toldOnce } from "./server-problem"
import { serverScorer } from "./server-scorer"
import { wordsOf } from "./torch"

/** A server of one's own: started when texts are wanted, stopped when scoring and training want the GPUs. */
export interface ServeOptions {
  /**
   * Command line with {model} and {port}, such as `vllm serve {model} --port {port} --enable-lora`. No shell reads it.
   */
  command: string
  /** Where what it prints goes. */
  log: string
  /** Seconds until it must answer. */
  startTimeout?: number
  /** How it is asked. */
  client?: Omit<OpenAIOptions, "model" | "baseURL" | "signal">
  signal?: AbortSignal
  onNote?: (line: string) => void
  onProgress?: (seconds: number, limit: number) => void
}

export interface ServedText {
  base: Generator
  /** Token signals without distributions; see serverScorer. */
  scorer: SignalScorer
  identity: string
  /** Tells of an adapter, so that the next start brings it too. */
  addAdapter(dir: string): void
  withAdapter(dir: string): Promise<Generator & { dispose(): void }>
  /** Stops the server until texts are wanted again. */
  pause(): Promise<void>
  dispose(): void
}

/** How the words of a command name the engines whose sampling fields are known, as `/v1/models` calls them. */
const kinds: readonly (readonly [string, RegExp])[] = [
  ["vllm", /^vllm(?![\w-])/],
  ["sglang", /^sglang(?![\w-])/],
  ["llamacpp", /^llama-server(?![\w-])/],
]

/** The engine that a command starts, also behind `env` or `python -m`; undefined for another. */
export const engineIn = (words: readonly string[]): string | undefined =>
  kinds.find(([, pattern]) => words.some((word) => pattern.test(basename(word))))?.[0]

const nameOf = (dir: string) => `musc-${createHash("sha256").update(resolve(dir)).digest("hex").slice(0, 10)}`

interface Running {
  child: ChildProcess
  url: string
  /** folders that it was started with */
  adapters: ReadonlySet<string>
  /** names of the model and its adapters as it lists them */
  models: readonly string[]
  died: AbortController
  ended: Promise<void>
}

/** The words of a command that starts a server. @throws InputError for one without {model} and {port} */
function serverWords(command: string): string[] {
  const words = wordsOf(command)
  const missing = ["{model}", "{port}"].filter((part) => !words.some((word) => word.includes(part)))
  if (words.length && !missing.length) return words
  const rule = `must be a command with {model} and {port}, got ${command || "nothing"}`
  throw new InputError(`${rule}; add ${missing.join(" and ")}`, { field: "--serve" })
}

/** The process of a server: started when it is wanted, with the adapters that are known by then; stopped by `pause`. */
class OwnServer {
  /** what it is called in messages */
  readonly program: string
  /** folders that the next start brings */
  readonly adapters = new Set<string>()
  private readonly words: string[]
  private tail = ""
  private starting: Promise<Running> | undefined

  constructor(
    private readonly dir: string,
    private readonly options: ServeOptions,
  ) {
    this.words = serverWords(options.command)
    this.program = engineIn(this.words) ?? basename(this.words[0]!)
  }

  /** The server, started if it does not run, and again where it lacks `adapter`. */
  async running(adapter?: string): Promise<Running> {
    const current = await this.starting?.catch(() => undefined)
    if (current?.died.signal.aborted) {
      this.starting = undefined
      throw this.dead()
    }
    if (current && adapter && !current.adapters.has(adapter)) await this.pause()
    this.starting ??= this.start()
    try {
      return await this.starting
    } catch (error) {
      this.starting = undefined
      throw error
    }
  }

  async pause(): Promise<void> {
    const running = await this.starting?.catch(() => undefined)
    this.starting = undefined
    if (running) await end(running)
  }

  /** Says that it ended by itself, with the last lines of its log. */
  dead(): MuscError {
    return new MuscError(`${this.program}: the server ended; see its log, ${this.options.log}${this.lastLines()}`)
  }

  private lastLines(): string {
    const lines = this.tail.trim().split("\n").slice(-12).join("\n")
    return lines && `. Its last lines:\n${lines}`
  }

  private async start(): Promise<Running> {
    const port = await freePort()
    const adapters = new Set(this.adapters)
    const { child, died, ended } = this.spawned(port, adapters)
    const url = `http://127.0.0.1:${port}/v1`
    try {
      const models = await this.listed(url, died.signal)
      return { child, url, adapters, models, died, ended }
    } catch (error) {
      await end({ child, ended })
      throw error
    }
  }

  private spawned(port: number, adapters: ReadonlySet<string>): Pick<Running, "child" | "died" | "ended"> {
    const { log, onNote } = this.options
    const own = this.words.map((word) => word.replaceAll("{model}", this.dir).replaceAll("{port}", `${port}`))
    const modules = [...adapters].map((dir) => `${nameOf(dir)}=${resolve(dir)}`)
    const args = modules.length ? [...own.slice(1), "--lora-modules", ...modules] : own.slice(1)
    mkdirSync(dirname(log), { recursive: true })
    const file = createWriteStream(log, { flags: "a" })
    const brings = modules.length ? ` with ${modules.length} adapters` : ""
    onNote?.(`server: starting ${this.program}${brings}; its log is ${log}`)
    const child = spawn(own[0]!, args, {
      env: withPython(),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true, // a group of its own, so that all of its processes can be ended
    })
    const keep = (chunk: Buffer) => {
      this.tail = (this.tail + chunk).slice(-4000)
      file.write(chunk)
    }
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    const died = new AbortController()
    const ended = new Promise<void>((done) => {
      child.on("error", (error) => {
        this.tail += error.message
        died.abort()
        done()
      })
      child.on("close", () => {
        file.end()
        died.abort()
        done()
      })
    })
    process.once("exit", () => kill(child, "SIGKILL"))
    return { child, died, ended }
  }

  /** Asks for the list of models until it comes. */
  private async listed(url: string, died: AbortSignal): Promise<string[]> {
    const { startTimeout: limit = 1800, client, signal, log, onProgress } = this.options
    const began = Date.now()
    const connection = openConnection({ ...client, baseURL: url, timeout: 10 })
    for (;;) {
      if (signal?.aborted) throw new StoppedError()
      if (died.aborted) throw this.dead()
      const seconds = (Date.now() - began) / 1000
      if (seconds > limit) {
        const problem = `${this.program}: must answer within ${limit} s, got nothing; see its log, ${log}`
        throw new MuscError(`${problem}${this.lastLines()}`)
      }
      onProgress?.(Math.round(seconds), limit)
      try {
        const reply = jsonOf(await connection.send(new URL(`${url}/models`))) as { data?: { id?: unknown }[] }
        const ids = (reply.data ?? []).flatMap(({ id }) => (typeof id === "string" ? [id] : []))
        if (ids.length) return ids
      } catch {} // not there yet
      await sleep(500, undefined, { signal: died }).catch(() => {})
    }
  }
}

/**
 * Texts of a server that this process starts and stops. It is started by the first text that is asked for, and again
 * with all adapters that are known by then when one is wanted that it lacks.
 * @throws InputError for a command without {model} and {port}; from `generate`: MuscError with the last lines of its
 * log where it ends or does not answer in time
 */
export function servedText(model: ModelDescription, options: ServeOptions): ServedText {
  const { client = {}, signal, onNote } = options
  const server = new OwnServer(model.dir, options)
  const { program } = server
  const onRetry = client.onRetry ?? toldOnce((problem) => onNote?.(`${program}: retrying after: ${problem}`))

  /** Asks the server by a client that is made once a start. */
  const asking = <Client>(make: (options: OpenAIOptions) => Client, adapter?: string) => {
    let known: { of: Running; client: Client } | undefined
    return async <T>(ask: (client: Client) => Promise<T>): Promise<T> => {
      const now = await server.running(adapter)
      if (known?.of !== now) {
        const name = adapter ? nameOf(adapter) : (now.models.find((id) => !id.startsWith("musc-")) ?? now.models[0]!)
        const stop = signal ? AbortSignal.any([signal, now.died.signal]) : now.died.signal
        known = { of: now, client: make({ ...client, onRetry, model: name, baseURL: now.url, signal: stop }) }
      }
      try {
        return await ask(known.client)
      } catch (error) {
        if (error instanceof RefusedError || signal?.aborted) throw error
        // A connection is cut a moment before its process is known to be gone.
        await Promise.race([now.ended, sleep(2000)])
        throw now.died.signal.aborted ? server.dead() : error
      }
    }
  }
  const concurrency = client.concurrency ?? 64
  const engineOf = (adapter?: string): Generator => {
    const answered = asking((options) => serverAs(options, { id: options.model, owned_by: program }).engine, adapter)
    return {
      ...{ name: model.name, independent: true, concurrency },
      generate: (request) => answered((engine) => engine.generate(request)),
    }
  }
  const scored = asking((options) => serverScorer({ ...options, tokenizer: model.tokenizer }))
  const fields = { leaveOut: client.leaveOut, fields: client.fields, limitField: client.limitField }

  return {
    base: engineOf(),
    scorer: { independent: true, concurrency, score: (request) => scored((scorer) => scorer.score(request)) },
    get identity() {
      const hash = createHash("sha256").update(JSON.stringify([model.fingerprint, program, fields]))
      return `${model.name} served by ${program} ${hash.digest("hex").slice(0, 16)}`
    },
    addAdapter: (dir) => void server.adapters.add(dir),
    async withAdapter(dir) {
      server.adapters.add(dir)
      return { ...engineOf(dir), dispose() {} }
    },
    pause: () => server.pause(),
    dispose: () => void server.pause(),
  }
}

function kill(child: ChildProcess, name: NodeJS.Signals): void {
  try {
    if (child.pid) process.kill(-child.pid, name)
  } catch {} // it has ended
}

/** Ends a server with all of its processes; what does not end within 30 s is killed. */
async function end({ child, ended }: Pick<Running, "child" | "ended">): Promise<void> {
  kill(child, "SIGTERM")
  const force = setTimeout(() => kill(child, "SIGKILL"), 30_000)
  await ended
  clearTimeout(force)
  kill(child, "SIGKILL")
}

/** A port that is free now. */
const freePort = (): Promise<number> =>
  new Promise((done, fail) => {
    const server = createServer()
    server.once("error", fail)
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number }
      server.close(() => done(port))
    })
  })
