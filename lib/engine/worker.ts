/** A process of a WorkerPool: opens the model that its command line names, then works on what it is sent, call by call. */
import { tf, useBackend } from "../backend/tf"
import { MuscError } from "../errors"
import type { Lora } from "../model/lora"
import type { GenerateRequest, ScoreRequest } from "./engine"
import { type LocalEngine, type LocalModel, openLocal } from "./local"
import type { FromWorker, SentLora, ToWorker, WorkerStart } from "./workers"

interface Open {
  engine: LocalEngine
  stop: AbortController
  /** Tells the tokens that were not told yet. */
  flush(): void
}

/** Milliseconds between two reports of tokens. */
const pause = 100

const engines = new Map<number, Open>()
/** Engines that were stopped, maybe before their turn to be opened came. */
const stopped = new Set<number>()
const tell = (message: FromWorker) => process.send?.(message)

function open(local: LocalModel, { engine, lora, batchSize }: Extract<ToWorker, { kind: "open" }>): void {
  const stop = new AbortController()
  if (stopped.has(engine)) stop.abort()
  let count = 0
  let told = 0
  const flush = () => {
    if (count) tell({ kind: "tokens", engine, count })
    count = 0
    told = Date.now()
  }
  const onTokens = (made: number) => {
    count += made
    if (Date.now() - told >= pause) flush()
  }
  const adapter = lora && received(lora)
  const made = local.engine(adapter, { batchSize, onTokens, signal: stop.signal })
  if (adapter) tf.dispose(adapter.params)
  engines.set(engine, { engine: made, stop, flush })
}

const received = (lora: SentLora): Lora => ({
  ...lora,
  params: Object.fromEntries(
    Object.entries(lora.params).map(([name, { shape, values }]) => [name, tf.tensor(values, shape)]),
  ),
})

async function work({ engine: number, work, requests }: Extract<ToWorker, { kind: "work" }>): Promise<unknown[]> {
  const { engine, flush } = engines.get(number)!
  try {
    return await Promise.all<unknown>(
      work === "generate"
        ? (requests as GenerateRequest[]).map(engine.generate)
        : (requests as ScoreRequest[]).map(engine.score),
    )
  } finally {
    flush()
  }
}

async function main() {
  process.on("disconnect", () => process.exit())
  // Ctrl-C in a terminal reaches every process; what is stopped then is up to the parent.
  process.on("SIGINT", () => {})
  const { dir, backend }: WorkerStart = JSON.parse(process.argv[2]!)
  const opening = useBackend(backend).then(() => openLocal(dir, { workers: 1 }))
  opening.catch(() => {}) // told with the first work
  let turn: Promise<unknown> = opening.catch(() => {})
  process.on("message", (message: ToWorker) => {
    if (message.kind === "stop") {
      stopped.add(message.engine)
      engines.get(message.engine)?.stop.abort()
      return
    }
    turn = turn.then(async () => {
      try {
        const local = await opening
        if (message.kind === "open") open(local, message)
        if (message.kind === "close") {
          engines.get(message.engine)?.engine.dispose()
          engines.delete(message.engine)
        }
        if (message.kind === "work") tell({ kind: "done", results: await work(message) })
      } catch (error) {
        if (message.kind !== "work") return
        const { name, message: text } = error as Error
        tell({ kind: "failed", error: { name, message: text, ours: error instanceof MuscError } })
      }
    })
  })
}

main()
