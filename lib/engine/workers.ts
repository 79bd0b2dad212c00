import { type ChildProcess, fork } from "node:child_process"
import { existsSync } from "node:fs"
import type { Socket } from "node:net"
import { availableParallelism } from "node:os"
import { extname, join } from "node:path"
import { tf } from "../backend/tf"
import { MuscError, StoppedError } from "../errors"
import type { Lora } from "../model/lora"

/** What each process is told on its command line. */
export interface WorkerStart {
  dir: string
  backend: string
}

/** An adapter as it travels between processes. */
export interface SentLora extends Omit<Lora, "params"> {
  params: Record<string, { shape: number[]; values: Float32Array }>
}

export type WorkKind = "generate" | "score"

export type ToWorker =
  | { kind: "open"; engine: number; lora: SentLora | null; batchSize: number }
  | { kind: "work"; engine: number; work: WorkKind; requests: readonly unknown[] }
  | { kind: "stop" | "close"; engine: number }

export type FromWorker =
  | { kind: "tokens"; engine: number; count: number }
  | { kind: "done"; results: unknown[] }
  | { kind: "failed"; error: { name: string; message: string; ours: boolean } }

/** Resident memory of a process besides its model: Node, TensorFlow, the activations and cache of a batch. */
const processBytes = 600 * 2 ** 20
/** More processes bring little: batches get small. */
const mostWorkers = 16
/** Size of a model (f32) from which its products are large enough for all threads to share them well. */
const sharedBytes = 512 * 2 ** 20

/** Where the processes start: TypeScript in a checkout, compiled in a package. */
const program = join(__dirname, `worker${extname(__filename)}`)
/** Whether there is such a file; notebooks compile only what they import. */
export const hasWorkers = existsSync(program)

/** Threads that this program may use: all, or as many as the user grants TensorFlow. */
const allThreads = () => Number(process.env.TF_NUM_INTRAOP_THREADS) || availableParallelism()

/**
 * Processes that are worth having for a model of so many parameters. Small ones: one a core where half of the free memory
 * holds their copies, since one thread each gets more done than all threads on the same small products. Large ones, and
 * models on a GPU: one, which keeps all of it busy.
 */
export function usualWorkers(parameters: number): number {
  const { isUsingGpuDevice } = tf.backend() as { isUsingGpuDevice?: boolean }
  const onCpu = ["wasm", "cpu"].includes(tf.getBackend()) || isUsingGpuDevice === false
  const bytes = 4 * parameters
  const fitting = Math.floor(process.availableMemory() / 2 / (bytes + processBytes))
  return onCpu && bytes < sharedBytes ? Math.max(1, Math.min(allThreads(), mostWorkers, fitting)) : 1
}

interface Job {
  engine: number
  work: WorkKind
  requests: readonly unknown[]
  resolve: (results: unknown[]) => void
  reject: (error: Error) => void
}

interface Worker {
  child: ChildProcess
  job: Job | null
}

/** A model, or an adapter on it, that the processes write and score with. */
export interface PoolOptions {
  lora: Lora | null
  batchSize: number
  onTokens?: (count: number) => void
  signal?: AbortSignal
}

export interface PoolEngine {
  /**
   * Results in the order of the requests, all of them worked on by one process.
   * @throws StoppedError when aborted; MuscError when a process has ended before its time
   */
  run(work: WorkKind, requests: readonly unknown[]): Promise<unknown[]>
  close(): void
}

/**
 * Processes with a copy each of one model, which share the threads of this one. They start with the first call, end with
 * the last engine or with this process, however it ends, and do not keep it alive while they have nothing to do.
 */
export class WorkerPool {
  private workers: Worker[] = []
  private waiting: Job[] = []
  private readonly engines = new Map<number, PoolOptions>()
  private opened = 0
  private failure: MuscError | null = null

  constructor(
    readonly size: number,
    private readonly start: WorkerStart,
  ) {}

  /** Ids of the running processes. */
  get pids(): number[] {
    return this.workers.flatMap(({ child }) => child.pid ?? [])
  }

