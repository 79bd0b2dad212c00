import { Worker } from "node:worker_threads"

/**
 * Signs of life for locks, from a thread of their own: the main one may compute for minutes. A sign is the time of the
 * lock's file, set by writing the same text again, so that the clock of the disk counts and not that of a machine.
 */
const code = `
const { parentPort } = require("node:worker_threads")
const { closeSync, openSync, readFileSync, writeSync } = require("node:fs")
const locks = new Map()
const read = (file) => { try { return readFileSync(file, "utf8") } catch { return undefined } }
parentPort.on("message", ({ file, text, seconds }) => {
  const held = locks.get(file)
  if (held) {
    clearInterval(held.timer)
    closeSync(held.handle)
    locks.delete(file)
  }
  if (text === undefined) return
  const found = read(file)
  if (found === undefined) return
  if (found !== text) return parentPort.postMessage({ file, text }) // taken before this thread had started
  const handle = openSync(file, "r+")
  const timer = setInterval(() => {
    const now = read(file)
    if (now !== undefined && now !== text) parentPort.postMessage({ file, text })
    else try { writeSync(handle, text, 0) } catch {}
  }, 1000 * seconds)
  locks.set(file, { handle, timer })
})
`

interface Beating {
  text: string
  onLost: () => void
}

const beating = new Map<string, Beating>()
let worker: Worker | undefined

/** Keeps the time of a lock's file fresh; `onLost` is called when the file holds another text. */
export function keepBeating(file: string, { seconds, ...lock }: Beating & { seconds: number }): void {
  beating.set(file, lock)
  worker ??= start()
  worker.postMessage({ file, text: lock.text, seconds })
}

export function stopBeating(file: string): void {
  beating.delete(file)
  worker?.postMessage({ file })
  if (beating.size) return
  worker?.terminate()
  worker = undefined
}

function start(): Worker {
  const limits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 4 }
  const started = new Worker(code, { eval: true, execArgv: [], resourceLimits: limits })
  started.on("message", ({ file, text }) => {
    const lock = beating.get(file)
    if (lock?.text === text) lock?.onLost()
  })
  // Without signs of life the lock still holds on this machine, where its process can be looked up.
  started.on("error", () => {
    if (worker === started) worker = undefined
  })
  started.unref()
  return started
}
