import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs"
import os from "node:os"
import path from "node:path"
import { ChildError, type Run } from "../device/child"
import { BackendError } from "../errors"

/** The `tensorflow` folder of a Python wheel: the C API's headers and its two shared libraries. */
export interface Library {
  folder: string
  /** Built for CUDA. Its libraries come from the wheels of `tensorflow[and-cuda]` beside it, or from the system. */
  cuda: boolean
}

export interface LibraryWish {
  /** A .whl file, or a folder that holds an unpacked one. */
  wheel?: string
  /** The Python that is asked for its TensorFlow, and whose pip fetches one. */
  python?: string
  /** Only a CUDA build will do. */
  cuda?: boolean
}

/** The release that is fetched when this machine has none. */
export const pinnedVersion = "2.21.0"
export const libraryFiles = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"]

/** Where fetched libraries are kept, shared by all projects of the user: $MUSC_CACHE or ~/.cache/musc. */
export function cacheFolder(): string {
  return process.env.MUSC_CACHE || path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache"), "musc")
}

/**
 * The TensorFlow to build against: the one that is named, else the one of the active Python, else a pinned wheel that pip
 * fetches once.
 * @throws BackendError when none can be had, with what to install
 */
export async function findLibrary(wish: LibraryWish, run: Run, log: (line: string) => void): Promise<Library> {
  if (wish.wheel) return fromWheel(wish.wheel, wish, run, log)
  const python = await findPython(wish, run)
  const installed = readLibrary(await installedFolder(python, run))
  if (installed && (installed.cuda || !wish.cuda)) {
    log(`TensorFlow: found the one of ${python} in ${installed.folder}${installed.cuda ? " (CUDA build)" : ""}`)
    return installed
  }
  return wish.cuda ? fetchCuda(python, run, log) : fetchCpu(python, run, log)
}

/** The library in a folder (the `tensorflow` folder itself or its parent), or undefined where something is missing. */
export function readLibrary(folder: string): Library | undefined {
  for (const place of [folder, path.join(folder, "tensorflow")]) {
    if ([...libraryFiles, "include/tensorflow/c/c_api.h"].every((file) => existsSync(path.join(place, file)))) {
      const info = path.join(place, "python/platform/build_info.py")
      return {
        folder: path.resolve(place),
        cuda: existsSync(info) && /is_cuda_build\W+True/.test(readFileSync(info, "utf8")),
      }
    }
  }
  return undefined
}

async function fromWheel(wheel: string, wish: LibraryWish, run: Run, log: (line: string) => void): Promise<Library> {
  if (!existsSync(wheel))
    throw new BackendError(`native: --wheel must be a file or folder, got "${wheel}"; correct the path`)
  const unpacked = statSync(wheel).isDirectory()
  return expectLibrary(unpacked ? wheel : await unpack(wheel, await findPython(wish, run), run, log), wheel)
}

async function fetchCpu(python: string, run: Run, log: (line: string) => void): Promise<Library> {
  const name = process.arch === "x64" ? "tensorflow-cpu" : "tensorflow"
  const kept = readLibrary(path.join(cacheFolder(), `${name.replace("-", "_")}-${pinnedVersion}`))
  if (kept) {
    log(`TensorFlow: found ${pinnedVersion} in the cache, ${kept.folder}`)
    return kept
  }
  log(`TensorFlow: none in ${python}; fetching ${name} ${pinnedVersion} (270 MB, once) with its pip`)
  return inTemporary("download", async (folder) => {
    // The library does not care which Python asks for it, so a Python without a wheel of its own can fetch it as well.
    const machine = process.arch === "x64" ? "x86_64" : "aarch64"
    const platforms = ["2_27", "2_17", "2014"].flatMap((glibc) => [
      "--platform",
      `manylinux${glibc.replace(/^2_/, "_2_")}_${machine}`,
    ])
    const target = ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", ...platforms]
    const args = ["download", "--no-deps", "--only-binary", ":all:", ...target, "--dest", folder]
    await pip(python, [...args, `${name}==${pinnedVersion}`], run)
    const wheel = readdirSync(folder).find((file) => file.endsWith(".whl"))!
    return expectLibrary(await unpack(path.join(folder, wheel), python, run, log), wheel)
  })
}