  open(options: PoolOptions): PoolEngine {
    const { signal } = options
    const engine = ++this.opened
    this.engines.set(engine, options)
    const stop = () => {
      const mine = this.waiting.filter((job) => job.engine === engine)
      this.waiting = this.waiting.filter((job) => job.engine !== engine)
      for (const { reject } of mine) reject(stopped())
      this.tell({ kind: "stop", engine })
    }
    signal?.addEventListener("abort", stop)
    let ready: Promise<void> | undefined
    return {
      run: async (work, requests) => {
        ready ??= this.begin(engine, options)
        await ready
        if (signal?.aborted) throw stopped()
        if (this.failure) throw this.failure
        return new Promise((resolve, reject) => {
          this.waiting.push({ engine, work, requests, resolve, reject })
          this.serve()
        })
      },
      close: () => {
        signal?.removeEventListener("abort", stop)
        this.engines.delete(engine)
        if (this.engines.size) this.tell({ kind: "close", engine })
        else this.end()
      },
    }
  }

  private async begin(engine: number, { lora, batchSize }: PoolOptions): Promise<void> {
    if (!this.workers.length && !this.failure) {
      this.workers = Array.from({ length: this.size }, (_, i) => this.launch(i))
      process.once("exit", this.end)
    }
    this.tell({ kind: "open", engine, lora: lora && (await sent(lora)), batchSize })
  }

  private launch(index: number): Worker {
    const threads = `${Math.max(1, Math.floor(allThreads() / this.size))}`
    const child = fork(program, [JSON.stringify(this.start)], {
      serialization: "advanced",
      execArgv: program.endsWith(".ts") ? ["-r", require.resolve("tsx/cjs")] : [],
      env: { ...process.env, TF_NUM_INTRAOP_THREADS: threads, OMP_NUM_THREADS: threads },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    })
    const worker: Worker = { child, job: null }
    let said = ""
    const pipe = child.stderr as Socket
    pipe.on("data", (chunk: Buffer) => {
      said = (said + chunk).slice(-2000)
    })
    pipe.unref()
    const ended = (how: string) => {
      if (!this.workers.includes(worker)) return
      const words = said.trim().split("\n").slice(-3).join(" ").trim()
      const got = `one that ${how}${words && ` (${words})`}`
      const remedy = "run again with fewer workers (setting workers, 1 for none), or with more free memory"
      this.failure = new MuscError(
        `worker ${index + 1} of ${this.size}: must run until it is told to end, got ${got}; ${remedy}`,
      )
      this.end(this.failure)
    }
    child.on("message", (message: FromWorker) => this.hear(worker, message))
    child.on("error", ({ message }) => ended(`failed: ${message}`))
    child.on("exit", (code, signal) => ended(signal ? `was killed by ${signal}` : `ended with code ${code}`))
    rest(worker)
    return worker
  }

  /** Gives what waits to processes that have nothing to do. */
  private serve(): void {
    for (const worker of this.workers) {
      if (worker.job) continue
      const job = this.waiting.shift()
      if (!job) return
      worker.job = job
      worker.child.ref()
      worker.child.channel?.ref()
      const { engine, work, requests } = job
      send(worker, { kind: "work", engine, work, requests })
    }
  }

  private hear(worker: Worker, message: FromWorker): void {
    if (message.kind === "tokens") {
      this.engines.get(message.engine)?.onTokens?.(message.count)
      return
    }
    const job = worker.job
    worker.job = null
    rest(worker)
    if (message.kind === "done") job?.resolve(message.results)
    else job?.reject(revived(message.error))
    this.serve()
  }

  private tell(message: ToWorker): void {
    for (const worker of this.workers) send(worker, message)
  }

  private readonly end = (why: unknown = stopped()): void => {
    const jobs = [...this.workers.flatMap(({ job }) => job ?? []), ...this.waiting]
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

async function sent(lora: Lora): Promise<SentLora> {
  const params: SentLora["params"] = {}
  for (const [name, tensor] of Object.entries(lora.params)) {
    params[name] = { shape: tensor.shape, values: (await tensor.data()) as Float32Array }
  }
  return { ...lora, params }
}

function revived({ name, message, ours }: Extract<FromWorker, { kind: "failed" }>["error"]): Error {
  if (name === "StoppedError") return new StoppedError(message)
  return Object.assign(ours ? new MuscError(message) : new Error(message), { name })
}
