import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import path from "node:path"
import { finish, removeTemporaries } from "../data/files"
import { ChildError, type Run, run as runChild } from "../device/child"
import { kernelLoader, kernelSet } from "../device/kernel-set"
import { notInstalled, packageFolder } from "../device/packages"
import { bindingFile } from "../device/tf"
import { variable } from "../environment"
import { BackendError } from "../errors"
import { architecture, isLinux, platform } from "../machine"
import { compileKernels } from "./kernels-build"
import { findLibrary, type Library, type LibraryWish, libraryFiles } from "./libtensorflow"

export interface NativeOptions extends LibraryWish {
  /** Build also where everything is up to date. */
  force?: boolean
  /** Told every step, a line each. */
  log?: (line: string) => void
}

export interface NativeBuild {
  /** False when it was there already. */
  built: boolean
  /** The compiled binding. */
  binding: string
  /** Version that libtensorflow says of itself. */
  version: string
  /** The `tensorflow` folder that it runs on; moving that away breaks the binding. */
  library: Library
  /** Where the check multiplied its matrices. */
  device: "cuda" | "cpu"
}

/**
 * Compiles the native half of @tensorflow/tfjs-node-gpu against the C API in a TensorFlow wheel, checks it, and puts it
 * where the package looks. The package's own download is libtensorflow 2.9 for CUDA 11, which current systems no longer
 * serve. Nothing is replaced before the new binding has multiplied two matrices in a process of its own; a run that is
 * killed leaves the former state and is cleaned up by the next.
 * @throws BackendError with the remedy when a tool or a library is missing
 */
export async function buildNative(
  { force = false, log = () => {}, ...wish }: NativeOptions = {},
  tools: { run: Run; folder: string | undefined } = {
    run: runChild,
    folder: packageFolder("@tensorflow/tfjs-node-gpu"),
  },
): Promise<NativeBuild> {
  if (!isLinux) {
    throw new BackendError(
      `native: builds on Linux, got ${platform}; use WSL2 on Windows, else the backends webgpu or wasm`,
    )
  }
  const source = tools.folder
  if (!source) throw new BackendError(`native: ${notInstalled("@tensorflow/tfjs-node-gpu")}`)
  const final = path.dirname(path.join(source, bindingFile))
  const recipe = recipeHash(source)
  const former = readStamp(final)
  if (!force && former && isCurrent(former, recipe, wish)) {
    log(`already built: libtensorflow ${former.version} of ${former.library.folder}`)
    return { built: false, binding: path.join(source, bindingFile), ...former }
  }

  const library = await findLibrary(wish, tools.run, log)
  mkdirSync(path.dirname(final), { recursive: true })
  removeTemporaries(path.dirname(final))
  return finish(final, async (folder) => {
    mkdirSync(folder)
    log("compiling the binding of @tensorflow/tfjs-node-gpu (about a minute)")
    await compile(source, folder, library, tools.run, log)
    log("checking it: a process of its own multiplies two matrices")
    const { version, device } = await check(path.join(folder, path.basename(bindingFile)), tools.run)
    const stamp: Stamp = { recipe, wish, library, print: fingerprint(library), version, device }
    writeFileSync(path.join(folder, stampFile), `${JSON.stringify(stamp, null, 2)}\n`)
    log(`built: libtensorflow ${version} on ${device === "cuda" ? "CUDA" : "CPU"}`)
    return { built: true, binding: path.join(source, bindingFile), version, library, device }
  })
}

/** Facts about the binding that is in place, or undefined when this package has not built one. */
export function nativeBuild(): Omit<NativeBuild, "built" | "binding"> | undefined {
  const folder = packageFolder("@tensorflow/tfjs-node-gpu")
  return folder ? readStamp(path.dirname(path.join(folder, bindingFile))) : undefined
}

const stampFile = "musc.json"

interface Stamp {
  recipe: string
  wish: LibraryWish
  library: Library
  print: string
  version: string
  device: "cuda" | "cpu"
}

function readStamp(folder: string): Stamp | undefined {
  try {
    return existsSync(path.join(folder, path.basename(bindingFile)))
      ? JSON.parse(readFileSync(path.join(folder, stampFile), "utf8"))
      : undefined
  } catch {
    return undefined // none, or cut short: build again
  }
}

function isCurrent(stamp: Stamp, recipe: string, wish: LibraryWish): boolean {
  const sameWish = (["wheel", "python", "cuda"] as const).every((key) => !wish[key] || wish[key] === stamp.wish[key])
  return sameWish && stamp.recipe === recipe && stamp.print === fingerprint(stamp.library)
}

/** Size and time of the libraries: changes when the user upgrades or removes TensorFlow. */
function fingerprint({ folder }: Library): string {
  return libraryFiles
    .map((file) => statSync(path.join(folder, file), { throwIfNoEntry: false }))
    .map((stat) => (stat ? `${stat.size}@${Math.floor(stat.mtimeMs)}` : "missing"))
    .join(" ")
}

