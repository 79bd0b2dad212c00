import path from "node:path"
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from "@tensorflow/tfjs-core"
import { hasKernels } from "../device/kernel-set"
import { packageFolder } from "../device/packages"
import { bindingFile, maths, onGpu, tf } from "../device/tf"
import { withGradient } from "./gradient"
import { type NativeBackend, native } from "./kernels"

/**
 * What a decoder does besides products of matrices, by kernels of our own that go over memory once where TensorFlow's
 * operations go a dozen times: see fused/*.cc, which `npx musc native` compiles. On the CPU; elsewhere ops.ts does the same by
 * operations of tfjs.
 *
 * Letters: M tokens, D and O widths, B batch, N query heads, K key/value heads, T queries, S keys, H head size, V vocabulary.
 */

/** The backend that has these kernels, or null. MUSC_FUSED=0 does without them: see fused/load.cc. */
export const fused = (): NativeBackend | null => (present().fused ? native() : null)

/** The backend if it multiplies by the tiles of AMX as well, or null. */
export const tiled = (): NativeBackend | null => (present().tiled ? native() : null)

const none = { fused: false, tiled: false }
let found: typeof none | undefined

function present(): typeof none {
  const backend = native()
  if (!backend || onGpu()) return none
  if (found) return found
  const current = hasKernels(path.dirname(path.join(packageFolder("@tensorflow/tfjs-node-gpu")!, bindingFile)))
  found = {
    fused: current && knows(backend, "MuscGated", [0]),
    tiled: current && knows(backend, "MuscProduct", [0, 0, 3]),
  }
  return found
}

/** Whether an operation of two matrices can be called: not on another processor, nor where a compiler could not make it. */
function knows(backend: NativeBackend, op: string, settings: readonly number[]): boolean {
  return tf.tidy(() => {
    try {
      call(backend, op, settings, [tf.zeros([1, 1]), tf.zeros([1, 1])])
      return true
    } catch {
      return false
    }
  })
}

const settingsOf = ({ binding }: NativeBackend, value: readonly number[]) => [
  { name: "settings", type: binding.TF_ATTR_INT, value },
]

const call = (backend: NativeBackend, op: string, settings: readonly number[], inputs: readonly Tensor[]): Tensor =>
  backend.executeSingleOutput(op, settingsOf(backend, settings), inputs)

const callTwo = (backend: NativeBackend, op: string, settings: readonly number[], inputs: readonly Tensor[]) =>
  backend.executeMultipleOutputs(op, settingsOf(backend, settings), inputs, 2) as [Tensor, Tensor]

/** As `rmsNorm` in ops.ts; weight [P, D] is for P rows of x in turn. */
export function fusedNorm<T extends Tensor>(
  backend: NativeBackend,
  x: T,
  weight: Tensor,
  eps: number,
  trainWeight: boolean,
): T {
  return withGradient(
    trainWeight ? [x, weight] : [x],
    (save) => {
      const [y, scale] = callTwo(backend, "MuscRmsNorm", [0], [x, weight, tf.scalar(eps)])
      save([x, weight, scale])
      return y as T
    },
    (dy, saved) => {
      const [dx, dWeight] = callTwo(backend, "MuscRmsNormGradient", [Number(trainWeight)], [dy, ...saved])
      return trainWeight ? [dx, dWeight] : [dx]
    },
  )
}

/** As `gated` in ops.ts. */
export function fusedGated(backend: NativeBackend, gate: Tensor2D, up: Tensor2D, gelu: boolean): Tensor2D {
  const settings = [Number(gelu)]
  return withGradient(
    [gate, up],
    (save) => {
      save([gate, up])
      return call(backend, "MuscGated", settings, [gate, up]) as Tensor2D
    },
    (dy, saved) => callTwo(backend, "MuscGatedGradient", settings, [dy, ...saved]),
  )
}

/** a · b, either one transposed first: see fused/product.cc. In bf16 maths the factors are rounded, else it is an f32 product. */
export function tiledProduct(
  backend: NativeBackend,
  a: Tensor2D,
  b: Tensor2D,
  transposeA: boolean,
  transposeB: boolean,
): Tensor2D {
  return call(backend, "MuscProduct", [Number(transposeA), Number(transposeB), parts()], [a, b]) as Tensor2D
}

/** Numbers of 8 binary digits that a factor is taken apart into. */
const parts = () => (maths() === "bf16" ? 1 : 3)

/** act(x · gate) · (x · up), tanh-gelu or silu. Without a gradient. */
export const tiledGated = (
  backend: NativeBackend,
  x: Tensor2D,
  gate: Tensor2D,
  up: Tensor2D,
  gelu: boolean,
): Tensor2D => call(backend, "MuscGatedProduct", [Number(gelu), parts()], [x, gate, up]) as Tensor2D

