import type { Tensor } from "@tensorflow/tfjs"
import { withGradient } from "./gradient"
import { type CompiledGraph, dtypes, type GraphAttrs, GraphBuilder, type GraphType } from "./graph"
import { gradients, mapTensors } from "./recompute"
import { tf } from "./tf"

/**
 * A differentiable function as two graphs, its value and its gradient, made by watching which kernels it calls (as jax.jit
 * and tf.function do). It is watched at a few sizes: a whole number that differs between them must be a known function of
 * the sizes and is computed anew for each call, everything else is the same at all sizes.
 */

/** What may differ from call to call: rows, tokens asked for, and places along a row, ascending, from 0 to its length. */
export interface Sizes {
  rows: number
  asked: number
  cuts: readonly number[]
}

/** A function to be watched at some sizes: a tree of tensors in, one tensor out, or more where no gradient is wanted. */
export interface Example {
  sizes: Sizes
  input: unknown
  /** what a gradient is wanted by, if anything, for `dy` */
  by: readonly Tensor[]
  dy: Tensor
  /** Its value, then what else is wanted of it. */
  run(): Tensor[]
}

/** The graphs. Arguments are the tensors of the input, each once, in their order. */
export interface Traced {
  /** All that it gives, the value first, and what the gradient needs besides. The caller disposes them. */
  value(args: readonly Tensor[], sizes: Sizes): { made: Tensor[]; rest: Tensor[] }
  /** Gradient by each argument of `by`. */
  gradient(args: readonly Tensor[], rest: readonly Tensor[], dy: Tensor, sizes: Sizes): Tensor[]
  /** Numbers of the arguments by which there is a gradient, and of those that it reads. */
  by: readonly number[]
  read: readonly number[]
}

/** What the watched function gives for `input`, by its graphs. */
export function replayed(input: unknown, { value, gradient, by, read }: Traced, sizes: Sizes): Tensor[] {
  const args = tensorsOf(input)
  if (!by.length) return value(args, sizes).made
  const taped = withGradient(
    by.map((i) => args[i]!),
    (save) => {
      const { made, rest } = value(args, sizes)
      save([...rest, ...read.map((i) => args[i]!)])
      tf.dispose(rest)
      return made[0]!
    },
    (dy, saved) => {
      const all = [...args]
      read.forEach((at, i) => {
        all[at] = saved[saved.length - read.length + i]!
      })
      return gradient(all, saved, dy, sizes)
    },
  )
  return [taped]
}

function tensorsOf(input: unknown): Tensor[] {
  const found = new Set<Tensor>()
  mapTensors(input, (tensor) => {
    found.add(tensor)
    return tensor
  })
  return [...found]
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
  made: Ref[]
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
  const seen: Trace = { types: { ...types, dy: "float32" }, calls: [], constants: [], forward: 0, made: [], grads: [] }
  const refOf = ({ dataId, dtype, shape, size }: Tensor): Ref => {
    const known = refs.get(dataId)
    if (known) return known
    if (size > mostValues) throw new Error(`trace: a constant has at most ${mostValues} values, got ${size}`)
    const ref = `c${seen.constants.length}`
    seen.constants.push({ dtype, shape, values: Array.from(backend.readSync(dataId)) })
    seen.types[ref] = dtype
    refs.set(dataId, ref)
    return ref
  }
  const note = (op: string, attrs: readonly Attr[], inputs: readonly Tensor[], outputs: readonly Tensor[]) => {
    const named = Object.fromEntries(
      attrs.map(({ name, type, value }) => [name, type === backend.binding.TF_ATTR_TYPE ? typeNamed(value) : value]),
    )
    // The one operation whose type tfjs leaves to be inferred.
    if (op === "ExpandDims") named.T = inputs[0]!.dtype as GraphType
    const call = seen.calls.push({ op, attrs: named, inputs: inputs.map(refOf) }) - 1
    outputs.forEach(({ dataId, dtype }, i) => {
      refs.set(dataId, `n${call}:${i}`)
      seen.types[`n${call}:${i}`] = dtype
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
        const made = run()
        seen.made = made.map(refOf)
        seen.forward = seen.calls.length
        return made[0]!
      }
      if (by.length) seen.grads = gradients(value, [...by], dy).map((grad) => refOf(grad!))
      else value()
    })
  } finally {
    Object.assign(backend, { executeSingleOutput: plain.one, executeMultipleOutputs: plain.several })
  }
  return seen
}

const typeNamed = (value: unknown): GraphType => {
  const found = (Object.keys(dtypes) as GraphType[]).find((name) => dtypes[name] === value)
  if (!found) throw new Error(`trace: element type must be one of ${Object.keys(dtypes)}, got ${value}`)
  return found
}

/** A list of whole numbers that depends on the sizes. */
type Ints = (sizes: Sizes) => number[]

/** Numbers that sizes give: M, B, lengths between cuts, and B times those. */
function measures({ rows, asked, cuts }: Sizes): number[] {
  const lengths = cuts.flatMap((to, j) => cuts.slice(0, j).map((from) => to - from))
  return [asked, rows, ...lengths, ...lengths.map((length) => rows * length)]
}