async function fetchCuda(python: string, run: Run, log: (line: string) => void): Promise<Library> {
  const final = path.join(cacheFolder(), `tensorflow_cuda-${pinnedVersion}`)
  const kept = readLibrary(final)
  if (kept) {
    log(`TensorFlow: found ${pinnedVersion} for CUDA in the cache, ${kept.folder}`)
    return kept
  }
  log(`TensorFlow: fetching ${pinnedVersion} with the CUDA libraries (several GB, once) with pip of ${python}`)
  return inTemporary("cuda", async (folder) => {
    await pip(python, ["install", "--target", folder, `tensorflow[and-cuda]==${pinnedVersion}`], run)
    expectLibrary(folder, "the fetched wheel")
    replaceFolder(folder, final)
    return expectLibrary(final, "the fetched wheel")
  })
}

/** Takes headers and libraries out of a wheel into the cache, unless they are there. */
async function unpack(wheel: string, python: string, run: Run, log: (line: string) => void): Promise<string> {
  const final = path.join(cacheFolder(), path.basename(wheel).split("-").slice(0, 2).join("-"))
  if (readLibrary(final)) return final
  log(`TensorFlow: unpacking headers and libraries into ${final}`)
  return inTemporary("unpack", async (folder) => {
    await run(python, ["-c", unpackScript, wheel, folder])
    replaceFolder(folder, final)
    return final
  })
}

const unpackScript = `
import sys, zipfile
wanted = ("tensorflow/include/", "tensorflow/libtensorflow_", "tensorflow/python/platform/build_info.py")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [n for n in wheel.namelist() if n.startswith(wanted) or ".dist-info/" in n])
`

/** Gives `use` a folder of its own in the cache and removes it afterwards; what a killed run left there goes too. */
async function inTemporary<T>(purpose: string, use: (folder: string) => Promise<T>): Promise<T> {
  const folder = path.join(cacheFolder(), `.${purpose}-${process.pid}`)
  try {
    mkdirSync(cacheFolder(), { recursive: true })
    removeAbandoned(cacheFolder())
    mkdirSync(folder)
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Removes the temporary folders (".purpose-pid") of processes that are gone. */
export function removeAbandoned(parent: string): void {
  for (const name of readdirSync(parent)) {
    const pid = /^\.[a-z]+-(\d+)$/.exec(name)?.[1]
    if (pid && !isAlive(Number(pid))) rmSync(path.join(parent, name), { recursive: true, force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Moves a finished folder into its place. */
export function replaceFolder(from: string, to: string): void {
  const old = path.join(path.dirname(to), `.old-${process.pid}`)
  if (existsSync(to)) renameSync(to, old)
  renameSync(from, to)
  rmSync(old, { recursive: true, force: true })
}

function expectLibrary(folder: string, source: string): Library {
  const library = readLibrary(folder)
  if (library) return library
  throw new BackendError(
    `native: ${source} must carry ${libraryFiles.join(", ")} and include/, got none of it; ` +
      `use a Linux wheel of tensorflow or tensorflow-cpu, for example ${pinnedVersion}`,
  )
}

async function installedFolder(python: string, run: Run): Promise<string> {
  const script =
    "import importlib.util as u; s = u.find_spec('tensorflow'); print(s.submodule_search_locations[0] if s else '')"
  return (await run(python, ["-c", script])).trim()
}

/** The first Python 3.8 or later: the one that is named, else the active one. */
export async function findPython({ python }: LibraryWish, run: Run): Promise<string> {
  const active = process.env.VIRTUAL_ENV ? [path.join(process.env.VIRTUAL_ENV, "bin/python")] : []
  for (const candidate of python ? [python] : [...active, "python3", "python"]) {
    try {
      await run(candidate, ["-c", "import sys; assert sys.version_info >= (3, 8)"])
      return candidate
    } catch (error) {
      if (!(error instanceof ChildError)) throw error
    }
  }
  throw new BackendError(
    `native: needs Python 3.8 or later to get TensorFlow's library, got none${python ? ` at "${python}"` : ""}; ` +
      "install it (Debian, Ubuntu: `apt-get install python3 python3-pip`; Fedora: `dnf install python3-pip`) or name one with --python",
  )
}

async function pip(python: string, args: readonly string[], run: Run): Promise<void> {
  try {
    await run(python, ["-m", "pip", "--disable-pip-version-check", "--no-input", ...args], { visible: true })
  } catch (cause) {
    const said = cause instanceof ChildError ? cause.output : String(cause)
    const remedy = /No module named pip/.test(said)
      ? "install pip (Debian, Ubuntu: `apt-get install python3-pip`)"
      : "check the network, or fetch a tensorflow wheel elsewhere and run `npx musc native --wheel <file>`"
    throw new BackendError(`native: pip of ${python} failed (${said.trim().split("\n").at(-1)}); ${remedy}`, { cause })
  }
}
