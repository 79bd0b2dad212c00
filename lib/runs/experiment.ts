import { join } from "node:path"
import { isBaseline, isVerified, type MethodName } from "../config/config"
import { sum } from "../data/numbers"
import type { EvalItem, Results } from "../data/results"
import type { InstructionRow, PairRow } from "../data/schema"
import type { Generator } from "../engine/engine"
import { InputError, PendingJobError } from "../errors"
import { evaluate, evaluateVersion } from "../musc/evaluate"
import { stages } from "../musc/stages"
import { type TrainRow, trainVersion } from "../musc/train"
import { baselinePairs, finePairs } from "./baselines"
import { collect, first, methodStage, passed, type RunContext, rowsStage, stepProgress, tellLosses } from "./context"
import type { Engines, OpenGenerator } from "./engines"
import { exactGrader, type GradedPair, gradePair, graderOf, gradesKey, judgeOptions } from "./graders"
import { type Brought, broughtBy, notesOf, verifiedNote } from "./notes"
import { type Graded, meanShares, type PairCount, resultsOf } from "./results"
import {
  type BenchmarkFindings,
  benchmarkTable,
  type LoadedBenchmark,
  loadBenchmarks,
  type Measured,
  measureMethod,
} from "./run-benchmarks"
import { judgedBy } from "./run-judge"
import { holdoutStage, sourceStage } from "./source"
import { checkMethods, stageOptions, trainSettings } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"
import { metricsOf, trainedOn } from "./train-stage"
import { idsOf, verifierOf, verifyStage } from "./verified"

/** What a run found: its results, and the graded answers behind them with the key of the work that made each list. */
export interface Findings {
  results: Results
  graded: (Graded & { seed: number; key: string })[]
  /** What the table of benchmarks is made of. */
  benchmarks: BenchmarkFindings
}

/** What the seeds of a run add up to. */
interface Collected {
  graded: Findings["graded"]
  pairs: PairCount[]
  baselines: NonNullable<Results["baselines"]>
  trained: NonNullable<Results["trained"]>
  brought: Brought[]
  measured: Measured[]
  /** Folders of the jobs that somebody else is to run. */
  pending: string[]
  /** The held-out instructions, which all seeds answer. */
  holdout?: StageOutput
}

/**
 * The paper's figure, once for each seed: instructions to pairs, pairs to adapters, adapters to answers and verdicts.
 * @throws PendingJobError with all jobs that somebody else is to run; else what stages, training and evaluation throw
 */
export async function experiment(context: RunContext, seeds: readonly number[]): Promise<Findings> {
  const { config, evalJudge: judge, engines } = context
  checkMethods(config)
  const all: Collected = { graded: [], pairs: [], baselines: [], trained: [], brought: [], measured: [], pending: [] }
  const loaded = await loadBenchmarks(config, !!judge)
  for (const seed of seeds)
    await runSeed(context, seed, all, { loaded, first: seeds[0]! }).catch(pendingIn(all.pending))
  const { graded, pairs, baselines, trained, measured } = all
  if (all.pending.length) throw new PendingJobError(all.pending)
  const results = resultsOf(graded, pairs, { samples: config.bootstrapSamples, seed: config.seed })
  const verified = pairs.flatMap(({ seed, verified }) => (verified ? verifiedNote(seed, verified) : []))
  const notes = [...notesOf(config, all.brought), ...verified]
  const benchmarks = { loaded, measured, seeds, judge: judge?.id }
  const items = graded.flatMap(({ items }) => items)
  const more = {
    ...{ trained, split: config.evalSplit, ...(notes.length && { notes }) },
    ...(config.methods.some(isBaseline) && { baselines }),
    ...(graded.length && { judged_by: judgedBy(items, engines, judge) }),
    ...(loaded.length && { benchmarks: benchmarkTable(config, benchmarks) }),
  }
  return { results: { ...results, ...more }, graded, benchmarks }
}

