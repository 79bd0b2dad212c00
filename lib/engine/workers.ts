import { type ChildProcess, fork } from "node:child_process"
import { existsSync } from "node:fs"
import type { Socket } from "node:net"
import { extname, join } from "node:path"
import { currentDevice, grantedThreads } from "../device/device"
import { withVariables } from "../environment"
import { MuscError, RefusedError, StoppedError } from "../errors"
import { memory } from "../machine"
import { gainsByBatches } from "../model/executor"
import type { SentLora } from "./sent"

/** What each process is told on its command line. */
export interface WorkerStart {
  /** Folder of its model. */
  dir: string
  thinking?: boolean
  backend: string
}

/** An engine that a process is to have. */
export interface Opening {
  lora: SentLora | null
  batchSize: number
}

export type WorkKind = "generate" | "score"

export type ToWorker =
  | { kind: "open"; session: number; opening: Opening }
  | { kind: "work"; session: number; job: number; work: WorkKind; requests: readonly unknown[] }
  | { kind: "stop" | "close"; session: number }

/** An answer that says that the request was refused. */
export interface Refusal {
  refused: string
  reason?: string
}

export type FromWorker =
  | { kind: "tokens"; session: number; count: number }
  | { kind: "done"; job: number; results: unknown[] }
  | { kind: "failed"; job: number; error: { name: string; message: string; ours: boolean } }

/** Resident memory of a process besides its model: Node, TensorFlow, the activations and cache of a batch. */
const processBytes = 600 * 2 ** 20
/** More processes bring little: batches get small. */
const mostWorkers = 16
/** Milliseconds that processes have to end their step once they are stopped. */
const stopLimit = 1500
/** Parameters times tokens, at most, on which starting processes takes less time than it saves. */
const worthStarting = 5e10

/** Where the processes start: TypeScript in a checkout, compiled in a package. */
const program = join(__dirname, `worker${extname(__filename)}`)
/** Whether there is such a file; notebooks compile only what they import. */
const hasWorkers = existsSync(program)

/**
 * Processes that are worth having for a model of so many parameters. Small ones: one a core where half of the free
 * memory holds their copies, since one thread each gets more done than all threads on the same small products. Large
 * ones, and models on a GPU: one, which keeps all of it busy.
 */
export function usualWorkers(parameters: number): number {
  const fitting = Math.floor(memory().available / 2 / (4 * parameters + processBytes))
  return gainsByBatches(currentDevice(), parameters) ? Math.max(1, Math.min(grantedThreads(), mostWorkers, fitting)) : 1
}

/**
 * `workers` processes for a model of so many parameters, 0 for as many as are usual, from its folder; null where this
 * one does it all.
 */
export function openPool(workers: number, parameters: number, dir: string, thinking?: boolean): WorkerPool | null {
  const size = workers || usualWorkers(parameters)
  if (size < 2 || !hasWorkers) return null
  return new WorkerPool({ size, always: workers > 0 }, { dir, backend: currentDevice().backend, thinking })
}

interface Job {
  session: number
  work: WorkKind
  requests: readonly unknown[]
  resolve: (results: unknown[]) => void
  reject: (error: Error) => void
}

interface Worker {
  child: ChildProcess
  jobs: Map<number, Job>
}

export interface SessionOptions {
  /** answers that a process has under way at once */
  slots?: number
  onTokens?: (count: number) => void
  signal?: AbortSignal
}

/** One use of the processes. */
export interface Session {
  /**
   * Results in the order of the requests, all of them worked on by one process; a RefusedError for one that is refused.
   * @throws StoppedError when aborted; MuscError when a process has ended before its time
   */
  run(work: WorkKind, requests: readonly unknown[]): Promise<unknown[]>
  close(): void
}

/** Size of a pool. */
export interface PoolOptions {
  /** Processes, 2 or more. */
  size: number
  /** Start them for little work too. */
  always: boolean
}

/**
 * Processes with a copy each of one model, which share the threads of this one. They start with the first call, end
 * with the last session or with this process, however it ends, and do not keep it alive while they have nothing to do.
 */
export class WorkerPool {
  private workers: Worker[] = []
  private waiting: Job[] = []
  private readonly sessions = new Map<number, SessionOptions>()
  private opened = 0
  private begun = 0
  private failure: MuscError | null = null
  readonly size: number
  private readonly always: boolean

  constructor(
    { size, always }: PoolOptions,
    private readonly start: WorkerStart,
  ) {
    this.size = size
    this.always = always
  }

  /**
   * Whether so much work, in parameters times tokens, takes longer than starting the processes, or they run already.
   */
  worth(work: number): boolean {
    return this.always || this.workers.length > 0 || work >= worthStarting
  }

  /** Ids of the running processes. */
  get pids(): number[] {
    return this.workers.flatMap(({ child }) => child.pid ?? [])
  }

