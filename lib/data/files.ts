import { createHash } from "node:crypto"
import {
  accessSync,
  constants,
  createReadStream,
  existsSync,
  linkSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { copyFile, cp, lstat, open, readdir, rename, rm, stat } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { InputError } from "../errors"
import { isWindows } from "../machine"
import { isRunning, thisProcess } from "./process"

/**
 * Finished files and folders. Each is made beside its place under a temporary name, synced, and renamed last: it
 * appears whole or not at all. Nothing outside this file renames or copies (a test checks that). What a killed process
 * leaves is a temporary name, which `removeTemporaries` knows.
 */

/**
 * Makes a file or folder: `make` writes it at the path that it is given. An older one is replaced. Where that is a
 * folder, a kill at the worst moment leaves none, so whoever uses a folder must be able to make it again.
 * @throws InputError naming `path`: disk full, read-only, no permission; and what `make` throws.
 */
export async function finish<T>(path: string, make: (temporary: string) => Promise<T>): Promise<T> {
  const temporary = temporaryFor(path)
  try {
    const result = await make(temporary)
    await sync(temporary)
    await replace(temporary, path)
    return result
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {})
    throw fileError(error, path, "write")
  }
}

/**
 * Writes a whole file, or leaves the old one untouched.
 * @throws InputError naming the file: disk full, read-only, no permission.
 */
export function writeAtomic(file: string, content: string | Uint8Array | Iterable<string>): Promise<void> {
  return finish(file, async (temporary) => {
    const handle = await open(temporary, "wx")
    try {
      const pieces = typeof content === "string" || content instanceof Uint8Array ? [content] : content
      for (const piece of pieces) await handle.appendFile(piece)
    } finally {
      await handle.close()
    }
  })
}

/** Copies a finished file or folder: a whole copy or none; on file systems that can, without taking space. */
export function copyFinished(from: string, to: string): Promise<void> {
  return finish(to, async (temporary) => {
    if ((await stat(from)).isDirectory()) await cp(from, temporary, { recursive: true, dereference: true })
    else await copyFile(from, temporary, constants.COPYFILE_FICLONE)
  })
}

/** Moves a file that is finished and checked, such as a download, into its place. */
export async function moveFinished(from: string, to: string): Promise<void> {
  try {
    await sync(from)
    await replace(from, to)
  } catch (error) {
    throw fileError(error, to, "write")
  }
}

let counter = 0

/** A new name beside `path`: it tells the process, and no other call in it gets the same. */
export function temporaryFor(path: string): string {
  const { pid, boot = "", namespace = "", started = "0" } = thisProcess()
  return join(dirname(path), `.${basename(path)}.${space(boot, namespace)}-${pid}-${started}-${counter++}.tmp`)
}

const temporaryName = /^\..+\.([0-9a-f]{8})-(\d+)-(\d+)-\d+\.tmp$/

/** Whether a file or folder is one that `finish` has not finished. */
export const isTemporary = (name: string): boolean => temporaryName.test(name)

const space = (boot: string, namespace: string) =>
  createHash("sha256").update(`${boot}\n${namespace}`).digest("hex").slice(0, 8)

const DAY = 24 * 3600 * 1000

/**
 * Removes what killed processes left unfinished in a folder: what is older than a day, or whose process is gone for
 * certain. With `all`, everything: for a folder that is locked. `of` limits it to what was to become one file or
 * folder.
 */
export function removeTemporaries(dir: string, { all = false, of }: { all?: boolean; of?: string } = {}): void {
  const { boot = "", namespace = "", ...here } = thisProcess()
  for (const name of readdirSync(dir)) {
    const [, where, pid, started] = temporaryName.exec(name) ?? []
    if (!where || (of !== undefined && !name.startsWith(`.${of}.${where}-`))) continue
    const path = join(dir, name)
    const known = where === space(boot, namespace)
    const gone = known && isRunning({ ...here, boot, namespace, pid: Number(pid), started: started! }) === false
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0)
    if (all || gone || age > DAY) rmSync(path, { recursive: true, force: true })
  }
}

/** Renames, also onto a folder that holds files, which no system call does in one step. */
async function replace(from: string, to: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return await rename(from, to)
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException
      const onFolder = /^(ENOTEMPTY|EEXIST|EPERM)$/.test(code) && (await isFolder(from))
      // Where there is nothing, another process is replacing it as well.
      const byFile = await lstat(to).then(
        (stat) => !stat.isDirectory(),
        () => false,
      )
      if (!onFolder || byFile || tries === 100) throw error
    }
    const old = temporaryFor(to)
    try {
      await rename(to, old)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
    }
    await rename(from, to).catch(() => {}) // if another process was faster, once more
    await rm(old, { recursive: true, force: true })
    if (!(await exists(from))) return
  }
}

/** Removes a file or folder, in one step for whoever looks at `path`: a kill leaves it whole, or a temporary name. */
export async function removeFinished(path: string): Promise<void> {
  const temporary = temporaryFor(path)
  await rename(path, temporary)
  await rm(temporary, { recursive: true, force: true })
}

const isFolder = (path: string) =>
  stat(path).then(
    (stat) => stat.isDirectory(),
    () => false,
  )
const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )

/** Has the disk keep the bytes of a file, or of all files of a folder; not of what links lead to. */
async function sync(path: string): Promise<void> {
  const stats = await lstat(path)
  if (stats.isDirectory()) for (const name of await readdir(path)) await sync(join(path, name))
  if (!stats.isFile()) return
  const handle = await open(path, isWindows ? "r+" : "r")
  try {
    await handle.datasync()
  } finally {
    await handle.close()
  }
}

