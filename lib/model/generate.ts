import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { StoppedError } from "../errors"
import { type Draw, drawingKernel } from "../ops/draw"
import { isFrozen } from "../ops/frozen"
import { cappedLogits } from "../ops/head"
import { uniformAt } from "../rng"
import { microBatches } from "./batch"
import { KVCache, Prefix } from "./cache"
import { boundsOf, contexts, extentOf, type Places } from "./context"
import { type GenerationGraphs, generationGraphs, isWide, severalSteps } from "./generation-graph"
import { projectionNames } from "./layer"
import { evenStarts } from "./layer-graph"
import { assertNumber, drawToken, isGreedy, type TokenSampling } from "./sampler"
import { type Bound, forward } from "./transformer"

/** One continuation wanted. */
export interface GenerateItem extends TokenSampling {
  prompt: readonly number[]
  /** key of the random stream: token i is drawn with `uniformAt(seed, i)`, so a row never depends on its batch */
  seed: number
  /** most tokens to make, the end token included */
  maxTokens: number
  /** ends the row early, e.g. at a stop text; sees the tokens so far */
  done?: (ids: readonly number[]) => boolean
}

export interface Generated {
  /** new tokens, the end token included */
  ids: number[]
  finish: "stop" | "length"
}

export interface GenerateOptions {
  eosIds: readonly number[]
  /** what all prompts begin with, read before: see `readPrefix` */
  prefix?: Prefix
  /** called after each step with the tokens made by it */
  onTokens?: (count: number) => void
  signal?: AbortSignal
}

/**
 * Continues all prompts as one batch.
 * @throws StoppedError when `signal` is aborted
 */
export async function generate(
  model: Bound,
  items: readonly GenerateItem[],
  options: GenerateOptions,
): Promise<Generated[]> {
  const out: Generated[] = []
  const batch = new DecodingBatch(model, options)
  try {
    const ending = (i: number) => (generated: Generated) => {
      out[i] = generated
    }
    await batch.join(items.map((item, i) => ({ item, end: ending(i) })))
    while (batch.active) await batch.step(Infinity)
    return out
  } finally {
    batch.dispose()
  }
}

/** A row of a batch; `end` is called once, when it has ended. */
export interface DecodingRow {
  item: GenerateItem
  end(generated: Generated): void
}

interface ActiveRow extends DecodingRow {
  ids: number[]
}

/**
 * Least number of rows of a batch, free ones included, and of tokens of a prompt. TensorFlow rounds products of a single
 * row differently from those of several rows. Our kernels for packed matrices do not.
 */
const leastRowsOf = ({ layers, head, plan }: Bound): 1 | 2 => {
  const packed = layers.every((layer) => projectionNames.every((name) => isFrozen(layer[name].weight)))
  return packed && isFrozen(head) && plan.step === "graph" ? 1 : 2
}

/** Prompt tokens, padding included, read in one pass: bounds the memory that long prompts take. */
const promptBudget = 16384

/** Free rows are dropped once they are this share of the batch and nobody joins: that copies the cache. */
const worthSelecting = 0.2

/**
 * Rows that are continued together, a token a step with a cache of keys and values. Rows join when they like, by a pass
 * over their prompts, and leave when they have ended. What a row gets does not depend on the others, to the last bit on
 * the native backend's CPU. Not tidied: call `dispose`.
 */
export class DecodingBatch {
  private rows: (ActiveRow | null)[] = []
  private readonly cache: KVCache
  private readonly graphs: GenerationGraphs | null
  private readonly eos: ReadonlySet<number>
  private readonly leastRows: number
  private steps = 0

  constructor(
    private readonly model: Bound,
    private readonly options: GenerateOptions,
  ) {
    this.leastRows = leastRowsOf(model)
    this.graphs = generationGraphs(model, options.prefix !== undefined)
    this.cache = new KVCache(model.config, options.prefix ?? null, this.graphs !== null, this.leastRows)
    this.eos = new Set(options.eosIds)
  }

  get active(): number {
    return this.rows.filter((row) => row !== null).length
  }

  /** Reads the prompts of new rows and draws their first tokens. @throws StoppedError when the signal is aborted */
  async join(rows: readonly DecodingRow[]): Promise<void> {
    const before = this.options.prefix?.length ?? 0
    for (const some of microBatches(rows, ({ item }) => item.prompt.length - before, promptBudget)) {
      this.look()
      const free = this.rows.flatMap((row, r) => (row ? [] : [r]))
      const at = some.map((_, i) => free[i] ?? this.rows.length + i - free.length)
      some.forEach((row, i) => {
        this.rows[at[i]!] = { ...row, ids: [] }
      })
      const prompts = some.map(({ item }) => item.prompt)
      await this.draw(at, prefill(this.model, prompts, at, this.cache, this.options.prefix, this.graphs))
    }
    while (this.rows.length && this.rows.length < this.leastRows) this.rows.push(null)
  }

