import { createHash } from "node:crypto"
import { constants, createReadStream } from "node:fs"
import { type FileHandle, lstat, mkdir, open, rm, stat, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileError, moveFinished } from "../data/files"
import { InputError, StoppedError } from "../errors"

/** A file of known content on a server. */
export interface RemoteFile {
  url: string
  /** bytes */
  size: number
  /** sha256 of the content (64 hex digits), or the SHA-1 that git gives it (40) */
  hash: string
}

export interface DownloadOptions {
  /** sent to the server of the URL only, not to where it redirects */
  token?: string
  signal?: AbortSignal
  /** told the bytes on disk, those of an earlier attempt included */
  onBytes?: (done: number) => void
  /** seconds without a byte after which a connection counts as cut */
  stall?: number
  /** seconds before the first new attempt; doubles with every further one */
  pause?: number
}

/** Attempts in a row that bring no further byte before giving up. */
const attempts = 5

/** Connections for one file, however little each of them brings: a server may send a byte at a time for ever. */
const mostConnections = (size: number) => 50 + Math.ceil(size / 2 ** 16)

/**
 * Fetches a file into `to`, where it appears whole and verified or not at all. What a cut connection or a killed
 * process leaves in `{to}.incomplete` is gone on with.
 * @throws InputError: refused by the server, wrong content, no connection, a disk that is full; StoppedError when
 * aborted
 */
export async function download(remote: RemoteFile, to: string, options: DownloadOptions = {}): Promise<void> {
  if (await holds(to, remote)) return options.onBytes?.(remote.size)
  const part = `${to}.incomplete`
  try {
    await mkdir(dirname(to), { recursive: true })
    for (let fresh = false; ; fresh = true) {
      if (fresh || (await sizeOf(part)) > remote.size || !(await isPlain(part))) await rm(part, { force: true })
      const resumed = (await sizeOf(part)) > 0
      await fill(remote, part, options)
      const got = await contentHash(part, remote)
      if (got === remote.hash) return await moveFinished(part, to)
      if (resumed) continue // the older half may be to blame
      await rm(part, { force: true })
      throw new InputError(
        `must have the hash ${remote.hash}, got ${got}; the file was damaged on its way, try again`,
        {
          file: remote.url,
        },
      )
    }
  } catch (error) {
    throw fileError(error, to, "write")
  }
}

/** Adds to `part` until it has its full size, through as many connections as that takes. */
async function fill(remote: RemoteFile, part: string, options: DownloadOptions): Promise<void> {
  const { signal, pause = 0.5 } = options
  let most = 0
  for (let failures = 0, connections = 0; ; connections++) {
    const before = await sizeOf(part)
    options.onBytes?.(before)
    if (!remote.size) {
      await rm(part, { force: true })
      return writeFile(part, "", { flag: "wx" })
    }
    if (before === remote.size) return
    const reason = await transfer(remote, part, before, options)
    const now = await sizeOf(part)
    if (now === remote.size) return
    if (signal?.aborted) throw new StoppedError(`${remote.url}: download stopped at byte ${now} of ${remote.size}`)
    // What counts is the furthest byte: a file that is shorter than its listed size starts again from 0 each time.
    failures = now > Math.max(before, most) ? 0 : failures + 1
    most = Math.max(most, before, now)
    if (failures === attempts || connections === mostConnections(remote.size)) {
      throw new InputError(
        `could not download: ${reason} at byte ${now} of ${remote.size}, after ${connections + 1} connections; ` +
          "check the network and run the same command again to resume",
        { file: remote.url },
      )
    }
    await sleep(1000 * pause * 2 ** failures, undefined, { signal }).catch(() => {})
  }
}

/** Bytes that must arrive before `stall` seconds are over; a server may send one now and then, for ever. */
const leastBytes = 1024

