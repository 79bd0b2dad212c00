import pLimit from "p-limit"
import { StoppedError } from "../errors"
import { html } from "../plots/html"
import { paceOf } from "../runs/pace"
import { type Bundle, display, inNotebook, mode, SETTLING, type Slot } from "./display"
import { interruptible } from "./interrupt"

/** What is under way in a cell. */
interface Work {
  signal: AbortSignal
  onTokens(count: number): void
}
let current: Work | undefined

/** Options of an engine for notebooks: it counts its tokens where `watch` and `each` show them, and stops with them. */
export const cell: { readonly signal: AbortSignal | undefined; onTokens(count: number): void } = {
  get signal() {
    return current?.signal
  },
  onTokens: (count) => current?.onTokens(count),
}

/**
 * Collects rows as they are made, with a line that tells how many there are, how fast they come and how long it will
 * take. `total`: rows expected. Published notebooks show no such line.
 * @throws StoppedError when interrupted
 */
export async function watch<Row>(stage: string, rows: AsyncIterable<Row>, total: number): Promise<Row[]> {
  const done: Row[] = []
  const line = progressLine(stage, total)
  try {
    return await interruptible(async (signal) => {
      current = { signal, onTokens: (count) => line(done.length, count) }
      for await (const row of rows) {
        done.push(row)
        line(done.length)
        if (signal.aborted && done.length < total) throw new StoppedError(stage)
      }
      return done
    })
  } catch (error) {
    if (!(error instanceof StoppedError)) throw error
    await new Promise((resolve) => setTimeout(resolve, 100)) // calls that wait for a batch see the signal too
    throw new StoppedError(`${stage}: stopped after ${done.length} of ${total} rows; run the cell again`, {
      cause: error,
    })
  } finally {
    current = undefined
    line(done.length, 0, true)
  }
}

/**
 * Works on each row, as many at once as the engine asks for, and collects what comes of them in order; shown like
 * `watch`.
 * @throws StoppedError when interrupted: no further row is begun, and those under way are finished
 */
export function each<In, Out>(
  stage: string,
  rows: readonly In[],
  { concurrency }: { concurrency: number },
  work: (row: In) => Promise<Out>,
): Promise<Out[]> {
  async function* outcomes() {
    const limit = pLimit(concurrency)
    const begun: Promise<Out>[] = []
    const begin = (row: In) => {
      const outcome = work(row)
      begun.push(outcome)
      return outcome
    }
    const all = rows.map((row) => limit(begin, row))
    for (const one of all) one.catch(() => {}) // thrown when its turn comes
    try {
      for (const one of all) yield await one
    } finally {
      limit.clearQueue()
      await Promise.allSettled(begun)
    }
  }
  return watch(stage, outcomes(), rows.length)
}

/** Least milliseconds between two versions of a line. */
const PAUSE = 250

/** A line of the cell that says how far a stage is. */
function progressLine(stage: string, total: number): (done: number, tokens?: number, end?: boolean) => void {
  if (mode() === "publish" || !inNotebook()) return () => {}
  const began = Date.now()
  let shown = 0
  let tokensSoFar = 0
  const bundle = (done: number): Bundle => {
    const seconds = (Date.now() - began) / 1000
    const pace = paceOf({ unit: "rows", done, total }, { seconds, tokens: tokensSoFar })
    const text = [`${stage}: ${done} of ${total} rows`, pace].filter(Boolean).join(", ")
    const bar = html`<progress value="${done}" max="${total}" style="width:200px;vertical-align:middle"></progress>`
    return { "text/plain": text, "text/html": `${html`<div style="font-size:13px">${bar} ${text}</div>`}` }
  }
  let slot: Slot | undefined
  let last = 0
  const first = setTimeout(() => {
    slot = display(bundle(last))
  }, SETTLING)
  return (done, tokens = 0, end = false) => {
    tokensSoFar += tokens
    last = done
    if (end) clearTimeout(first)
    else if (!slot || Date.now() - shown < PAUSE) return
    shown = Date.now()
    if (slot) slot.set(bundle(done))
    else display(bundle(done))
  }
}
