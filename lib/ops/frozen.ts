import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { kernel, kernelPair } from "./kernel"
import { gradientMatMul, matMul } from "./matmul"

/**
 * Matrices that are never trained, as checkpoints have them: in bf16, half of the memory of floats, packed once for
 * products with them. See native/kernels/frozen.cc. Letters: M tokens, D and O widths.
 */

/** A matrix [D, O] of numbers that bf16 holds. A plain object, so that trees of tensors can hold it. */
export type Frozen = {
  /** panels of columns, int32 */
  readonly packed: Tensor
  readonly shape: [number, number]
  /** values */
  readonly size: number
}

/** A matrix ready for products. */
export type Matrix = Tensor2D | Frozen

export const isFrozen = (matrix: Tensor | Frozen): matrix is Frozen => "packed" in matrix

/**
 * Packs a matrix [D, O], or the transpose of a table [O, D], of numbers that bf16 holds. Frees nothing. On devices with
 * kernels alone.
 */
export function freeze(matrix: Tensor2D, transposed = false): Frozen {
  const [rows, columns] = matrix.shape
  const packed = kernel("MuscPack", [Number(transposed)], [matrix])
  return { packed, shape: transposed ? [columns, rows] : [rows, columns], size: matrix.size }
}

/** The matrix [D, O] as floats: a new tensor for one that is frozen. */
export const floatsOf = (matrix: Matrix): Tensor2D =>
  isFrozen(matrix) ? (kernel("MuscUnpack", [matrix.shape[1]], [matrix.packed]) as Tensor2D) : matrix

/** x · matrix. Without a gradient. */
export const multiply = (x: Tensor2D, matrix: Matrix): Tensor2D =>
  isFrozen(matrix) ? frozenProduct(x, matrix) : matMul(x, matrix)

/** dy · matrixᵀ, for the gradient by x. */
export const backwards = (dy: Tensor2D, matrix: Matrix): Tensor2D =>
  isFrozen(matrix) ? frozenProduct(dy, matrix, { transposed: true }) : gradientMatMul(dy, matrix, false, true)

interface Columns {
  /** a multiple of 32 */
  from?: number
  n?: number
  transposed?: boolean
}

/** x [M, D] · columns [from, from + n) of the matrix -> [M, n], or `transposed` dy [M, n] · those columnsᵀ -> [M, D]. */
const frozenProduct = (
  x: Tensor2D,
  { packed, shape: [, O] }: Frozen,
  { from = 0, n = O, transposed = false }: Columns = {},
): Tensor2D => kernel("MuscFrozenProduct", [O, from, n, Number(transposed)], [x, packed]) as Tensor2D

/**
 * x · matrix + (x · first) · second and x · first: x [M, D], first [D, R], second [R, O] -> [M, O] and [M, R]; or with
 * all three transposed, for dy [M, O] instead of x. Without a gradient.
 */
export const frozenLowRank = (
  x: Tensor2D,
  { packed, shape: [, O] }: Frozen,
  first: Tensor2D,
  second: Tensor2D,
  transposed: boolean,
): [Tensor2D, Tensor2D] =>
  kernelPair("MuscFrozenLora", [O, Number(transposed)], [x, packed, first, second]) as [Tensor2D, Tensor2D]

/**
 * The table of a vocabulary, [V, D]: as it is, or as the matrix [D, V] that hidden states are multiplied by. Its rows
 * can be had by number.
 */
export type Table = Tensor2D | Frozen

/** V and D. */
export const tableShape = (table: Table): readonly [number, number] =>
  isFrozen(table) ? [table.shape[1], table.shape[0]] : table.shape

/** Rows of the table by number: ids [M] -> [M, D]. Without a gradient. */
export const rowsOf = (table: Table, ids: Tensor1D): Tensor2D =>
  isFrozen(table)
    ? (kernel("MuscFrozenRows", [table.shape[1]], [table.packed, ids]) as Tensor2D)
    : tf.gather(table, ids)

/** Rows [from, from + n) of the table, as a table. */
export function tableRows(table: Table, from: number, n: number): Tensor2D | FrozenRows {
  if (!isFrozen(table)) return n < table.shape[0] ? tf.slice(table, [from, 0], [n, table.shape[1]]) : table
  return from % 32 === 0 ? { table, from, n } : floatRows(table, from, n)
}

/** Some rows of a frozen table. */
export interface FrozenRows {
  readonly table: Frozen
  readonly from: number
  readonly n: number
}

/** Rows [from, from + n) of the table as floats [n, D]. */
export const floatRows = (table: Table, from: number, n: number): Tensor2D =>
  isFrozen(table)
    ? tf.tidy(() => rowsOf(table, tf.range(from, from + n, 1, "int32") as Tensor1D))
    : (tf.slice(table, [from, 0], [n, table.shape[1]]) as Tensor2D)

/** All rows of the table as floats: a new tensor for one that is frozen. */
export const floatTable = (table: Table): Tensor2D => (isFrozen(table) ? floatRows(table, 0, table.shape[1]) : table)

/** h · rowsᵀ: h [M, D], rows [n, D] -> [M, n]. Without a gradient. */
export function logitsOf(h: Tensor2D, rows: Table | FrozenRows): Tensor2D {
  if ("table" in rows) return frozenProduct(h, rows.table, rows)
  return isFrozen(rows) ? multiply(h, rows) : matMul(h, rows, false, true)
}

/** dy · rows, for the gradient by h: dy [M, n], rows [n, D] -> [M, D]. Without a gradient. */
export const backThrough = (dy: Tensor2D, rows: Tensor2D | FrozenRows): Tensor2D =>
  "table" in rows ? frozenProduct(dy, rows.table, { ...rows, transposed: true }) : gradientMatMul(dy, rows)
