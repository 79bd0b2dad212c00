import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/** Kernels of TensorFlow that tfjs does not expose, called by name on the native backend. */
export interface NativeBackend {
  binding: Record<"TF_ATTR_TYPE" | "TF_ATTR_BOOL" | "TF_ATTR_INT" | "TF_FLOAT" | "TF_INT32", number>
  executeSingleOutput(name: string, attrs: readonly object[], inputs: readonly Tensor[]): Tensor
  executeMultipleOutputs(name: string, attrs: readonly object[], inputs: readonly Tensor[], outputs: number): Tensor[]
}

/** The native backend, or null on any other one. */
export function native(): NativeBackend | null {
  return tf.getBackend() === "tensorflow" ? (tf.backend() as unknown as NativeBackend) : null
}

export const floatType = ({ binding }: NativeBackend, name: string) => ({
  name,
  type: binding.TF_ATTR_TYPE,
  value: binding.TF_FLOAT,
})

export const intType = ({ binding }: NativeBackend, name: string) => ({
  name,
  type: binding.TF_ATTR_TYPE,
  value: binding.TF_INT32,
})

export const flag = ({ binding }: NativeBackend, name: string, value: boolean) => ({
  name,
  type: binding.TF_ATTR_BOOL,
  value,
})
