import type { Tensor } from "@tensorflow/tfjs-core"
import { type CompiledGraph, GraphBuilder, type GraphNode, type GraphType } from "./builder"

/**
 * Operations composed of TensorFlow's, for what tfjs has no tensors of, such as bf16. Called by itself, one is a small
 * graph. A graph that is traced gets its nodes instead: see graph/trace.ts.
 */

/** What nodes are made with. */
export type Nodes = Pick<GraphBuilder, "op" | "ints">

/** Makes nodes of some inputs, and gives the last. */
type Composition = (g: Nodes, inputs: readonly GraphNode[]) => GraphNode

const compositions = new Map<string, Composition>()

/** What a graph that is called by this name is composed of, if it is a composite. */
export const compositionOf = (name: string): Composition | undefined => compositions.get(name)

/** An operation with one output, compiled once for each list of settings. */
export function composite<Settings extends readonly (number | boolean | string)[]>(
  build: (g: Nodes, inputs: readonly GraphNode[], ...settings: Settings) => GraphNode,
): (inputs: readonly Tensor[], ...settings: Settings) => Tensor {
  const graphs = new Map<string, CompiledGraph>()
  return (inputs, ...settings) => {
    const key = settings.join()
    let graph = graphs.get(key)
    if (!graph) {
      const g = new GraphBuilder()
      const nodes = inputs.map(({ dtype }, i) => g.input(`x${i}`, dtype as GraphType))
      graph = g.compile([build(g, nodes, ...settings)])
      graphs.set(key, graph)
      compositions.set(graph.name, (others, names) => build(others, names, ...settings))
    }
    return graph.run(Object.fromEntries(inputs.map((tensor, i) => [`x${i}`, tensor])))[0]!
  }
}
