import type { Tensor, Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import type { Maths } from "../device/device"
import { tf } from "../device/tf"
import type { GraphNode } from "./builder"
import { composite, type Nodes } from "./composite"
import { kernel, kernelPair } from "./kernel"
import { gradientMatMul, matMul } from "./matmul"
import { operation } from "./operation"

/**
 * Matrices that are never trained, as checkpoints have them: in bf16, half of the memory of floats. With kernels of
 * ours they are packed once for products with them: see native/kernels/frozen.cc. Without, they are pairs of bf16,
 * which graphs take apart. Letters: M tokens, D and O widths.
 */

/** A matrix [D, O] of numbers that bf16 holds. A plain object, so that trees of tensors can hold it. */
export type Frozen = {
  /**
   * panels of columns, int32; or pairs [O, D / 2] in the bits of float32, which stays in the memory of a GPU, where
   * TensorFlow does not keep int32
   */
  readonly packed: Tensor
  readonly shape: [number, number]
  /** values */
  readonly size: number
}

/** A matrix ready for products. */
export type Matrix = Tensor2D | Frozen

export const isFrozen = (matrix: Tensor | Frozen): matrix is Frozen => "packed" in matrix

/** Whether a matrix [D, O] can be frozen on this device. */
export const canFreeze = operation(
  ({ kernels, graphs }) =>
    (D: number) =>
      kernels !== "none" || (graphs && D % 2 === 0),
)

/** For kernels: 1 where the other factor of a product is rounded to bf16 too, 0 where it stays f32. */
export const inBf16 = operation(
  ({ precision }) =>
    () =>
      Number(precision === "bf16"),
)

/**
 * Freezes a matrix [D, O], or the transpose of a table [O, D], of numbers that bf16 holds, where `canFreeze(D)`. Frees
 * nothing.
 */
export function freeze(matrix: Tensor2D, transposed = false): Frozen {
  const [rows, columns] = matrix.shape
  const packed = packedOf(matrix, transposed)
  return { packed, shape: transposed ? [columns, rows] : [rows, columns], size: matrix.size }
}

/** bf16 values [rows, width] of pairs [rows, width / 2]. */
const apart = (g: Nodes, pairs: GraphNode, width: number): GraphNode => {
  const values = g.op("Bitcast", [pairs], { T: "float32", type: "bfloat16" })
  return g.op("Reshape", [values, g.ints([-1, width])], { T: "bfloat16" })
}
const toFloats = (g: Nodes, x: GraphNode) => g.op("Cast", [x], { SrcT: "bfloat16", DstT: "float32" })
const toBf16 = (g: Nodes, x: GraphNode) => g.op("Cast", [x], { SrcT: "float32", DstT: "bfloat16" })

/** Pairs [rows, width / 2] of floats [rows, width]. */
const pairsOf = composite((g, [x], width: number) => {
  const pairs = g.op("Reshape", [toBf16(g, x!), g.ints([-1, width / 2, 2])], { T: "bfloat16" })
  return g.op("Bitcast", [pairs], { T: "bfloat16", type: "float32" })
})

/** The reverse. */
const floatsOfPairs = composite((g, [pairs], width: number) => toFloats(g, apart(g, pairs!, width)))

/** x · pairs, or x · pairsᵀ, in f32, or of factors and with a result in bf16, which are added up in f32. */
const pairsProduct = composite((g, [x, pairs], width: number, transposed: boolean, precision: Maths) => {
  const values = apart(g, pairs!, width)
  const attrs = { transpose_a: false, transpose_b: transposed }
  return precision === "f32"
    ? g.op("MatMul", [x!, toFloats(g, values)], { T: "float32", ...attrs })
    : toFloats(g, g.op("MatMul", [toBf16(g, x!), values], { T: "bfloat16", ...attrs }))
})

const packedOf = operation<(matrix: Tensor2D, transposed: boolean) => Tensor>(({ kernels }) =>
  kernels === "none"
    ? (matrix, transposed) =>
        tf.tidy(() => pairsOf([transposed ? matrix : tf.transpose(matrix)], matrix.shape[transposed ? 1 : 0]))
    : (matrix, transposed) => kernel("MuscPack", [Number(transposed)], [matrix]),
)

const unpacked = operation<(matrix: Frozen) => Tensor2D>(({ kernels }) =>
  kernels === "none"
    ? ({ packed, shape: [D] }) => tf.tidy(() => tf.transpose(floatsOfPairs([packed], D) as Tensor2D))
    : ({ packed, shape }) => kernel("MuscUnpack", shape, [packed]) as Tensor2D,
)

/** The matrix [D, O] as floats: a new tensor for one that is frozen. */
export const floatsOf = (matrix: Matrix): Tensor2D => (isFrozen(matrix) ? unpacked(matrix) : matrix)

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

type FrozenProduct = (x: Tensor2D, matrix: Frozen, columns?: Columns) => Tensor2D

/** x [M, D] · columns [from, from + n) of the matrix -> [M, n], or `transposed` dy [M, n] · those columnsᵀ -> [M, D]. */
const frozenProduct = operation<FrozenProduct>(({ kernels, precision }) =>
  kernels === "none"
    ? (x, { packed, shape: [D, O] }, { from = 0, n = O, transposed = false } = {}) =>
        tf.tidy(() => {
          const some = n < O ? tf.slice(packed as Tensor2D, [from, 0], [n, D / 2]) : packed
          return pairsProduct([x, some], D, !transposed, precision) as Tensor2D
        })
    : (x, { packed, shape: [D, O] }, { from = 0, n = O, transposed = false } = {}) =>
        kernel("MuscFrozenProduct", [D, O, from, n, Number(transposed), inBf16()], [x, packed]) as Tensor2D,
)

/**
 * x · matrix + (x · first) · second and x · first: x [M, D], first [D, R], second [R, O] -> [M, O] and [M, R]; or with
 * all three transposed, for dy [M, O] instead of x. Without a gradient. By a kernel.
 */
export const frozenLowRank = (
  x: Tensor2D,
  { packed, shape }: Frozen,
  first: Tensor2D,
  second: Tensor2D,
  transposed: boolean,
): [Tensor2D, Tensor2D] =>
  kernelPair("MuscFrozenLora", [...shape, Number(transposed), inBf16()], [x, packed, first, second]) as [
    Tensor2D,
    Tensor2D,
  ]

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
  isFrozen(table) ? frozenRows(table, ids) : tf.gather(table, ids)

const frozenRows = operation<(table: Frozen, ids: Tensor1D) => Tensor2D>(({ kernels }) =>
  kernels === "none"
    ? ({ packed, shape: [D] }, ids) => tf.tidy(() => floatsOfPairs([tf.gather(packed, ids)], D) as Tensor2D)
    : ({ packed, shape }, ids) => kernel("MuscFrozenRows", shape, [packed, ids]) as Tensor2D,
)

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
