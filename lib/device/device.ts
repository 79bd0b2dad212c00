import { variable } from "../environment"
import { BackendError } from "../errors"
import { hasInstructions, threadsOfMachine } from "../machine"

/** Backends in the order in which they are tried; `tensorflow` uses CUDA by itself where it can. */
export const backendNames = ["tensorflow", "webgpu", "wasm", "cpu"] as const
export type BackendName = (typeof backendNames)[number]

/**
 * How the native backend multiplies matrices. `bf16` lets it round the factors; sums stay in f32. With AMX it rounds them
 * to 8 binary digits, with AVX512_BF16 too, but in products with matrices kept in bf16 alone. On CUDA such products have
 * 8 digits, others the 11 of TF32. Other backends always compute in f32.
 */
export const mathNames = ["f32", "bf16"] as const
export type Maths = (typeof mathNames)[number]

/** Our own kernels (native/kernels): none; by vectors; also with matrix products by the tiles of AMX. */
export type Kernels = "none" | "vector" | "amx"

/** What this machine is to a model. Found once by `useBackend`, printed, and handed to whatever depends on it. */
export interface Device {
  readonly backend: BackendName
  /** Tensors live in the memory of a GPU, where few large operations serve better than many that fit a cache. */
  readonly gpu: boolean
  readonly kernels: Kernels
  /** Products of f32 matrices: by kernels of ours, where TensorFlow's depend on the rows beside a row or are slower. */
  readonly products: "own" | "library"
  /** Runs graphs of operations in one call. */
  readonly graphs: boolean
  /** XLA compiles them, anew for each shape. */
  readonly xla?: boolean
  readonly precision: Maths
  /** Threads that this program may use. */
  readonly threads: number
}

/** Threads that this program may use: all, or as many as the user grants TensorFlow. */
export const grantedThreads = (): number => variable("TF_NUM_INTRAOP_THREADS") || threadsOfMachine()

let current: Device | undefined

/** The device of this process. @throws BackendError before a backend was chosen */
export function currentDevice(): Device {
  if (!current) throw new BackendError("backend: none is chosen yet; call `await useBackend()` first")
  return current
}

/** What a backend would be here if it ran with kernels of ours; for plans made ahead. */
export function supposedDevice({ backend, gpu }: Pick<Device, "backend" | "gpu">): Device {
  const native = backend === "tensorflow" && !gpu
  const kernels = !native ? "none" : hasInstructions("amx_bf16") ? "amx" : "vector"
  const products = native ? "own" : "library"
  const cuda = backend === "tensorflow" && gpu ? variable("MUSC_CUDA_GRAPHS") : undefined
  const graphs = native || cuda !== undefined
  const xla = cuda === "xla"
  return { backend, gpu, kernels, products, graphs, ...(xla && { xla }), precision: "f32", threads: grantedThreads() }
}

/** For `useBackend`, and tests of what another device would do. */
export function setDevice(device: Device): void {
  current = device
}

/** The device as the backend line and `doctor` name it, beyond its backend: kernels and graphs. */
export function describeDevice({ backend, gpu, kernels, graphs, xla }: Device): string {
  if (backend !== "tensorflow") return ""
  const named = {
    none: "no kernels of ours (`npx musc native --force` says why)",
    vector: "vector kernels",
    amx: "vector and AMX kernels",
  }
  const none = gpu
    ? "no graphs (MUSC_CUDA_GRAPHS=functions or xla tries them)"
    : "no graphs (run `npx musc native` for them)"
  return [...(gpu ? [] : [named[kernels]]), graphs ? `graphs${xla ? " by XLA" : ""}` : none].join(", ")
}
