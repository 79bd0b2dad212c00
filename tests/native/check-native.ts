/**
 * Checks the C++ of the kernels, `npm run check:native`: how it is laid out (where clang-format is there), and each
 * kernel at odd sizes under the sanitizers for addresses and undefined behaviour. Also writes compile_commands.json,
 * for editors. Needs what `npx musc native` needs: a compiler and TensorFlow's headers.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ChildError, run } from "../../lib/device/child"
import { kernelFiles, kernelLevels, kernelSources } from "../../lib/device/kernel-set"
import { nativeBuild } from "../../lib/native/build"

const root = join(__dirname, "../..")
const compiler = process.env.CXX || "g++"

/** Instructions of each level that this processor has. */
function runnable(): [string, readonly string[]][] {
  const flags = readFileSync("/proc/cpuinfo", "latin1")
  const needs: Record<string, RegExp> = {
    amx: /\bamx_bf16\b/,
    "avx512-bf16": /\bavx512_bf16\b/,
    "x86-64-v4": /\bavx512vl\b/,
    "x86-64-v3": /\bavx2\b/,
  }
  return Object.entries(kernelLevels).filter(([level]) => !needs[level] || needs[level].test(flags))
}

async function main(): Promise<void> {
  const build = nativeBuild()
  if (!build) throw new Error("check:native: the native backend is not built; run `npx musc native`")
  const include = [`-I${join(build.library.folder, "include")}`, `-I${join(root, "lib/native/kernels")}`]
  const common = ["-std=c++17", "-fno-math-errno", "-Wall", "-Wno-psabi", ...include]

  const sources = [...kernelSources, join(__dirname, "kernels.cc")]
  const best = runnable()[0]![1]
  const commands = sources.map((file) => ({
    directory: root,
    file,
    arguments: [compiler, ...common, ...best, "-c", file],
  }))
  writeFileSync(join(root, "compile_commands.json"), `${JSON.stringify(commands, null, 2)}\n`)

  const format = await run("clang-format", ["--dry-run", "--Werror", ...kernelFiles]).catch((error) => {
    if (error instanceof ChildError && error.missing) return null
    throw error
  })
  console.log(format === null ? "layout: not checked, clang-format is not installed" : "layout: as .clang-format says")

  const folder = mkdtempSync(join(tmpdir(), "musc-check-"))
  try {
    const levels = runnable()
    const check = async () => {
      for (let next = levels.shift(); next; next = levels.shift()) {
        const [level, instructions] = next
        const program = join(folder, level)
        const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"]
        await run(compiler, [...common, ...sanitizers, ...instructions, ...sources, "-pthread", "-o", program])
        const said = await run(program, [])
        console.log(`sanitizers, ${level === "plain" ? "any processor" : level}: clean, ${said.trim()}`)
      }
    }
    // Two at a time: a compiler runs on one core.
    await Promise.all([check(), check()])
  } finally {
    rmSync(folder, { recursive: true })
  }
}

main().catch((error) => {
  console.error(error instanceof ChildError ? error.output : error)
  process.exitCode = 1
})
