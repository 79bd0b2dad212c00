import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "./gradient"
import { kernel, tensorflowOp } from "./kernel"
import { operation } from "./operation"

/** Rows of `table` [V, D] by index `ids` [M] -> [M, D]. */
export const lookup = operation<(table: Tensor2D, ids: Tensor1D) => Tensor2D>(({ backend }) =>
  backend === "wasm" ? wasmLookup : (table, ids) => tf.gather(table, ids),
)

/** tfjs has no gradient of `gather` on wasm. */
const wasmLookup = (table: Tensor2D, ids: Tensor1D): Tensor2D =>
  withGradient(
    [table],
    (save) => {
      save([ids])
      return tf.gather(table, ids)
    },
    (dy: Tensor2D, [at]) => [tf.scatterND(tf.expandDims(at!, 1), dy, table.shape)],
  )

type WriteRows = (buffer: Tensor2D, at: Tensor1D, rows: Tensor2D) => Tensor2D

/**
 * Writes `rows` [R, H] into `buffer` [P, H] at row numbers `at` [R] and returns the result; `buffer` is consumed. On
 * `tensorflow` nothing is copied, elsewhere a new buffer is made.
 */
export const writeRows = operation<WriteRows>(({ kernels, backend }) => {
  const written: WriteRows =
    kernels !== "none"
      ? (buffer, at, rows) => kernel("MuscWriteRows", [1], [buffer, at, rows]) as Tensor2D
      : backend === "tensorflow"
        ? (buffer, at, rows) => tensorflowOp("InplaceUpdate", { T: "float32" }, [buffer, at, rows]) as Tensor2D
        : (buffer, at, rows) => tf.tidy(() => tf.tensorScatterUpdate(buffer, tf.expandDims(at, 1), rows) as Tensor2D)
  return (buffer, at, rows) => {
    const out = written(buffer, at, rows)
    buffer.dispose()
    return out
  }
})
