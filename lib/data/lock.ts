import { createHash, randomUUID } from "node:crypto"
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  type Stats,
  statSync,
} from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { InputError, StoppedError } from "../errors"
import { hostName } from "../machine"
import { createExclusive, fileError, removeTemporaries, replaceAtomic, temporaryFor } from "./files"
import { keepBeating, stopBeating } from "./heartbeat"
import { answers, isRunning, type ProcessIdentity, thisProcess } from "./process"

/**
 * Locks as files. A lock says which process holds it: id, start time, start of the machine, container. Where that can
 * be looked up, a lock whose process has ended is taken over at once. Where it cannot (another machine, another
 * container), the holder gives a sign of life every few seconds, and its lock counts as left behind a minute after the
 * last one.
 *
 * Each lock has an id that is never used again. To end lock X, by giving it back or by taking it over, a process must
 * create `.lock.json.X.next`, which only one can. So a lock passes in one step from one holder to one other. Afterwards
 * the chain `lock.json`, `.lock.json.X.next`, … must end with the new holder: a process that judged an older state sees
 * then that it came too late.
 */

export interface LockTimes {
  /** seconds between two signs of life */
  beat: number
  /** seconds without a sign of life after which a lock counts as left behind, where its process cannot be looked up */
  patience: number
}

const times: LockTimes = { beat: 5, patience: 60 }

export interface Lock {
  /** Gives the folder back. A folder that was made for the lock and is still empty goes too. */
  release(): void
  /**
   * Aborted when another process took the lock, because this one gave no sign of life: a suspended or cut-off machine.
   */
  lost: AbortSignal
}

/** Lock files that this process holds. */
const ours = new Set<string>()

/**
 * Takes a folder, or with `name` one thing in it, for this process alone. The folder is made if absent.
 * @throws InputError when another process works in the folder, or it cannot be written.
 */
export function lockFolder(dir: string, name = "lock.json", { beat, patience } = times): Lock {
  const folder = resolve(dir)
  const file = join(folder, name)
  const firstNew = makeFolder(folder, dir)
  try {
    if (ours.has(file)) throw inUse(file, "this process", "wait for its other run")
    const id = randomUUID()
    const text = JSON.stringify({ ...thisProcess(), id })
    take(file, id, text, patience)
    ours.add(file)
    sweep(file, id)
    const lost = new AbortController()
    const onLost = () =>
      lost.abort(new StoppedError(`${file}: another process took this lock while this one did not respond`))
    keepBeating(file, { text, seconds: beat, onLost })
    const release = () => {
      if (!ours.delete(file)) return
      stopBeating(file)
      giveBack(file, id)
      removeEmpty(folder, firstNew)
    }
    return { release, lost: lost.signal }
  } catch (error) {
    removeEmpty(folder, firstNew)
    throw fileError(error, file, "write")
  }
}

/** Whether a file of a folder belongs to a lock. */
export const isLockFile = (name: string): boolean =>
  /^(\..+\.)?lock\.json$|^\.(\..+\.)?lock\.json\..+\.next$/.test(name)

/** Makes a folder and returns the outermost one that was absent. */
function makeFolder(folder: string, named: string): string | undefined {
  try {
    if (statSync(folder, { throwIfNoEntry: false })?.isFile())
      throw new InputError("must be a folder, got a file; choose another name", { file: named })
    return mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw fileError(error, named, "write")
  }
}

function removeEmpty(folder: string, firstNew: string | undefined): void {
  if (!firstNew) return
  try {
    for (let at = folder; at.startsWith(firstNew); at = dirname(at)) rmdirSync(at)
  } catch {} // it holds something
}

interface Holder extends Partial<ProcessIdentity> {
  id: string
  /** seconds since its last sign of life, by the clock of the disk */
  age: number
  /** It is giving the lock back. */
  leaving?: boolean
}

function take(file: string, id: string, text: string, patience: number): void {
  for (let unread = 0; ; ) {
    requireFile(file)
    if (createExclusive(file, text)) return
    const chain = chainOf(file)
    const holder = chain.at(-1)
    if (!holder) continue // given back since
    if ((!holder.pid || holder.leaving) && unread++ < 40) {
      pause(5) // about to be filled, where a file system has no links, or about to go
      continue
    }
    const wait = secondsLeft(holder, patience)
    if (wait > 0) throw inUse(file, said(holder), remedy(holder, wait))
    const next = nextOf(file, holder.id)
    if (!createExclusive(next, text)) continue // another process was faster
    if (chainOf(file).at(-1)?.id !== id) {
      rmSync(next, { force: true }) // the lock changed hands before
      continue
    }
    replaceAtomic(file, text)
    for (const { id } of chain) rmSync(nextOf(file, id), { force: true })
    return
  }
}

