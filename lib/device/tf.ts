import { existsSync } from "node:fs"
import path from "node:path"
import util from "node:util"
import * as tf from "@tensorflow/tfjs-core"
import { setDefault, setVariable, variable } from "../environment"
import { BackendError } from "../errors"
import { hasInstructions, nvidiaDriver } from "../machine"
import {
  type BackendName,
  backendNames,
  type Device,
  describeDevice,
  grantedThreads,
  type Kernels,
  type Maths,
  setDevice,
} from "./device"
import { registerGradients } from "./gradients"
import { hasKernels } from "./kernel-set"
import { notInstalled, packageFolder } from "./packages"
import { registerWasm } from "./wasm"
import { registerWebgpu } from "./webgpu"

/**
 * The one TensorFlow.js of the process. Import it from here only, so that tensors of all modules and of danfojs mix.
 */
export { tf }

// tfjs prints banners ("to speed things up ...") unless it is in production mode; the flag does nothing else.
tf.env().set("PROD", true)
registerGradients()

/**
 * Values of the tensor that `make` gives; all that it made besides is freed. (A function given to `tf.tidy` must not
 * return the values themselves: tidy looks for tensors in every element of an array.)
 */
export async function valuesOf(make: () => tf.Tensor): Promise<Float32Array> {
  const tensor = tf.tidy(make)
  try {
    return (await tensor.data()) as Float32Array
  } finally {
    tensor.dispose()
  }
}

export { type BackendName, backendNames, type Maths, mathNames } from "./device"

/** What a loader found: the device that will do the work, and a few words about it. */
export interface Loaded {
  device: "cuda" | "gpu" | "software gpu" | "cpu"
  detail: string
}

/** A backend; `reason` is one printable line that also says why faster ones were passed over. */
export interface BackendChoice extends Loaded {
  name: BackendName
  reason: string
}

/** The backend in use, and all that it means for a model. */
export interface UsedBackend extends BackendChoice {
  machine: Device
}

/** Makes a backend ready for `tf.setBackend`. Throws BackendError, with the remedy, where it cannot run. */
export type Loader = () => Promise<Loaded>

/** The precision of this process, and of those that it starts: oneDNN reads it from the environment. */
const processPrecision = (): Maths =>
  variable("ONEDNN_DEFAULT_FPMATH_MODE")?.toUpperCase() === "BF16" ? "bf16" : "f32"

/**
 * Chooses the backend of the process: tensorflow, then webgpu, wasm, cpu; `wanted` or the environment variable
 * MUSC_BACKEND forces one. May be called again, e.g. to compare backends; `math` only before the native one was loaded.
 * @throws BackendError when the forced one is unknown or cannot run here, or `math` comes too late
 */
export async function useBackend(wanted = variable("MUSC_BACKEND"), math = processPrecision()): Promise<UsedBackend> {
  if (math !== processPrecision()) {
    if (tf.engine().registryFactory.tensorflow)
      throw new BackendError(
        `math: must be ${processPrecision()} as when the native backend was loaded, got ${math}; restart the process`,
      )
    setVariable("ONEDNN_DEFAULT_FPMATH_MODE", math === "bf16" ? "BF16" : "STRICT")
  }
  const choice = await chooseBackend(wanted || undefined, loaders)
  const machine = await startBackend(choice, math)
  const means = describeDevice(machine)
  const description = means
    ? choice.reason.replace(`; ${choice.detail})`, `; ${choice.detail}; ${means})`)
    : choice.reason
  return {
    ...choice,
    machine,
    reason: math === "bf16" ? `${description}, ${bf16Effect(choice, machine)}` : description,
  }
}

/** Starts a backend that was chosen, and looks at what it is to a model. */
export async function startBackend(choice: BackendChoice, math: Maths = processPrecision()): Promise<Device> {
  if (!(await tf.setBackend(choice.name)))
    throw new BackendError(`backend ${choice.name}: tfjs could not start it; run \`npx musc doctor\` for the facts`)
  await tf.ready()
  assertOneCore()
  const device = examineDevice(choice, math)
  setDevice(device)
  return device
}

function examineDevice({ name, device }: BackendChoice, precision: Maths): Device {
  const gpu = device !== "cpu"
  const native = name === "tensorflow"
  const kernels = native && !gpu ? kernelsPresent() : "none"
  const products = kernels !== "none" && canCall("MuscProduct", [0, 0, 3]) ? "own" : "library"
  // A binding of an earlier version cannot take graphs. On a GPU they are untried: only who asks for them gets them
  // there.
  const wished = variable("MUSC_CUDA_GRAPHS")
  const able = native && "addGraphFunction" in (tf.backend() as unknown as NodeBackend).binding
  const graphs = able && (!gpu || wished !== undefined)
  const xla = graphs && gpu && wished === "xla"
  return { backend: name, gpu, kernels, products, graphs, ...(xla && { xla }), precision, threads: grantedThreads() }
}

/** Kernels of ours that can be called: not all on any processor, nor where a compiler could not make them. */
function kernelsPresent(): Kernels {
  const folder = path.dirname(path.join(packageFolder("@tensorflow/tfjs-node-gpu")!, bindingFile))
  if (!hasKernels(folder) || !canCall("MuscGated", [0])) return "none"
  return canCall("MuscGatedProduct", [0, 3], 3) ? "amx" : "vector"
}

/** Whether an operation of some matrices can be called. */
function canCall(op: string, value: readonly number[], inputs = 2): boolean {
  const backend = tf.backend() as unknown as NodeBackend
  const settings = { name: "settings", type: backend.binding.TF_ATTR_INT, value }
  return tf.tidy(() => {
    try {
      backend.executeSingleOutput(
        op,
        [settings],
        Array.from({ length: inputs }, () => tf.zeros([1, 1])),
      )
      return true
    } catch {
      return false
    }
  })
}

function bf16Effect({ name, device }: BackendChoice, { graphs }: Device): string {
  if (device === "cuda") return graphs ? "TF32 maths, bf16 with matrices kept in bf16" : "TF32 maths"
  if (name !== "tensorflow") return "bf16 maths asked for, but only the native backend has it: f32"
  if (hasInstructions("amx_bf16") !== false) return "bf16 maths"
  return hasInstructions("avx512_bf16")
    ? "bf16 maths for matrices that a checkpoint stores in bf16"
    : "bf16 maths, which gains nothing on this processor (it has neither AMX nor AVX512_BF16)"
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
  setDefault("TF_CPP_MIN_LOG_LEVEL", "2")
  setDefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
  if (processPrecision() === "f32") setDefault("NVIDIA_TF32_OVERRIDE", "0") // else CUDA multiplies in TF32
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
  const idle = existsSync(nvidiaDriver)
  const device = idle ? "NVIDIA GPU not used: see `npx musc doctor`" : "no CUDA device"
  const kernels = hasKernels(path.dirname(path.join(folder, bindingFile)))
  return {
    device: "cpu",
    detail: `${version}, ${device}${kernels ? "" : ", without the kernels of this version: run `npx musc native`"}`,
  }
}

interface NodeBackend {
  binding: { TF_Version: string; TF_ATTR_INT: number }
  executeSingleOutput(op: string, attrs: readonly object[], inputs: readonly tf.Tensor[]): tf.Tensor
  isUsingGpuDevice: boolean
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
