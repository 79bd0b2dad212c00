import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { hostname } from "node:os"
import { resolve } from "node:path"
import { InputError } from "../errors"
import { fileError } from "./jsonl"

/** Lock files that this process holds. */
const ours = new Set<string>()

/**
 * Takes a folder, or with `name` one thing in it, for this process alone; returns what gives it back. The lock of a process of this machine that is no
 * longer alive is taken over.
 * @throws InputError when another process works in the folder, or it cannot be written.
 */
export function lockFolder(dir: string, name = "lock.json"): () => void {
  const file = resolve(dir, name)
  const mine = JSON.stringify({ pid: process.pid, host: hostname() })
  for (let tries = 0; ; tries++) {
    try {
      mkdirSync(dir, { recursive: true })
      writeFileSync(file, mine, { flag: "wx" })
      ours.add(file)
      return () => {
        ours.delete(file)
        if (holder(file)?.text === mine) rmSync(file, { force: true })
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw fileError(error, dir, "write")
    }
    const held = holder(file)
    if (held && (tries > 2 || ours.has(file) || isAlive(held))) {
      const who = held.pid ? `process ${held.pid} on ${held.host}` : "an unreadable lock"
      throw new InputError(
        `one process at a time may work here, got ${who}; wait for it, or delete this file if it is gone`,
        { file },
      )
    }
    rmSync(file, { force: true })
  }
}

function holder(file: string): { text: string; pid?: number; host?: string } | undefined {
  let text: string
  try {
    text = readFileSync(file, "utf8")
  } catch {
    return undefined
  }
  try {
    const { pid, host } = JSON.parse(text)
    return { text, pid, host }
  } catch {
    return { text } // torn: its writer died between creating and filling it
  }
}

function isAlive({ pid, host }: { pid?: number; host?: string }): boolean {
  if (!pid) return false
  if (host !== hostname()) return true // cannot be known from here
  if (pid === process.pid) return false // an earlier process that had our number
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}
