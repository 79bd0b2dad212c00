/** Stops that keep what was done: the kernel's interrupt becomes an AbortSignal. */

/** Work that the kernel `musc` asks to stop; set by its launcher (kernel.cjs). */
const stoppers = (): Set<() => void> | undefined =>
  (globalThis as Record<symbol, unknown>)[Symbol.for("musc.stoppers")] as Set<() => void> | undefined

/**
 * Runs work with a signal that the interrupt button (SIGINT) aborts. Under the kernel `musc` the cell then ends when
 * the work does; plain tslab ends the cell at once and the work at its next look at the signal.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const stop = () => controller.abort()
  const kernel = stoppers()
  if (kernel) {
    kernel.add(stop)
  } else {
    // In the synchronous part of a cell Node takes SIGINT for itself, and a listener added there ends the kernel.
    await new Promise((resolve) => setImmediate(resolve))
    process.on("SIGINT", stop)
  }
  try {
    return await work(controller.signal)
  } finally {
    kernel?.delete(stop)
    process.off("SIGINT", stop)
  }
}
