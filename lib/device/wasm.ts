import * as tf from "@tensorflow/tfjs-core"

/** What is used of tfjs' wasm backend. */
interface WasmBackend {
  makeOutput(shape: readonly number[], dtype: string): tf.TensorInfo
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array
  incRef(id: object): void
  disposeData(id: object): boolean
  getMemoryOffset(id: object): number
  dataIdNextNumber: number
  wasm: {
    cwrap(name: string, result: null, types: string[]): (...args: unknown[]) => void
    tfjs: { registerTensor(id: number, size: number, offset: number): void; disposeData(id: number): void }
  }
}

/** Makes the backend `wasm` ready. */
export async function registerWasm(): Promise<void> {
  await import("@tensorflow/tfjs-backend-wasm")
  if (!mended) mend()
}

interface Call {
  inputs: tf.NamedTensorInfoMap
  attrs: Record<string, unknown>
  backend: WasmBackend
}

type Kernel = (call: Call) => tf.TensorInfo | tf.TensorInfo[]

/** The same or better than `own`, tfjs' kernel, which is for all calls that give null. */
type Mended = (call: Call, own: Kernel) => ReturnType<Kernel> | null

/**
 * Better kernels instead of tfjs' own for what a decoder asks of them: its `BatchMatMul` multiplies fast (some 25
 * GFLOPS) only two single matrices as they lie, else by three plain loops (1 GFLOPS); its `Slice` copies the whole
 * tensor before it takes a part, `SplitV` does so for each part, `GatherV2` goes value by value, `Identity` copies.
 */
const kernels: Record<string, Mended> = {
  BatchMatMul: multiplied,
  Identity: ({ inputs: { x }, backend }) => {
    if (x!.dtype === "string") return null
    backend.incRef(x!.dataId)
    return { dataId: x!.dataId, shape: x!.shape, dtype: x!.dtype }
  },
  Slice: ({ inputs: { x }, attrs, backend }) => {
    const { begin, size } = attrs as { begin: number[]; size: number[] }
    return pieceOf(backend, x!, ...(tf.slice_util.parseSliceParams(x as never, begin, size) as [number[], number[]]))
  },
  SplitV: ({ inputs: { x }, attrs, backend }) => {
    if (tf.util.parseAxisParam(attrs.axis as number, x!.shape)[0] !== 0) return null
    const rest = x!.shape.slice(1)
    let at = 0
    const sizes = tf.backend_util.prepareSplitSize(x as never, attrs.numOrSizeSplits as number[], 0)
    const parts = sizes.map((size) => {
      at += size
      return pieceOf(backend, x!, [at - size, ...rest.map(() => 0)], [size, ...rest])
    })
    return parts.every((part) => part !== null) ? parts : null
  },
  GatherV2: ({ inputs: { x, indices }, attrs, backend }) => {
    if (attrs.batchDims || tf.util.parseAxisParam(attrs.axis as number, x!.shape)[0] !== 0) return null
    const [rows, ...rest] = x!.shape
    const at = backend.typedArrayFromHeap(indices!)
    if (x!.dtype === "string" || at.some((row) => row < 0 || row >= rows!)) return null
    const out = backend.makeOutput([...indices!.shape, ...rest], x!.dtype)
    const [from, to, size] = [
      backend.typedArrayFromHeap(x!),
      backend.typedArrayFromHeap(out),
      tf.util.sizeFromShape(rest),
    ]
    // Again from the heap, which the output may have moved.
    backend.typedArrayFromHeap(indices!).forEach((row, i) => {
      to.set(from.subarray(row * size, (row + 1) * size), i * size)
    })
    return out
  },
}

let mended = false

function mend(): void {
  mended = true
  for (const [name, kernel] of Object.entries(kernels)) {
    const before = tf.getKernel(name, "wasm")
    const own = before.kernelFunc as unknown as Kernel
    tf.unregisterKernel(name, "wasm")
    const mended: Kernel = (call) => kernel(call, own) ?? own(call)
    tf.registerKernel({ ...before, kernelFunc: mended as unknown as tf.KernelFunc })
  }
}