/** Updates of low rank of one matrix, to be added to products with it: x · weight + (x · down) · up. */
export interface Beside {
  down: Tensor2D // [D, R], scaled
  up: Tensor2D // [R, O]
  scale: Scalar
  /** First column, rank and columns of each update. */
  places: readonly (readonly [number, number, number])[]
}

/** Such a sum of updates of columns [offset, …) each. */
export function fusedBeside(
  backend: NativeBackend,
  columns: number,
  updates: readonly { A: Tensor2D; B: Tensor2D; offset: number }[],
  factor: number,
): Beside {
  const scale = tf.scalar(factor)
  const inputs = updates.flatMap(({ A, B }) => [A, B])
  const settings = [columns, ...updates.map(({ offset }) => offset)]
  const attrs = [...settingsOf(backend, settings), count(backend, inputs.length)]
  const [down, up] = backend.executeMultipleOutputs("MuscLowRank", attrs, [scale, ...inputs], 2) as [Tensor2D, Tensor2D]
  const places = updates.map(({ B, offset }) => [offset, ...B.shape] as const)
  return { down, up, scale, places }
}

/** x · weight + (x · down) · up, and x · down; or with all three transposed, for dy in the place of x. */
export const tiledLowRank = (
  backend: NativeBackend,
  x: Tensor2D,
  weight: Tensor2D,
  down: Tensor2D,
  up: Tensor2D,
  transposed: boolean,
): [Tensor2D, Tensor2D] =>
  callTwo(backend, "MuscLowRankProduct", [Number(transposed), parts()], [x, weight, down, up]) as [Tensor2D, Tensor2D]

/** dA and dB of every update, for x, dy, x · down and dy · upᵀ. */
export function fusedBesideGradient(
  backend: NativeBackend,
  inputs: readonly [x: Tensor, dy: Tensor, through: Tensor, back: Tensor, scale: Tensor],
  places: Beside["places"],
): Tensor[] {
  const attrs = [...settingsOf(backend, places.flat()), count(backend, 2 * places.length)]
  return backend.executeMultipleOutputs("MuscLowRankGradient", attrs, [...inputs], 2 * places.length)
}

/** As `effective` in effective.ts. */
export function fusedEffective(
  backend: NativeBackend,
  weight: Tensor2D,
  updates: readonly { A: Tensor2D; B: Tensor2D; offset: number }[],
  scale: number,
) {
  const inputs = updates.flatMap(({ A, B }) => [A, B])
  const attrs = [
    ...settingsOf(
      backend,
      updates.map(({ offset }) => offset),
    ),
    count(backend, inputs.length),
  ]
  const factor = tf.scalar(scale)
  const made = backend.executeMultipleOutputs("MuscEffective", attrs, [weight, factor, ...inputs], 1 + inputs.length)
  factor.dispose()
  const [sum, ...scaled] = made as Tensor2D[]
  const lora = updates.map((update, i) => ({ ...update, scaled: { A: scaled[2 * i]!, B: scaled[2 * i + 1]! } }))
  return { weight: sum!, lora }
}

/** dA and dB of columns [offset, …) of a projection: x [M, D], dy [M, O …], scaled A [D, r] and B [r, O]. */
export const fusedLoraGradient = (
  backend: NativeBackend,
  x: Tensor2D,
  dy: Tensor2D,
  scaled: { A: Tensor2D; B: Tensor2D },
  offset: number,
): [Tensor, Tensor] => callTwo(backend, "MuscLoraGradient", [offset], [x, dy, scaled.A, scaled.B])

/** log softmax(logits)[target] [M], and softmax(logits) - onehot(target) [M, V] if it is wanted. Without a gradient. */
export function fusedTargetLogProb(
  backend: NativeBackend,
  logits: Tensor2D,
  targets: Tensor1D,
  slopeWanted: boolean,
): { logp: Tensor1D; slope?: Tensor2D } {
  const [logp, slope] = callTwo(backend, "MuscTargetLogProb", [Number(slopeWanted)], [logits, targets])
  if (slopeWanted) return { logp: logp as Tensor1D, slope: slope as Tensor2D }
  slope.dispose()
  return { logp: logp as Tensor1D }
}

/** A softmax so far, over some words: the largest logit and Σ e^(logit - largest), [M, 1] each. */
export interface Running {
  top: Tensor2D
  total: Tensor2D
}

/** `former` with a block of words; what sums before must be multiplied by, and e^(logit - largest) [M, n] if it is wanted. */
export function fusedOnlineSoftmax(
  backend: NativeBackend,
  logits: Tensor2D,
  former: Running,
  oddsWanted: boolean,
): Running & { decay: Tensor2D; odds: Tensor2D } {
  const attrs = settingsOf(backend, [Number(oddsWanted)])
  const made = backend.executeMultipleOutputs("MuscOnlineSoftmax", attrs, [logits, former.top, former.total], 4)
  const [top, total, decay, odds] = made as [Tensor2D, Tensor2D, Tensor2D, Tensor2D]
  return { top, total, decay, odds }
}

