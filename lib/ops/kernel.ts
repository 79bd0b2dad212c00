import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/** Kernels called by name on the native backend: those of TensorFlow that tfjs does not expose, and our own. */

interface NativeBackend {
  binding: Record<"TF_ATTR_TYPE" | "TF_ATTR_BOOL" | "TF_ATTR_INT" | "TF_FLOAT" | "TF_INT32", number>
  executeSingleOutput(name: string, attrs: readonly object[], inputs: readonly Tensor[]): Tensor
  executeMultipleOutputs(name: string, attrs: readonly object[], inputs: readonly Tensor[], outputs: number): Tensor[]
}

const native = () => tf.backend() as unknown as NativeBackend

/** Element types, truth values, whole numbers and lists of them, by name. */
export type KernelAttrs = Readonly<Record<string, "float32" | "int32" | boolean | number | readonly number[]>>

const attrsOf = ({ binding }: NativeBackend, attrs: KernelAttrs) =>
  Object.entries(attrs).map(([name, value]) => {
    if (typeof value === "string")
      return { name, type: binding.TF_ATTR_TYPE, value: value === "float32" ? binding.TF_FLOAT : binding.TF_INT32 }
    return { name, type: typeof value === "boolean" ? binding.TF_ATTR_BOOL : binding.TF_ATTR_INT, value }
  })

/** A kernel of TensorFlow with one output. */
export function tensorflowOp(name: string, attrs: KernelAttrs, inputs: readonly Tensor[]): Tensor {
  const backend = native()
  return backend.executeSingleOutput(name, attrsOf(backend, attrs), inputs)
}

/** A kernel of TensorFlow with several outputs. */
export function tensorflowOps(name: string, attrs: KernelAttrs, inputs: readonly Tensor[], outputs: number): Tensor[] {
  const backend = native()
  return backend.executeMultipleOutputs(name, attrsOf(backend, attrs), inputs, outputs)
}

/** A kernel of our own with one output; what the settings mean stands above it in native/kernels. */
export const kernel = (name: string, settings: readonly number[], inputs: readonly Tensor[]): Tensor =>
  tensorflowOp(name, { settings }, inputs)

/** One with two outputs. */
export const kernelPair = (name: string, settings: readonly number[], inputs: readonly Tensor[]): [Tensor, Tensor] =>
  tensorflowOps(name, { settings }, inputs, 2) as [Tensor, Tensor]

/**
 * One with any number of outputs; `listed` is the length of its list of inputs or outputs ("N * float"), if it has one.
 */
export const kernelOutputs = (
  name: string,
  settings: readonly number[],
  inputs: readonly Tensor[],
  outputs: number,
  listed?: number,
): Tensor[] => tensorflowOps(name, listed === undefined ? { settings } : { settings, N: listed }, inputs, outputs)
