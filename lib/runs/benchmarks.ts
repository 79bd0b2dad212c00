import { createHash } from "node:crypto"
import { existsSync, statSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { sha256File, writeAtomic } from "../data/files"
import { InputError, MuscError } from "../errors"
import { alpacaEval } from "../eval/alpaca-eval"
import type { Benchmark } from "../eval/benchmark"
import { cfbench } from "../eval/cfbench"
import { complexbench, complexbenchEn } from "../eval/complexbench/complexbench"
import { followbench } from "../eval/followbench/followbench"
import { ifeval } from "../eval/ifeval/ifeval"
import { infobench, infobenchSingle } from "../eval/infobench"
import { mtBench } from "../eval/mt-bench"
import { world } from "../world/benchmark"

/** Every benchmark, in the order of the help. */
export const benchmarks: readonly Benchmark[] = [
  ...[ifeval, followbench, infobench, infobenchSingle, cfbench, complexbench, complexbenchEn],
  ...[mtBench, alpacaEval, world],
]

/** @throws InputError for a name that none has. */
export function benchmarkOf(name: string): Benchmark {
  const benchmark = benchmarks.find((benchmark) => benchmark.name === name)
  if (benchmark) return benchmark
  const known = benchmarks.map((benchmark) => benchmark.name).join(", ")
  throw new InputError(`must be one of ${known}, got ${name}; choose one`, { field: "benchmark" })
}

/** Where the official files come from, for people. */
export function sourceText({ name, source: { home, files, licence } }: Benchmark): string {
  const lines = files.map(({ name, url, sha256 }) =>
    [
      `  ${name}`,
      `    ${url ? `from ${url}` : "a part of the data that is taken too, not fetched"}`,
      `    SHA-256 ${sha256 ?? "not known"}`,
    ].join("\n"),
  )
  const fetched = `npx musc benchmark ${name} --download benchmarks/${name}`
  return `${name}: official data from ${home} (licence ${licence})\n${lines.join("\n")}\nto download it: ${fetched}`
}

/**
 * SHA-256 of the data files by name, with warnings for those that differ from the ones the scorer was tested on. In a
 * folder only files with names that the benchmark knows count.
 */
export async function checkData(
  { source: { files } }: Benchmark,
  path: string,
): Promise<{ data: Record<string, string>; warnings: string[] }> {
  const folder = statSync(path, { throwIfNoEntry: false })?.isDirectory()
  if (folder === undefined)
    throw new InputError("must be a file or folder of official data, got none; check the path", { file: path })
  const names = new Set(files.flatMap(({ name }) => [name, basename(name)]))
  const present = folder ? [...names].filter((name) => existsSync(join(path, name))) : [basename(path)]
  const data: Record<string, string> = {}
  const warnings: string[] = []
  for (const name of present) {
    const hash = await sha256File(folder ? join(path, name) : path)
    data[name] = hash
    const own = files.filter((file) => basename(file.name) === basename(name))
    const tested = files.some(({ sha256 }) => sha256 === hash) || own.some(({ sha256 }) => !sha256)
    if (!tested) warnings.push(`${name} differs from the file that the scorer was tested on (SHA-256 ${hash})`)
  }
  return { data, warnings }
}

/**
 * Fetches the official files into a folder; those that are there with the right hash stay. Returns a line for each.
 * @throws MuscError naming the URL for a file that cannot be fetched or has another hash (nothing is kept then).
 */
export async function download({ source: { files } }: Benchmark, dir: string): Promise<string[]> {
  await mkdir(dir, { recursive: true })
  const lines: string[] = []
  for (const { name, url, sha256 } of files) {
    if (!url) continue
    const file = join(dir, name)
    if (sha256 && existsSync(file) && (await sha256File(file)) === sha256) {
      lines.push(`${file}: already here, SHA-256 as expected`)
      continue
    }
    const bytes = await fetchBytes(url)
    const hash = createHash("sha256").update(bytes).digest("hex")
    if (sha256 && hash !== sha256) {
      throw new MuscError(
        `${url}: must have SHA-256 ${sha256}, got ${hash}; it has changed: check it, then pass it with --data`,
      )
    }
    await mkdir(dirname(file), { recursive: true })
    await writeAtomic(file, bytes)
    lines.push(`${file}: SHA-256 ${hash}${sha256 ? " as expected" : ", not checked: none is known"}`)
  }
  return lines
}

async function fetchBytes(url: string): Promise<Buffer> {
  try {
    const reply = await fetch(url, { signal: AbortSignal.timeout(300_000) })
    if (!reply.ok) throw new Error(`status ${reply.status}`)
    return Buffer.from(await reply.arrayBuffer())
  } catch (error) {
    const { message, cause } = error as Error
    const problem = cause instanceof Error ? cause.message : message
    throw new MuscError(`could not download ${url}: ${problem}; fetch it by other means and pass --data`)
  }
}
