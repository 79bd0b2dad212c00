import type { Tensor } from "@tensorflow/tfjs-core"
import { bytesField, varintField } from "../data/protobuf"
import { tf } from "../device/tf"

/**
 * Graphs of TensorFlow operations that run in one call. Called one by one, an operation of tfjs takes 20 to 50 µs
 * whatever its size; in a graph, one or two. A graph becomes a function of the eager context, which is then called like
 * any operation: its inputs and outputs are the tensors of tfjs, and nothing is copied or written to disk. It is handed
 * over as protocol buffers of tensorflow/core/framework/graph.proto; see native/binding/functions.h.
 */

/** DataType of types.proto. */
export const dtypes = { float32: 1, int32: 3, int64: 9, bool: 10, bfloat16: 14 } as const
export type GraphType = keyof typeof dtypes

/** A node's first output, by name; the others are `name:1`, `name:2`, … */
export type GraphNode = string

/** Types by name, truth values, whole numbers and lists of them. */
export type GraphAttrs = Readonly<Record<string, GraphType | boolean | number | readonly number[]>>

interface GraphBackend {
  binding: {
    addGraphFunction(
      name: string,
      graph: Buffer,
      inputs: string[],
      outputs: string[],
      attributes: (string | Buffer)[],
    ): void
    removeGraphFunction(name: string): void
  }
  executeMultipleOutputs(op: string, attrs: readonly object[], inputs: readonly Tensor[], outputs: number): Tensor[]
}

/** How a graph is run. */
export interface GraphOptions {
  /** All operations on one thread: passing them on to others takes a fifth of a small model's decoding step. */
  oneThread?: boolean
  /** Compiled by XLA, again for each shape of its inputs; for operations of TensorFlow alone. */
  xla?: boolean
}

export interface CompiledGraph {
  /** by which it is called */
  name: string
  /** Values of the outputs for tensors given by input name; the caller disposes them. */
  run(inputs: Readonly<Record<string, Tensor>>): Tensor[]
  /** `run` with some inputs fixed, so that a decoding step does not look up hundreds of names. */
  with(fixed: Readonly<Record<string, Tensor>>): (others: Readonly<Record<string, Tensor>>) => Tensor[]
  dispose(): void
}

/** A graph under construction: each method adds a node and gives its name. */
export class GraphBuilder {
  private readonly nodes: Buffer[] = []
  private readonly inputs: string[] = []

  input(name: string, dtype: GraphType = "float32"): GraphNode {
    if (!this.inputs.includes(name)) {
      this.inputs.push(name)
      this.node(name, "Placeholder", [], { dtype })
    }
    return name
  }

  /** A list of whole numbers, or one. */
  ints(values: number | readonly number[]): GraphNode {
    const list = [values].flat() as number[]
    return this.constant(list, "int32", Array.isArray(values) ? [list.length] : [])
  }

  number(value: number): GraphNode {
    return this.constant([value], "float32", [])
  }

  op(type: string, inputs: readonly GraphNode[], attrs: GraphAttrs = {}): GraphNode {
    return this.node(`n${this.nodes.length}`, type, inputs, attrs)
  }

  /** An operation with several outputs. */
  outputs(type: string, inputs: readonly GraphNode[], attrs: GraphAttrs, count: number): GraphNode[] {
    const node = this.op(type, inputs, attrs)
    return Array.from({ length: count }, (_, i) => (i ? `${node}:${i}` : node))
  }

  /** Makes the graph ready to be run. @throws Error of TensorFlow where it is none */
  compile(outputs: readonly GraphNode[], { oneThread = false, xla = false }: GraphOptions = {}): CompiledGraph {
    const backend = tf.backend() as unknown as GraphBackend
    const name = `MuscGraph${++compiled}`
    const attributes = [
      ...(xla ? ["_XlaMustCompile", varintField(5, 1)] : []),
      ...(oneThread ? ["_executor", bytesField(2, "SINGLE_THREADED_EXECUTOR")] : []),
    ]
    backend.binding.addGraphFunction(name, this.graph(), this.inputs, [...outputs], attributes)
    const run = (tensors: readonly Tensor[]) => backend.executeMultipleOutputs(name, [], tensors, outputs.length)
    return {
      name,
      run: (tensors) => run(this.inputs.map((input) => tensors[input]!)),
      with: (fixed) => {
        const tensors = this.inputs.map((input) => fixed[input]!)
        const open = [...this.inputs.entries()].filter(([, input]) => !(input in fixed))
        return (others) => {
          for (const [i, input] of open) tensors[i] = others[input]!
          return run(tensors)
        }
      },
      dispose: () => backend.binding.removeGraphFunction(name),
    }
  }

  constant(values: readonly number[], dtype: GraphType, shape: readonly number[]): GraphNode {
    const content = Buffer.from((dtype === "float32" ? Float32Array : Int32Array).from(values).buffer)
    const dims = shape.map((size) => bytesField(2, varintField(1, size)))
    const tensor = [varintField(1, dtypes[dtype]), bytesField(2, ...dims), bytesField(4, content)]
    return this.node(`n${this.nodes.length}`, "Const", [], { dtype }, [attr("value", bytesField(8, ...tensor))])
  }

  private node(name: string, op: string, inputs: readonly string[], attrs: GraphAttrs, more: Buffer[] = []): GraphNode {
    const parts = [bytesField(1, name), bytesField(2, op), ...inputs.map((input) => bytesField(3, input))]
    for (const [key, value] of Object.entries(attrs)) {
      if (typeof value === "string") parts.push(attr(key, varintField(6, dtypes[value])))
      else if (typeof value === "boolean") parts.push(attr(key, varintField(5, Number(value))))
      else if (typeof value === "number") parts.push(attr(key, varintField(3, value)))
      else parts.push(attr(key, bytesField(1, ...value.map((entry) => varintField(3, entry)))))
    }
    this.nodes.push(bytesField(1, ...parts, ...more))
    return name
  }

  private graph(): Buffer {
    return Buffer.concat([...this.nodes, bytesField(4, varintField(1, producer))])
  }
}

/** Graphs so far, by whose number they are called. */
let compiled = 0

/** Version of the graph format that is written: that of TensorFlow 2.9. */
const producer = 1087

const attr = (name: string, value: Buffer) => bytesField(5, bytesField(1, name), bytesField(2, value))
