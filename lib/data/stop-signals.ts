import { StoppedError } from "../errors"

/**
 * What Ctrl-C and SIGTERM do while a command works. Handlers run between turns of the event loop, so long turns need
 * care.
 */

const names = ["SIGINT", "SIGTERM"] as const
let handler: (() => void) | undefined

const set = (stop: (() => void) | undefined) => {
  for (const name of names) {
    if (handler) process.off(name, handler)
    if (stop) process.on(name, stop)
  }
  handler = stop
}

/** Has Ctrl-C and SIGTERM call `stop`. Returns what undoes it. */
export function onStopSignal(stop: () => void): () => void {
  set(stop)
  return () => {
    if (handler === stop) set(undefined)
  }
}

/**
 * Runs work that may keep the event loop from turning for seconds, such as the reading of a model. Meanwhile signals
 * end the process at once, as they do without a handler; nothing finished is lost by that. A signal that came earlier
 * in the same turn is not heard.
 */
export function endable<T>(work: () => T): T {
  const stop = handler
  if (!stop) return work()
  set(undefined)
  if (process.stderr.isTTY) process.stderr.write("\x1b[?25h") // a progress bar hides the cursor
  try {
    return work()
  } finally {
    set(stop)
  }
}

/**
 * A turn of the event loop: signals are heard, and callers that answer in microtasks have made their next calls. One
 * immediate can run before signals are polled; the next one cannot.
 */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

/** Lets signals be heard before long synchronous work. @throws StoppedError when one has come */
export async function beforeLongTurn(signal?: AbortSignal): Promise<void> {
  await turn()
  if (signal?.aborted) throw new StoppedError()
}

/** Milliseconds of a turn after which other work waits for the next one. */
const longTurn = 300
let began: number | undefined

/**
 * Goes on at once, or in the next turn of the event loop where this one has taken long. Loops over rows call it, so
 * that signals are heard within a row.
 */
export async function breathe(): Promise<void> {
  for (;;) {
    if (began === undefined) {
      began = performance.now()
      setImmediate(() => {
        began = undefined
      })
      return
    }
    if (performance.now() - began < longTurn) return
    await turn()
  }
}
