import { existsSync, readdirSync, readFileSync } from "node:fs"
import path from "node:path"
import { gibibytes } from "../data/numbers"
import { ChildError, type Run, run as runChild } from "../device/child"
import { describeDevice } from "../device/device"
import { notInstalled, packageFolder } from "../device/packages"
import {
  type BackendName,
  backendNames,
  chooseBackend,
  type Loader,
  loadedCores,
  loaders,
  startBackend,
  tf,
} from "../device/tf"
import { variable, variablesLike } from "../environment"
import { BackendError } from "../errors"
import { memory, nvidiaDriver, processors, threadsOfMachine } from "../machine"
import { nativeBuild } from "./build"
import { findPython } from "./libtensorflow"
import { pythonFolder } from "./python-env"

/** One thing that was looked at: `missing` costs something, which `remedy` cures; `optional` is absent without harm. */
export interface Fact {
  topic: "system" | "packages" | "backends" | "cuda" | "python"
  name: string
  state: "ok" | "missing" | "optional"
  value: string
  remedy?: string
}

/**
 * Looks at this machine. Starts every backend that can run and times a matrix product on it; takes some seconds.
 * `wanted` is the backend that is forced, as in `useBackend`.
 */
export async function examine(
  run: Run = runChild,
  load: Record<BackendName, Loader> = loaders,
  wanted = variable("MUSC_BACKEND"),
  driver = nvidiaDriver,
): Promise<Fact[]> {
  return [
    ...system(),
    ...(await backends(load)),
    await choice(load, wanted || undefined),
    ...nativeFacts(),
    ...(await packages()),
    ...(await cuda(run, driver)),
    ...(await python(run)),
    torchEnvironment(),
  ]
}

/** The facts as lines of text, a topic a paragraph, remedies below what they cure. */
export function formatFacts(facts: readonly Fact[]): string {
  const width = Math.max(...facts.map(({ name }) => name.length))
  const marks = { ok: "ok     ", missing: "MISSING", optional: "-      " }
  const paragraphs = [...new Set(facts.map(({ topic }) => topic))].map((topic) => {
    const lines = facts
      .filter((fact) => fact.topic === topic)
      .map(({ state, name, value, remedy }) => {
        const cure = remedy ? `\n  ${" ".repeat(marks.ok.length + width + 2)}-> ${remedy}` : ""
        return `  ${marks[state]} ${name.padEnd(width)} ${value}${cure}`
      })
    return [topic, ...lines].join("\n")
  })
  return paragraphs.join("\n\n")
}

function system(): Fact[] {
  const major = Number(process.versions.node.split(".")[0])
  const tested = major === 20 || major === 22
  const { total, free, limit } = memory()
  const limited = limit > 0 && limit < total ? `, limited to ${gibibytes(limit)}` : ""
  const cores = `${threadsOfMachine()} threads, ${processors().name}`
  return [
    {
      topic: "system",
      name: "node",
      state: tested ? "ok" : "missing",
      value: process.version,
      remedy: tested ? undefined : "tfjs-node is tested with Node 20 and 22; use one of them",
    },
    { topic: "system", name: "processor", state: "ok", value: cores },
    {
      topic: "system",
      name: "memory",
      state: "ok",
      value: `${gibibytes(free)} free of ${gibibytes(total)}${limited}`,
    },
    {
      topic: "system",
      name: "malloc",
      state: "ok",
      value: variablesLike("MALLOC_").join(" ") || "defaults of the C library",
    },
  ]
}

async function backends(load: Record<BackendName, Loader>): Promise<Fact[]> {
  const facts: Fact[] = []
  for (const name of backendNames) {
    try {
      const chosen = await chooseBackend(name, load)
      const means = describeDevice(await startBackend(chosen))
      const speed = await matmulSpeed(name)
      const value = chosen.reason.replace(/^backend: \w+ /, "").replace(/ - forced$/, "")
      const said = `${value}, matmul ${speed} GFLOPS${means && `, ${means}`}`
      facts.push({ topic: "backends", name, state: "ok", value: said })
    } catch (error) {
      if (!(error instanceof BackendError)) throw error
      const [value = "", ...remedy] = error.message.replace(/^\w+: /, "").split("; ")
      const state = name === "tensorflow" ? "missing" : "optional"
      facts.push({ topic: "backends", name, state, value, remedy: remedy.join("; ") || undefined })
    }
  }
  return facts
}

async function choice(load: Record<BackendName, Loader>, wanted: string | undefined): Promise<Fact> {
  try {
    const { name } = await chooseBackend(wanted, load)
    return { topic: "backends", name: "choice", state: "ok", value: wanted ? `${name}, forced` : name }
  } catch (error) {
    if (!(error instanceof BackendError)) throw error
    return { topic: "backends", name: "choice", state: "missing", value: error.message }
  }
}