  /**
   * Draws the next token of every row, or `severalSteps` of them where a graph does and `most` and the rows allow; says
   * how many steps that were, and how many tokens rows got. @throws StoppedError when the signal is aborted
   */
  async step(most = 1): Promise<{ steps: number; tokens: number }> {
    // Hands control back now and then, so that signals and timers are served.
    if (++this.steps % 8 === 0) await new Promise((resolve) => setImmediate(resolve))
    this.look()
    this.compact()
    const { cache, graphs } = this
    const rows = [...this.rows]
    const left = Math.max(...rows.map((row) => (row ? row.item.maxTokens - row.ids.length : 0)))
    const steps = graphs && Math.min(most, left) >= severalSteps ? severalSteps : 1
    cache.makeRoom(steps)
    const ids = Int32Array.from(rows, (row) => row?.ids.at(-1) ?? 0)
    const columns = Int32Array.from(rows, (row, r) => (row ? cache.lengths[r]! : -1))
    const positions = columns.map((column) => Math.max(0, column) + cache.before)
    const every = [...rows.keys()]
    if (!graphs) return { steps, tokens: await this.draw(every, this.logits(ids, positions, columns)) }
    const draws = Array.from({ length: steps }, (_, s) => rows.map((row) => drawOf(row, s)))
    const drawn = await valuesOf(() => graphs.steps({ ids, positions, columns, draws }, cache))
    let tokens = 0
    for (let s = 0; s < steps && this.active; s++)
      tokens += this.take(every, drawn.subarray(s * rows.length, (s + 1) * rows.length))
    return { steps, tokens }
  }

  dispose(): void {
    this.cache.dispose()
    this.rows = []
  }

  private look(): void {
    if (this.options.signal?.aborted) throw new StoppedError("generation stopped")
  }

  private compact(): void {
    const left = this.rows.flatMap((row, r) => (row ? [r] : []))
    const idle = this.rows.length - left.length
    if (this.rows.length <= this.leastRows || idle < worthSelecting * this.rows.length) return
    while (left.length < this.leastRows) left.push(this.rows.indexOf(null))
    this.cache.select(left)
    this.rows = left.map((r) => this.rows[r]!)
  }

  /** Makes the logits [B, V] behind the newest token of each row; `columns` is where its keys go, -1 for a free row. */
  private logits(newest: Int32Array, positions: Int32Array, columns: Int32Array): () => Tensor2D {
    const { cache, model } = this
    const [B, S] = [columns.length, cache.columns]
    const keys: Places = {
      rows: B,
      length: S,
      positions: new Int32Array(B * S),
      segments: new Int32Array(B * S).fill(-1),
    }
    columns.forEach((column, b) => {
      for (let s = 0; s <= column; s++) {
        keys.positions[b * S + s] = s
        keys.segments[b * S + s] = 0
      }
    })
    const segments = columns.map((column) => (column < 0 ? -1 : 0))
    const queries: Places = { rows: B, length: 1, positions, segments }
    return () => {
      const perLayer = contexts(model.config, queries, { keys })
      return logitsOf(model, forward(model, tf.tensor1d(newest), queries, perLayer, cache.stepping()))
    }
  }

  /** Draws a token for the active ones of some rows, from logits in their order, and says how many these are. */
  private async draw(rows: readonly number[], logits: () => Tensor2D): Promise<number> {
    const next = await nextTokens(
      this.model,
      rows.map((r) => this.rows[r] ?? null),
      logits,
    )
    return this.take(rows, next)
  }

  /** Gives the active ones of some rows their next tokens, and says how many these are. Rows that end with it leave. */
  private take(rows: readonly number[], next: ArrayLike<number>): number {
    const active = rows.flatMap((r, i) => (this.rows[r] ? [{ r, i, row: this.rows[r]! }] : []))
    const { before } = this.cache
    this.options.onTokens?.(active.length)
    for (const { r, i, row } of active) {
      const { item, ids, end } = row
      if (next[i]! < 0) assertNumber(Number.NaN)
      ids.push(next[i]!)
      this.cache.setLength(r, item.prompt.length - before + ids.length - 1)
      const stopped = this.eos.has(ids.at(-1)!) || (item.done?.(ids) ?? false)
      if (!stopped && ids.length < item.maxTokens) continue
      this.rows[r] = null
      this.cache.setLength(r, 0)
      end({ ids, finish: stopped ? "stop" : "length" })
    }
    return active.length
  }
}

/** How a row draws its next token, or the one so many later; for a free row, anything. */
function drawOf(row: ActiveRow | null, later = 0): Draw {
  if (!row) return { temperature: 0, topP: 1, topK: 0, u: 0 }
  const { temperature, topP = 1, topK = 0, seed } = row.item
  return { temperature, topP, topK, u: uniformAt(seed, row.ids.length + later) }
}

