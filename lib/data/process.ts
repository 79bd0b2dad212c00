import { readFileSync, readlinkSync } from "node:fs"
import { hostName, isLinux } from "../machine"

/**
 * A process, so that others can tell whether it still runs. A process id alone cannot say it: ids are used again, after
 * a restart of the machine too, and each container counts its own.
 */
export interface ProcessIdentity {
  pid: number
  host: string
  /** Id of this start of the machine; Linux only. */
  boot?: string
  /** The set of process ids that `pid` belongs to: containers have sets of their own. Linux only. */
  namespace?: string
  /** When the process started, in clock ticks since the machine did. Linux only. */
  started?: string
}

let own: ProcessIdentity | undefined

/** Who this process is. */
export function thisProcess(): ProcessIdentity {
  own ??= {
    pid: process.pid,
    host: hostName(),
    boot: attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()),
    namespace: attempt(() => readlinkSync("/proc/self/ns/pid")),
    started: startOf("self"),
  }
  return own
}

/** Who a process of this machine is. */
export const processOf = (pid: number): ProcessIdentity => ({ ...thisProcess(), pid, started: startOf(pid) })

/**
 * Whether a process still runs; undefined where that cannot be told from here: on another machine, in another
 * container.
 */
export function isRunning(other: ProcessIdentity): boolean | undefined {
  const here = thisProcess()
  if (isLinux) {
    if (!other.boot || !other.namespace || !other.started) return undefined
    if (other.boot !== here.boot || other.namespace !== here.namespace) return undefined
    if (!answers(other.pid)) return false
    // /proc may be that of the machine while our process ids are those of a container.
    if (attempt(() => readlinkSync("/proc/self")) !== `${process.pid}`) return undefined
    return startOf(other.pid) === other.started
  }
  if (other.host !== here.host) return undefined
  return answers(other.pid) ? undefined : false // it runs, or another one has its number
}

/** Whether there is a process with this id. */
export function answers(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and parentheses. A zombie has ended. */
function startOf(pid: number | "self"): string | undefined {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, "latin1"))
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ")
  return fields?.[0] === "Z" ? undefined : fields?.[19]
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
