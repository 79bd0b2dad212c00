import { readFileSync } from "node:fs"

type MemoryLine = "VmHWM" | "VmRSS" | "RssAnon" | "RssShmem" | "RssFile"

/** A line of /proc/PID/status in MiB; undefined where there is none. */
export function memory(name: MemoryLine, pid = process.pid): number | undefined {
  try {
    const line = new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))
    return Number(line![1]) / 1024
  } catch {
    return undefined
  }
}
