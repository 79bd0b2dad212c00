import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import path from "node:path"
import { finish, removeTemporaries, sha256File, temporaryFor } from "../data/files"
import { ChildError, type Run } from "../device/child"
import { cacheFolder, variable } from "../environment"
import { BackendError } from "../errors"
import { architecture } from "../machine"
import { isTrusted, pinnedVersion, pinnedWheels, pipArguments, recordFolder } from "./trust"

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

export const libraryFiles = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"]

/**
 * The TensorFlow to build against: the one that is named, else the one of the active Python, else a pinned wheel that
 * pip fetches once.
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
function readLibrary(folder: string): Library | undefined {
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
  return expectLibrary(unpacked ? wheel : await unpackNamed(wheel, await findPython(wish, run), run, log), wheel)
}

async function fetchCpu(python: string, run: Run, log: (line: string) => void): Promise<Library> {
  const wheels = pinnedWheels(false)
  if (!wheels) {
    throw new BackendError(
      `native: nothing is pinned for ${architecture}; install tensorflow in a Python and name it with --python`,
    )
  }
  const name = Object.keys(wheels)[0]!.replace("==", "-").replace("-cpu", "_cpu")
  const final = path.join(cacheFolder(), name)
  const library = await cached(final, true, log)
  if (library) return library
  log(`TensorFlow: none in ${python}; fetching ${name} (270 MB, once) with its pip`)
  return inTemporary("download", async (folder) => {
    await pip(python, ["download", "--dest", folder, ...pipArguments(wheels, folder)], run)
    const wheel = readdirSync(folder).find((file) => file.endsWith(".whl"))!
    await unpack(path.join(folder, wheel), final, python, run, log)
    const library = await cached(final, true, log)
    if (library) return library
    throw new BackendError(`native: ${wheel} has the right hash but other files than expected; report this, please`)
  })
}

async function fetchCuda(python: string, run: Run, log: (line: string) => void): Promise<Library> {
  const wheels = pinnedWheels(true)
  if (!wheels) {
    throw new BackendError(
      `native: CUDA libraries are pinned for x64, got ${architecture}; ` +
        "install tensorflow[and-cuda] in a Python and name it with --python",
    )
  }
  const final = path.join(cacheFolder(), `tensorflow_cuda-${pinnedVersion}`)
  const library = await cached(final, false, log)
  if (library) return library
  log(`TensorFlow: fetching ${pinnedVersion} with the CUDA libraries (several GB, once) with pip of ${python}`)
  return inTemporary("cuda", async (folder) => {
    await finish(final, async (target) => {
      await pip(python, ["install", "--target", target, ...pipArguments(wheels, folder)], run)
      expectLibrary(target, "the fetched wheel")
      await recordFolder(target, Object.keys(wheels).join(" "))
    })
    return expectLibrary(final, "the fetched wheel")
  })
}

/** The library in a folder of the cache, if every file of it is as it was put there. */
async function cached(folder: string, pinned: boolean, log: (line: string) => void): Promise<Library | undefined> {
  const library = readLibrary(folder)
  if (!library) return undefined
  if (await isTrusted(folder, pinned)) {
    log(`TensorFlow: found in the cache, ${library.folder}; all files have the expected hash`)
    return library
  }
  log(`TensorFlow: ${folder} holds other files than were put there; it is fetched again`)
  return undefined
}

/** A wheel that the user names: unpacked once, under its name and hash. */
async function unpackNamed(wheel: string, python: string, run: Run, log: (line: string) => void): Promise<string> {
  const sha256 = await sha256File(wheel)
  const name = path.basename(wheel).split("-").slice(0, 2).join("-")
  const final = path.join(cacheFolder(), `${name}-${sha256.slice(0, 16)}`)
  return (await cached(final, false, log)) ? final : unpack(wheel, final, python, run, log)
}

/** Takes headers and libraries out of a wheel into the cache. */
async function unpack(
  wheel: string,
  final: string,
  python: string,
  run: Run,
  log: (line: string) => void,
): Promise<string> {
  log(`TensorFlow: unpacking headers and libraries into ${final}`)
  mkdirSync(cacheFolder(), { recursive: true })
  removeTemporaries(cacheFolder())
  await finish(final, async (folder) => {
    await run(python, ["-c", unpackScript, wheel, folder])
    await recordFolder(folder, path.basename(wheel))
  })
  return final
}

const unpackScript = `
import sys, zipfile
wanted = ("tensorflow/include/", "tensorflow/libtensorflow_", "tensorflow/python/platform/build_info.py")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [n for n in wheel.namelist() if n.startswith(wanted) or ".dist-info/" in n])
`

/** Gives `use` a folder of its own in the cache and removes it afterwards; what a killed run left there goes too. */
async function inTemporary<T>(purpose: string, use: (folder: string) => Promise<T>): Promise<T> {
  mkdirSync(cacheFolder(), { recursive: true })
  removeTemporaries(cacheFolder())
  const folder = temporaryFor(path.join(cacheFolder(), purpose))
  try {
    mkdirSync(folder)
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
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
  const environment = variable("VIRTUAL_ENV")
  const active = environment ? [path.join(environment, "bin/python")] : []
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
      "install it (Debian, Ubuntu: `apt-get install python3 python3-pip`; Fedora: `dnf install python3-pip`) " +
      "or name one with --python",
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
