import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { dtypes, type GraphAttrs, type GraphType } from "../ops/builder"
import { gradients, mapTensors } from "../ops/gradient"

/** Which kernels a function calls, seen by standing in for the backend while it runs. */

/**
 * What may differ from call to call: rows, selected tokens, and places along a row, ascending, from 0 to its length.
 */
export interface Sizes {
  rows: number
  selected: number
  cuts: readonly number[]
}

/**
 * A function to be watched at some sizes: a tree of tensors in, one tensor out, or more where no gradient is wanted.
 */
export interface Example {
  sizes: Sizes
  input: unknown
  /** tensors of the input that are the same for all inputs that are computed together */
  shared: readonly Tensor[]
  /** what a gradient is wanted by, if anything, for `dy` */
  by: readonly Tensor[]
  dy: Tensor
  /** Its value, then what else is wanted of it. */
  run(): Tensor[]
}

/** The tensors of a tree, each once, in their order. */
export function tensorsOf(input: unknown): Tensor[] {
  const tensors = new Set<Tensor>()
  mapTensors(input, (tensor) => {
    tensors.add(tensor)
    return tensor
  })
  return [...tensors]
}

/** An argument `a3`, an output of a call `n5:0`, a constant `c7`, or `dy`. */
export type Ref = string

interface Call {
  op: string
  attrs: GraphAttrs
  inputs: Ref[]
}

interface Constant {
  dtype: string
  shape: number[]
  values: number[]
}

export interface Trace {
  /** Element types of all that is named. */
  types: Record<Ref, string>
  calls: Call[]
  constants: Constant[]
  /** Calls that make what `run` gives; the others make the gradient. */
  forward: number
  results: Ref[]
  grads: Ref[]
}

interface Attr {
  name: string
  type: number
  value: number | boolean | number[]
}

interface WatchedBackend {
  binding: { TF_ATTR_TYPE: number }
  executeSingleOutput(op: string, attrs: readonly Attr[], inputs: readonly Tensor[]): Tensor
  executeMultipleOutputs(op: string, attrs: readonly Attr[], inputs: readonly Tensor[], outputs: number): Tensor[]
  readSync(dataId: object): ArrayLike<number>
}

/** Constants of more values than these are none: they must be arguments. */
const mostValues = 64

/** Runs the function of an example, with its gradient where one is wanted, and notes each call. */
export function watch(example: Example): Trace {
  const { by, dy, run } = example
  const backend = tf.backend() as unknown as WatchedBackend
  const recording = new Recording(example, backend)
  const { trace } = recording
  const plain = { one: backend.executeSingleOutput, several: backend.executeMultipleOutputs }
  backend.executeSingleOutput = (op, attrs, inputs) => {
    const output = plain.one.call(backend, op, attrs, inputs)
    recording.add(op, attrs, inputs, [output])
    return output
  }
  backend.executeMultipleOutputs = (op, attrs, inputs, count) => {
    const outputs = plain.several.call(backend, op, attrs, inputs, count)
    recording.add(op, attrs, inputs, outputs)
    return outputs
  }
  try {
    tf.tidy(() => {
      const value = () => {
        const outputs = run()
        trace.results = outputs.map((output) => recording.refOf(output))
        trace.forward = trace.calls.length
        return outputs[0]!
      }
      if (by.length) trace.grads = gradients(value, [...by], dy).map((grad) => recording.refOf(grad!))
      else value()
    })
  } finally {
    Object.assign(backend, { executeSingleOutput: plain.one, executeMultipleOutputs: plain.several })
  }
  return trace
}

/** The calls of a function, with names for all tensors that they take and give. */
class Recording {
  readonly trace: Trace
  private readonly refs: Map<object, Ref>

  constructor(
    { input, dy }: Example,
    private readonly backend: WatchedBackend,
  ) {
    const args = tensorsOf(input)
    this.refs = new Map<object, Ref>(args.map(({ dataId }, i) => [dataId, `a${i}`]))
    this.refs.set(dy.dataId, "dy")
    const types = Object.fromEntries(args.map(({ dtype }, i) => [`a${i}`, dtype as string]))
    const empty = { calls: [], constants: [], forward: 0, results: [], grads: [] }
    this.trace = { types: { ...types, dy: "float32" }, ...empty }
  }

  /** The name of a tensor. One that no call has given is a constant. */
  refOf({ dataId, dtype, shape, size }: Tensor): Ref {
    const known = this.refs.get(dataId)
    if (known) return known
    if (size > mostValues) throw new Error(`trace: a constant has at most ${mostValues} values, got ${size}`)
    const { constants, types } = this.trace
    const ref = `c${constants.length}`
    constants.push({ dtype, shape, values: Array.from(this.backend.readSync(dataId)) })
    types[ref] = dtype
    this.refs.set(dataId, ref)
    return ref
  }

  add(op: string, attrs: readonly Attr[], inputs: readonly Tensor[], outputs: readonly Tensor[]): void {
    const isType = ({ type }: Attr) => type === this.backend.binding.TF_ATTR_TYPE
    const named: Record<string, GraphAttrs[string]> = Object.fromEntries(
      attrs.map((attr) => [attr.name, isType(attr) ? typeNamed(attr.value) : attr.value]),
    )
    // The one operation whose type tfjs leaves to be inferred.
    if (op === "ExpandDims") named.T = inputs[0]!.dtype as GraphType
    const call = this.trace.calls.push({ op, attrs: named, inputs: inputs.map((input) => this.refOf(input)) }) - 1
    outputs.forEach(({ dataId, dtype }, i) => {
      this.refs.set(dataId, `n${call}:${i}`)
      this.trace.types[`n${call}:${i}`] = dtype
    })
  }
}

const typeNamed = (value: unknown): GraphType => {
  const dtype = (Object.keys(dtypes) as GraphType[]).find((name) => dtypes[name] === value)
  if (!dtype) throw new Error(`trace: element type must be one of ${Object.keys(dtypes)}, got ${value}`)
  return dtype
}

/** Number of the call that makes something, null for arguments and constants. */
export function callOf(ref: Ref): number | null {
  const call = /^n(\d+):/.exec(ref)
  return call && Number(call[1])
}
