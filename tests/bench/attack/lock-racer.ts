/**
 * A process that races for a lock: for each folder that it is sent it tries to take it, holds it for a moment, and
 * answers whether it did, and whether it met another holder.
 */
import { closeSync, openSync, rmSync } from "node:fs"
import { join } from "node:path"
import { lockFolder } from "../../../lib/data/lock"
import { InputError } from "../../../lib/errors"

const sleep = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

function race(dir: string): "held" | "refused" | "two" {
  const inside = join(dir, "inside")
  try {
    const lock = lockFolder(dir)
    try {
      closeSync(openSync(inside, "wx")) // fails where another process is inside
      sleep(1)
      rmSync(inside)
      return "held"
    } catch {
      return "two"
    } finally {
      lock.release()
    }
  } catch (error) {
    if (error instanceof InputError) return "refused"
    throw error
  }
}

process.on("message", ({ dir, at }: { dir: string; at: number }) => {
  while (Date.now() < at); // all start in the same millisecond
  process.send!(race(dir))
})
