import { mkdir } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import type { RunConfig } from "../config/config"
import { hashesOf, writeAtomic } from "../data/files"
import type { Results } from "../data/results"
import type { StudyRecord } from "../report/study-record"
import { writeStudyReport } from "../report/study-report"
import { writeResults } from "../report/tables"
import type { Findings } from "./experiment"
import { versions } from "./manifest"
import { resultsOf } from "./results"
import { findings, type RunOptions } from "./run"
import { benchmarkTable, type Measured } from "./run-benchmarks"

/** One run of a study: its folder's name, and what it changes. */
export interface Variant {
  name: string
  changes: Partial<RunConfig>
  config: RunConfig
}

/** An experiment of several runs that differ in settings of any stage. */
export interface Study {
  axis?: "noiseRatio" | "pairs"
  variants: readonly Variant[]
}

/**
 * Runs the variants one after the other, each in a folder of its own inside `dir`. They share the stage cache, so a
 * stage that two of them have in common is done once. Then puts their results together: `results.json`, `results.csv`,
 * `results.md` and `report.html`, with a method named by its variant ("drop"), or by both where variants train several
 * ("pairs-60 musc"). Called again, resumes where it stopped.
 * @throws as `run`
 */
export async function runStudy({ axis, variants }: Study, options: RunOptions): Promise<Results> {
  const dir = resolve(options.dir)
  const { onNote = () => {}, command = "" } = options
  const cache = options.cache === undefined ? join(dirname(dir), ".cache") : options.cache
  const runs: VariantRun[] = []
  for (const { name, changes, config } of variants) {
    onNote(`${name}: ${said(changes)}`)
    const own = { ...options, dir: join(dir, name), cache, shared: join(dir, ".shared") }
    runs.push({ name, config, ...(await findings(config, own)) })
  }
  const names = methodNamesOf(runs)
  const results = mergedResults(runs, names)
  await mkdir(dir, { recursive: true })
  await writeResults(dir, results)
  const tables = ["results.json", "results.csv", "results.md", "benchmarks.csv", "benchmarks.md"]
  const record: StudyRecord = {
    command,
    ...versions(),
    axis,
    variants: runs.map(({ name, config, results }, i) => ({
      name,
      changes: variants[i]!.changes,
      model: basename(config.model),
      methods: names[i]!,
      pairs: results.pairs,
    })),
    files: await hashesOf(dir, [...tables, ...variants.map(({ name }) => `${name}/manifest.json`)]),
  }
  await writeAtomic(join(dir, "study.json"), `${JSON.stringify(record, null, 2)}\n`)
  await writeStudyReport(dir)
  return results
}

/** The results of all runs as those of one, with methods called by `names`. */
function mergedResults(runs: readonly VariantRun[], names: readonly Record<string, string>[]): Results {
  const merged = new Map<string, Findings["graded"][number]>()
  for (const [i, { graded }] of runs.entries())
    for (const { method, items, ...rest } of graded) {
      const name = names[i]![method]!
      merged.set(`${name}\n${rest.key}`, {
        ...rest,
        method: name,
        items: items.map((item) => ({ ...item, method: name })),
      })
    }
  const bases = Object.fromEntries(
    names.flatMap(({ base, ...own }) => Object.values(own).map((name): [string, string] => [name, base!])),
  )
  const trained = runs.flatMap(({ results }, i) =>
    (results.trained ?? []).map((one) => ({ ...one, method: names[i]![one.method] ?? one.method })),
  )
  const { bootstrapSamples: samples, seed, evalSplit: split } = runs[0]!.config
  const judges = [...new Set(runs.flatMap(({ results }) => results.judged_by ?? []))]
  const notes = notesOf(runs)
  return {
    ...resultsOf([...merged.values()], [], { samples, seed }),
    ...{ bases, trained, split },
    ...(notes.length && { notes }),
    ...(judges.length && { judged_by: judges.join("; ") }),
    ...benchmarksOf(runs, names),
  }
}

interface VariantRun extends Findings {
  name: string
  config: RunConfig
}

/**
 * How each variant's methods are called in the whole. The base model is "base" where all variants answered with the
 * same one, else named by model; a variant's only trained method takes the variant's name.
 */
function methodNamesOf(runs: readonly VariantRun[]): Record<string, string>[] {
  const baseOf = ({ graded, config }: VariantRun) =>
    graded.flatMap(({ method, key }) => (method === "base" ? key : [])).join() || config.model
  const models = new Set(runs.map(({ config }) => config.model))
  const oneBase = new Set(runs.map(baseOf)).size === 1
  return runs.map(({ name, config, graded, benchmarks }) => {
    const all = new Set([...graded, ...benchmarks.measured].map(({ method }): string => method))
    const trained = [...all].filter((method) => method !== "base")
    const base = oneBase ? "base" : `base ${models.size > 1 ? basename(config.model) : name}`
    return Object.fromEntries([
      ["base", base],
      ...trained.map((method) => [method, trained.length > 1 ? `${name} ${method}` : name]),
    ])
  })
}

/** The table of benchmarks over all runs; base's answers of runs with the same model are the same. */
function benchmarksOf(
  runs: readonly VariantRun[],
  names: readonly Record<string, string>[],
): Pick<Results, "benchmarks"> {
  const loaded = new Map(runs.flatMap(({ benchmarks }) => benchmarks.loaded.map((one) => [one.benchmark.name, one])))
  if (!loaded.size) return {}
  const measured = new Map<string, Measured>()
  for (const [i, { benchmarks }] of runs.entries())
    for (const one of benchmarks.measured) {
      const method = names[i]![one.method] ?? one.method
      measured.set(`${one.benchmark}\n${method}\n${one.seed}`, { ...one, method })
    }
  const { seeds } = runs[0]!.benchmarks
  const judge = runs.map(({ benchmarks }) => benchmarks.judge).find((one) => one !== undefined)
  const all = { loaded: [...loaded.values()], measured: [...measured.values()], seeds, judge }
  return { benchmarks: benchmarkTable(runs[0]!.config, all) }
}

/** The notes of the runs, those that not all of them have with the run's name. */
function notesOf(runs: readonly VariantRun[]): string[] {
  const all = runs.flatMap(({ name, results }) => (results.notes ?? []).map((note) => ({ name, note })))
  const everywhere = (note: string) => runs.every(({ results }) => results.notes?.includes(note))
  return [...new Set(all.map(({ name, note }) => (everywhere(note) ? note : `${name}: ${note}`)))]
}

const said = (changes: Partial<RunConfig>) =>
  Object.entries(changes)
    .map(([key, value]) => `${key} ${value}`)
    .join(", ")
