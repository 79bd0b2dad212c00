import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { kernel } from "./kernel"
import { operation } from "./operation"

/** How the next token of a row is drawn: 0 and 1 are none for `topK` and `topP`, `u` is uniform in [0, 1). */
export interface Draw {
  temperature: number
  topP: number
  topK: number
  u: number
}

/** Draws for the kernel: four doubles each, as eight int32. */
export function choicesOf(draws: readonly Draw[]): Int32Array {
  const doubles = new Float64Array(4 * draws.length)
  for (const [b, { temperature, topP, topK, u }] of draws.entries()) doubles.set([temperature, topP, topK, u], 4 * b)
  return new Int32Array(doubles.buffer)
}

/** Draws a token for each row of logits [B, V] -> ids [B], -1 where the largest logit is not a number. */
type DrawTokens = (logits: Tensor2D, draws: readonly Draw[]) => Tensor1D

/**
 * A kernel that draws by the rules of `drawToken`, for devices that have ours; null for others. Threads share the rows,
 * and logits stay where they are.
 */
export const drawingKernel = operation<() => DrawTokens | null>(({ kernels }) => {
  const byKernel: DrawTokens = (logits, draws) =>
    kernel("MuscDraw", [0], [logits, tf.tensor2d(choicesOf(draws), [draws.length, 8])]) as Tensor1D
  return () => (kernels === "none" ? null : byKernel)
})