/** All stages of one seed; what they found is added to `all`. */
async function runSeed(
  context: RunContext,
  seed: number,
  all: Collected,
  { loaded, first }: { loaded: readonly LoadedBenchmark[]; first: number },
): Promise<void> {
  const { config, engines } = context
  const source = await sourceStage(context, seed)
  tellLosses("source", source.rows, context.onNote)
  const options = stageOptions(config, seed).decompose
  const decomposed = await methodStage(context, "decompose", { seed, input: source.rows, options })
  all.brought.push(await broughtBy(seed, decomposed))
  const sources = await pairSources(context, seed, decomposed, all)
  if (config.evalInstructions) all.holdout ??= await holdoutStage(context, source)
  // All are trained before one is evaluated: a server is then started once, with all adapters.
  const trained = await trainMethods(context, seed, sources, all)
  if (all.pending.length) return
  for (const [method, adapter] of trained) {
    const opened = openedLazily(engines, adapter?.dir)
    try {
      const { holdout } = all
      if (holdout) all.graded.push(...(await evaluateMethod(context, seed, method, { adapter, opened, holdout })))
      const of = { method, seed, first, adapter: adapter?.key, engine: opened.engine }
      all.measured.push(...(await measureMethod(context, loaded, all.measured, of)))
    } finally {
      await opened.dispose()
    }
  }
}

/** Stages 2 to 5 and those of the baselines: the pairs that each method is trained on. */
async function pairSources(
  context: RunContext,
  seed: number,
  decomposed: StageOutput,
  all: Pick<Collected, "pairs" | "baselines">,
): Promise<Map<MethodName, PairSource>> {
  const { methods } = context.config
  const baselines = methods.filter(isBaseline)
  const fine = methods.includes("fine")
  const sources = new Map<MethodName, PairSource>()
  const contrasted = methods.filter((method) => method !== "base" && method !== "fine" && !isBaseline(method))
  if (contrasted.length || !(baselines.length || fine)) {
    const { count, sourceOf } = await contrastivePairs(context, seed, decomposed, contrasted.length > 0)
    all.pairs.push(count)
    for (const method of contrasted) sources.set(method, sourceOf(method))
  }
  const add = (method: MethodName, output: StageOutput) => {
    const n = passedOf(output)
    context.onNote(`seed ${seed}: ${n} pairs of ${output.rows} instructions for ${method}${reasons(output)}`)
    if (n) sources.set(method, pairSource(output, output.key))
    return n
  }
  for (const method of baselines) {
    const { output, unreadable } = await baselinePairs(context, seed, method, decomposed)
    const n = add(method, output)
    const exact = await checkable(output)
    const pairShares = meanShares(exact ? await gradePairs(context, `seed-${seed}/pairs-${method}`, output, n) : [])
    all.baselines.push({ method, seed, n, failures: output.failures, unreadable, ...pairShares })
  }
  if (fine) add("fine", await finePairs(context, seed, decomposed))
  return sources
}

/**
 * The contrastive pairs of a seed, all of them or those that were verified, as a method asks.
 * @throws InputError where no pair is left and one is `needed`
 */
async function contrastivePairs(context: RunContext, seed: number, decomposed: StageOutput, needed: boolean) {
  const { config, onNote } = context
  const { answered, verified, weighed } = await contrastStages(context, seed, decomposed)
  const kept = config.keepPairs === "verified" ? verified! : answered
  // Weights are made of the signals, so a longer list of weightings to write down changes no adapter.
  const pairs = pairSource(weighed, keyOf(kept.key, stages.weigh.version))
  const confirmed = verified && (verified === kept ? pairs : await onlyVerified(pairs, verified))
  const n = passedOf(weighed)
  if (!n && needed) {
    const got = `none of ${weighed.rows} rows${reasons(weighed)}`
    throw new InputError(`training needs at least one pair, got ${got}; cure the most frequent reason`, {
      file: weighed.file,
    })
  }
  onNote(`seed ${seed}: ${n} pairs of ${weighed.rows} instructions${reasons(weighed)}`)
  const counts = confirmed && { n: confirmed.n, of: passedOf(answered), by: verifierOf(config) }
  if (counts) onNote(verifiedNote(seed, counts))
  const graded = await gradePairs(context, `seed-${seed}/pairs`, kept, n)
  const count: PairCount = { seed, n, graded, ...(counts && { verified: counts }) }
  return { count, sourceOf: (method: MethodName) => (isVerified(method) ? confirmed! : pairs) }
}

