import type { Scalar, Tensor, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { backwards, frozenLowRank, isFrozen, type Matrix, multiply } from "./frozen"
import { withGradient } from "./gradient"
import { kernelOutputs, kernelPair } from "./kernel"
import { bf16Parts, gradientMatMul, matMul } from "./matmul"
import { operation } from "./operation"

/**
 * Products with the matrices of a layer and their LoRA. Letters: M tokens, D and O widths, r rank, R ranks of all
 * updates.
 */

/** One low-rank update of a block of a projection's outputs: columns [offset, offset + O) get scale · A · B. */
export interface LowRank {
  /** [D, r] */
  A: Tensor2D
  /** [r, O] */
  B: Tensor2D
  offset: number
  /** scale · A and scale · B, where the matrix holds the update */
  scaled?: { A: Tensor2D; B: Tensor2D }
}

/** An update of columns [offset, …) of a matrix [D, O]: A [D, r], B [r, o]. */
export type Update = Pick<LowRank, "A" | "B" | "offset">

/** The updates of a matrix as one of low rank, to be added to products with it: x · weight + (x · down) · up. */
export interface LoraFactors {
  down: Tensor2D // [D, R], scaled
  up: Tensor2D // [R, O]
  scale: Scalar
  /** First column, rank and columns of each update. */
  slices: readonly (readonly [number, number, number])[]
}

/** Such factors of the updates of a matrix with so many columns. */
export function loraFactors(columns: number, updates: readonly Update[], factor: number): LoraFactors {
  const scale = tf.scalar(factor)
  const [down, up] = joinedFactors(columns, updates, scale)
  return { down, up, scale, slices: updates.map(({ B, offset }) => [offset, ...B.shape] as const) }
}

type JoinedFactors = (columns: number, updates: readonly Update[], scale: Scalar) => [down: Tensor2D, up: Tensor2D]

const joinedFactors = operation<JoinedFactors>(({ kernels }) =>
  kernels === "none"
    ? (columns, updates, scale) =>
        tf.tidy(() => {
          const downs = updates.map(({ A }) => A)
          const ups = updates.map(({ B, offset }) => inColumns(B, offset, columns))
          return [tf.mul(tf.concat(downs, 1), scale), tf.concat(ups)]
        })
    : (columns, updates, scale) => {
        const inputs = updates.flatMap(({ A, B }) => [A, B])
        const settings = [columns, ...updates.map(({ offset }) => offset)]
        return kernelOutputs("MuscLowRank", settings, [scale, ...inputs], 2, inputs.length) as [Tensor2D, Tensor2D]
      },
)

/** x [r, o] as columns [offset, offset + o) of [r, columns], with zeros around. */
function inColumns(x: Tensor2D, offset: number, columns: number): Tensor2D {
  const after = columns - offset - x.shape[1]
  if (!offset && !after) return x
  return tf.pad(x, [
    [0, 0],
    [offset, after],
  ])
}

/**
 * x · weight, with gradients only for what is trained, and for x unless it is constant: x [M, D], weight [D, O] -> [M,
 * O]. With `lora`, `weight` already holds the updates (W + scale · A · B, made once a step) unless `factors` bring
 * them, so forward and dx cost one matmul each and dA = xᵀ(dy (scale B)ᵀ), dB = (x scale A)ᵀ dy are small products.
 */
export function linear(
  x: Tensor2D,
  weight: Matrix,
  options: { trainWeight?: boolean; lora?: readonly LowRank[]; factors?: LoraFactors; constantInput?: boolean } = {},
): Tensor2D {
  const { lora = [], factors, trainWeight, constantInput } = options
  if (factors) return linearWithLora(x, weight, lora, factors, constantInput)
  const inputs: Tensor[] = lora.flatMap(({ A, B }) => [A, B])
  if (!constantInput) inputs.unshift(x)
  if (trainWeight) inputs.push(weight as Tensor2D)
  return withGradient(
    inputs,
    (save) => {
      save([x])
      return multiply(x, weight)
    },
    (dy: Tensor2D, saved) => {
      const input = saved[0] as Tensor2D
      const grads: Tensor[] = constantInput ? [] : [backwards(dy, weight)]
      for (const { scaled, offset } of lora) grads.push(...loraGradient(input, dy, scaled!, offset))
      if (trainWeight) grads.push(gradientMatMul(input, dy, true))
      return grads
    },
  )
}

/** As `linear` with `lora`, for a weight that does not hold the updates. */
function linearWithLora(
  x: Tensor2D,
  weight: Matrix,
  lora: readonly LowRank[],
  { down, up, scale, slices }: LoraFactors,
  constantInput = false,
): Tensor2D {
  return withGradient(
    [...(constantInput ? [] : [x]), ...lora.flatMap(({ A, B }) => [A, B])],
    (save) => {
      const [y, through] = lowRankProduct(x, weight, down, up, false)
      save([x, through])
      return y
    },
    (dy: Tensor2D, [input, through]) => {
      const [dx, back] = constantInput
        ? [null, matMul(dy, up, false, true)]
        : lowRankProduct(dy, weight, up, down, true)
      const grads = lowRankGradient(input as Tensor2D, dy, through as Tensor2D, back, scale, slices)
      return dx ? [dx, ...grads] : grads
    },
  )
}

type LowRankProduct = (
  x: Tensor2D,
  weight: Matrix,
  first: Tensor2D,
  second: Tensor2D,
  transposed: boolean,
) => [Tensor2D, Tensor2D]

/**
 * x · weight + (x · first) · second, and x · first; or with all three transposed, for dy instead of x. With kernels of
 * ours, for a matrix of floats on AMX alone.
 */
export const lowRankProduct = operation<LowRankProduct>(({ kernels }) =>
  kernels === "none"
    ? (x, weight, first, second, transposed) => {
        const multiplied = transposed ? backwards : multiply
        const through = matMul(x, first, false, transposed)
        return [tf.add(multiplied(x, weight), matMul(through, second, false, transposed)), through]
      }
    : (x, weight, first, second, transposed) =>
        isFrozen(weight)
          ? frozenLowRank(x, weight, first, second, transposed)
          : (kernelPair("MuscLowRankProduct", [Number(transposed), bf16Parts()], [x, weight, first, second]) as [
              Tensor2D,
              Tensor2D,
            ]),
)

type LowRankGradient = (
  x: Tensor2D,
  dy: Tensor2D,
  through: Tensor2D,
  back: Tensor2D,
  scale: Scalar,
  slices: LoraFactors["slices"],
) => Tensor[]

/** dA and dB of each update: x [M, D], dy [M, O], x · down and dy · upᵀ [M, R]. */
const lowRankGradient = operation<LowRankGradient>(({ kernels }) =>
  kernels === "none"
    ? (x, dy, through, back, scale, slices) => {
        const ranks = slices.map(([, r]) => r)
        const dAs = tf.split(tf.mul(gradientMatMul(x, back, true), scale), ranks, 1)
        const throughs = tf.split(through, ranks, 1)
        return slices.flatMap(([offset, , o], i) => {
          const part = o === dy.shape[1] ? dy : tf.slice(dy, [0, offset], [-1, o])
          return [dAs[i]!, gradientMatMul(throughs[i] as Tensor2D, part, true)]
        })
      }
    : (x, dy, through, back, scale, slices) => {
        const inputs = [x, dy, through, back, scale]
        return kernelOutputs("MuscLowRankGradient", slices.flat(), inputs, 2 * slices.length, 2 * slices.length)
      },
)

type LoraGradient = (
  x: Tensor2D,
  dy: Tensor2D,
  scaled: { A: Tensor2D; B: Tensor2D },
  offset: number,
) => [Tensor, Tensor]

/** dA and dB of columns [offset, …) of a projection: x [M, D], dy [M, O …], scaled A [D, r] and B [r, O]. */
export const loraGradient = operation<LoraGradient>(({ kernels }) =>
  kernels !== "none"
    ? (x, dy, { A, B }, offset) => kernelPair("MuscLoraGradient", [offset], [x, dy, A, B])
    : (x, dy, { A, B }, offset) => {
        const O = B.shape[1]
        const part = O === dy.shape[1] ? dy : tf.slice(dy, [0, offset], [-1, O])
        return [matMul(x, matMul(part, B, false, true), true), matMul(matMul(x, A), part, true)]
      },
)

type Effective = (
  weight: Tensor2D,
  updates: readonly Update[],
  scale: number,
) => { weight: Tensor2D; lora: Required<LowRank>[] }

/**
 * W + (scale A) B for all updates of a matrix, and each update with what is scaled. The caller disposes what is new.
 */
export const effective = operation<Effective>(({ kernels }) => (kernels === "none" ? plainEffective : kernelEffective))

const kernelEffective: Effective = (weight, updates, scale) => {
  const inputs = updates.flatMap(({ A, B }) => [A, B])
  const offsets = updates.map(({ offset }) => offset)
  const factor = tf.scalar(scale)
  const outputs = kernelOutputs(
    "MuscEffective",
    offsets,
    [weight, factor, ...inputs],
    1 + inputs.length,
    inputs.length,
  ) as Tensor2D[]
  factor.dispose()
  const [sum, ...scaled] = outputs
  const lora = updates.map((update, i) => ({ ...update, scaled: { A: scaled[2 * i]!, B: scaled[2 * i + 1]! } }))
  return { weight: sum!, lora }
}

const plainEffective: Effective = (weight, updates, scale) => {
  const lora = updates.map((update) => ({
    ...update,
    scaled: { A: tf.mul(update.A, scale), B: tf.mul(update.B, scale) },
  }))
  const sum = tf.tidy(() => {
    const deltas = lora.map(({ A, offset, scaled: { B } }) =>
      inColumns(matMul(A, B as Tensor2D), offset, weight.shape[1]),
    )
    return tf.addN([weight, ...deltas])
  })
  return { weight: sum, lora: lora as Required<LowRank>[] }
}
