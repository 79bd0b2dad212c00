import * as tf from "@tensorflow/tfjs"

/** What is used of tfjs' wasm backend. */
interface WasmBackend {
  makeOutput(shape: readonly number[], dtype: string): tf.TensorInfo
  typedArrayFromHeap(tensor: tf.TensorInfo): Float32Array
}

/** Makes the backend `wasm` ready. */
export async function registerWasm(): Promise<void> {
  await import("@tensorflow/tfjs-backend-wasm")
  if (!mended) mendSlice()
}

let mended = false

/**
 * Puts a better kernel in the place of tfjs' `Slice`, which copies the whole tensor before it takes a part: one row of a
 * thousand costs as much as all of them. A part that lies in one piece is now copied alone.
 */
function mendSlice(): void {
  mended = true
  const before = tf.getKernel("Slice", "wasm")
  tf.unregisterKernel("Slice", "wasm")
  tf.registerKernel({
    ...before,
    kernelFunc: (call) => pieceOf(call as unknown as SliceCall) ?? before.kernelFunc(call),
  })
}

interface SliceCall {
  inputs: tf.NamedTensorInfoMap
  attrs: tf.NamedAttrMap & { begin: number[]; size: number[] }
  backend: WasmBackend
}

/** The part, or null where it is not a number's or not in one piece. */
function pieceOf({ inputs: { x }, attrs, backend }: SliceCall): tf.TensorInfo | null {
  if (!x || x.dtype === "string") return null
  const [begin, size] = tf.slice_util.parseSliceParams(x as never, attrs.begin, attrs.size) as [number[], number[]]
  if (!tf.slice_util.isSliceContinous(x.shape, begin, size)) return null
  const from = tf.slice_util.computeFlatOffset(begin, tf.util.computeStrides(x.shape))
  const out = backend.makeOutput(size, x.dtype) // may move the heap, so before it is looked at
  backend.typedArrayFromHeap(out).set(backend.typedArrayFromHeap(x).subarray(from, from + tf.util.sizeFromShape(size)))
  return out
}
