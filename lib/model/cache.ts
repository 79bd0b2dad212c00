import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import type { Cached, SharedKeys } from "../ops/attention"
import { writeRows } from "../ops/table"
import type { ModelConfig } from "./config"
import type { LayerCache, PassCache } from "./layer"

/** Keys and values of a layer for the P tokens that many prompts begin with: for kernels, and keys as [K, P, H]. */
interface PrefixLayer extends SharedKeys {
  k: Tensor3D
}

/** Keys are padded to whole vectors of the kernel, at most so many. */
const vector = 16

/** What many prompts begin with, read once: see `readPrefix`. Not tidied: call `dispose`. */
export class Prefix implements PassCache {
  readonly isFresh = true
  readonly layers: PrefixLayer[] = []

  constructor(
    /** P */
    readonly length: number,
  ) {}

  layer(i: number): LayerCache {
    return {
      append: (k, v) => {
        const [, K, P, H] = k.shape
        const padding = Math.ceil(P / vector) * vector - P
        this.layers[i] = {
          k: tf.keep(tf.reshape(k, [K, P, H])),
          v: tf.keep(tf.reshape(v, [K, P, H])),
          transposed: tf.keep(
            tf.pad(tf.transpose(tf.reshape(k, [K, P, H]), [0, 2, 1]), [
              [0, 0],
              [0, 0],
              [0, padding],
            ]) as Tensor3D,
          ),
        }
        return null
      },
    }
  }

  dispose(): void {
    for (const { k, v, transposed } of this.layers) tf.dispose([k, v, transposed])
    this.layers.length = 0
  }
}

/**
 * Keys and values of rows that come and go, one buffer [B K S, H] a layer and kind, written in place: B rows of S
 * columns each, which grow by blocks. A row's tokens stand in its first columns, `lengths[b]` of them, whatever the
 * other rows hold. Not tidied: call `dispose`.
 */
export class KVCache {
  /** Tokens in each row's columns; 0 for a row that is free. */
  readonly lengths: number[] = []
  private layers: { k: Tensor2D; v: Tensor2D }[] = []
  private capacity = 0
  private named: Record<string, Tensor> | null = null

  /**
   * `prefix` is what all rows begin with. Where it is shared, a kernel attends to it for all rows at once; else each
   * row begins with a copy. `block`: columns added at a time.
   */
  constructor(
    private readonly config: ModelConfig,
    private readonly prefix: Prefix | null = null,
    readonly prefixShared = false,
    /** least rows, free ones included */
    private readonly least = 2,
    private readonly block = 64,
  ) {}

  get columns(): number {
    return this.capacity
  }

  /** Tokens that stand before a row's first column. */
  get before(): number {
    return this.prefixShared ? (this.prefix?.length ?? 0) : 0
  }

  /** Buffers by name, for graphs that write new tokens in place: the same object as long as they are the same. */
  get inputs(): Readonly<Record<string, Tensor>> {
    if (this.named) return this.named
    const shared = this.prefixShared ? this.prefix?.layers : undefined
    const inputs: Record<string, Tensor> = shared ? {} : { none: tf.keep(tf.zeros([0, this.config.headDim])) }
    for (const [i, { k, v }] of this.layers.entries()) {
      inputs[`k.${i}`] = k
      inputs[`v.${i}`] = v
      if (!shared) continue
      inputs[`sharedK.${i}`] = shared[i]!.transposed
      inputs[`sharedV.${i}`] = shared[i]!.v
    }
    this.named = inputs
    return inputs
  }

  /**
   * The pass that brings the prompts of rows `rows`, so many columns of each behind the prefix: padded to one length,
   * or `paddingFree`, which needs a shared prefix or none.
   */
  filling(rows: readonly number[], lengths: readonly number[], paddingFree = false): PassCache {
    const copied = this.prefixShared ? 0 : (this.prefix?.length ?? 0)
    const columns = lengths.map((length) => copied + length)
    const at = this.roomFor(rows, columns, paddingFree)
    return {
      isFresh: !this.prefix,
      layer: (i) => ({
        append: (k, v) => {
          const { prefix } = this
          const all = prefix && !paddingFree ? this.withPrefix(i, k, v) : { k, v }
          this.write(i, copied ? all : { k, v }, at)
          return prefix && (paddingFree ? prefix.layers[i]! : all)
        },
      }),
    }
  }

  /**
   * Makes room for the first tokens of rows `rows`, so many of each, and says where they go: by row, head and token, or
   * `paddingFree` by head, row and token.
   */
  roomFor(rows: readonly number[], lengths: readonly number[], paddingFree: boolean): Int32Array {
    this.reserve(Math.max(this.least, ...rows.map((row) => row + 1)), Math.max(...lengths), this.block)
    return this.placesOf(rows, lengths, { paddingFree })
  }

  /** Says how many tokens a row has been given: none makes it free. */
  setLength(row: number, tokens: number): void {
    this.lengths[row] = tokens
  }

