import { turn } from "../data/stop-signals"
import { StoppedError } from "../errors"
import { DecodingBatch, type Generated, type GenerateItem, type GenerateOptions } from "../model/generate"
import type { Bound } from "../model/transformer"
import type { Prefixes } from "./prefixes"

export interface ContinuousOptions extends Omit<GenerateOptions, "prefix"> {
  /** rows under way at once */
  slots: number
}

interface Call {
  prefix: string
  item: GenerateItem
  resolve(generated: Generated): void
  reject(error: unknown): void
}

/**
 * Continuous batching: rows join the batch that is under way as others end, so that nearly all slots are busy whatever
 * the lengths. Rows that begin with the same demonstrations share a batch; several of those take turns.
 */
export class ContinuousWriter {
  private waiting: Call[] = []
  private readonly batches = new Map<string, { batch: DecodingBatch; calls: Set<Call> }>()
  private running = false
  /** Answers of rows that have ended, to be given once their batch is in order. */
  private readonly answers: (() => void)[] = []
  /** Steps so far, and rows that they were of, for measurements. */
  readonly totals = { steps: 0, rows: 0 }

  constructor(
    private readonly model: Bound,
    private readonly prefixes: Prefixes,
    private readonly options: ContinuousOptions,
  ) {}

  /**
   * `prefix`: the key of what the prompt begins with, as `Prefixes` has it; "" for nothing. @throws StoppedError when
   * aborted
   */
  write(prefix: string, item: GenerateItem): Promise<Generated> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ prefix, item, resolve, reject })
      if (!this.running) void this.run()
    })
  }

  private get active(): number {
    return [...this.batches.values()].reduce((n, { batch }) => n + batch.active, 0)
  }

  private async run(): Promise<void> {
    this.running = true
    await turn()
    while (this.waiting.length || this.batches.size) {
      await this.admit()
      const before = this.active
      // A row that ends between several steps keeps its slot until the last of them.
      const most = this.waiting.length ? 1 : Infinity
      let taken = 0
      for (const key of [...this.batches.keys()])
        await this.guarded(key, async (batch) => {
          const { steps, tokens } = await batch.step(most)
          taken = Math.max(taken, steps)
          this.totals.rows += tokens
        })
      this.totals.steps += taken
      if (this.active < before) await turn()
    }
    this.running = false
  }

  /** Lets waiting calls join once an eighth of the slots is free: to read a prompt takes about as long as a step. */
  private async admit(): Promise<void> {
    const { slots } = this.options
    const free = slots - this.active
    if (!this.waiting.length || (this.active && free < Math.max(1, slots >> 3))) return
    const joining = new Map<string, Call[]>()
    for (const call of this.waiting.splice(0, free))
      joining.set(call.prefix, [...(joining.get(call.prefix) ?? []), call])
    for (const [key, calls] of joining) {
      if (!this.batches.has(key)) this.batches.set(key, { batch: this.open(key), calls: new Set() })
      const under = this.batches.get(key)!
      for (const call of calls) under.calls.add(call)
      const rows = calls.map((call) => ({
        item: call.item,
        end: (generated: Generated) => {
          under.calls.delete(call)
          this.answers.push(() => call.resolve(generated))
        },
      }))
      await this.guarded(key, (batch) => batch.join(rows))
    }
  }

  private open(key: string): DecodingBatch {
    const { options } = this
    return new DecodingBatch(this.model, {
      ...{ eosIds: options.eosIds, onTokens: options.onTokens, prefix: this.prefixes.hold(key) },
      get signal() {
        return options.signal
      },
    })
  }

  /**
   * An error is that of all rows of its batch, and when stopped of those that wait. A batch without rows is given back.
   */
  private async guarded(key: string, work: (batch: DecodingBatch) => Promise<void>): Promise<void> {
    const { batch, calls } = this.batches.get(key)!
    let failed = false
    try {
      if (batch.active || calls.size) await work(batch)
    } catch (error) {
      failed = true
      for (const { reject } of calls) reject(error)
      if (error instanceof StoppedError) for (const { reject } of this.waiting.splice(0)) reject(error)
    }
    if (!batch.active || failed) {
      batch.dispose()
      this.batches.delete(key)
      this.prefixes.release(key)
    }
    for (const answer of this.answers.splice(0)) answer()
  }
}
