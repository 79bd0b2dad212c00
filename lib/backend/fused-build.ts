import path from "node:path"
import { ChildError, type Run } from "./child"
import { libraryFiles } from "./libtensorflow"

/** The C++ of the kernels in fused.ts, which `npx musc native` compiles beside the binding. */
const folder = path.join(__dirname, "../../lib/backend/fused")
const inFolder = (names: readonly string[]) => names.map((name) => path.join(folder, name))

const kernels = inFolder(["elementwise.cc", "attention.cc", "decode.cc", "flat.cc", "lora.cc", "product.cc", "shelf.cc"])
/** Becomes part of the binding, and loads the kernels that fit the processor. */
export const fusedLoader = path.join(folder, "load.cc")
export const fusedSources = [...kernels, ...inFolder(["op.h", "simd.h"]), fusedLoader]

/** Instructions that the kernels are compiled for, as load.cc names them: they may be on another processor tomorrow. */
const levels: Record<string, readonly string[]> =
  process.arch === "x64"
    ? {
        amx: ["-march=x86-64-v4", "-mamx-tile", "-mamx-bf16"],
        "x86-64-v4": ["-march=x86-64-v4"],
        "x86-64-v3": ["-march=x86-64-v3"],
        plain: [],
      }
    : { plain: [] }
const flags = ["-O3", "-Wno-psabi"]

/**
 * One library for each kind of processor. What a compiler cannot make is left out, and the kernels of TensorFlow do the work
 * there, as they do on a GPU.
 */
export async function compileFused(
  compiler: string,
  common: readonly string[],
  into: string,
  run: Run,
  log: (line: string) => void,
): Promise<void> {
  const build = async ([level, instructions]: [string, readonly string[]]) => {
    const output = path.join(into, `libfused-${level}.so`)
    try {
      await run(compiler, [...common, ...flags, ...instructions, ...kernels, "-o", output, `-l:${libraryFiles[1]}`])
    } catch (error) {
      if (!(error instanceof ChildError) || error.missing) throw error
      const why = /^.*error.*$/m.exec(error.message)?.[0] ?? error.message
      log(`left out: kernels for ${level === "plain" ? "any processor" : level} (${why.trim()})`)
    }
  }
  await Promise.all(Object.entries(levels).map(build))
}
