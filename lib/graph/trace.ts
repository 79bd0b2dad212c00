import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { variable } from "../environment"
import { GraphBuilder, type GraphNode, type GraphType } from "../ops/builder"
import { compositionOf, type Nodes } from "../ops/composite"
import { withGradient } from "../ops/gradient"
import { type Ints, varyingConstants } from "./sizes"
import { callOf, type Example, type Ref, type Sizes, type Trace, tensorsOf, watch } from "./watch"

/**
 * A differentiable function as two graphs, its value and its gradient, made by watching which kernels it calls (as
 * jax.jit and tf.function do). It is watched at a few sizes: a whole number that differs between them must be a known
 * function of the sizes and is recomputed for each call, everything else is the same at all sizes.
 */

/**
 * Tensors by name: `a3.1` is the fourth of the second input, `a3` if it is shared; `n5:0.1` was made for the second.
 */
type Named = Readonly<Record<string, Tensor>>

/** The graphs for some inputs at once. */
interface Graphs {
  /** All that the function gives for each input, then `kept`. The caller disposes them. */
  value(args: Named, sizes: readonly Sizes[]): Tensor[]
  /** By each argument of `by`, from those of `read`, what is `kept`, and `dy.0`, `dy.1`, … */
  gradient(args: Named, sizes: readonly Sizes[]): Tensor[]
  by: readonly string[]
  read: readonly string[]
  kept: readonly string[]
}

export interface Traced {
  /** Number in the input of each tensor that is shared. */
  shared: ReadonlySet<number>
  graphs(inputs: number): Graphs
}

/**
 * What the watched function gives for each of `inputs`, by a graph in which threads compute them side by side. With a
 * gradient: the values alone, one after another in one tensor.
 */
export function replayed(inputs: readonly unknown[], { shared, graphs }: Traced, sizes: readonly Sizes[]): Tensor[][] {
  const { value, gradient, by, read, kept } = graphs(inputs.length)
  const args = Object.fromEntries(
    inputs.flatMap((input, c) => tensorsOf(input).map((tensor, i) => [nameIn(`a${i}`, c, shared.has(i)), tensor])),
  )
  if (!by.length) {
    const output = value(args, sizes)
    const each = output.length / inputs.length
    return inputs.map((_, c) => output.slice(c * each, (c + 1) * each))
  }
  const named = (names: readonly string[]) => names.map((name) => args[name]!)
  let rows: number[] = []
  const taped = withGradient(
    named(by),
    (save) => {
      const outputs = value(args, sizes)
      const rest = outputs.splice(inputs.length)
      rows = outputs.map(({ shape }) => shape[0]!)
      save([...rest, ...named(read)])
      tf.dispose(rest)
      return outputs.length > 1 ? tf.concat(outputs) : outputs[0]!
    },
    (dy, saved) => {
      const dys = rows.length > 1 ? tf.split(dy, rows) : [dy]
      const names = [...kept, ...read, ...dys.map((_, c) => `dy.${c}`)]
      return gradient({ ...args, ...Object.fromEntries([...saved, ...dys].map((x, i) => [names[i], x])) }, sizes)
    },
  )
  return [[taped]]
}

/** Name of what the watched function knows as `ref` in the graph of several inputs. */
const nameIn = (ref: Ref, input: number, isShared: boolean) => (isShared ? ref : `${ref}.${input}`)

/**
 * Watches a function at some examples, which should agree in no size, and makes its graphs. The function must do the
 * same at all sizes but for lengths. With `recompute` the gradient keeps nothing but the arguments, and makes the rest
 * again.
 * @throws Error where the function does not
 */
export function trace(examples: readonly Example[], { recompute = false, xla = false } = {}): Traced {
  const traces = examples.map(watch)
  const varying = varyingConstants(
    traces,
    examples.map(({ sizes }) => sizes),
  )
  const first = traces[0]!
  const { forward, calls } = first
  const late = new Set([...calls.slice(forward).flatMap(({ inputs }) => inputs), ...first.grads])
  const again = recompute ? new Set(calls.slice(0, forward).keys()) : madeAgain(first, late)
  for (const call of again) for (const ref of calls[call]!.inputs) late.add(ref)
  const isKept = (ref: Ref) => {
    const call = callOf(ref)
    return call !== null && call < forward && !again.has(call)
  }
  const { input, by, shared: common } = examples[0]!
  const args = tensorsOf(input)
  const shared = new Set(common.map((tensor) => args.indexOf(tensor)))
  const refs = {
    by: by.map((tensor) => `a${args.indexOf(tensor)}`),
    read: [...late].filter((ref) => ref.startsWith("a")),
    kept: [...late].filter(isKept),
  }
  const isShared = (ref: Ref) => ref.startsWith("a") && shared.has(Number(ref.slice(1)))
  const graphsBySize = new Map<number, Graphs>()
  return {
    shared,
    graphs(inputs) {
      const known = graphsBySize.get(inputs)
      if (known) return known
      const each = Array.from({ length: inputs }, (_, c) => c)
      const named = (some: readonly Ref[]) =>
        some.flatMap((ref) => (isShared(ref) ? [ref] : each.map((c) => nameIn(ref, c, false))))
      const part = { trace: first, varying, again, isShared, inputs, xla }
      const value = partOf({ ...part, from: 0, to: forward }, (inputs) => [
        ...inputs.flatMap((nodeOf) => first.results.map(nodeOf)),
        ...refs.kept.flatMap((ref) => inputs.map((nodeOf) => nodeOf(ref))),
      ])
      const sums = (inputs: readonly NodeOf[], g: GraphBuilder) =>
        refs.by.flatMap((ref, i) => {
          const grads = inputs.map((nodeOf) => nodeOf(first.grads[i]!))
          return isShared(ref) ? [grads.reduce((a, b) => add(g, a, b))] : grads
        })
      const gradient = refs.by.length ? partOf({ ...part, from: forward, to: calls.length }, sums) : () => []
      const names = { by: named(refs.by), read: named(refs.read), kept: named(refs.kept) }
      const graphs: Graphs = { value, gradient, ...names }
      graphsBySize.set(inputs, graphs)
      return graphs
    },
  }
}