/** Stage 6 for each method of the settings, with null for the base model; a method without pairs is left out. */
async function trainMethods(
  context: RunContext,
  seed: number,
  sources: ReadonlyMap<MethodName, PairSource>,
  all: Pick<Collected, "trained" | "pending">,
): Promise<[MethodName, Adapter | null][]> {
  const { config, dir, onNote } = context
  const fewest = Math.min(...[...sources.values()].flatMap(({ n }) => n || []))
  const most = Math.min(config.pairs || Number.POSITIVE_INFINITY, config.equalPairs ? fewest : Number.POSITIVE_INFINITY)
  const methods: [MethodName, Adapter | null][] = []
  for (const method of config.methods) {
    const source = sources.get(method)?.n ? sources.get(method) : undefined
    if (!source && method !== "base") {
      onNote(`seed ${seed}: ${method} is left out, as it has no pairs to be trained on`)
      continue
    }
    const training = source && trainMethod(context, seed, method, source, most)
    const adapter = (await training?.catch(pendingIn(all.pending))) ?? null
    const counts = adapter && (await trainedOn(join(dir, `seed-${seed}/train/${method}`)))
    if (counts) {
      const { pairs, leftOut, refused = 0, shortened } = counts
      all.trained.push({ method, seed, pairs, left_out: leftOut + refused, shortened })
    }
    methods.push([method, adapter])
  }
  return methods
}

/** Notes the jobs that somebody else is to run, so that the others are written before the command ends. */
const pendingIn = (folders: string[]) => (error: unknown) => {
  if (!(error instanceof PendingJobError)) throw error
  folders.push(...error.folders)
  return null
}

const passedOf = ({ rows, failures }: StageOutput) => rows - sum(Object.values(failures))

/**
 * Stages 2 to 5. Pairs are verified where a setting or a method asks for it; `keepPairs` leaves only those to be
 * weighed.
 */
async function contrastStages(context: RunContext, seed: number, decomposed: StageOutput) {
  const { keepPairs, methods } = context.config
  const options = stageOptions(context.config, seed)
  const next = (name: "corrupt" | "recombine" | "respond" | "weigh", input: StageOutput) =>
    methodStage(context, name, { seed, input, options: options[name] })
  const corrupted = await next("corrupt", decomposed)
  const recombined = await next("recombine", corrupted)
  const answered = await next("respond", recombined)
  const filtered = keepPairs === "verified"
  const verified = filtered || methods.some(isVerified) ? await verifyStage(context, seed, answered) : undefined
  const weighed = await next("weigh", filtered ? verified! : answered)
  return { answered, verified, weighed }
}

async function gradePairs(context: RunContext, name: string, pairs: StageOutput, n: number): Promise<GradedPair[]> {
  const { gradedPairs } = context.config
  const { base, textIdentity } = context.engines
  const options = judgeOptions(context.config)
  const grade = graderOf(base, options)
  const checked = await rowsStage<PairRow, GradedPair>(context, {
    name,
    key: keyOf("pairs", evaluateVersion, pairs.key, textIdentity, gradedPairs, options, ...gradesKey(context.config)),
    total: Math.min(n, gradedPairs),
    rows: () => first(gradedPairs, passed<PairRow>(pairs)),
    work: (row) => gradePair(row, grade),
  })
  return collect(readOutput<GradedPair>(checked))
}

/**
 * Whether the pairs of an output can be graded exactly; a model's judgement of a baseline's pairs is not worth its
 * calls.
 */
async function checkable(output: StageOutput): Promise<boolean> {
  for await (const row of passed<InstructionRow>(output)) return exactGrader(row) !== undefined
  return false
}

interface Adapter {
  dir: string
  key: string
}

/** Pairs to train on, with the key of all that they are made of. */
interface PairSource {
  n: number
  key: string
  rows: () => AsyncIterable<TrainRow & InstructionRow>
}

const pairSource = (output: StageOutput, key: string): PairSource => ({
  n: passedOf(output),
  key,
  rows: () => passed<TrainRow & InstructionRow>(output),
})