function nativeFacts(): Fact[] {
  const native = nativeBuild()
  if (!native) return []
  const value = `libtensorflow ${native.version} in ${native.library.folder}`
  return [{ topic: "backends", name: "native build", state: "ok", value }]
}

/**
 * GFLOPS (two operations a multiply-add) of the best of several f32 products of square matrices: 1024 wide, 4096 where
 * that takes less than 5 ms, 128 in JavaScript.
 */
export async function matmulSpeed(name: BackendName): Promise<number> {
  await tf.setBackend(name)
  if (name === "cpu") return productSpeed(128)
  const speed = await productSpeed(1024)
  return (2 * 1024 ** 3) / speed / 1e6 < 5 ? productSpeed(4096) : speed
}

async function productSpeed(size: number): Promise<number> {
  const [a, b] = [tf.randomNormal([size, size]), tf.randomNormal([size, size])]
  const timed = async () => {
    const start = performance.now()
    const product = tf.matMul(a, b)
    const corner = tf.slice(product, [0, 0], [1, 1]) // a GPU computes while we go on, until a value is asked for
    await corner.data()
    tf.dispose([product, corner])
    return performance.now() - start
  }
  const first = await timed()
  let best = first
  for (let spent = first; spent < 400; ) {
    const milliseconds = await timed()
    spent += milliseconds
    best = Math.min(best, milliseconds)
  }
  tf.dispose([a, b])
  return Number(((2 * size ** 3) / best / 1e6).toPrecision(3))
}

async function packages(): Promise<Fact[]> {
  const names = [
    "@tensorflow/tfjs-core",
    "@tensorflow/tfjs-backend-wasm",
    "@tensorflow/tfjs-node-gpu",
    "danfojs-node",
    "happy-dom",
    "tslab",
  ]
  const facts = names.map((name): Fact => {
    const folder = packageFolder(name)
    if (!folder) {
      const [value, remedy] = notInstalled(name).split("; ")
      return { topic: "packages", name, state: "optional", value: value!, remedy }
    }
    return {
      topic: "packages",
      name,
      state: "ok",
      value: JSON.parse(readFileSync(`${folder}/package.json`, "utf8")).version,
    }
  })
  const danfo = packageFolder("danfojs-node") !== undefined
  const mixing = !danfo || (await danfoTensorIsOurs())
  const cores = loadedCores()
  const one = mixing && cores.length === 1
  return [
    ...facts,
    {
      topic: "packages",
      name: "one tfjs",
      state: one ? "ok" : "missing",
      value: one
        ? `one copy${danfo ? ", shared with danfojs-node" : ""}`
        : `${cores.length} copies: ${cores.join(", ")}`,
      remedy: one ? undefined : "copy the `overrides` of musc's package.json into yours and run `npm dedupe`",
    },
  ]
}

/** Whether a data frame's tensor is an instance of our own tensor class, so that the two mix. */
export async function danfoTensorIsOurs(): Promise<boolean> {
  const { DataFrame } = await import("danfojs-node")
  const tensor: object = new DataFrame([[1, 2]]).tensor
  // `instanceof` of tfjs only compares members, so the constructors are compared.
  return tensor.constructor === tf.Tensor
}

/**
 * What a CUDA 12 build of libtensorflow (2.18 and later) opens at its start; without one of them it stays on the CPU.
 */
const cudaLibraries = [
  "libcuda.so.1",
  "libcudart.so.12",
  "libcublas.so.12",
  "libcublasLt.so.12",
  "libcudnn.so.9",
  "libcufft.so.11",
  "libcusolver.so.11",
  "libcusparse.so.12",
]

/**
 * What a GPU needs: driver, a CUDA build of libtensorflow, and its libraries by name. Without a driver nothing of it is
 * missed, but all is listed, so that a machine with a GPU can be set up from it.
 */
