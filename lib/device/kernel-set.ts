import { createHash } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import path from "node:path"
import { architecture } from "../machine"

/** The C++ of our kernels, which `npx musc native` compiles beside the binding. */
const folder = path.join(__dirname, "../../lib/native/kernels")
const inFolder = (names: readonly string[]) => names.map((name) => path.join(folder, name))

export const kernelSources = inFolder([
  "adam.cc",
  "elementwise.cc",
  "attention.cc",
  "decode.cc",
  "dense.cc",
  "draw.cc",
  "flat.cc",
  "frozen.cc",
  "lora.cc",
  "product.cc",
  "table.cc",
])
/** Becomes part of the binding, and loads the kernels that fit the processor. */
export const kernelLoader = path.join(folder, "load.cc")
export const kernelFiles = [...kernelSources, ...inFolder(["elementwise.h", "op.h", "rows.h", "simd.h"]), kernelLoader]

/** Instructions that the kernels are compiled for, as load.cc names them: they may be on another processor tomorrow. */
export const kernelLevels: Readonly<Record<string, readonly string[]>> =
  architecture === "x64"
    ? {
        amx: ["-march=x86-64-v4", "-mamx-tile", "-mamx-bf16"],
        "avx512-bf16": ["-march=x86-64-v4", "-mavx512bf16"],
        "x86-64-v4": ["-march=x86-64-v4"],
        "x86-64-v3": ["-march=x86-64-v3"],
        plain: [],
      }
    : { plain: [] }

let set: string | undefined

/** What the kernels are made from, in a few letters. */
export function kernelSet(): string {
  if (set) return set
  const hash = createHash("sha256").update(JSON.stringify(kernelLevels))
  for (const file of kernelFiles) hash.update(readFileSync(file))
  set = hash.digest("hex").slice(0, 12)
  return set
}

/** File of the kernels for a level, in the folder of the binding. */
export const kernelLibrary = (level: string): string => `libmusc-kernels-${kernelSet()}-${level}.so`

/** Whether the kernels in the folder of a binding are those of this version; false where that cannot be told. */
export const hasKernels = (binding: string): boolean =>
  existsSync(kernelLoader) && existsSync(path.join(binding, kernelLibrary("plain")))
