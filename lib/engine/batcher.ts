export interface BatchingOptions<Req> {
  /** Most calls in one batch. */
  maxBatch: number
  /**
   * Sort key: calls are served from the smallest key up, so that calls of one length share a batch. Arrival, if not
   * given.
   */
  order?: (request: Req) => number
  /** Batches that are run at once, 1 if not given. Calls are then shared out among them rather than packed into few. */
  lanes?: () => number
}

/** Calls that are worth a batch of their own where several run at once. */
const leastShare = 4

/**
 * Turns a batched function into one that takes a call at a time. Calls wait until the current turn of the event loop is
 * over; then batches are run, `lanes` at a time, until none is left, each made of what is pending when it starts, so
 * calls that arrive during a batch join the next one. With `order`, the oldest pending call is always part of the next
 * batch, so none starves. An error of a batch, or a wrong number of results, rejects the calls of that batch alone.
 */
export function batching<Req, Res>(
  run: (batch: Req[]) => Promise<Res[]>,
  { maxBatch, order, lanes = () => 1 }: BatchingOptions<Req>,
): (request: Req) => Promise<Res> {
  interface Waiting {
    request: Req
    resolve: (result: Res) => void
    reject: (error: unknown) => void
  }
  let waiting: Waiting[] = []
  let running = 0
  let scheduled = false

  const take = (size: number): Waiting[] => {
    const key = order
    if (!key) return waiting.splice(0, size)
    const sorted = [...waiting].sort((a, b) => key(a.request) - key(b.request))
    const oldest = sorted.indexOf(waiting[0]!)
    const from = Math.max(0, Math.min(oldest - (size >> 1), sorted.length - size))
    const batch = sorted.slice(from, from + size)
    const taken = new Set(batch)
    waiting = waiting.filter((call) => !taken.has(call))
    return batch
  }

  const serve = async (batch: Waiting[]) => {
    running++
    try {
      const results = await run(batch.map((call) => call.request))
      if (results.length !== batch.length) {
        throw new RangeError(`batch: one result a call wanted, got ${results.length} for ${batch.length} calls`)
      }
      for (const [i, call] of batch.entries()) call.resolve(results[i]!)
    } catch (error) {
      for (const call of batch) call.reject(error)
    }
    running--
    schedule()
  }

  // Callers answer in microtasks, so their next calls have arrived when the turn is over.
  const schedule = () => {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      const share = Math.max(leastShare, Math.ceil(waiting.length / lanes()))
      while (waiting.length && running < lanes()) void serve(take(Math.min(maxBatch, lanes() > 1 ? share : maxBatch)))
    })
  }

  return (request) =>
    new Promise((resolve, reject) => {
      waiting.push({ request, resolve, reject })
      schedule()
    })
}
