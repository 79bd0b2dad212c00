/** One server of several that answer alike. */
export interface ServerState {
  readonly url: URL
  /** Calls under way. */
  busy: number
  /** Failures in a row to reach it. */
  failures: number
  /** When it may be tried again, in milliseconds since 1970. */
  freeAt: number
}

/** Longest time that a server out of reach is passed over, in seconds. */
const LONGEST = 30

/** Deals calls to servers in turn, to the least busy first, and passes over those that are out of reach for a while. */
export class Servers {
  private readonly all: ServerState[]
  private next = 0
  /** When one of them last answered, in milliseconds since 1970. */
  lastAnswer = 0

  constructor(urls: readonly URL[]) {
    this.all = urls.map((url) => ({ url, busy: 0, failures: 0, freeAt: 0 }))
  }

  /** The server for the next call; where all are out of reach, the one whose turn comes first. */
  take(): ServerState {
    const now = Date.now()
    const order = this.all.map((_, i) => this.all[(this.next + i) % this.all.length]!)
    const ready = order.filter(({ freeAt }) => freeAt <= now)
    const best = ready.length
      ? ready.reduce((a, b) => (b.busy < a.busy ? b : a))
      : order.reduce((a, b) => (b.freeAt < a.freeAt ? b : a))
    this.next = (this.all.indexOf(best) + 1) % this.all.length
    best.busy++
    return best
  }

  /** Whether a server other than one that has just failed is there for the same call. */
  get anyReady(): boolean {
    return this.all.some(({ freeAt }) => freeAt <= Date.now())
  }

  unreachable(server: ServerState): void {
    server.failures++
    server.freeAt = Date.now() + 1000 * Math.min(LONGEST, 0.5 * 2 ** Math.min(10, server.failures))
  }

  answered(server: ServerState): void {
    server.failures = server.freeAt = 0
    this.lastAnswer = Date.now()
  }
}