async function cuda(run: Run, driver: string): Promise<Fact[]> {
  const present = existsSync(driver)
  const lacking = present ? "missing" : "optional"
  const facts: Fact[] = [
    present
      ? { topic: "cuda", name: "NVIDIA driver", state: "ok", value: readFileSync(driver, "utf8").split("\n")[0]! }
      : {
          ...{
            topic: "cuda",
            name: "NVIDIA driver",
            state: "optional",
            value: "not loaded, so no NVIDIA GPU can be used",
          },
          remedy: "to use a GPU, install its driver (525 or later), then run `npx musc native --cuda`",
        },
  ]
  const build = nativeBuild()
  facts.push(
    build?.library.cuda
      ? { topic: "cuda", name: "libtensorflow", state: "ok", value: `${build.version}, built for CUDA` }
      : {
          ...{ topic: "cuda", name: "libtensorflow", state: lacking },
          value: build ? `${build.version}, CPU build` : "not built here",
          remedy: present ? "run `npx musc native --cuda`" : undefined,
        },
  )
  const known = await ldconfig(run)
  const wheels = build && path.join(build.library.folder, "../nvidia")
  const folders = [
    ...(wheels && existsSync(wheels) ? readdirSync(wheels).map((part) => path.join(wheels, part, "lib")) : []),
    ...(variable("LD_LIBRARY_PATH") ?? []),
  ]
  for (const name of cudaLibraries) {
    const folder = folders.find((place) => existsSync(path.join(place, name)))
    const location = folder ?? (known.has(name) ? "in the system's folders" : undefined)
    const cure =
      name === "libcuda.so.1"
        ? "install the NVIDIA driver's libraries"
        : "`npx musc native --cuda` fetches it, or `pip install tensorflow[and-cuda]` into the active Python " +
          "and `npx musc native --force`"
    const remedy = present ? cure : undefined
    facts.push(
      location
        ? { topic: "cuda", name, state: "ok", value: location }
        : { topic: "cuda", name, state: lacking, value: "not found", remedy },
    )
  }
  return [...facts, ...xlaTools(present, build?.library.folder)]
}

/** What XLA compiles with on a GPU (MUSC_CUDA_GRAPHS=xla): an assembler, and a library of functions. */
const xlaFiles = { ptxas: "bin/ptxas", "libdevice.10.bc": "nvvm/libdevice/libdevice.10.bc" }

/** Where XLA finds them: in the folder of a flag, beside TensorFlow, in the toolkit's usual folder; a program on PATH. */
function xlaTools(wanted: boolean, library?: string): Fact[] {
  const home = variable("CUDA_HOME")
  const flag = /--xla_gpu_cuda_data_dir=(\S+)/.exec(variable("XLA_FLAGS") ?? "")?.[1]
  const beside = library ? [path.join(library, "../nvidia/cuda_nvcc"), path.join(library, "cuda")] : []
  const roots = [...(flag ? [flag] : []), ...beside, "/usr/local/cuda"]
  const programs = variable("PATH")?.split(path.delimiter) ?? []
  return Object.entries(xlaFiles).map(([name, file]): Fact => {
    const places = [
      ...roots.map((root) => path.join(root, file)),
      ...programs.filter(() => name === "ptxas").map((folder) => path.join(folder, name)),
    ]
    const location = places.find((place) => existsSync(place))
    if (location) return { topic: "cuda", name, state: "ok", value: path.dirname(location) }
    const inHome = home && existsSync(path.join(home, file))
    const remedy = inHome
      ? `set XLA_FLAGS=--xla_gpu_cuda_data_dir=${home}`
      : "`npx musc native --cuda` fetches it, or install the CUDA toolkit or `pip install nvidia-cuda-nvcc-cu12` and set " +
        "XLA_FLAGS=--xla_gpu_cuda_data_dir to its folder"
    const value = "not found, so XLA cannot compile for a GPU"
    return { topic: "cuda", name, state: "optional", value, remedy: wanted ? remedy : undefined }
  })
}

/** Names of the shared libraries that the system's loader knows. */
async function ldconfig(run: Run): Promise<Set<string>> {
  const listing = await run("/sbin/ldconfig", ["-p"]).catch(() => "")
  return new Set(listing.split("\n").map((line) => line.trim().split(" ")[0]!))
}

/** Python serves to fetch libtensorflow and to compare with PEFT and TRL; musc itself runs without. */
async function python(run: Run): Promise<Fact[]> {
  try {
    const command = await findPython({}, run)
    const versions: Record<string, string | null> = JSON.parse(await run(command, ["-c", versionsScript]))
    return Object.entries(versions).map(([name, version]) => {
      const state = version ? "ok" : "optional"
      return { topic: "python", name, state, value: version ?? "not installed" }
    })
  } catch (error) {
    if (!(error instanceof BackendError || error instanceof ChildError)) throw error
    return [{ topic: "python", name: "python", state: "optional", value: "not installed" }]
  }
}

/** The environment of `--torch`, which only who uses that needs. */
function torchEnvironment(): Fact {
  const folder = pythonFolder()
  const shown = { topic: "python" as const, name: "environment of --torch" }
  if (folder) return { ...shown, state: "ok", value: folder }
  return {
    ...shown,
    state: "optional",
    value: "not installed",
    remedy: "run `npx musc python` to score and train with PyTorch",
  }
}

const versionsScript = `
import json, platform
from importlib import metadata
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
names = ["pip", "torch", "transformers", "peft", "trl", "jupyterlab", "nbconvert"]
print(json.dumps({"python": platform.python_version(), **{name: version(name) for name in names}}))
`
