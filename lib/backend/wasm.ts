import * as tf from "@tensorflow/tfjs"

/** What is used of tfjs' wasm backend. */
interface WasmBackend {
  makeOutput(shape: readonly number[], dtype: string): tf.TensorInfo
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array
  incRef(id: object): void
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

/** What a kernel gives, or null where the call is for tfjs' own. */
type Kernel = (call: Call) => tf.TensorInfo | tf.TensorInfo[] | null

/**
 * Better kernels in the place of tfjs' own for what training asks of them: its `Slice` copies the whole tensor before it
 * takes a part, `SplitV` does so for each part, `GatherV2` goes value by value, `Identity` copies.
 */
const kernels: Record<string, Kernel> = {
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
    tf.unregisterKernel(name, "wasm")
    const kernelFunc: tf.KernelFunc = (call) => kernel(call as unknown as Call) ?? before.kernelFunc(call)
    tf.registerKernel({ ...before, kernelFunc })
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
