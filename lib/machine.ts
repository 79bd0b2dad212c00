import { existsSync, readFileSync } from "node:fs"
import os from "node:os"

/** What this computer is. No other file asks. `device/device.ts` says what it means for a model. */

export const platform = process.platform
export const architecture = process.arch
export const isLinux = platform === "linux"
export const isWindows = platform === "win32"
export const isLittleEndian = os.endianness() === "LE"

export const hostName = (): string => os.hostname()

/** Threads that the system grants this process. */
export const threadsOfMachine = (): number => os.availableParallelism()

export function processors(): { count: number; name: string } {
  const all = os.cpus()
  return { count: all.length, name: all[0]?.model.trim() ?? "unknown processor" }
}

/** Bytes of memory. `limit` is that of a container, 0 where there is none; `available` respects it. */
export const memory = () => ({
  total: os.totalmem(),
  free: os.freemem(),
  limit: process.constrainedMemory(),
  available: process.availableMemory(),
})

/** Whether the processor has instructions that Linux calls so; undefined where that cannot be told. */
export function hasInstructions(name: "amx_bf16" | "avx512_bf16"): boolean | undefined {
  const facts = existsSync("/proc/cpuinfo") && readFileSync("/proc/cpuinfo", "latin1")
  return facts ? facts.includes(name) : undefined
}

/** This file exists where the driver of an NVIDIA GPU is loaded. */
export const nvidiaDriver = "/proc/driver/nvidia/version"