/** A part of `x`, or null where it is not of numbers or not in one piece. */
function pieceOf(backend: WasmBackend, x: tf.TensorInfo, begin: number[], size: number[]): tf.TensorInfo | null {
  if (x.dtype === "string" || !tf.slice_util.isSliceContinous(x.shape, begin, size)) return null
  const from = tf.slice_util.computeFlatOffset(begin, tf.util.computeStrides(x.shape))
  const out = backend.makeOutput(size, x.dtype) // may move the heap, so before it is looked at
  backend.typedArrayFromHeap(out).set(backend.typedArrayFromHeap(x).subarray(from, from + tf.util.sizeFromShape(size)))
  return out
}

/**
 * Rows of a matrix below which a batch of them is left to the plain loops: making a product ready takes longer then.
 */
const fewRows = 8

/** Transposes what has to be, then multiplies one pair of matrices after another, in place. */
function multiplied({ inputs, attrs, backend }: Call, own: Kernel): tf.TensorInfo | null {
  const [a, b] = [inputs.a!, inputs.b!]
  const { transposeA, transposeB } = attrs as { transposeA: boolean; transposeB: boolean }
  const lead = a.shape.slice(0, -2)
  const batch = tf.util.sizeFromShape(lead)
  const rows = a.shape.at(transposeA ? -1 : -2)!
  const alike = tf.util.arraysEqual(lead, b.shape.slice(0, -2)) && a.dtype === "float32" && b.dtype === "float32"
  if (!alike || (batch === 1 ? !transposeA && !transposeB : rows < fewRows)) return null
  const [left, right] = [transposeA ? swapped(backend, a) : a, transposeB ? swapped(backend, b) : b]
  const out =
    batch === 1 ? own({ inputs: { a: left, b: right }, attrs: {}, backend }) : each(backend, left, right, batch)
  if (transposeA) backend.disposeData(left.dataId)
  if (transposeB) backend.disposeData(right.dataId)
  return out as tf.TensorInfo
}

function swapped(backend: WasmBackend, x: tf.TensorInfo): tf.TensorInfo {
  const n = x.shape.length
  const perm = [...x.shape.keys()].map((axis) => (axis < n - 2 ? axis : 2 * n - 3 - axis))
  const transpose = tf.getKernel("Transpose", "wasm").kernelFunc as unknown as Kernel
  return transpose({ inputs: { x }, attrs: { perm }, backend }) as tf.TensorInfo
}

/** a [batch, M, K] · b [batch, K, N], matrices being given to the module by where they lie. */
function each(backend: WasmBackend, a: tf.TensorInfo, b: tf.TensorInfo, batch: number): tf.TensorInfo {
  const { tfjs, cwrap } = backend.wasm
  const [M, K, N] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!]
  const out = backend.makeOutput([...a.shape.slice(0, -1), N], "float32")
  const [n, array] = ["number", "array"]
  const multiply = cwrap("BatchMatMul", null, [n, array, n, n, array, n, n, n, n])
  const shape = (...dims: number[]) => new Uint8Array(Int32Array.from(dims).buffer)
  const [aShape, bShape] = [shape(1, M, K), shape(1, K, N)]
  const sizes = [M * K, K * N, M * N] as const
  const offsets = [a, b, out].map(({ dataId }) => backend.getMemoryOffset(dataId))
  for (let i = 0; i < batch; i++) {
    const ids = sizes.map((size, x) => {
      const id = backend.dataIdNextNumber++
      tfjs.registerTensor(id, size, offsets[x]! + 4 * size * i)
      return id
    })
    multiply(ids[0], aShape, 3, ids[1], bShape, 3, false, false, ids[2])
    for (const id of ids) tfjs.disposeData(id)
  }
  return out
}
