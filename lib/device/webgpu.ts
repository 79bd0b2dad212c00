import { existsSync } from "node:fs"
import path from "node:path"
import * as tf from "@tensorflow/tfjs-core"
import { variable } from "../environment"
import { BackendError } from "../errors"
import { architecture, isLinux } from "../machine"

// biome-ignore lint/suspicious/noExplicitAny: WebGPU types belong to the DOM library, which a Node program leaves out.
type Adapter = any

let gpu: { requestAdapter(options: object): Promise<Adapter | null> } | undefined

/**
 * Registers the backend `webgpu` over Dawn for Node and names its adapter. Values can be read only asynchronously
 * (`data()`, not `dataSync()`): the synchronous way of tfjs needs a browser's canvas.
 * @throws BackendError when there is no adapter
 */
export async function registerWebgpu(): Promise<string> {
  const adapter = await requestAdapter()
  if (!tf.engine().registryFactory.webgpu) {
    const { WebGPUBackend } = await import("@tensorflow/tfjs-backend-webgpu")
    // As tfjs does in browsers: all of the adapter's limits that its kernels can use.
    const device = await adapter.requestDevice({
      requiredFeatures: ["timestamp-query", "bgra8unorm-storage"].filter((feature) => adapter.features.has(feature)),
      requiredLimits: Object.fromEntries(limits.map((limit) => [limit, adapter.limits[limit]])),
    })
    tf.registerBackend("webgpu", () => withNavigator(() => new WebGPUBackend(device, adapter.info)), 0)
  }
  const { description, device, vendor } = adapter.info
  return description || device || vendor || "unnamed adapter"
}

const limits = [
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupSizeX",
  "maxComputeInvocationsPerWorkgroup",
]

async function requestAdapter(): Promise<Adapter> {
  // Dawn complains on the terminal where the Vulkan loader is missing, so look first.
  if (isLinux && !hasVulkan()) {
    throw new BackendError("webgpu: no Vulkan loader; install it (Debian, Ubuntu: `apt-get install libvulkan1`)")
  }
  try {
    const dawn = await import("webgpu")
    Object.assign(globalThis, dawn.globals)
    gpu ??= dawn.create([]) as unknown as typeof gpu
  } catch (cause) {
    throw new BackendError("webgpu: Dawn does not load on this system; use another backend", { cause })
  }
  const adapter = await gpu!.requestAdapter({ powerPreference: "high-performance" }).catch(() => null)
  if (!adapter) throw new BackendError("webgpu: no GPU adapter; install the GPU's driver")
  return adapter
}

function hasVulkan(): boolean {
  const machine = architecture === "arm64" ? "aarch64" : "x86_64"
  const system = [
    `/usr/lib/${machine}-linux-gnu`,
    "/usr/lib64",
    "/usr/lib",
    `/lib/${machine}-linux-gnu`,
    "/usr/local/lib",
  ]
  const named = variable("LD_LIBRARY_PATH") ?? []
  return [...named, ...system].some((folder) => existsSync(path.join(folder, "libvulkan.so.1")))
}

/** The backend's constructor asks `navigator.gpu` whether WebGPU exists. Others take a navigator for a browser. */
function withNavigator<T>(make: () => T): T {
  const former = Object.getOwnPropertyDescriptor(globalThis, "navigator")
  Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true })
  try {
    return make()
  } finally {
    if (former) Object.defineProperty(globalThis, "navigator", former)
    else Reflect.deleteProperty(globalThis, "navigator")
  }
}
