import { existsSync } from "node:fs"
import path from "node:path"
import util from "node:util"
import * as tf from "@tensorflow/tfjs-core"
import { BackendError } from "../errors"
import { registerGradients } from "./gradients"
import { hasKernels, hasTiles } from "./kernel-set"
import { notInstalled, packageFolder } from "./packages"
import { registerWasm } from "./wasm"
import { registerWebgpu } from "./webgpu"

/** The one TensorFlow.js of the process. Import it from here only, so that tensors of all modules and of danfojs mix. */
export { tf }

// tfjs prints banners ("to speed things up ...") unless it is in production mode; the flag does nothing else.
tf.env().set("PROD", true)
registerGradients()

/**
 * Values of the tensor that `make` gives; all that it made besides is freed. (A function given to `tf.tidy` must not return
 * the values themselves: tidy looks for tensors in every element of an array.)
 */
export async function valuesOf(make: () => tf.Tensor): Promise<Float32Array> {
  const tensor = tf.tidy(make)
  try {
    return (await tensor.data()) as Float32Array
  } finally {
    tensor.dispose()
  }
}

/** Backends in the order in which they are tried; `tensorflow` uses CUDA by itself where it can. */
export const backendNames = ["tensorflow", "webgpu", "wasm", "cpu"] as const
export type BackendName = (typeof backendNames)[number]

/** What a loader found: the device that will do the work, and a few words about it. */
export interface Loaded {
  device: "cuda" | "gpu" | "software gpu" | "cpu"
  detail: string
}

/** The backend in use; `reason` is one printable line that also says why faster ones were passed over. */
export interface BackendChoice extends Loaded {
  name: BackendName
  reason: string
}

/** Makes a backend ready for `tf.setBackend`. Throws BackendError, with the remedy, where it cannot run. */
export type Loader = () => Promise<Loaded>

/**
 * How the native backend multiplies f32 matrices. `bf16` lets it round the factors: oneDNN to 8 binary digits, which
 * processors with AMX do faster, CUDA to the 11 of TF32, for its tensor cores; sums stay in f32. Other backends always
 * compute in f32.
 */
export const mathNames = ["f32", "bf16"] as const
export type Maths = (typeof mathNames)[number]

/** The maths of this process, and of those that it starts: oneDNN reads it from the environment. */
export const maths = (): Maths => (process.env.ONEDNN_DEFAULT_FPMATH_MODE?.toUpperCase() === "BF16" ? "bf16" : "f32")

/**
 * Chooses the backend of the process: tensorflow, then webgpu, wasm, cpu; `wanted` or the environment variable
 * MUSC_BACKEND forces one. May be called again, e.g. to compare backends; `math` only before the native one was loaded.
 * @throws BackendError when the forced one is unknown or cannot run here, or `math` comes too late
 */
export async function useBackend(wanted = process.env.MUSC_BACKEND, math = maths()): Promise<BackendChoice> {
  if (math !== maths()) {
    if (tf.engine().registryFactory.tensorflow)
      throw new BackendError(`math: must be ${maths()} as when the native backend was loaded, got ${math}; start anew`)
    process.env.ONEDNN_DEFAULT_FPMATH_MODE = math === "bf16" ? "BF16" : "STRICT"
  }
  const choice = await chooseBackend(wanted || undefined, loaders)
  if (!(await tf.setBackend(choice.name)))
    throw new BackendError(`backend ${choice.name}: tfjs could not start it; run \`npx musc doctor\` for the facts`)
  await tf.ready()
  assertOneCore()
  return math === "bf16" ? { ...choice, reason: `${choice.reason}, ${bf16Effect(choice)}` } : choice
}

function bf16Effect({ name, device }: BackendChoice): string {
  if (device === "cuda") return "TF32 maths"
  if (name !== "tensorflow") return "bf16 maths asked for, but only the native backend has it: f32"
  return hasTiles() === false ? "bf16 maths, which gains nothing without AMX" : "bf16 maths"
}

/** The choice itself, apart from this machine. A software GPU is slower than wasm, so it is taken only when forced. */
export async function chooseBackend(
  wanted: string | undefined,
  load: Record<BackendName, Loader>,
): Promise<BackendChoice> {
  if (wanted !== undefined) {
    const name = backendNames.find((known) => known === wanted)
    if (!name) {
      throw new BackendError(
        `backend: must be one of ${backendNames.join(", ")}, got "${wanted}"; correct MUSC_BACKEND`,
      )
    }
    return describe(name, await load[name](), ["forced"])
  }
  const passedOver: string[] = []
  for (const name of backendNames) {
    try {
      const loaded = await load[name]()
      if (loaded.device !== "software gpu") return describe(name, loaded, passedOver)
      passedOver.push(`${name}: only a software GPU (${loaded.detail})`)
    } catch (error) {
      if (!(error instanceof BackendError)) throw error
      passedOver.push(error.message.replace(/; /g, ", "))
    }
  }
  throw new BackendError(`backend: none can run here (${passedOver.join("; ")}); run \`npx musc doctor\``)
}

