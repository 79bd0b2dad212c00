import type { Tensor } from "@tensorflow/tfjs"
import { tf } from "./tf"

/** Kernels of TensorFlow that tfjs does not expose, called by name on the native backend. */
export interface NativeBackend {
  binding: Record<
    "TF_ATTR_TYPE" | "TF_ATTR_BOOL" | "TF_ATTR_INT" | "TF_ATTR_STRING" | "TF_ATTR_SHAPE" | "TF_FLOAT" | "TF_INT32",
    number
  >
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

/** A name that TensorFlow takes for none: each variable made under it is one of its own. */
const anonymous = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"

/** A variable, for kernels that write in place, that holds the values of `tensor`, which is consumed: nothing is copied. */
export function variableOf(backend: NativeBackend, tensor: Tensor): Tensor {
  const { TF_ATTR_STRING, TF_ATTR_SHAPE } = backend.binding
  const attrs = [
    floatType(backend, "dtype"),
    { name: "shape", type: TF_ATTR_SHAPE, value: tensor.shape },
    { name: "container", type: TF_ATTR_STRING, value: "" },
    { name: "shared_name", type: TF_ATTR_STRING, value: anonymous },
  ]
  const variable = backend.executeSingleOutput("VarHandleOp", attrs, [])
  const type = [floatType(backend, "dtype"), flag(backend, "validate_shape", false)]
  backend.executeMultipleOutputs("AssignVariableOp", type, [variable, tensor], 0)
  tensor.dispose()
  return variable
}

/** What a variable holds, without a copy. The variable is consumed. */
export function heldBy<T extends Tensor>(backend: NativeBackend, variable: Tensor): T {
  const value = backend.executeSingleOutput("ReadVariableOp", [floatType(backend, "dtype")], [variable])
  backend.executeMultipleOutputs("DestroyResourceOp", [flag(backend, "ignore_lookup_error", false)], [variable], 0)
  variable.dispose()
  return value as T
}