/**
 * Sums over a block of words, added to those of the blocks before: logits [M, n] of p and of q -> [M, 8], for p and then q the
 * largest logit, Σ e^x, Σ e^x x and Σ e^x x', x being what a logit is less than the largest, x' that of the other one.
 */
export function fusedContrast(backend: NativeBackend, [p, q]: readonly Tensor2D[], former: Tensor2D | null): Tensor2D {
  const inputs = [p!, q!, former ?? tf.zeros([0, 8])]
  return call(backend, "MuscContrast", [0], inputs) as Tensor2D
}

/** All numbers of `tensors`, one after another. */
export function fusedFlatten(backend: NativeBackend, tensors: readonly Tensor[]): Tensor1D {
  const attrs = [...settingsOf(backend, [0]), count(backend, tensors.length)]
  return backend.executeSingleOutput("MuscFlatten", attrs, tensors) as Tensor1D
}

/** The opposite, for tensors of these shapes. */
export function fusedUnflatten(backend: NativeBackend, vector: Tensor1D, shapes: readonly number[][]): Tensor[] {
  const settings = shapes.flatMap((shape) => [shape.length, ...shape])
  const attrs = [...settingsOf(backend, settings), count(backend, shapes.length)]
  return backend.executeMultipleOutputs("MuscUnflatten", attrs, [vector], shapes.length)
}

const count = ({ binding }: NativeBackend, value: number) => ({ name: "N", type: binding.TF_ATTR_INT, value })

/** sqrt(Σ x²), a scalar */
export const fusedVectorNorm = (backend: NativeBackend, x: Tensor1D): Tensor => call(backend, "MuscNorm", [0], [x])

/**
 * A step of Adam, see fused/adam.cc: writes p, m and v [P] where they lie, which must be held by nobody else, as views of them
 * would be. Rates: factor of g, 1 - beta1, 1 - beta2, learning rate, epsilon, factor of p.
 */
export function fusedAdam(
  backend: NativeBackend,
  vectors: readonly [p: Tensor1D, m: Tensor1D, v: Tensor1D],
  g: Tensor1D,
  rates: Tensor1D,
): void {
  backend.executeMultipleOutputs("MuscAdam", settingsOf(backend, [0]), [...vectors, g, rates], 0)
}

/** Where tokens stand and who sees whom, for layers of one kind. */
export interface Sight {
  /** by positions, as the rope of the layer has them: [B T, H / 2] */
  cos: Tensor2D
  sin: Tensor2D
  /** factor of q · k */
  queryScale: Scalar
  /** positions, then segments: a query sees keys of its own segment and of segment 0, which padding (-1) does not see */
  queries: Tensor3D // [2, B, T], int32
  keys: Tensor3D // [2, B, S], int32
  /** the first query that attends */
  from: Scalar // int32
  /** positions back to which a query sees, its own included; 0 for all */
  window: number
}

/** Queries and keys [B T, (N + K) H] turned by their positions (Su 2021, Hugging Face's halves), queries scaled as well. */
export function fusedRotate(
  backend: NativeBackend,
  qk: Tensor2D,
  { cos, sin, queryScale }: Sight,
  N: number,
): Tensor2D {
  return withGradient(
    [qk],
    (save) => {
      save([cos, sin, queryScale])
      return call(backend, "MuscRotate", [N, 0], [qk, cos, sin, queryScale]) as Tensor2D
    },
    (dy, saved) => [call(backend, "MuscRotate", [N, 1], [dy, ...saved])],
  )
}

/** Keys and values of all tokens so far, [B, K, S, H] each. */
export interface Cached {
  k: Tensor4D
  v: Tensor4D
}

/**
 * softmax(q kᵀ) v -> [B (T - from), N H], for rotated qk [B T, (N + K) H] and v [B T, K H], or for the keys and values of a
 * cache. Scores are never held: the gradient computes them again (Dao 2022).
 */
export function fusedAttention(
  backend: NativeBackend,
  qk: Tensor2D,
  v: Tensor2D,
  { queries, keys, from, window }: Sight,
  [N, K]: readonly [number, number],
  cached?: Cached,
): Tensor2D {
  const settings = [N, K, window]
  const forward = (k: Tensor, values: Tensor) =>
    callTwo(backend, "MuscAttention", settings, [qk, k, values, queries, keys, from]) as [Tensor2D, Tensor]
  if (cached) {
    const [out, sums] = forward(cached.k, cached.v)
    sums.dispose()
    return out
  }
  return withGradient(
    [qk, v],
    (save) => {
      const [out, sums] = forward(qk, v)
      save([qk, v, queries, from, out, sums])
      return out
    },
    (dy, saved) => callTwo(backend, "MuscAttentionGradient", settings, [dy, ...saved]),
  )
}
