import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { cpus } from "node:os"

/** The widest vectors and tiles of this processor. The same model name may have others in a virtual machine. */
export function processor(): string {
  const flags = existsSync("/proc/cpuinfo")
    ? (/^flags.*$/m.exec(readFileSync("/proc/cpuinfo", "latin1"))?.[0] ?? "")
    : ""
  const has = (flag: string) => new RegExp(`\\b${flag}\\b`).test(flags)
  const vectors = has("avx512f")
    ? "AVX-512"
    : has("avx2")
      ? "AVX2"
      : process.arch === "arm64"
        ? "NEON"
        : "unknown vectors"
  const bf16 = has("avx512_bf16") ? " with bf16 products" : ""
  return `${cpus()[0]?.model.trim()}, ${vectors}${bf16}, ${has("amx_bf16") ? "AMX" : "no AMX"}`
}

const peerPackages = ["torch", "transformers", "peft", "trl", "accelerate", "llama_cpp_python"]

/** Versions of the peers' packages; those that are not installed are left out. */
export function peerVersions(python: string): Record<string, string> {
  const script = `
import json
from importlib import metadata
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in ${JSON.stringify(peerPackages)}}))`
  const all: Record<string, string | null> = JSON.parse(execFileSync(python, ["-c", script], { encoding: "utf8" }))
  return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== null))
}