/** What gives `values` at `sizes`: the same number, or the smallest multiple of a measure. */
function fitted(values: readonly number[], sizes: readonly Sizes[]): (sizes: Sizes) => number {
  if (values.every((value) => value === values[0])) return () => values[0]!
  const known = sizes.map(measures)
  const fits = known[0]!.flatMap((measure, i) => {
    const factor = values[0]! / measure
    return Number.isInteger(factor) && values.every((value, k) => value === factor * known[k]![i]!)
      ? [{ factor, i }]
      : []
  })
  const [best] = fits.sort((a, b) => a.factor - b.factor)
  if (!best) throw new Error(`trace: ${values} must follow from the sizes`)
  return (others) => best.factor * measures(others)[best.i]!
}

/**
 * Watches a function at some examples, which should agree in no size, and makes its graphs. The function must do the same
 * at all sizes but for lengths. @throws Error where it does not; of the file system where no temporary file can be written
 */
export function trace(examples: readonly Example[]): Traced {
  const traces = examples.map(watch)
  const [first, ...others] = traces as [Trace, ...Trace[]]
  const same = ({ constants, ...rest }: Trace) =>
    JSON.stringify([rest, constants.map(({ dtype, shape }) => [dtype, shape])])
  if (others.some((other) => same(other) !== same(first))) throw new Error("trace: must be alike at all sizes")
  const sizes = examples.map((example) => example.sizes)
  const shown = sizes.map(measures)
  const columns = shown[0]!.map((_, i) => shown.map((row) => row[i]).join())
  if (new Set(columns).size < columns.length) throw new Error("trace: examples must tell all lengths apart")
  const varying = new Map<Ref, Ints>()
  first.constants.forEach(({ dtype, values }, c) => {
    const all = traces.map(({ constants }) => constants[c]!.values)
    if (all.every((some) => some.join() === values.join())) return
    if (dtype !== "int32") throw new Error("trace: numbers other than sizes must be arguments")
    const entries = values.map((_, i) =>
      fitted(
        all.map((some) => some[i]!),
        sizes,
      ),
    )
    varying.set(`c${c}`, (at) => entries.map((entry) => entry(at)))
  })

  const isFrom = (ref: Ref, from: number, to: number) => {
    const call = /^n(\d+):/.exec(ref)
    return call !== null && Number(call[1]) >= from && Number(call[1]) < to
  }
  const { forward, calls } = first
  const late = [...calls.slice(forward).flatMap(({ inputs }) => inputs), ...first.grads]
  const kept = [...new Set(late.filter((ref) => isFrom(ref, 0, forward)))]
  const value = partOf(first, 0, forward, [...first.made, ...kept], varying)
  const gradient = first.grads.length ? partOf(first, forward, calls.length, first.grads, varying) : () => []
  const given = (args: readonly Tensor[]) => Object.fromEntries(args.map((arg, i) => [`a${i}`, arg]))
  return {
    value(args, at) {
      const outputs = value(given(args), at)
      return { made: outputs.slice(0, first.made.length), rest: outputs.slice(first.made.length) }
    },
    gradient: (args, rest, dy, at) =>
      gradient({ ...given(args), ...Object.fromEntries(kept.map((ref, i) => [plainName(ref), rest[i]!])), dy }, at),
    by: (({ input, by }) => by.map((tensor) => tensorsOf(input).indexOf(tensor)))(examples[0]!),
    read: [...new Set(late.filter((ref) => ref.startsWith("a")))].map((ref) => Number(ref.slice(1))),
  }
}

type Part = (inputs: Readonly<Record<string, Tensor>>, sizes: Sizes) => Tensor[]

/** A name without the colon, which TensorFlow gives a meaning. */
const plainName = (ref: Ref) => ref.replace(":", "_")

/** Calls [from, to) of a trace as a graph; what they need of earlier ones is an input. */
function partOf(trace: Trace, from: number, to: number, outputs: readonly Ref[], varying: Map<Ref, Ints>): Part {
  const g = new GraphBuilder()
  const nodes = new Map<string, string>()
  const made = new Map<Ref, Ints>()
  const nodeOf = (ref: Ref): string => {
    const [call, output] = ref.split(":") as [string, string?]
    const known = nodes.get(call)
    if (known) return Number(output) ? `${known}:${output}` : known
    const dtype = trace.types[ref] as GraphType
    const ints = varying.get(ref)
    const constant = ref.startsWith("c") && !ints ? trace.constants[Number(ref.slice(1))]! : null
    if (ints) made.set(ref, ints)
    if (!constant) return g.input(plainName(ref), dtype)
    const node = g.constant(constant.values, dtype, constant.shape)
    nodes.set(ref, node)
    return node
  }
  trace.calls.slice(from, to).forEach(({ op, attrs, inputs }, i) => {
    nodes.set(`n${from + i}`, g.op(op, inputs.map(nodeOf), attrs))
  })
  // TensorFlow may fuse away a node that nothing else in the graph reads, though it is an output.
  const ends = outputs.map((ref) => g.op("Identity", [nodeOf(ref)], { T: trace.types[ref] as GraphType }))
  const graph: CompiledGraph = g.compile(ends)
  return (inputs, sizes) => {
    const numbers: Record<string, Tensor> = {}
    for (const [ref, ints] of made) {
      const { shape } = trace.constants[Number(ref.slice(1))]!
      numbers[ref] = tf.tensor(ints(sizes), shape, "int32")
    }
    const results = graph.run({ ...inputs, ...numbers })
    tf.dispose(numbers)
    return results
  }
}