/** The pairs among some that were verified. */
async function onlyVerified({ rows, key }: PairSource, verified: StageOutput): Promise<PairSource> {
  const ids = await idsOf(verified)
  return {
    n: ids.size,
    key: keyOf(key, verified.key),
    async *rows() {
      for await (const row of rows()) if (ids.has(row.id)) yield row
    },
  }
}

/** Stage 6; null for the base model. */
async function trainMethod(
  context: RunContext,
  seed: number,
  method: MethodName,
  source: PairSource,
  most: number,
): Promise<Adapter | null> {
  const { config, dir, engines, cache, signal } = context
  const settings = trainSettings(config, method, seed)
  if (!settings) return null
  const stage = `seed-${seed}/train/${method}`
  const n = Math.min(most, source.n)
  const key = keyOf("train", trainVersion, settings, engines.fingerprint, source.key, n)
  const tracked = context.tracking?.training(`seed-${seed}/${method}`, join(dir, stage, "metrics.jsonl"))
  const tell = stepProgress(stage, context)
  const adapter = await engines.train({
    dir: join(dir, stage),
    key,
    pairs: () => first(n, source.rows()),
    settings,
    checkpointEvery: config.checkpointEvery,
    cache,
    signal,
    onStep: async (log) => {
      tell(log)
      await tracked?.step(metricsOf(log))
    },
    onPlan: (plan) => context.onPlan(stage, plan),
    onNote: (line) => context.onNote(`seed ${seed}, ${method}: ${line}`),
  })
  await tracked?.finish()
  return { dir: adapter, key }
}

/** The engine of a method, opened once, and only where an answer is still to be made. */
interface OpenedLazily {
  engine: () => Promise<Generator>
  dispose(): Promise<void>
}

function openedLazily(engines: Engines, dir: string | undefined): OpenedLazily {
  let adapted: Promise<OpenGenerator> | undefined
  return {
    async engine() {
      if (dir === undefined) return engines.untrained
      adapted ??= engines.withAdapter(dir)
      return adapted
    },
    async dispose() {
      ;(await adapted?.catch(() => undefined))?.dispose()
    },
  }
}

/** Stage 7: one file a temperature. */
async function evaluateMethod(
  context: RunContext,
  seed: number,
  method: MethodName,
  { adapter, opened, holdout }: { adapter: Adapter | null; opened: OpenedLazily; holdout: StageOutput },
): Promise<Findings["graded"]> {
  const { config, engines, evalJudge } = context
  const rows = await collect(passed<InstructionRow>(holdout))
  if (!rows.length) {
    const got = `none${reasons(holdout)}`
    throw new InputError(
      `evaluation needs instructions that were held out, got ${got}; raise holdout or give more seeds`,
      {
        file: holdout.file,
      },
    )
  }
  const grade = graderOf(evalJudge?.engine ?? engines.base, judgeOptions(config))
  const graded: Findings["graded"] = []
  const judging = evalJudge
    ? [evalJudge.id]
    : engines.textIdentity === engines.answerIdentity
      ? []
      : [engines.textIdentity]
  for (const temperature of config.evalTemperatures) {
    const options = { method, seed, temperature, maxTokens: config.evalMaxTokens }
    const identity = [
      engines.answerIdentity,
      adapter?.key ?? "base",
      holdout.key,
      judgeOptions(config),
      ...judging,
      ...gradesKey(config),
    ]
    const output = await rowsStage(context, {
      name: `seed-${seed}/evaluate/${method}-T${temperature}`,
      key: keyOf("evaluate", evaluateVersion, options, ...identity),
      total: rows.length,
      engine: engines.untrained,
      rows: () => rows,
      work: async (row) => evaluate(await opened.engine(), row, grade, options),
    })
    const items = await collect(readOutput<EvalItem>(output))
    graded.push({ method, temperature, seed, key: output.key, items })
  }
  return graded
}

/** Why rows failed, the most frequent reasons first. */
function reasons({ failures }: StageOutput): string {
  const sorted = Object.entries(failures).sort(([, a], [, b]) => b - a)
  return sorted.length ? ` (${sorted.map(([reason, n]) => `${reason} ${n}`).join(", ")})` : ""
}
