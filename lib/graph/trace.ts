import type { Tensor } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { variable } from "../environment"
import { gradients, mapTensors, withGradient } from "../ops/gradient"
import { dtypes, type GraphAttrs, GraphBuilder, type GraphNode, type GraphType } from "./builder"

/**
 * A differentiable function as two graphs, its value and its gradient, made by watching which kernels it calls (as
 * jax.jit and tf.function do). It is watched at a few sizes: a whole number that differs between them must be a known
 * function of the sizes and is recomputed for each call, everything else is the same at all sizes.
 */

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
type Ref = string

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

interface Trace {
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

function watch({ input, by, dy, run }: Example): Trace {
  const args = tensorsOf(input)
  const backend = tf.backend() as unknown as WatchedBackend
  const refs = new Map<object, Ref>(args.map(({ dataId }, i) => [dataId, `a${i}`]))
  refs.set(dy.dataId, "dy")
  const types = Object.fromEntries(args.map(({ dtype }, i) => [`a${i}`, dtype as string]))
  const record: Trace = {
    types: { ...types, dy: "float32" },
    calls: [],
    constants: [],
    forward: 0,
    results: [],
    grads: [],
  }
  const refOf = ({ dataId, dtype, shape, size }: Tensor): Ref => {
    const known = refs.get(dataId)
    if (known) return known
    if (size > mostValues) throw new Error(`trace: a constant has at most ${mostValues} values, got ${size}`)
    const ref = `c${record.constants.length}`
    record.constants.push({ dtype, shape, values: Array.from(backend.readSync(dataId)) })
    record.types[ref] = dtype
    refs.set(dataId, ref)
    return ref
  }
  const note = (op: string, attrs: readonly Attr[], inputs: readonly Tensor[], outputs: readonly Tensor[]) => {
    const named = Object.fromEntries(
      attrs.map(({ name, type, value }) => [name, type === backend.binding.TF_ATTR_TYPE ? typeNamed(value) : value]),
    )
    // The one operation whose type tfjs leaves to be inferred.
    if (op === "ExpandDims") named.T = inputs[0]!.dtype as GraphType
    const call = record.calls.push({ op, attrs: named, inputs: inputs.map(refOf) }) - 1
    outputs.forEach(({ dataId, dtype }, i) => {
      refs.set(dataId, `n${call}:${i}`)
      record.types[`n${call}:${i}`] = dtype
    })
  }
  const plain = { one: backend.executeSingleOutput, several: backend.executeMultipleOutputs }
  backend.executeSingleOutput = (op, attrs, inputs) => {
    const output = plain.one.call(backend, op, attrs, inputs)
    note(op, attrs, inputs, [output])
    return output
  }
  backend.executeMultipleOutputs = (op, attrs, inputs, count) => {
    const outputs = plain.several.call(backend, op, attrs, inputs, count)
    note(op, attrs, inputs, outputs)
    return outputs
  }
  try {
    tf.tidy(() => {
      const value = () => {
        const outputs = run()
        record.results = outputs.map(refOf)
        record.forward = record.calls.length
        return outputs[0]!
      }
      if (by.length) record.grads = gradients(value, [...by], dy).map((grad) => refOf(grad!))
      else value()
    })
  } finally {
    Object.assign(backend, { executeSingleOutput: plain.one, executeMultipleOutputs: plain.several })
  }
  return record
}

const typeNamed = (value: unknown): GraphType => {
  const dtype = (Object.keys(dtypes) as GraphType[]).find((name) => dtypes[name] === value)
  if (!dtype) throw new Error(`trace: element type must be one of ${Object.keys(dtypes)}, got ${value}`)
  return dtype
}

/** A list of whole numbers that depends on the sizes. */
type Ints = (sizes: Sizes) => number[]

/** Numbers that sizes give: M, B, lengths between cuts, and B times those. */
function sizeExpressions({ rows, selected, cuts }: Sizes): number[] {
  const lengths = cuts.flatMap((to, j) => cuts.slice(0, j).map((from) => to - from))
  return [selected, rows, ...lengths, ...lengths.map((length) => rows * length)]
}

/** What gives `values` at `sizes`: the same number, or the smallest multiple of a size expression. */
function solveForSize(values: readonly number[], sizes: readonly Sizes[]): (sizes: Sizes) => number {
  if (values.every((value) => value === values[0])) return () => values[0]!
  const known = sizes.map(sizeExpressions)
  const fits = known[0]!.flatMap((expression, i) => {
    const factor = values[0]! / expression
    return Number.isInteger(factor) && values.every((value, k) => value === factor * known[k]![i]!)
      ? [{ factor, i }]
      : []
  })
  const [best] = fits.sort((a, b) => a.factor - b.factor)
  if (!best) throw new Error(`trace: ${values} must follow from the sizes`)
  return (others) => best.factor * sizeExpressions(others)[best.i]!
}

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
 * Constants that are not the same at all sizes, as functions of the sizes.
 * @throws Error where traces differ in more than lengths
 */
function varyingConstants(traces: readonly Trace[], sizes: readonly Sizes[]): Map<Ref, Ints> {
  const [first, ...others] = traces as [Trace, ...Trace[]]
  const same = ({ constants, ...rest }: Trace) =>
    JSON.stringify([rest, constants.map(({ dtype, shape }) => [dtype, shape])])
  if (others.some((other) => same(other) !== same(first))) throw new Error("trace: must be alike at all sizes")
  const shown = sizes.map(sizeExpressions)
  const columns = shown[0]!.map((_, i) => shown.map((row) => row[i]).join())
  if (new Set(columns).size < columns.length) throw new Error("trace: examples must tell all lengths apart")
  const varying = new Map<Ref, Ints>()
  first.constants.forEach(({ dtype, values }, c) => {
    const all = traces.map(({ constants }) => constants[c]!.values)
    if (all.every((some) => some.join() === values.join())) return
    if (dtype !== "int32") throw new Error("trace: numbers other than sizes must be arguments")
    const entries = values.map((_, i) =>
      solveForSize(
        all.map((some) => some[i]!),
        sizes,
      ),
    )
    varying.set(`c${c}`, (at) => entries.map((entry) => entry(at)))
  })
  return varying
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

/** Number of the call that makes something, null for arguments and constants. */
function callOf(ref: Ref): number | null {
  const call = /^n(\d+):/.exec(ref)
  return call && Number(call[1])
}

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
      if (former) inputNodes.push(`^${former}`)
      former = g.op(op, inputNodes, /^Musc/.test(op) ? { ...attrs, beside } : attrs)
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