  /** `opening` is asked for when the processes are first needed. */
  open(opening: () => Promise<Opening>, options: SessionOptions = {}): Session {
    const { signal } = options
    const session = ++this.opened
    this.sessions.set(session, options)
    const stop = () => {
      const mine = this.waiting.filter((job) => job.session === session)
      this.waiting = this.waiting.filter((job) => job.session !== session)
      for (const { reject } of mine) reject(stopped())
      this.tell({ kind: "stop", session })
      // A process may be within a text or a template that takes long; what it holds is made again.
      setTimeout(() => {
        if (!this.workers.some(({ jobs }) => [...jobs.values()].some((job) => job.session === session))) return
        this.failure = new MuscError("the workers did not stop in time and were killed; open the model again")
        this.end()
      }, stopLimit).unref()
    }
    signal?.addEventListener("abort", stop)
    let begun: Promise<void> | undefined
    const ready = async () => {
      begun ??= this.begin(session, opening)
      await begun
      if (signal?.aborted) throw stopped()
      if (this.failure) throw this.failure
    }
    return {
      run: async (work, requests) => {
        await ready()
        return new Promise((resolve, reject) => {
          this.waiting.push({ session, work, requests, resolve, reject })
          this.serve()
        })
      },
      close: () => {
        signal?.removeEventListener("abort", stop)
        this.sessions.delete(session)
        if (this.sessions.size) this.tell({ kind: "close", session })
        else this.end()
      },
    }
  }

  private async begin(session: number, opening: () => Promise<Opening>): Promise<void> {
    if (!this.workers.length && !this.failure) {
      this.workers = Array.from({ length: this.size }, (_, i) => this.launch(i))
      process.once("exit", this.end)
    }
    this.tell({ kind: "open", session, opening: await opening() })
  }

  private launch(index: number): Worker {
    const threads = `${Math.max(1, Math.floor(grantedThreads() / this.size))}`
    const child = fork(program, [JSON.stringify(this.start)], {
      serialization: "advanced",
      execArgv: program.endsWith(".ts") ? ["-r", require.resolve("tsx/cjs")] : [],
      env: withVariables({ TF_NUM_INTRAOP_THREADS: threads, OMP_NUM_THREADS: threads }),
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    })
    const worker: Worker = { child, jobs: new Map() }
    let said = ""
    const pipe = child.stderr as Socket
    pipe.on("data", (chunk: Buffer) => {
      said = (said + chunk).slice(-2000)
    })
    pipe.unref()
    const ended = (how: string) => {
      if (!this.workers.includes(worker)) return
      const words = said.trim().split("\n").slice(-3).join(" ").trim()
      const why = words || (how.endsWith("SIGKILL") ? "out of memory?" : "")
      const what = `worker ${index + 1} of ${this.size} ${how}${why && ` (${why})`}`
      this.failure = new MuscError(`${what}; run with --workers 1 or free memory`)
      this.end(this.failure)
    }
    child.on("message", (message: FromWorker) => this.hear(worker, message))
    child.on("error", ({ message }) => ended(`failed: ${message}`))
    child.on("exit", (code, signal) => ended(signal ? `was killed by ${signal}` : `ended with code ${code}`))
    rest(worker)
    return worker
  }

  /** Gives what waits to the processes that have least to do. */
  private serve(): void {
    const left: Job[] = []
    for (const job of this.waiting) {
      const free = this.workers.filter((worker) => this.hasRoom(worker, job))
      if (!free.length) {
        left.push(job)
        continue
      }
      const worker = free.reduce((least, other) => (other.jobs.size < least.jobs.size ? other : least))
      const number = ++this.begun
      worker.jobs.set(number, job)
      worker.child.ref()
      worker.child.channel?.ref()
      const { session, work, requests } = job
      send(worker, { kind: "work", session, job: number, work, requests })
    }
    this.waiting = left
  }

  /** Answers join those under way, and a few more wait for them to end; pairs are scored a batch at a time. */
  private hasRoom({ jobs }: Worker, { work, session }: Job): boolean {
    const same = [...jobs.values()].filter((job) => job.work === work).length
    if (work === "score") return same === 0
    const slots = this.sessions.get(session)?.slots ?? 1
    return same < slots + Math.ceil(slots / 4)
  }

  private hear(worker: Worker, message: FromWorker): void {
    if (message.kind === "tokens") {
      this.sessions.get(message.session)?.onTokens?.(message.count)
      return
    }
    const job = worker.jobs.get(message.job)
    worker.jobs.delete(message.job)
    if (!worker.jobs.size) rest(worker)
    if (message.kind === "done") job?.resolve(message.results.map(withRefusal))
    else job?.reject(revived(message.error))
    this.serve()
  }

  private tell(message: ToWorker): void {
    for (const worker of this.workers) send(worker, message)
  }

  private readonly end = (why: unknown = stopped()): void => {
    const jobs = [...this.workers.flatMap(({ jobs }) => [...jobs.values()]), ...this.waiting]
    const ending = this.workers
    this.workers = []
    this.waiting = []
    process.off("exit", this.end)
    for (const { child } of ending) child.kill("SIGKILL") // they hold nothing that would be lost
    for (const { reject } of jobs) reject(why instanceof Error ? why : stopped())
  }
}

const stopped = () => new StoppedError("generation stopped")

/** A process that has nothing to do keeps nobody waiting. */
function rest({ child }: Worker): void {
  child.unref()
  child.channel?.unref()
}

/** A process that is gone reports that by itself. */
function send({ child }: Worker, message: ToWorker): void {
  if (child.connected) child.send(message, () => {})
}

function withRefusal(result: unknown): unknown {
  const { refused, reason } = (result ?? {}) as Partial<Refusal>
  return typeof refused === "string" ? Object.assign(new RefusedError(refused), { reason }) : result
}

function revived({ name, message, ours }: Extract<FromWorker, { kind: "failed" }>["error"]): Error {
  if (name === "StoppedError") return new StoppedError(message)
  return Object.assign(ours ? new MuscError(message) : new Error(message), { name })
}