// N-API 8 is the newest that the package looks for; its ABI holds for every later Node.
const napi = 8
const flags = [
  "-O2",
  "-std=c++17",
  "-fPIC",
  "-shared",
  `-DNAPI_VERSION=${napi}`,
  "-Wl,-rpath,$ORIGIN:$ORIGIN/tensorflow",
]

/** What is compiled into the binding, or beside it, besides the package's own source. */
const ownSource = (name: string) => path.join(__dirname, "../../lib/native/binding", name)
const [guard, functions, quiet] = [ownSource("guard.h"), ownSource("functions.h"), ownSource("quiet.cc")]

function sources(folder: string): string[] {
  return ["binding/tfjs_backend.cc", "binding/tfjs_binding.cc"].map((file) => path.join(folder, file))
}

function recipeHash(folder: string): string {
  const hash = createHash("sha256")
  for (const part of [...flags, platform, architecture, kernelSet()]) hash.update(`${part}\0`)
  for (const file of [guard, functions, quiet, ...sources(folder)]) hash.update(readFileSync(file))
  return hash.digest("hex").slice(0, 16)
}

async function compile(
  source: string,
  folder: string,
  library: Library,
  run: Run,
  log: (line: string) => void,
): Promise<void> {
  // libtensorflow finds the CUDA libraries of pip from its own place: "../nvidia/cudnn/lib" and so on.
  const link = path.join(folder, "tensorflow")
  symlinkSync(library.folder, link)
  const include = [
    path.join(library.folder, "include"),
    path.join(packageFolder("node-api-headers")!, "include"),
    source,
  ]
  const common = [...flags, ...include.map((place) => `-I${place}`), `-L${folder}`, `-L${link}`]
  const compiler = variable("CXX") ?? "g++"
  try {
    const quiet = await compileQuiet(compiler, common, folder, run)
    const libraries = [
      "-Wl,--no-as-needed",
      ...(quiet ? ["-l:libquiet.so"] : []),
      ...libraryFiles.map((file) => `-l:${file}`),
    ]
    await run(compiler, [
      ...common,
      "-include",
      guard,
      ...sources(source),
      `-DMUSC_KERNEL_SET="${kernelSet()}"`,
      kernelLoader,
      "-o",
      path.join(folder, path.basename(bindingFile)),
      ...libraries,
    ])
    await compileKernels(compiler, common, folder, run, log)
  } catch (cause) {
    if (!(cause instanceof ChildError)) throw cause
    throw new BackendError(
      cause.missing
        ? `native: needs a C++17 compiler, got none under the name ${compiler}; install one ` +
            "(Debian, Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`) or name it in CXX"
        : `native: the binding must compile against ${library.folder}, got\n${cause.message}\n` +
            "do: try the pinned library, `pip download` it and run `npx musc native --wheel <file>`",
      { cause },
    )
  }
}

/** Silence while libtensorflow is loaded, where this one has the means; an older one just stays talkative. */
async function compileQuiet(compiler: string, common: readonly string[], folder: string, run: Run): Promise<boolean> {
  const output = path.join(folder, "libquiet.so")
  try {
    await run(compiler, [...common, quiet, "-o", output, `-l:${libraryFiles[1]}`, "-Wl,-z,initfirst", "-Wl,-z,defs"])
    return true
  } catch (error) {
    if (error instanceof ChildError && !error.missing) return false
    throw error
  }
}

// [1 2; 3 4] squared is [7 10; 15 22].
const checkScript = `
const b = require(process.argv[1])
const x = b.createTensor([2, 2], b.TF_FLOAT, new Float32Array([1, 2, 3, 4]))
const flag = (name) => ({ name, type: b.TF_ATTR_BOOL, value: false })
const attrs = [flag("transpose_a"), flag("transpose_b"), { name: "T", type: b.TF_ATTR_TYPE, value: b.TF_FLOAT }]
const [y] = b.executeOp("MatMul", attrs, [x, x], 1)
console.log(JSON.stringify({ version: b.TF_Version, cuda: b.isUsingGpuDevice(), product: [...b.tensorDataSync(y.id)] }))
`

async function check(binding: string, run: Run): Promise<{ version: string; device: "cuda" | "cpu" }> {
  try {
    const printed = await run(process.execPath, ["-e", checkScript, binding])
    const { version, cuda, product } = JSON.parse(printed)
    if (String(product) !== "7,10,15,22") throw new Error(`[1 2; 3 4] squared came out as ${product}`)
    return { version, device: cuda ? "cuda" : "cpu" }
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause)
    throw new BackendError(
      `native: the new binding must load and multiply, got ${said}; ` +
        "the former state is kept; try the pinned library (no TensorFlow in the active Python), or the backend wasm",
      { cause },
    )
  }
}
