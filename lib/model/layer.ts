import type { Tensor1D, Tensor3D, Tensor4D } from "@tensorflow/tfjs-core"
import type { Cached, SharedKeys } from "../ops/attention"
import type { Matrix } from "../ops/frozen"
import type { LoraFactors, LowRank } from "../ops/linear"

/** What a layer is made of. Letters as in transformer.ts. */

/** A matrix ready for use: LoRA, if any, is already added to `weight`, or stands beside it. */
export interface Projection {
  weight: Matrix // [in, out]
  bias?: Tensor1D // [out]
  lora: LowRank[]
  factors?: LoraFactors
  train: boolean
  /** What it is applied to depends on nothing that is trained: the first layer's input under an adapter. */
  constantInput?: boolean
}

export interface Layer {
  norm1: Tensor1D // [D]
  qk: Projection // [D, (N + K) H]: queries, then keys
  v: Projection // [D, K H]
  qkNorm?: Tensor3D // [N + K, 1, H]
  o: Projection // [N H, D]
  postNorm1?: Tensor1D // [D]
  norm2: Tensor1D // [D]
  gate: Projection // [D, F]
  up: Projection // [D, F]
  down: Projection // [F, D]
  postNorm2?: Tensor1D // [D]
}

/** The projections of a layer, in the order of a graph's inputs. */
export const projectionNames = ["qk", "v", "o", "gate", "up", "down"] as const
export type ProjectionName = (typeof projectionNames)[number]

/** Keys and values of all layers of a pass. */
export interface PassCache {
  /** The pass brings the first tokens of all its rows. */
  isFresh: boolean
  layer(i: number): LayerCache
}

/** Keys and values of one layer, kept between calls. */
export interface LayerCache {
  /**
   * Adds keys and values [B, K, T, H] of new tokens; gives all so far [B, K, S, H], or those that stand before the new
   * ones in each sequence, or null when these are the first.
   */
  append(k: Tensor4D, v: Tensor4D): Cached | SharedKeys | null
}
