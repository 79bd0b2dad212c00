import path from "node:path"
import { ChildError, type Run } from "../device/child"
import { kernelLevels, kernelLibrary, kernelSources } from "../device/kernel-set"
import { libraryFiles } from "./libtensorflow"

// -fno-math-errno lets GCC vectorise `sqrt`: errno is not set for negative inputs.
const flags = ["-O3", "-fno-math-errno", "-Wno-psabi"]

/**
 * Compiles the kernels, a library for each kind of processor. What a compiler cannot make is left out, and the kernels
 * of TensorFlow do the work there, as they do on a GPU.
 */
export async function compileKernels(
  compiler: string,
  common: readonly string[],
  into: string,
  run: Run,
  log: (line: string) => void,
): Promise<void> {
  const build = async ([level, instructions]: [string, readonly string[]]) => {
    const output = path.join(into, kernelLibrary(level))
    try {
      await run(compiler, [
        ...common,
        ...flags,
        ...instructions,
        ...kernelSources,
        "-o",
        output,
        `-l:${libraryFiles[1]}`,
      ])
    } catch (error) {
      if (!(error instanceof ChildError) || error.missing) throw error
      const why = /^.*error.*$/m.exec(error.message)?.[0] ?? error.message
      log(`left out: kernels for ${level === "plain" ? "any processor" : level} (${why.trim()})`)
    }
  }
  await Promise.all(Object.entries(kernelLevels).map(build))
}