/**
 * Creates a file with its content in one step; false where there is one of this name.
 * @throws system errors
 */
export function createExclusive(file: string, content: string): boolean {
  const temporary = temporaryFor(file)
  try {
    writeFileSync(temporary, content, { flag: "wx" })
    linkSync(temporary, file)
    return true
  } catch (error) {
    const { code = "", syscall } = error as NodeJS.ErrnoException
    if (syscall !== "link") throw error
    if (code === "EEXIST") return false
    if (!/^(EPERM|ENOSYS|ENOTSUP|EOPNOTSUPP|EMLINK)$/.test(code)) throw error
  } finally {
    rmSync(temporary, { force: true })
  }
  // A file system without links: a reader may see the file empty for a moment.
  try {
    writeFileSync(file, content, { flag: "wx" })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false
    throw error
  }
}

/** Puts a small file instead of another in one step, at once. @throws system errors */
export function replaceAtomic(file: string, content: string): void {
  const temporary = temporaryFor(file)
  try {
    writeFileSync(temporary, content, { flag: "wx" })
    renameSync(temporary, file)
  } finally {
    rmSync(temporary, { force: true })
  }
}

/** What a file holds, to be compared later. */
export interface FilePrint {
  bytes: number
  sha256: string
}

/** Size and sha256 of a file. @throws InputError naming a file that cannot be read, or has no end, such as a device */
export async function printOf(file: string): Promise<FilePrint> {
  const stats = statSync(file, { throwIfNoEntry: false })
  if (stats && !stats.isFile() && !stats.isDirectory())
    throw new InputError("must be a regular file, got a pipe or device; write it to a file first", { file })
  const hash = createHash("sha256")
  let bytes = 0
  try {
    for await (const block of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      hash.update(block)
      bytes += block.length
    }
  } catch (error) {
    throw fileError(error, file, "read")
  }
  return { bytes, sha256: hash.digest("hex") }
}

/** sha256 of a file's bytes. @throws InputError naming a file that cannot be read */
export const sha256File = async (file: string): Promise<string> => (await printOf(file)).sha256

/** sha256 of those files of a folder that are there, by name. @throws InputError naming a file that cannot be read */
export async function hashesOf(dir: string, names: readonly string[]): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {}
  for (const name of names) if (existsSync(join(dir, name))) hashes[name] = await sha256File(join(dir, name))
  return hashes
}

/** How a file differs from what it should hold, in words; undefined where it does not. */
export async function damageOf(file: string, wanted: FilePrint): Promise<string | undefined> {
  const stats = statSync(file, { throwIfNoEntry: false })
  if (!stats?.isFile()) return "is missing"
  if (stats.size !== wanted.bytes) return `has ${stats.size} bytes instead of ${wanted.bytes}`
  return (await sha256File(file)) === wanted.sha256 ? undefined : "has other content than when it was finished"
}

const remedies: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder; check the path",
  EISDIR: "a folder stands here; name a file",
  ERR_FS_EISDIR: "a folder stands here; name a file",
  ERR_FS_CP_EISDIR: "a folder stands here; name a file",
  ENOTDIR: "a part of the path is a file; check the path",
  EEXIST: "the file is already there; resume, or choose another folder",
  ENOTEMPTY: "a folder with files stands here; choose another place",
  EACCES: "no permission; change the permissions or choose another place",
  EPERM: "no permission; change the permissions or choose another place",
  EROFS: "the disk is read-only; choose another place",
  ENOSPC: "the disk is full; free some space and run again, finished rows are kept",
  EDQUOT: "the quota is used up; free some space and run again, finished rows are kept",
  EFBIG: "the file would be larger than the system allows; choose another disk",
  EMFILE: "too many files are open; raise the limit or lower the concurrency",
  ELOOP: "links point at each other; check the path",
  ENAMETOOLONG: "the name is too long; choose a shorter one",
  EIO: "the disk fails; check it, and choose another place",
  ESTALE: "the network disk lost the file; run again",
}

/** @throws InputError for anything but a file that can be read */
export function requireReadable(file: string): void {
  try {
    accessSync(file, constants.R_OK)
  } catch (error) {
    throw fileError(error, file, "read")
  }
  const stat = statSync(file)
  if (stat.isFile()) return
  const got = stat.isDirectory() ? "a folder" : "a pipe or device"
  throw new InputError(`must be a file, which is read more than once, got ${got}; name a file`, { file })
}

/** A system error as an InputError that names the file that it is about; other errors come back as they are. */
export function pathError(error: unknown): unknown {
  const { path, syscall = "" } = (error ?? {}) as NodeJS.ErrnoException
  if (typeof path !== "string") return error
  const reading = /^(stat|lstat|access|scandir|opendir|read|readlink|realpath)$/.test(syscall)
  return fileError(error, path, reading ? "read" : syscall === "open" ? "open" : "write")
}

/** A system error as an InputError that names the file and the remedy; other errors come back as they are. */
export function fileError(error: unknown, file: string, action: "read" | "write" | "open"): unknown {
  const code = (error as { code?: unknown } | null)?.code
  const remedy = typeof code === "string" ? remedies[code] : undefined
  if (!remedy) return error
  const [problem, ...rest] = remedy.split("; ")
  return new InputError(`could not ${action}: ${problem} (${code}); ${rest.join("; ")}`, { file }, { cause: error })
}