  /** Makes room for so many further tokens in every row that has any. */
  makeRoom(tokens = 1): void {
    this.reserve(this.lengths.length, Math.max(...this.lengths) + tokens)
  }

  /** The pass that brings one token a row, behind those that it has. */
  stepping(): PassCache {
    const rows = [...this.lengths.keys()]
    const ones = rows.map(() => 1)
    const at = this.placesOf(rows, ones, { first: this.lengths })
    return {
      isFresh: false,
      layer: (i) => ({
        append: (k, v) => {
          this.write(i, { k, v }, at)
          const view = (buffer: Tensor2D) =>
            tf.reshape(buffer, [rows.length, this.config.kvHeads, this.capacity, this.config.headDim]) as Tensor4D
          return { k: view(this.layers[i]!.k), v: view(this.layers[i]!.v) }
        },
      }),
    }
  }

  /** Keeps only these rows, in this order. */
  select(rows: readonly number[]): void {
    const indices = tf.tensor1d(Int32Array.from(rows))
    this.replace((buffer) => tf.gather(buffer, indices))
    indices.dispose()
    this.lengths.splice(0, this.lengths.length, ...rows.map((row) => this.lengths[row]!))
  }

  dispose(): void {
    for (const { k, v } of this.layers) tf.dispose([k, v])
    this.forget()
    this.layers = []
    this.lengths.length = 0
    this.capacity = 0
  }

  /** To be called where buffers change. */
  private forget(): void {
    this.named?.none?.dispose()
    this.named = null
  }

  /** Has so many rows and columns, or more; where columns are added, `ahead` of them are. */
  private reserve(rows: number, columns: number, ahead = 0): void {
    const moreRows = Math.max(0, rows - this.lengths.length)
    const wanted = columns > this.capacity ? Math.ceil((columns + ahead) / this.block) * this.block : this.capacity
    const moreColumns = wanted - this.capacity
    if (!moreRows && !moreColumns) return
    if (this.layers.length)
      this.replace((buffer) =>
        tf.pad(buffer, [
          [0, moreRows],
          [0, 0],
          [0, moreColumns],
          [0, 0],
        ]),
      )
    for (let i = 0; i < moreRows; i++) this.lengths.push(0)
    this.capacity = wanted
    const size = this.lengths.length * this.config.kvHeads * this.capacity
    const empty = () => tf.keep(tf.fill([size, this.config.headDim], 0)) as Tensor2D
    if (!this.layers.length) {
      this.forget()
      this.layers = Array.from({ length: this.config.layers }, () => ({ k: empty(), v: empty() }))
    }
  }

  /**
   * Where tokens [B, K, T, H] of some rows go in a buffer, in their order; without padding tokens are [1, K, Σ T, H].
   * `first` are the columns of the rows' first tokens, 0 by default.
   */
  private placesOf(
    rows: readonly number[],
    lengths: readonly number[],
    { paddingFree = false, first = [] }: { paddingFree?: boolean; first?: readonly number[] } = {},
  ): Int32Array {
    const { kvHeads: K } = this.config
    const at = new Int32Array(K * lengths.reduce((a, b) => a + b, 0))
    let n = 0
    const put = (b: number, g: number) => {
      const from = (rows[b]! * K + g) * this.capacity + (first[b] ?? 0)
      for (let t = 0; t < lengths[b]!; t++) at[n++] = from + t
    }
    if (paddingFree) for (let g = 0; g < K; g++) for (const b of rows.keys()) put(b, g)
    else for (const b of rows.keys()) for (let g = 0; g < K; g++) put(b, g)
    return at
  }

  /** Writes tokens [B, K, T, H] to places of the buffers of a layer. */
  private write(i: number, tokens: { k: Tensor4D; v: Tensor4D }, at: Int32Array): void {
    const { headDim: H } = this.config
    const places = tf.tensor1d(at) as Tensor1D
    const layer = this.layers[i]!
    this.forget()
    for (const kind of ["k", "v"] as const)
      layer[kind] = tf.keep(writeRows(layer[kind], places, tf.reshape(tokens[kind], [-1, H])))
    places.dispose()
  }

  /** The prefix and then a row's own tokens [B, K, T, H], for each row. */
  private withPrefix(i: number, k: Tensor4D, v: Tensor4D): Cached {
    const [B] = k.shape
    const joined = (shared: Tensor3D, own: Tensor4D) =>
      tf.concat([tf.tile(tf.expandDims(shared, 0), [B, 1, 1, 1]), own], 2) as Tensor4D
    const prefix = this.prefix!.layers[i]!
    return { k: joined(prefix.k, k), v: joined(prefix.v, v) }
  }

  private replace(change: (buffer: Tensor4D) => Tensor4D): void {
    const { kvHeads: K, headDim: H } = this.config
    const rows = this.lengths.length
    this.forget()
    const renew = (buffer: Tensor2D): Tensor2D => {
      const next = tf.tidy(() =>
        tf.reshape(change(tf.reshape(buffer, [rows, K, -1, H]) as Tensor4D), [-1, H]),
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
