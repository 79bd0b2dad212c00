import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import type { RunConfig } from "../config/config"
import type { BenchmarkResults, Results } from "../data/results"
import type { Generator } from "../engine/engine"
import { ConfigError } from "../errors"
import type { Benchmark, BenchmarkItem } from "../eval/benchmark"
import type { Scored } from "../eval/figures"
import { judgeOf } from "../eval/judge"
import { figuresOfMethods } from "../eval/method-figures"
import { benchmarkCells } from "../report/benchmark-table"
import { runBenchmark } from "./benchmark"
import { firstItems, withMaxTokens } from "./benchmark-plan"
import { benchmarkOf, checkData } from "./benchmarks"
import { readItems } from "./compare"
import type { RunContext } from "./context"
import type { Engines } from "./engines"
import { aligned } from "./results"
import { keyOf } from "./store"

/** A benchmark that a run measures its methods on, with its items. */
export interface LoadedBenchmark {
  benchmark: Benchmark
  items: readonly BenchmarkItem[]
  data: Record<string, string>
  notes: string[]
}

/** What one method's answers came to on one benchmark. */
export interface Measured {
  benchmark: string
  method: string
  seed: number
  rows: readonly Scored[]
  notes: readonly string[]
}

/**
 * Reads the official data of the benchmarks that the settings name, before anything is asked of a model.
 * @throws ConfigError for an unknown name, missing data, or no judge where one is needed; InputError for broken data
 */
export async function loadBenchmarks(
  config: RunConfig,
  hasJudge = !!config.evalJudgeEndpoint,
): Promise<LoadedBenchmark[]> {
  const known = config.benchmarks.map(benchmarkOf)
  const judged = known.filter((benchmark) => benchmark.judged).map(({ name }) => name)
  if (judged.length && !hasJudge) {
    const got = "got none; add --judge URL --judge-model M"
    throw new ConfigError([`benchmarks: ${judged.join(", ")} must have a judge, ${got}`])
  }
  const loaded: LoadedBenchmark[] = []
  for (const benchmark of known) {
    const path = dataOf(benchmark, config)
    const { warnings, data } = path ? await checkData(benchmark, path) : { warnings: [], data: {} }
    const all = await benchmark.load(path)
    const some = config.benchmarkItems ? firstItems(all, config.benchmarkItems) : all
    const items = withMaxTokens(some, config.benchmarkMaxTokens || undefined)
    const limits = [
      items.length < all.length && `the first ${items.length} of ${all.length} items`,
      config.benchmarkMaxTokens && `answers have at most ${config.benchmarkMaxTokens} tokens`,
    ]
    const notes = [...warnings, ...limits.filter((note) => typeof note === "string")]
    loaded.push({ benchmark, items, data, notes })
  }
  return loaded
}

/**
 * Where a benchmark's data lies: a folder (or file) of its name in the data folder, or for a single one the folder
 * itself.
 */
function dataOf({ name, source }: Benchmark, { benchmarkData, benchmarks }: RunConfig): string {
  if (!source.files.length) return ""
  const places = [name, ...(name.includes("-") ? [name.replace(/-(en|single)$/, "")] : [])]
  const folders = benchmarkData ? places.map((place) => join(benchmarkData, place)) : []
  const dataFolder = folders
    .flatMap((folder) => [join(folder, "en"), folder])
    .find((folder) => statSync(folder, { throwIfNoEntry: false })?.isDirectory())
  if (dataFolder) return dataFolder
  if (
    benchmarkData &&
    existsSync(benchmarkData) &&
    benchmarks.filter((one) => benchmarkOf(one).source.files.length).length === 1
  )
    return benchmarkData
  const got = benchmarkData ? `no folder ${folders[0]}` : "nothing"
  const target = folders[0] ?? `benchmarks/${name}`
  const fetch = `run \`npx musc benchmark ${name} --download ${target}\` and pass the folder above with --data`
  throw new ConfigError([`benchmarkData: must hold the official data of ${name}, got ${got}; ${fetch}`])
}

/** A method of one seed: the base model where there is no adapter. */
interface MethodOfSeed {
  method: string
  seed: number
  /** the first seed of the run */
  first: number
  adapter: string | undefined
  /** opened when an answer is wanted */
  engine: () => Promise<Generator>
}

/**
 * One method of one seed on every benchmark. Each has a result folder below the seed's, whose finished answers and
 * judge's replies stay: another method or benchmark asks only for what is new. Answers of base that are all greedy are
 * the same in every seed, so they are made in the first one alone (`first`), and taken from what is `done`.
 */
export async function measureMethod(
  context: RunContext,
  loaded: readonly LoadedBenchmark[],
  done: readonly Measured[],
  subject: MethodOfSeed,
): Promise<Measured[]> {
  const { method, seed, first, adapter } = subject
  const measured: Measured[] = []
  for (const one of loaded) {
    const greedy = one.items.every(({ temperature }) => temperature === 0)
    const own = !adapter && greedy ? first : seed
    const { name } = one.benchmark
    const before = done.find((other) => other.benchmark === name && other.method === method && other.seed === own)
    const { rows, notes } = before ?? (await measure(context, one, { ...subject, seed: own }))
    measured.push({ benchmark: name, method, seed, rows, notes })
  }
  return measured
}