/**
 * Says once a kind what cannot be traced, so that its operations are called one by one; where MUSC_GRAPHS is `strict`,
 * as in tests, it is an error.
 */
export function traceFailed(what: string, error: unknown): void {
  const reason = error instanceof Error ? error.message : String(error)
  if (variable("MUSC_GRAPHS") === "strict") throw error
  if (!noted.has(what))
    process.stderr.write(`graphs: ${what} run one operation at a time, as tracing failed: ${reason}\n`)
  noted.add(what)
}
const noted = new Set<string>()

/** Operations that take less time than it would take memory to keep what they make. */
const cheap = new Set(["MuscRmsNorm", "MuscGated"])

/** Calls of which the gradient needs the results (is `late`), and can make them again from what it has in any case. */
function madeAgain({ calls, forward }: Trace, late: ReadonlySet<Ref>): Set<number> {
  const again = new Set<number>()
  const isThere = (ref: Ref) => callOf(ref) === null || late.has(ref) || again.has(callOf(ref)!)
  calls.slice(0, forward).forEach(({ op, inputs }, i) => {
    if (cheap.has(op) && late.has(`n${i}:0`) && inputs.every(isThere)) again.add(i)
  })
  return again
}

/** What `Made` is at a call, for arguments and sizes of all inputs. */
type At<Made> = (args: Named, sizes: readonly Sizes[]) => Made
type Part = At<Tensor[]>

/** An output of a graph that is being made. */
interface Node {
  name: GraphNode
  dtype: GraphType
}

type NodeOf = (ref: Ref) => Node

const add = (g: GraphBuilder, a: Node, b: Node): Node => ({
  ...a,
  name: g.op("AddV2", [a.name, b.name], { T: a.dtype }),
})

interface PartOptions {
  trace: Trace
  from: number
  to: number
  varying: Map<Ref, Ints>
  /** earlier calls that are made again where they are needed */
  again: ReadonlySet<number>
  isShared(ref: Ref): boolean
  inputs: number
  xla: boolean
}

/** A name without the colon, which TensorFlow gives a meaning. */
const plainName = (name: string) => name.replace(":", "_")

/** Calls [from, to) of a trace as a graph, for some inputs; what they need of earlier ones is an input of the graph. */
function partOf(
  { trace, from, to, varying, again, isShared, inputs: beside, xla }: PartOptions,
  outputs: (inputs: readonly NodeOf[], g: GraphBuilder) => Node[],
): Part {
  const g = new GraphBuilder()
  const nodesById = new Map<string, At<Tensor>>()
  const nodesOf = (c: number) => {
    const nodes = new Map<string, GraphNode>()
    const input = (ref: Ref, tensor: (name: string) => At<Tensor>) => {
      const name = nameIn(ref, c, isShared(ref))
      nodesById.set(plainName(name), tensor(name))
      return g.input(plainName(name), trace.types[ref] as GraphType)
    }
    const constant = (ref: Ref): GraphNode => {
      const { values, shape } = trace.constants[Number(ref.slice(1))]!
      const ints = varying.get(ref)
      return ints
        ? input(ref, () => (_, sizes) => tf.tensor(ints(sizes[c]!), shape, "int32"))
        : g.constant(values, trace.types[ref] as GraphType, shape)
    }
    const nodeOf = (ref: Ref): GraphNode => {
      const [call, output] = ref.split(":") as [string, string?]
      const known = nodes.get(call)
      if (known) return Number(output) ? `${known}:${output}` : known
      if (again.has(callOf(ref)!)) {
        run(callOf(ref)!)
        return nodeOf(ref)
      }
      const node = ref.startsWith("c") ? constant(ref) : input(ref, (name) => (args) => args[name]!)
      if (ref.startsWith("c")) nodes.set(ref, node)
      return node
    }
    let former: GraphNode | null = null
    const run = (call: number) => {
      const { op, attrs, inputs } = trace.calls[call]!
      const inputNodes = inputs.map(nodeOf)
      // One after another: a thread stays with its input, nothing is made early, and each call has all its threads.
      const after = former ? [`^${former}`] : []
      const next: Nodes = {
        op: (type, names, attrs) => g.op(type, [...names, ...after], attrs),
        ints: (values) => g.ints(values),
      }
      const composition = compositionOf(op)
      former = composition
        ? composition(next, inputNodes)
        : next.op(op, inputNodes, /^Musc/.test(op) ? { ...attrs, beside } : attrs)
      nodes.set(`n${call}`, former)
    }
    for (let call = from; call < to; call++) run(call)
    return (ref: Ref): Node => ({ name: nodeOf(ref), dtype: trace.types[ref] as GraphType })
  }
  const each = Array.from({ length: beside }, (_, c) => nodesOf(c))
  // TensorFlow may fuse away a node that nothing else in the graph reads, though it is an output.
  const ends = outputs(each, g).map(({ name, dtype }) => g.op("Identity", [name], { T: dtype }))
  const graph = g.compile(ends, { xla })
  return (args, sizes) =>
    tf.tidy(() => graph.run(Object.fromEntries([...nodesById].map(([name, tensor]) => [name, tensor(args, sizes)]))))
}
