import type { Tensor2D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { StoppedError } from "../errors"
import { cappedLogits } from "../ops/head"
import { uniformAt } from "../rng"
import { KVCache } from "./cache"
import { contexts, type Places } from "./context"
import { evenStarts } from "./layer-graph"
import { assertNumber, drawToken, isGreedy, type TokenSampling } from "./sampler"
import { isWide, type StepGraph, stepGraph } from "./step-graph"
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
  prefix?: KVCache
  /** called after each step with the tokens made by it */
  onTokens?: (count: number) => void
  signal?: AbortSignal
}

interface Row {
  index: number
  padding: number
  ids: number[]
  finished: boolean
}

/** Finished rows stay until they are this share of the batch: leaving copies the cache. */
const worthSelecting = 0.2

/**
 * Continues all prompts as one batch: one pass over the prompts (padded on the left), then a token a step with a KV
 * cache. Finished rows leave the batch, several at a time.
 * @throws StoppedError when `signal` is aborted
 */
export async function generate(
  model: Bound,
  items: readonly GenerateItem[],
  options: GenerateOptions,
): Promise<Generated[]> {
  if (!items.length) return []
  const eos = new Set(options.eosIds)
  const out: Generated[] = items.map(() => ({ ids: [], finish: "length" }))
  const longest = Math.max(...items.map((item) => item.prompt.length))
  let active: Row[] = items.map((item, index) => ({
    index,
    padding: longest - item.prompt.length,
    ids: out[index]!.ids,
    finished: false,
  }))
  const most = Math.max(...items.map((item) => item.maxTokens))
  const cache = new KVCache(model.config, items.length, longest + Math.min(most, 64))
  const graph = stepGraph(model)
  const look = () => {
    if (options.signal?.aborted) throw new StoppedError("generation stopped")
  }
  try {
    look()
    const choose = items.every(isGreedy) && isWide(model.config) ? likeliest : drawn
    let tokenOf = await choose(prefill(model, items, longest, cache, options.prefix))
    for (;;) {
      const draw = (row: Row, r: number) => {
        const item = items[row.index]!
        const id = tokenOf(r, item, row.ids.length)
        row.ids.push(id)
        const stopped = eos.has(id) || item.done?.(row.ids)
        if (stopped) out[row.index]!.finish = "stop"
        row.finished = stopped || row.ids.length >= item.maxTokens
      }
      options.onTokens?.(active.filter(({ finished }) => !finished).length)
      active.forEach((row, r) => {
        if (!row.finished) draw(row, r)
      })
      const left = active.filter(({ finished }) => !finished)
      if (!left.length) return out
      if (active.length - left.length >= worthSelecting * active.length) {
        cache.select([...active.keys()].filter((r) => !active[r]!.finished))
        active = left
      }
      // Hands control back now and then, so that signals and timers are served.
      if (left[0]!.ids.length % 8 === 0) await new Promise((resolve) => setImmediate(resolve))
      look()
      tokenOf = await choose(step(model, active, longest, cache, graph))
    }
  } finally {
    cache.dispose()
  }
}

/** The next token of row `r`, the `n`th that `item` gets. */
type TokenOf = (r: number, item: GenerateItem, n: number) => number

/** Drawn from logits [B, V], which `make` gives. */
async function drawn(make: () => Tensor2D): Promise<TokenOf> {
  let V = 0
  const logits = await valuesOf(() => {
    const made = make()
    V = made.shape[1]
    return made
  })
  return (r, item, n) => drawToken(logits.subarray(r * V, (r + 1) * V), item, uniformAt(item.seed, n))
}

/** The same where all rows are greedy, for logits that take longer to be read than to be compared where they are. */
async function likeliest(make: () => Tensor2D): Promise<TokenOf> {
  const found = await valuesOf(() => {
    const logits = make()
    return tf.stack([tf.cast(tf.argMax(logits, 1), "float32"), tf.max(logits, 1)])
  })
  const B = found.length / 2
  return (r) => {
    assertNumber(found[B + r]!)
    return found[r]!
  }
}

/**
 * Reads the tokens that many prompts begin with once, so that `generate` need not read them for each. Pays where tasks are
 * shown by demonstrations. Not tidied: call `dispose`.
 */
export function readPrefix(model: Bound, ids: readonly number[]): KVCache {
  const P = ids.length
  const cache = new KVCache(model.config, 1, P)
  const places: Places = { rows: 1, length: P, positions: Int32Array.from(ids.keys()), segments: new Int32Array(P) }
  tf.tidy(() => {
    forward(model, tf.tensor1d(Int32Array.from(ids)), places, contexts(model.config, places), cache)
  })
  return cache
}

/** Makes the logits [B, V] after the last prompt token of each row, `longest` columns in all; fills the cache. */
function prefill(
  model: Bound,
  items: readonly GenerateItem[],
  longest: number,
  cache: KVCache,
  prefix?: KVCache,
): () => Tensor2D {
  const B = items.length
  const P = prefix?.length ?? 0
  const T = longest - P
  const paddings = items.map(({ prompt }) => longest - prompt.length)
  /** The last columns of each row; its tokens but for the first `skipped`, the others padding. */
  const places = (length: number, skipped: number): Places => {
    const [positions, segments] = [new Int32Array(B * length), new Int32Array(B * length).fill(-1)]
    paddings.forEach((padding, b) => {
      for (let position = skipped; position < longest - padding; position++) {
        const at = (b + 1) * length - longest + padding + position
        positions[at] = position
        segments[at] = 0
      }
    })
    return { rows: B, length, positions, segments }
  }
  const queries = places(T, P)
  const keys = prefix ? places(longest, 0) : queries
  const ids = new Int32Array(B * T)
  items.forEach(({ prompt }, b) => {
    ids.set(prompt.slice(P), (b + 1) * T - prompt.length + P)
  })
  if (prefix) cache.startWith(prefix, paddings, T)
  return () => {
    const last = Int32Array.from({ length: B }, (_, b) => (b + 1) * T - 1)
    const starts = model.plan.layers === "graph" && cache.isFresh ? evenStarts(queries, last) : undefined
    const perLayer = contexts(model.config, queries, { keys, asked: last, starts })
    return logitsOf(model, forward(model, tf.tensor1d(ids), queries, perLayer, cache))
  }
}

/** Makes the logits [B, V] after the newest token of each row. */
function step(
  model: Bound,
  active: readonly Row[],
  longest: number,
  cache: KVCache,
  graph: StepGraph | null,
): () => Tensor2D {
  const B = active.length
  cache.advance()
  const newest = Int32Array.from(active, (row) => row.ids[row.ids.length - 1]!)
  const positions = Int32Array.from(active, ({ padding, ids }) => longest - padding + ids.length - 1)
  if (graph) return () => graph.logits(newest, positions, cache)
  const S = cache.columns
  const keys: Places = {
    rows: B,
    length: S,
    positions: new Int32Array(B * S),
    segments: new Int32Array(B * S).fill(-1),
  }
  active.forEach(({ padding }, b) => {
    for (let s = padding; s < cache.length; s++) {
      keys.positions[b * S + s] = s - padding
      keys.segments[b * S + s] = 0
    }
  })
  const queries: Places = {
    rows: B,
    length: 1,
    positions,
    segments: new Int32Array(B),
  }
  return () => {
    const ids = tf.tensor1d(newest)
    return logitsOf(model, forward(model, ids, queries, contexts(model.config, queries, { keys }), cache))
  }
}

const logitsOf = (model: Bound, hidden: Tensor2D) => cappedLogits(hidden, model.head, model.config.logitSoftcap).logits
