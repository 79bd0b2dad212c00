/**
 * A process of a WorkerPool: opens the model that its command line names, then works on what it is sent, call by call.
 */
import { tf, useBackend } from "../device/tf"
import { MuscError, RefusedError } from "../errors"
import type { GenerateRequest, ScoreRequest } from "./engine"
import { type LocalEngine, type LocalModel, openLocal } from "./local"
import { receivedLora } from "./sent"
import type { FromWorker, Refusal, ToWorker, WorkerStart } from "./workers"

interface OpenEngine {
  engine: LocalEngine
  stop: AbortController
  /** Tells the tokens that were not told yet. */
  flush(): void
}

/** Milliseconds between two reports of tokens. */
const pause = 100

const engines = new Map<number, OpenEngine>()
/** Engines that were stopped, maybe before their turn to be opened came. */
const stopped = new Set<number>()
const tell = (message: FromWorker) => process.send?.(message)

function open(local: LocalModel, { session, opening }: Extract<ToWorker, { kind: "open" }>): void {
  const stop = new AbortController()
  if (stopped.has(session)) stop.abort()
  let count = 0
  let reported = 0
  const flush = () => {
    if (count) tell({ kind: "tokens", session, count })
    count = 0
    reported = Date.now()
  }
  const onTokens = (made: number) => {
    count += made
    if (Date.now() - reported >= pause) flush()
  }
  const adapter = opening.lora && receivedLora(opening.lora)
  const engine = local.engine(adapter, { batchSize: opening.batchSize, onTokens, signal: stop.signal })
  if (adapter) tf.dispose(adapter.params)
  engines.set(session, { engine, stop, flush })
}

/** A request that is refused is an answer of its own, so that the others of its batch have theirs. */
const orRefusal = <T>(answer: Promise<T>): Promise<T | Refusal> =>
  answer.catch((error) => {
    if (!(error instanceof RefusedError)) throw error
    return { refused: error.message, reason: error.reason }
  })

async function work({ session, work, requests }: Extract<ToWorker, { kind: "work" }>): Promise<unknown[]> {
  const { engine, flush } = engines.get(session)!
  try {
    return await Promise.all<unknown>(
      work === "generate"
        ? (requests as GenerateRequest[]).map((request) => orRefusal(engine.generate(request)))
        : (requests as ScoreRequest[]).map((request) => orRefusal(engine.score(request))),
    )
  } finally {
    flush()
  }
}

function close(session: number): void {
  engines.get(session)?.engine.dispose()
  engines.delete(session)
}

async function main() {
  process.on("disconnect", () => process.exit())
  // Ctrl-C in a terminal reaches every process; what is stopped then is up to the parent.
  process.on("SIGINT", () => {})
  const { dir, backend, thinking }: WorkerStart = JSON.parse(process.argv[2]!)
  const opening = useBackend(backend).then(() => openLocal(dir, { workers: 1, thinking, onNote: () => {} }))
  opening.catch(() => {}) // told with the first work
  let turn: Promise<unknown> = opening.catch(() => {})
  process.on("message", (message: ToWorker) => {
    if (message.kind === "stop") {
      stopped.add(message.session)
      engines.get(message.session)?.stop.abort()
      return
    }
    const serve = async () => {
      try {
        const local = await opening
        if (message.kind === "open") open(local, message)
        if (message.kind === "close") close(message.session)
        if (message.kind === "work") tell({ kind: "done", job: message.job, results: await work(message) })
      } catch (error) {
        if (message.kind !== "work") return
        const { name, message: text } = error as Error
        tell({ kind: "failed", job: message.job, error: { name, message: text, ours: error instanceof MuscError } })
      }
    }
    // Answers join those that are under way; all else has its turn.
    if (message.kind === "work" && message.work === "generate") void turn.then(serve)
    else turn = turn.then(serve)
  })
}

main()
