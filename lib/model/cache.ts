import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { writeRows } from "../ops/table"
import type { ModelConfig } from "./config"
import type { LayerCache } from "./layer"

/** What all rows begin with, and where: see `startWith`. */
interface Start {
  prefix: KVCache
  columns: Tensor1D // [B · S]: column of the prefix, or P for none
  mine: Tensor4D // [B, 1, T, 1]: 1 for a row's own tokens, 0 for its padding
}

/**
 * Keys and values of a batch, one buffer [B · K · capacity, H] a layer and kind, written in place and grown by blocks.
 * All rows have the same length: prompts are padded on the left. Not tidied: call `dispose`.
 */
export class KVCache {
  /** Tokens held so far. */
  length = 0
  private layers: { k: Tensor2D; v: Tensor2D }[] = []
  /** Row numbers of the token being written, the same for every layer. */
  private at: Tensor1D | null = null
  private start: Start | null = null

  /** `capacity`: tokens that fit before the buffers must grow; `block`: tokens added then. */
  constructor(
    private readonly config: ModelConfig,
    private rows: number,
    private capacity: number,
    private readonly block = 64,
  ) {}

  get columns(): number {
    return this.capacity
  }

  /** Whether the next pass brings the first tokens of all rows. */
  get isFresh(): boolean {
    return !this.layers.length && !this.start
  }

  /** Buffers by name, for a graph that writes the newest column in place. */
  get inputs(): Record<string, Tensor> {
    const buffers = this.layers.flatMap(({ k, v }, i) => [
      [`k.${i}`, k],
      [`v.${i}`, v],
    ])
    return Object.fromEntries(buffers)
  }

  layer(i: number): LayerCache {
    return { append: (k, v) => this.append(i, k, v) }
  }

  /**
   * Every row begins, behind its padding, with the tokens of `prefix`, a cache of one row; the first pass brings the rest of
   * the prompts, `own` columns, of which a row's first `paddings[b]` are padding.
   */
  startWith(prefix: KVCache, paddings: readonly number[], own: number): void {
    const [P, S] = [prefix.length, prefix.length + own]
    const columns = paddings.flatMap((padding) =>
      Array.from({ length: S }, (_, s) => (s >= padding && s < padding + P ? s - padding : P)),
    )
    const mine = paddings.flatMap((padding) => Array.from({ length: own }, (_, t) => Number(t >= padding)))
    this.start = {
      prefix,
      columns: tf.keep(tf.tensor1d(Int32Array.from(columns))),
      mine: tf.keep(tf.tensor4d(mine, [paddings.length, 1, own, 1])),
    }
  }

  /** Makes room for one more token in every row; call before each decoding step. */
  advance(): void {
    if (this.length === this.capacity) this.grow()
    const heads = this.rows * this.config.kvHeads
    this.at?.dispose()
    this.at = tf.keep(tf.tensor1d(Int32Array.from({ length: heads }, (_, i) => i * this.capacity + this.length)))
    this.length++
  }

  /** Keeps only these rows of the batch, in this order. */
  select(rows: readonly number[]): void {
    const kept = tf.tensor1d(Int32Array.from(rows))
    this.replace((buffer) => tf.gather(buffer, kept))
    kept.dispose()
    this.rows = rows.length
  }

  dispose(): void {
    for (const { k, v } of this.layers) tf.dispose([k, v])
    this.at?.dispose()
    if (this.start) tf.dispose([this.start.columns, this.start.mine])
    this.layers = []
    this.at = null
    this.start = null
  }

  private append(i: number, k: Tensor4D, v: Tensor4D) {
    const { kvHeads: K, headDim: H } = this.config
    const held = this.layers[i]
    if (!held) {
      const [allK, allV] = this.start ? [this.started(i, "k", k), this.started(i, "v", v)] : [k, v]
      const T = allK.shape[2]
      const fill = (x: Tensor4D) =>
        tf.keep(
          tf.reshape(
            tf.pad(x, [
              [0, 0],
              [0, 0],
              [0, this.capacity - T],
              [0, 0],
            ]),
            [-1, H],
          ) as Tensor2D,
        )
      this.layers[i] = { k: fill(allK), v: fill(allV) }
      this.length = T
      return this.start && { k: allK, v: allV }
    }
    const write = (buffer: Tensor2D, x: Tensor4D) => tf.keep(writeRows(buffer, this.at!, tf.reshape(x, [-1, H])))
    held.k = write(held.k, k)
    held.v = write(held.v, v)
    const view = (buffer: Tensor2D) => tf.reshape(buffer, [this.rows, K, this.capacity, H]) as Tensor4D
    return { k: view(held.k), v: view(held.v) }
  }

  /** The prefix, right behind the padding of each row, and the row's own tokens after it: [B, K, S, H]. */
  private started(i: number, kind: "k" | "v", own: Tensor4D): Tensor4D {
    const { kvHeads: K, headDim: H } = this.config
    const { prefix, columns, mine } = this.start!
    const P = prefix.length
    const kept = tf.reshape(prefix.layers[i]![kind], [K, prefix.capacity, H])
    const orNone = tf.pad(tf.slice(kept, [0, 0, 0], [K, P, H]), [
      [0, 0],
      [0, 1],
      [0, 0],
    ])
    const rows = tf.reshape(tf.gather(orNone, columns, 1), [K, this.rows, -1, H])
    const behind = tf.pad(tf.mul(own, mine), [
      [0, 0],
      [0, 0],
      [P, 0],
      [0, 0],
    ])
    return tf.add(tf.transpose(rows, [1, 0, 2, 3]), behind) as Tensor4D
  }

  private grow(): void {
    this.replace((buffer) =>
      tf.pad(buffer, [
        [0, 0],
        [0, 0],
        [0, this.block],
        [0, 0],
      ]),
    )
    this.capacity += this.block
  }

  private replace(change: (buffer: Tensor4D) => Tensor4D): void {
    const { kvHeads: K, headDim: H } = this.config
    const renew = (buffer: Tensor2D): Tensor2D => {
      const next = tf.tidy(() =>
        tf.reshape(change(tf.reshape(buffer, [this.rows, K, -1, H]) as Tensor4D), [-1, H]),
      ) as Tensor2D
      buffer.dispose()
      return tf.keep(next)
    }
    for (const layer of this.layers) {
      layer.k = renew(layer.k)
      layer.v = renew(layer.v)
    }
  }
}