/** One connection. Returns why it ended; throws where another one would not help. */
async function transfer(remote: RemoteFile, part: string, from: number, options: DownloadOptions): Promise<string> {
  const { token, stall = 30 } = options
  const idle = new AbortController()
  const timer = setTimeout(() => idle.abort(new Error(`next to nothing for ${stall} s`)), 1000 * stall)
  const signal = AbortSignal.any([idle.signal, ...(options.signal ? [options.signal] : [])])
  let file: FileHandle | undefined
  try {
    const response = await fetch(remote.url, {
      headers: {
        "accept-encoding": "identity",
        range: `bytes=${from}-`,
        ...(token && { authorization: `Bearer ${token}` }),
      },
      signal,
    })
    if (response.status === 416) await rm(part, { force: true })
    if (response.status === 416 || response.status === 429 || response.status >= 500) return `status ${response.status}`
    if (!response.ok || !response.body) throw refusal(remote.url, response.status)
    const resumes = response.status === 206
    if (resumes && !response.headers.get("content-range")?.startsWith(`bytes ${from}-`)) return "another range"
    const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1]
    if (resumes && total !== undefined && Number(total) !== remote.size) {
      await response.body.cancel()
      throw new InputError(`must have ${remote.size} bytes as listed, got ${total}; try again later`, {
        file: remote.url,
      })
    }
    // Nothing that stands there is followed: a link could lead anywhere.
    const { O_WRONLY, O_CREAT, O_APPEND, O_TRUNC, O_NOFOLLOW = 0 } = constants
    file = await open(part, O_WRONLY | O_CREAT | O_NOFOLLOW | (resumes ? O_APPEND : O_TRUNC), 0o644)
    let done = resumes ? from : 0
    let counted = done
    for await (const chunk of response.body) {
      done += chunk.length
      if (done - counted >= leastBytes) {
        timer.refresh()
        counted = done
      }
      if (done > remote.size) {
        await file.truncate(0)
        throw new InputError(`must have ${remote.size} bytes, got more; try again`, { file: remote.url })
      }
      await file.writeFile(chunk)
      options.onBytes?.(done)
    }
    return "the end of the connection"
  } catch (error) {
    if (error instanceof InputError || (error as NodeJS.ErrnoException).syscall === "write") throw error
    const { message, cause } = (idle.signal.aborted ? idle.signal.reason : error) as Error
    return `"${cause instanceof Error ? cause.message : message}"`
  } finally {
    clearTimeout(timer)
    await file?.close()
  }
}

/** The error for a status that says no; `detail` is the server's own word. */
export function refusal(where: string, status: number, detail = ""): InputError {
  const got = `status ${status}${detail && ` (${detail})`}`
  const remedy =
    status === 401 || status === 403
      ? "check the name; for a gated or private model accept its terms on its page and set HF_TOKEN to a token that may read it"
      : status === 404
        ? "check the name of the model and its revision"
        : "try again later"
  return new InputError(`must be readable, got ${got}; ${remedy}`, { file: where })
}

/** Whether a file has the content; one that has not is removed. */
export async function holds(file: string, remote: Pick<RemoteFile, "size" | "hash">): Promise<boolean> {
  const stats = await stat(file).catch(() => null)
  if (!stats) return false
  if (stats.size === remote.size && (await contentHash(file, remote)) === remote.hash) return true
  await rm(file, { force: true, recursive: true })
  return false
}

/** A file of its own: no link, and no second name for a file elsewhere. */
async function isPlain(file: string): Promise<boolean> {
  const stats = await lstat(file).catch(() => null)
  return !stats || (stats.isFile() && stats.nlink === 1)
}

async function sizeOf(file: string): Promise<number> {
  return (await stat(file).catch(() => null))?.size ?? 0
}

/** sha256, or git's: SHA-1 over `blob {size}\0` and the content. */
async function contentHash(
  file: string,
  { hash: { length }, size }: Pick<RemoteFile, "size" | "hash">,
): Promise<string> {
  const hash = createHash(length === 64 ? "sha256" : "sha1")
  if (length === 40) hash.update(`blob ${size}\0`)
  for await (const block of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(block)
  return hash.digest("hex")
}
