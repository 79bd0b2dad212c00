import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import path from "node:path"
import { finish, removeTemporaries } from "../data/files"
import { ChildError, type Run, run as runChild } from "../device/child"
import { fusedLoader, kernelSet } from "../device/kernel-set"
import { notInstalled, packageFolder } from "../device/packages"
import { bindingFile } from "../device/tf"
import { BackendError } from "../errors"
import { compileFused } from "./kernels-build"
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
 * Compiles the native half of @tensorflow/tfjs-node-gpu against the C API in a TensorFlow wheel, checks it, and puts it where
 * the package looks. The package's own download is libtensorflow 2.9 for CUDA 11, which current systems no longer serve.
 * Nothing is replaced before the new binding has multiplied two matrices in a process of its own; a run that is killed leaves
 * the former state and is cleaned up by the next.
 * @throws BackendError with the remedy when a tool or a library is missing
 */
export async function buildNative(
  { force = false, log = () => {}, ...wish }: NativeOptions = {},
  tools: { run: Run; folder: string | undefined } = {
    run: runChild,
    folder: packageFolder("@tensorflow/tfjs-node-gpu"),
  },
): Promise<NativeBuild> {
  if (process.platform !== "linux") {
    throw new BackendError(
      `native: builds on Linux, got ${process.platform}; use WSL2 on Windows, else the backends webgpu or wasm`,
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
    log("compiling the binding of @tensorflow/tfjs-node-gpu (about 15 s)")
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
  const asked = (["wheel", "python", "cuda"] as const).every((key) => !wish[key] || wish[key] === stamp.wish[key])
  return asked && stamp.recipe === recipe && stamp.print === fingerprint(stamp.library)
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

// libtensorflow logs two lines while it is being loaded, before it reads TF_CPP_MIN_LOG_LEVEL. A library whose initialiser
// runs first (-z initfirst) lifts the threshold; libtensorflow then sets it as the variable says.
const quietSource = `#include "absl/log/globals.h"
__attribute__((constructor)) static void quiet() { absl::SetMinLogLevel(absl::LogSeverityAtLeast::kWarning); }
`

// A signal handler runs on the stack of the thread that it interrupts, and matrix products that oneDNN compiles do not survive
// that: SIGUSR2 and a profiler's SIGPROF were seen to corrupt the heap (see data/log.md). So signals are blocked in every thread
// that computes, while it does; other threads take them, or they wait for the end of the operation.
const guarded = ["TFE_NewContext", "TFE_Execute", "TF_LoadSessionFromSavedModel"]

// Graphs run on threads of their own, as many as there are cores. To wake one takes a fifth of a small model's decoding step, and
// where a process has one thread for its kernels, others use the other cores. So there graphs run on the calling thread.
const guardSource = `#include <signal.h>
#include <stdlib.h>
#include <initializer_list>
#include <string>
#include "tensorflow/c/c_api.h"
#include "tensorflow/c/eager/c_api.h"
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t signals;
    sigfillset(&signals);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) sigdelset(&signals, fault);
    pthread_sigmask(SIG_BLOCK, &signals, &former_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &former_, nullptr); }
 private:
  sigset_t former_;
};
template <auto function> struct Guarded;
template <typename Result, typename... Args, Result (*function)(Args...)>
struct Guarded<function> {
  static Result call(Args... args) { SignalsBlocked blocked; return function(args...); }
};
template <typename... Rest>
void sessionRun(TF_Session* session, std::nullptr_t, Rest... rest) {
  static const char bytes[] = "\\x18\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x01"; // RunOptions: inter_op_thread_pool: -1
  static const TF_Buffer onThisThread = {bytes, sizeof bytes - 1, nullptr};
  static const char* const threads = getenv("TF_NUM_INTRAOP_THREADS");
  static const bool alone = threads && threads == std::string("1");
  Guarded<&TF_SessionRun>::call(session, alone ? &onThisThread : nullptr, rest...);
}
${guarded.map((name) => `#define ${name} Guarded<&${name}>::call`).join("\n")}
#define TF_SessionRun sessionRun
`

function sources(folder: string): string[] {
  return ["binding/tfjs_backend.cc", "binding/tfjs_binding.cc"].map((file) => path.join(folder, file))
}

function recipeHash(folder: string): string {
  const hash = createHash("sha256")
  for (const part of [...flags, quietSource, guardSource, process.platform, process.arch, kernelSet()])
    hash.update(`${part}\0`)
  for (const file of sources(folder)) hash.update(readFileSync(file))
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
  const compiler = process.env.CXX || "g++"
  try {
    const quiet = await compileQuiet(compiler, common, folder, run)
    const libraries = [
      "-Wl,--no-as-needed",
      ...(quiet ? ["-l:libquiet.so"] : []),
      ...libraryFiles.map((file) => `-l:${file}`),
    ]
    const guard = path.join(folder, "guard.h")
    writeFileSync(guard, guardSource)
    await run(compiler, [
      ...common,
      "-include",
      guard,
      ...sources(source),
      `-DMUSC_KERNELS="${kernelSet()}"`,
      fusedLoader,
      "-o",
      path.join(folder, path.basename(bindingFile)),
      ...libraries,
    ])
    rmSync(guard)
    await compileFused(compiler, common, folder, run, log)
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

/** The initialiser above, where this libtensorflow has the means; an older one just stays talkative. */
async function compileQuiet(compiler: string, common: readonly string[], folder: string, run: Run): Promise<boolean> {
  const file = path.join(folder, "quiet.cc")
  writeFileSync(file, quietSource)
  const output = path.join(folder, "libquiet.so")
  try {
    await run(compiler, [...common, file, "-o", output, `-l:${libraryFiles[1]}`, "-Wl,-z,initfirst", "-Wl,-z,defs"])
    return true
  } catch (error) {
    if (error instanceof ChildError && !error.missing) return false
    throw error
  } finally {
    rmSync(file)
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
