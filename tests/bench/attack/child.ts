import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const bin = join(__dirname, "../../../lib/cli/bin.cjs")

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  output: string
  seconds: number
  /** most memory seen, MiB; Linux only */
  peakMiB: number
  timedOut: boolean
}

export interface StartOptions {
  env?: Record<string, string>
  cwd?: string
  /** ends the process by SIGKILL after this many seconds */
  limit?: number
  /** told the process when it has begun */
  onStart?: (child: ChildProcess) => void
}

/** Runs `musc` in a process group of its own, and waits for its end. */
export function musc(args: readonly string[], options: StartOptions = {}): Promise<Ended> {
  return run([process.execPath, bin, ...args], options)
}

export function run(
  command: readonly string[],
  { env = {}, cwd, limit = 600, onStart }: StartOptions = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const began = Date.now()
    const child = spawn(command[0]!, command.slice(1), {
      cwd,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    })
    let output = ""
    let peakMiB = 0
    let timedOut = false
    const keep = (text: Buffer) => {
      output = (output + text).slice(-20_000)
    }
    child.stdout!.on("data", keep)
    child.stderr!.on("data", keep)
    const watch = setInterval(() => {
      peakMiB = Math.max(peakMiB, memoryOf(child.pid!))
      if (Date.now() - began < 1000 * limit) return
      timedOut = true
      killGroup(child)
    }, 200)
    child.on("error", reject)
    child.on("close", (code, signal) => {
      clearInterval(watch)
      resolve({ code, signal, output, seconds: (Date.now() - began) / 1000, peakMiB, timedOut })
    })
    onStart?.(child)
  })
}

export function killGroup(child: ChildProcess, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(-child.pid!, signal)
  } catch {} // it has ended
}

/** Resident memory of a process, MiB; 0 where that cannot be read. */
function memoryOf(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024
  } catch {
    return 0
  }
}

/** Processor seconds that a process has used, all threads together; NaN where that cannot be read, or it has ended. */
export function processorSeconds(pid: number): number {
  try {
    const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8")
      .split(") ")[1]!
      .split(" ")
      .slice(11, 13)
      .map(Number)
    return (user! + system!) / 100
  } catch {
    return Number.NaN
  }
}

/** The processes that a process started, and theirs. */
export function childrenOf(pid: number): number[] {
  try {
    const own = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number)
    return own.flatMap((child) => [child, ...childrenOf(child)])
  } catch {
    return []
  }
}

/** A stack trace, or an error that names no place. */
export const hasStack = (output: string): boolean => /^\s+at .+(:\d+:\d+\)?|<anonymous>\)?)$/m.test(output)

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** The last line of an output, for the table. */
export const lastLine = (output: string): string => output.trim().split("\n").at(-1)?.slice(0, 200) ?? ""