function giveBack(file: string, id: string): void {
  const next = nextOf(file, id)
  const marker = JSON.stringify({ ...thisProcess(), id: randomUUID(), leaving: true })
  try {
    if (!createExclusive(next, marker)) return // taken over
  } catch {} // on a full disk it has to go without
  try {
    if (readHolder(file)?.id === id) rmSync(file, { force: true })
    rmSync(next, { force: true })
  } catch {} // the disk is gone: the lock can be taken over once this process has ended
}

const nextOf = (file: string, id: string) => join(dirname(file), `.${basename(file)}.${id}.next`)

/** The lock and those that followed it and are not yet in its place; the last one holds. */
function chainOf(file: string): Holder[] {
  const chain: Holder[] = []
  for (let holder = readHolder(file); holder; holder = readHolder(nextOf(file, holder.id))) {
    if (chain.some(({ id }) => id === holder!.id)) break
    chain.push(holder)
  }
  return chain
}

function readHolder(file: string): Holder | undefined {
  let text: string
  let stat: Stats
  try {
    stat = statSync(file)
    text = stat.size < 10_000 ? readFileSync(file, "utf8") : ""
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw fileError(error, file, "read")
  }
  const age = (clockOf(file) - stat.mtimeMs) / 1000
  // Of a writer that was killed, of an older version, or of somebody else.
  const unknown = createHash("sha256").update(`${text}\n${stat.ino}`).digest("hex").slice(0, 32)
  try {
    const { id, ...identity } = JSON.parse(text)
    return { ...identity, id: /^[\w-]{1,64}$/.test(id) ? id : unknown, age }
  } catch {
    return { id: unknown, age }
  }
}

/** The time in ms by the clock that dates files beside this one. */
function clockOf(file: string): number {
  const temporary = temporaryFor(file)
  try {
    closeSync(openSync(temporary, "w"))
    return statSync(temporary).mtimeMs
  } catch {
    return Date.now() // the disk is full
  } finally {
    rmSync(temporary, { force: true })
  }
}

/**
 * Seconds after which the lock may be taken over if there is no further sign of life; infinite for a process that runs.
 */
function secondsLeft({ pid, host, boot, namespace, started, age }: Holder, patience: number): number {
  if (!pid || !host) return 0
  // Of a version that did not write down more.
  if (!started && host === hostName() && !answers(pid)) return 0
  const running = isRunning({ pid, host, boot, namespace, started })
  if (running !== undefined) return running ? Number.POSITIVE_INFINITY : 0
  return Math.abs(age) > patience ? 0 : patience - Math.max(0, age)
}

const said = ({ pid, host }: Holder) => (pid ? `process ${pid} on ${host}` : "an unreadable lock")

function remedy({ age }: Holder, wait: number): string {
  if (wait === Number.POSITIVE_INFINITY) return "wait for it to end, or stop it"
  const lastSign = `last sign of life ${Math.max(0, Math.round(age))} s ago`
  return `wait for it to end; if it is gone (${lastSign}), run again in ${Math.ceil(wait)} s`
}

const inUse = (file: string, who: string, todo: string) =>
  new InputError(`one process at a time may work here, got ${who}; ${todo}`, { file })

/** @throws InputError for a folder, a link or anything else instead of the lock */
function requireFile(file: string): void {
  const stat = lstatSync(file, { throwIfNoEntry: false })
  if (!stat || stat.isFile()) return
  const got = stat.isDirectory() ? "a folder" : stat.isSymbolicLink() ? "a link" : "something else"
  throw new InputError(`a lock must be a file, got ${got}; remove it`, { file })
}

/** Removes what takers left that were killed or came too late. */
function sweep(file: string, id: string): void {
  const [start, own] = [`.${basename(file)}.`, basename(nextOf(file, id))]
  for (const name of readdirSync(dirname(file)))
    if (name.startsWith(start) && name.endsWith(".next") && name !== own)
      rmSync(join(dirname(file), name), { force: true })
  removeTemporaries(dirname(file), { of: basename(file) })
}

const cell = new Int32Array(new SharedArrayBuffer(4))
const pause = (ms: number) => Atomics.wait(cell, 0, 0, ms)