async function measure(
  context: RunContext,
  { benchmark, items, data, notes }: LoadedBenchmark,
  { method, seed, adapter, engine }: MethodOfSeed,
): Promise<Pick<Measured, "rows" | "notes">> {
  const { config, engines, evalJudge: judge, signal } = context
  const dir = join(adapter ? context.dir : sharedDir(context), `seed-${seed}/benchmarks/${benchmark.name}/${method}`)
  const ask = judge && judgeOf(judge.engine, { tries: config.evalJudgeTries })
  const { scores } = await runBenchmark({
    ...{ benchmark, items, dir, data, signal, scoring: config.benchmarkScoring },
    subject: `${engines.name}, ${method}`,
    source: {
      ...{ engine: opening(engines, engine), seed, local: engines.answerIdentity === engines.fingerprint },
      id: `${engines.answerIdentity} ${adapter ?? "base"}`,
    },
    ...(ask && {
      judge: {
        ask: ask.judge,
        id: `${judge.id}, ${config.evalJudgeTries} tries`,
        name: judge.id,
        concurrency: judge.engine.concurrency,
      },
    }),
    bootstrap: { samples: 100, seed: config.seed }, // the run's own table has intervals over seeds as well
    notes,
    onProgress: (progress) =>
      context.onProgress({ ...progress, stage: `seed-${seed}/${benchmark.name}/${method}: ${progress.stage}` }),
  })
  return { rows: await readItems(dir), notes: scores.notes }
}

/** A generator that is opened at its first answer. */
const opening = ({ name, untrained }: Engines, engine: () => Promise<Generator>): Generator => ({
  name,
  maxShots: untrained.maxShots,
  get concurrency() {
    return untrained.concurrency
  },
  get independent() {
    return untrained.independent
  },
  generate: async (request) => (await engine()).generate(request),
})

/** Where answers without an adapter go, which the runs of a study that have the same model share. */
const sharedDir = ({ dir, shared, engines }: RunContext) =>
  shared === undefined ? dir : join(shared, `base-${keyOf(engines.answerIdentity).slice(0, 8)}`)

/** What the table of benchmarks is made of. */
export interface BenchmarkFindings {
  loaded: readonly LoadedBenchmark[]
  measured: readonly Measured[]
  seeds: readonly number[]
  /** Who judged. */
  judge?: string
}

/**
 * The table's part of each benchmark: figures of every method, and differences from base, coarse and of musc from all.
 */
export function benchmarkTable(
  config: RunConfig,
  { loaded, measured, seeds, judge }: BenchmarkFindings,
): BenchmarkResults[] {
  return loaded.map(({ benchmark }) => {
    const own = measured.filter((one) => one.benchmark === benchmark.name)
    const methods = [...new Set(own.map(({ method }) => method))]
    const whole = methods.filter((method) => own.filter((one) => one.method === method).length === seeds.length)
    const rows = whole.map((method) => ({
      method,
      seeds: seeds.map((seed) => own.find((one) => one.method === method && one.seed === seed)!.rows),
    }))
    const pairs = whole.flatMap((method, i) => whole.slice(0, i).map((against) => [method, against] as const))
    const figures = (results: readonly unknown[]) => headlines(benchmark.figures(results, config.benchmarkScoring))
    const options = { samples: config.bootstrapSamples, seed: config.seed }
    const figuresByMethod = figuresOfMethods(figures, rows, pairs, options)
    const incomplete = methods.filter((method) => !whole.includes(method))
    return {
      benchmark: benchmark.name,
      scoring: config.benchmarkScoring,
      judge: benchmark.judged ? judge! : null,
      items: figuresByMethod.items,
      left_out: figuresByMethod.leftOut,
      notes: [
        ...incomplete.map((method) => `${method} is left out, as it has no adapter in some seed`),
        ...new Set(own.flatMap(({ method, notes }) => notes.map((note) => named(method, note, own)))),
      ],
      methods: Object.fromEntries(
        Object.entries(figuresByMethod.methods).map(([method, figures]) => [
          method,
          Object.fromEntries(Object.entries(figures).map(([name, one]) => [name, plainFigure(one)])),
        ]),
      ),
      differences: figuresByMethod.differences.map(({ method, against, figure, p, ...one }) => ({
        ...{ method, against, figure, p: finite(p), ...plainFigure(one) },
      })),
    }
  })
}

/** A note with the method that it is about, where not every method has it. */
function named(method: string, note: string, own: readonly Measured[]): string {
  return own.every(({ notes }) => notes.includes(note)) ? note : `${method}: ${note}`
}

/** The figures of the whole: those by type, level and category are in each result folder. */
const headlines = (figures: Record<string, number>) =>
  Object.fromEntries(Object.entries(figures).filter(([name]) => !/^type: | level \d$/.test(name)))

const finite = (value: number) => (Number.isFinite(value) ? value : null)
const plainFigure = ({ value, interval }: { value: number; interval: readonly [number, number] }) => ({
  value: finite(value),
  interval: [finite(interval[0]), finite(interval[1])] as [number | null, number | null],
})

/** The table of benchmarks as aligned plain text, with the differences from base. */
export function benchmarkText({ benchmarks = [] }: Pick<Results, "benchmarks">): string {
  const { head, values, differences } = benchmarkCells(benchmarks)
  const judges = benchmarks.map(({ benchmark, judge }) => `${benchmark}: judged by ${judge ?? "rules"}`)
  const gaps = differences.map(({ against, rows }) => `difference from ${against}\n${aligned([head, ...rows])}`)
  return [judges.join("; "), aligned([head, ...values]), ...gaps].join("\n\n")
}
