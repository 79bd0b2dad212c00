export interface BatchingOptions<Req> {
  /** Most calls in one batch. */
  maxBatch: number
  /** Sort key: calls are served from the smallest key up, so that calls of one length share a batch. Arrival, if not given. */
  order?: (request: Req) => number
}

/**
 * Turns a batched function into one that takes a call at a time. Calls wait until the current turn of the event loop is
 * over; then batches are run one after the other until none is left, each made of what is pending when it starts, so
 * calls that arrive during a batch join the next one. With `order`, the oldest pending call is always part of the next
 * batch, so none starves. An error of a batch, or a wrong number of results, rejects the calls of that batch alone.
 */
export function batching<Req, Res>(
  run: (batch: Req[]) => Promise<Res[]>,
  { maxBatch, order }: BatchingOptions<Req>,
): (request: Req) => Promise<Res> {
  interface Waiting {
    request: Req
    resolve: (result: Res) => void
    reject: (error: unknown) => void
  }
  let waiting: Waiting[] = []
  let serving = false

  const take = (): Waiting[] => {
    const key = order
    if (!key) return waiting.splice(0, maxBatch)
    const sorted = [...waiting].sort((a, b) => key(a.request) - key(b.request))
    const oldest = sorted.indexOf(waiting[0]!)
    const from = Math.max(0, Math.min(oldest - (maxBatch >> 1), sorted.length - maxBatch))
    const batch = sorted.slice(from, from + maxBatch)
    const taken = new Set(batch)
    waiting = waiting.filter((call) => !taken.has(call))
    return batch
  }

  const serve = async () => {
    while (waiting.length) {
      const batch = take()
      try {
        const results = await run(batch.map((call) => call.request))
        if (results.length !== batch.length) {
          throw new RangeError(`batch: one result a call wanted, got ${results.length} for ${batch.length} calls`)
        }
        for (const [i, call] of batch.entries()) call.resolve(results[i]!)
      } catch (error) {
        for (const call of batch) call.reject(error)
      }
      await turn() // callers answer in microtasks; let their next calls arrive
    }
    serving = false
  }

  return (request) =>
    new Promise((resolve, reject) => {
      waiting.push({ request, resolve, reject })
      if (serving) return
      serving = true
      setImmediate(serve)
    })
}

const turn = () => new Promise<void>((done) => setImmediate(done))
