import { type CompiledGraph, GraphBuilder, GraphCache } from "../backend/graph"
import type { LoraTarget } from "./lora"
import type { Params } from "./transformer"

/** Matrices that are held together, and the targets that are their columns. */
export type Joined = readonly (readonly [name: string, targets: readonly LoraTarget[]])[]

const graphs = new GraphCache()

/**
 * W + (scale A) B of every matrix of a layer, and scale A and scale B of its targets, in one call: two thirds of the time
 * that they take one by one. Names as in Params, without the layer. Null where there is no graph (`GraphCache`).
 */
export function effectiveLayer(joined: Joined, scale: number, inputs: Params): Params | null {
  const graph = graphs.get([joined, scale], () => build(joined, scale))
  if (!graph) return null
  const values = graph.run(inputs)
  return Object.fromEntries(outputsOf(joined).map((name, i) => [name, values[i]!]))
}

const outputsOf = (joined: Joined): string[] =>
  joined.flatMap(([name, targets]) => [name, ...targets.flatMap((target) => [`${target}.A`, `${target}.B`])])

function build(joined: Joined, scale: number): CompiledGraph {
  const g = new GraphBuilder()
  const T = "float32"
  const factor = g.number(scale)
  const scaled = (name: string) => g.op("Mul", [g.input(name), factor], { T })
  const outputs = joined.flatMap(([name, targets]) => {
    const parts = targets.map((target) => {
      const [A, B] = [`${target}.A`, `${target}.B`].map(scaled) as [string, string]
      const delta = g.op("MatMul", [g.input(`${target}.A`), B], { T, transpose_a: false, transpose_b: false })
      return { A, B, delta }
    })
    const deltas = parts.map(({ delta }) => delta)
    const whole =
      deltas.length > 1 ? g.op("ConcatV2", [...deltas, g.ints(1)], { N: deltas.length, T, Tidx: "int32" }) : deltas[0]!
    return [g.op("AddV2", [g.input(name), whole], { T }), ...parts.flatMap(({ A, B }) => [A, B])]
  })
  return g.compile(outputs)
}
