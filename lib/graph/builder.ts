import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"

/**
 * Graphs of TensorFlow operations that run in one call. Called one by one, an operation of tfjs takes 20 to 50 µs whatever
 * its size; in a graph, one or two. The native binding runs graphs that it has read as a SavedModel, so this writes one:
 * protocol buffers of tensorflow/core/protobuf/saved_model.proto and framework/graph.proto.
 */

/** DataType of types.proto. */
export const dtypes = { float32: 1, int32: 3, int64: 9, bool: 10 } as const
export type GraphType = keyof typeof dtypes

/** A node's first output, by name; the others are `name:1`, `name:2`, … */
export type GraphNode = string

/** Types by name, truth values, whole numbers and lists of them. */
export type GraphAttrs = Readonly<Record<string, GraphType | boolean | number | readonly number[]>>

interface GraphBackend {
  loadSavedModelMetaGraph(path: string, tags: string): number
  runSavedModel(id: number, inputs: readonly Tensor[], infos: readonly { name: string }[], outputs: string[]): Tensor[]
  deleteSavedModel(id: number): void
}

export interface CompiledGraph {
  /** Values of the outputs for tensors given by input name; the caller disposes them. */
  run(inputs: Readonly<Record<string, Tensor>>): Tensor[]
  dispose(): void
}

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

  /** Makes the graph ready to be run. @throws Error of the file system where no temporary file can be written */
  compile(outputs: readonly GraphNode[]): CompiledGraph {
    const backend = tf.backend() as unknown as GraphBackend
    const dir = mkdtempSync(join(tmpdir(), "musc-graph-"))
    try {
      writeFileSync(join(dir, "saved_model.pb"), this.savedModel())
      const id = backend.loadSavedModelMetaGraph(dir, tag)
      const infos = this.inputs.map((name) => ({ name: `${name}:0` }))
      const wanted = outputs.map((name) => (name.includes(":") ? name : `${name}:0`))
      return {
        run: (given) => {
          const tensors = this.inputs.map((name) => given[name]!)
          return backend.runSavedModel(id, tensors, infos, wanted)
        },
        dispose: () => backend.deleteSavedModel(id),
      }
    } finally {
      rmSync(dir, { recursive: true })
    }
  }

  constant(values: readonly number[], dtype: GraphType, shape: readonly number[]): GraphNode {
    const content = Buffer.from((dtype === "float32" ? Float32Array : Int32Array).from(values).buffer)
    const dims = shape.map((size) => bytes(2, varint(1, size)))
    const tensor = Buffer.concat([varint(1, dtypes[dtype]), bytes(2, Buffer.concat(dims)), bytes(4, content)])
    return this.node(`n${this.nodes.length}`, "Const", [], { dtype }, [attr("value", bytes(8, tensor))])
  }

  private node(name: string, op: string, inputs: readonly string[], attrs: GraphAttrs, more: Buffer[] = []): GraphNode {
    const parts = [bytes(1, name), bytes(2, op), ...inputs.map((input) => bytes(3, input))]
    for (const [key, value] of Object.entries(attrs)) {
      if (typeof value === "string") parts.push(attr(key, varint(6, dtypes[value])))
      else if (typeof value === "boolean") parts.push(attr(key, varint(5, Number(value))))
      else if (typeof value === "number") parts.push(attr(key, varint(3, value)))
      else parts.push(attr(key, bytes(1, Buffer.concat(value.map((entry) => varint(3, entry))))))
    }
    this.nodes.push(bytes(1, Buffer.concat([...parts, ...more])))
    return name
  }

  private savedModel(): Buffer {
    const versions = bytes(4, varint(1, producer))
    const graph = Buffer.concat([...this.nodes, versions])
    const meta = Buffer.concat([bytes(1, bytes(4, tag)), bytes(2, graph)])
    return Buffer.concat([varint(1, 1), bytes(2, meta)])
  }
}

const tag = "serve"
/** Version of the graph format that is written: that of TensorFlow 2.9. */
const producer = 1087

const attr = (name: string, value: Buffer) => bytes(5, Buffer.concat([bytes(1, name), bytes(2, value)]))

/** A field of protocol buffers that holds a number from 0. */
function varint(field: number, value: number): Buffer {
  return Buffer.concat([base128(field * 8), base128(value)])
}

/** One that holds text or a message. */
function bytes(field: number, content: string | Buffer): Buffer {
  const body = Buffer.from(content as string)
  return Buffer.concat([base128(field * 8 + 2), base128(body.length), body])
}

function base128(value: number): Buffer {
  const out: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) out.push((value % 128) + 128)
  return Buffer.from([...out, value])
}