/**
 * The next token of each row, from logits [B, V] that `make` gives, -1 where they are not numbers; those of free rows
 * mean nothing.
 */
async function nextTokens(
  { config }: Bound,
  rows: readonly (ActiveRow | null)[],
  make: () => Tensor2D,
): Promise<ArrayLike<number>> {
  const draws = rows.map((row) => drawOf(row))
  const byKernel = drawingKernel()
  if (byKernel) return valuesOf(() => byKernel(make(), draws))
  // Logits of a large vocabulary take longer to be read than to be compared where they are.
  if (isWide(config) && draws.every(isGreedy)) return valuesOf(() => likeliest(make()))
  let V = 0
  const logits = await valuesOf(() => {
    const logits = make()
    V = logits.shape[1]
    return logits
  })
  return draws.map((draw, b) => (rows[b] ? drawToken(logits.subarray(b * V, (b + 1) * V), draw, draw.u) : 0))
}

/** The likeliest token of each row of logits [B, V], -1 where it is not a number. */
function likeliest(logits: Tensor2D): Tensor1D {
  const isNumber = tf.isFinite(tf.max(logits, 1))
  return tf.where(isNumber, tf.argMax(logits, 1), tf.scalar(-1, "int32")) as Tensor1D
}

/**
 * Reads the tokens that many prompts begin with once, so that `generate` need not read them for each. Pays where tasks
 * are shown by demonstrations. Not tidied: call `dispose`.
 */
export function readPrefix(model: Bound, ids: readonly number[]): Prefix {
  const P = ids.length
  const prefix = new Prefix(P)
  const places: Places = { rows: 1, length: P, positions: Int32Array.from(ids.keys()), segments: new Int32Array(P) }
  tf.tidy(() => {
    forward(model, tf.tensor1d(Int32Array.from(ids)), places, contexts(model.config, places), prefix)
  })
  return prefix
}

/** Makes the logits [B, V] behind the last token of each prompt; fills rows `rows` of the cache. */
function prefill(
  model: Bound,
  prompts: readonly (readonly number[])[],
  rows: readonly number[],
  cache: KVCache,
  prefix: Prefix | undefined,
  graphs: GenerationGraphs | null,
): () => Tensor2D {
  const P = prefix?.length ?? 0
  const lengths = prompts.map(({ length }) => length - P)
  const least = leastRowsOf(model)
  const several = lengths.reduce((a, b) => a + b) >= least
  const paddingFree = model.plan.paddingFree && several && (!prefix || cache.prefixShared)
  const widest = Math.max(...lengths, prompts.length === 1 ? least : 0)
  const widths = paddingFree ? lengths : lengths.map(() => widest)
  const { ids, ...queries } = laidOut(prompts, P, widths, paddingFree)
  const byGraph = graphs?.prompts
  if (byGraph && queries.bounds) {
    const at = cache.roomFor(rows, lengths, true)
    const tokens = { ids, positions: queries.positions, bounds: queries.bounds, at }
    return () => logitsOf(model, byGraph(tokens, cache))
  }
  // The kernel knows where shared keys stand; elsewhere each row begins with a copy of them.
  const whole = widths.map((width) => P + width)
  const keys = prefix && !paddingFree ? laidOut(prompts, 0, whole, false) : queries
  const filling = cache.filling(rows, widths, paddingFree)
  return () => {
    const bounds = boundsOf(queries)
    const last = Int32Array.from(lengths, (length, b) => bounds[b]! + length - 1)
    const byBlocks = model.plan.layers === "graph" && filling.isFresh && !paddingFree
    const starts = byBlocks ? evenStarts(queries, last) : undefined
    const perLayer = contexts(model.config, queries, { keys, selected: last, starts })
    return logitsOf(model, forward(model, tf.tensor1d(ids), queries, perLayer, filling))
  }
}

/** Tokens of each prompt from the `first` on, in rows of these widths: padded on the right, or end to end. */
function laidOut(
  prompts: readonly (readonly number[])[],
  first: number,
  widths: readonly number[],
  paddingFree: boolean,
): Places & { ids: Int32Array } {
  const extent = extentOf(widths, paddingFree)
  const bounds = boundsOf(extent)
  const total = bounds.at(-1)!
  const [ids, positions, segments] = [new Int32Array(total), new Int32Array(total), new Int32Array(total).fill(-1)]
  prompts.forEach((prompt, b) => {
    for (let position = first; position < prompt.length; position++) {
      const at = bounds[b]! + position - first
      ids[at] = prompt[position]!
      positions[at] = position
      segments[at] = 0
    }
  })
  return { ids, positions, segments, ...extent }
}

const logitsOf = (model: Bound, hidden: Tensor2D) => cappedLogits(hidden, model.head, model.config.logitSoftcap).logits