function describe(name: BackendName, loaded: Loaded, because: readonly string[]): BackendChoice {
  const why = because.length === 0 ? "" : ` - ${because.join("; ")}`
  return { name, ...loaded, reason: `backend: ${name} (${loaded.device}; ${loaded.detail})${why}` }
}

/** How each backend gets ready on this machine. */
export const loaders: Record<BackendName, Loader> = { tensorflow, webgpu, wasm, cpu }

async function tensorflow(): Promise<Loaded> {
  const folder = packageFolder("@tensorflow/tfjs-node-gpu")
  if (!folder) {
    throw new BackendError(`tensorflow: ${notInstalled("@tensorflow/tfjs-node-gpu")}`)
  }
  if (!existsSync(path.join(folder, bindingFile)))
    throw new BackendError("tensorflow: its native binding is not built; run `npx musc native`")
  process.env.TF_CPP_MIN_LOG_LEVEL ??= "2"
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= "true"
  if (maths() === "f32") process.env.NVIDIA_TF32_OVERRIDE ??= "0" // else TensorFlow multiplies in TF32 on its own accord
  // Node 23 removed two functions that tfjs-node 4.22 still calls.
  Object.assign(util, { isNullOrUndefined: (x: unknown) => x === null || x === undefined, isArray: Array.isArray })
  try {
    await import("@tensorflow/tfjs-node-gpu")
  } catch (cause) {
    const said = (cause instanceof Error ? cause.message : String(cause)).split("\n")[0]
    throw new BackendError(`tensorflow: its native binding does not load (${said}); run \`npx musc native --force\``, {
      cause,
    })
  }
  const { binding, isUsingGpuDevice } = tf.engine().findBackend("tensorflow") as unknown as NodeBackend
  const version = `libtensorflow ${binding.TF_Version}`
  if (isUsingGpuDevice) return { device: "cuda", detail: version }
  const idle = existsSync("/proc/driver/nvidia/version")
  const device = idle ? "NVIDIA GPU not used: see `npx musc doctor`" : "no CUDA device"
  const kernels = hasKernels(path.dirname(path.join(folder, bindingFile)))
  return {
    device: "cpu",
    detail: `${version}, ${device}${kernels ? "" : ", without the kernels of this version: run `npx musc native`"}`,
  }
}

interface NodeBackend {
  binding: { TF_Version: string }
  isUsingGpuDevice: boolean
}

/** Whether the backend in use computes on a GPU, where few large operations serve better than many that fit a cache. */
export function onGpu(): boolean {
  return tf.getBackend() === "webgpu" || (tf.backend() as Partial<NodeBackend>).isUsingGpuDevice === true
}

/** Where the package looks for its native half. */
export const bindingFile = "lib/napi-v8/tfjs_binding.node"

async function webgpu(): Promise<Loaded> {
  if (!packageFolder("webgpu") || !packageFolder("@tensorflow/tfjs-backend-webgpu")) {
    throw new BackendError(`webgpu: ${notInstalled("webgpu", "@tensorflow/tfjs-backend-webgpu")}`)
  }
  const detail = await registerWebgpu()
  return { device: /swiftshader|llvmpipe|lavapipe/i.test(detail) ? "software gpu" : "gpu", detail }
}

async function wasm(): Promise<Loaded> {
  await registerWasm()
  return { device: "cpu", detail: "WebAssembly SIMD, one thread" }
}

async function cpu(): Promise<Loaded> {
  await import("@tensorflow/tfjs-backend-cpu")
  return { device: "cpu", detail: "plain JavaScript, for reference only" }
}

/** Every copy of tfjs-core that this process has loaded; more than one means tensors that do not mix. */
export function loadedCores(): string[] {
  return Object.keys(require.cache).filter((file) => /tfjs-core[\\/]dist[\\/]tf-core\.node\.js$/.test(file))
}

function assertOneCore(): void {
  const cores = loadedCores()
  if (cores.length > 1) {
    throw new BackendError(
      `tfjs: exactly one copy may be loaded, got ${cores.join(" and ")}; ` +
        "copy the `overrides` of musc's package.json into yours and run `npm dedupe`",
    )
  }
}
