import type { Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { kernel, tensorflowOp } from "./kernel"
import { operation } from "./operation"

type MatMul = (a: Tensor2D, b: Tensor2D, transposeA?: boolean, transposeB?: boolean) => Tensor2D

/**
 * a · b for matrices, either one transposed first. Without a gradient: for use inside an op that brings its own. A row
 * gets the same digits whatever stands beside it.
 */
export const matMul = operation<MatMul>(({ products, precision }) =>
  products === "own" && precision === "f32"
    ? (a, b, transposeA = false, transposeB = false) =>
        kernel("MuscProduct", [Number(transposeA), Number(transposeB), bf16Parts()], [a, b]) as Tensor2D
    : gradientMatMul,
)

/** The same for gradients, which sum over a batch and so depend on it anyway: what is fastest for many rows. */
export const gradientMatMul = operation<MatMul>(({ kernels, backend, precision }) => {
  if (kernels === "amx") {
    return (a, b, transposeA = false, transposeB = false) =>
      kernel("MuscProduct", [Number(transposeA), Number(transposeB), bf16Parts()], [a, b]) as Tensor2D
  }
  // tfjs sends every product to BatchMatMulV2, which costs .1 ms more a call than MatMul. But MatMul knows no bf16.
  if (backend === "tensorflow" && precision === "f32") {
    return (a, b, transposeA = false, transposeB = false) =>
      tensorflowOp("MatMul", { T: "float32", transpose_a: transposeA, transpose_b: transposeB }, [a, b]) as Tensor2D
  }
  return (a, b, transposeA = false, transposeB = false) => tf.matMul(a, b, transposeA, transposeB)
})

/** The operation that a graph multiplies a few rows with, f32 as above: of TensorFlow, or of ours. */
export const productOp = operation(
  ({ kernels, products, precision }) =>
    (): "MatMul" | "MuscProduct" =>
      products === "own" && kernels === "vector" && precision === "f32" ? "MuscProduct" : "MatMul",
)

/**
 * Parts of 8 binary digits into which the AMX kernels split a factor: three give an f32 product, one a product in
 * bf16. See native/kernels/product.cc.
 */
export const bf16Parts = operation(
  ({ precision }) =>
    () =>
      precision === "bf16" ? 1 : 3,
)
