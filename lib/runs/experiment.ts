import { join } from "node:path"
import { isBaseline, type MethodName } from "../config/config"
import type { EvalItem, Results } from "../data/results"
import type { CorruptedRow, DecomposedRow, InstructionRow, PairRow, RecombinedRow } from "../data/schema"
import { tf } from "../device/tf"
import type { LocalEngine } from "../engine/local"
import { InputError } from "../errors"
import type { Lora } from "../model/lora"
import { corrupt } from "../musc/corrupt"
import { decompose } from "../musc/decompose"
import { evaluate } from "../musc/evaluate"
import { stageVersion } from "../musc/pipeline"
import { recombine } from "../musc/recombine"
import { respond } from "../musc/respond"
import { type TrainRow, trainVersion } from "../musc/train"
import { weigh } from "../musc/weigh"
import { worldSpec } from "../world/spec"
import { baselinePairs } from "./baselines"
import { type GradedPair, gradePair, graderOf, judgeOptions } from "./graders"
import { type Graded, meanShares, type PairCount, resultsOf } from "./results"
import { holdoutStage, type Source, sourceStage } from "./source"
import { shortNumbers, stageOptions, trainSettings } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"
import { openAdapter, runTraining } from "./train-stage"
import { collect, first, methodStage, passed, rowsStage, stepProgress, type Workshop } from "./workshop"

/** Part of the key of evaluations; to be raised when a change makes them write something else. */
const evaluateVersion = 2

/** What a run found: its results, and the graded answers behind them with the key of the work that made each list. */
export interface Findings {
  results: Results
  graded: (Graded & { seed: number; key: string })[]
}

/** The paper's figure, once for each seed: instructions to pairs, pairs to adapters, adapters to answers and verdicts. */
export async function experiment(shop: Workshop, seeds: readonly number[]): Promise<Findings> {
  const { config } = shop
  const graded: Findings["graded"] = []
  const pairs: PairCount[] = []
  const baselines: NonNullable<Results["baselines"]> = []
  const own = config.methods.filter(isBaseline)
  let holdout: StageOutput | undefined
  for (const seed of seeds) {
    const source = await sourceStage(shop, seed)
    const decomposed = await decomposeStage(shop, seed, source)
    const made = new Map<MethodName, PairSource>()
    const contrasted = config.methods.filter((method) => method !== "base" && !isBaseline(method))
    if (contrasted.length || !own.length) {
      const { answered, weighed } = await contrastStages(shop, seed, decomposed)
      // Weights are made of the signals, so a longer list of weightings to write down changes no adapter.
      for (const method of contrasted)
        made.set(method, { output: weighed, key: keyOf(answered.key, stageVersion.weigh) })
      const n = passedOf(weighed)
      if (!n && contrasted.length) {
        const got = `none of ${weighed.rows} rows${reasons(weighed)}`
        throw new InputError(`training needs at least one pair, got ${got}; cure the most frequent reason`, {
          file: weighed.file,
        })
      }
      shop.onNote(`seed ${seed}: ${n} pairs of ${weighed.rows} instructions${reasons(weighed)}`)
      pairs.push({ seed, n, graded: await gradePairs(shop, `seed-${seed}/pairs`, answered, n) })
    }
    for (const method of own) {
      const { output, unreadable } = await baselinePairs(shop, seed, method, decomposed)
      const n = passedOf(output)
      shop.onNote(`seed ${seed}: ${n} pairs of ${output.rows} instructions for ${method}${reasons(output)}`)
      const exact = await checkable(output)
      const kept = meanShares(exact ? await gradePairs(shop, `seed-${seed}/pairs-${method}`, output, n) : [])
      baselines.push({ method, seed, n, failures: output.failures, unreadable, ...kept })
      if (n) made.set(method, { output, key: output.key })
    }
    if (config.evalInstructions) holdout ??= await holdoutStage(shop, source)
    for (const method of config.methods) {
      const source = made.get(method)
      if (!source && method !== "base") {
        shop.onNote(`seed ${seed}: ${method} is left out, as it has no pairs to be trained on`)
        continue
      }
      const adapter = source ? await trainMethod(shop, seed, method, source) : null
      if (holdout) graded.push(...(await evaluateMethod(shop, seed, method, adapter, holdout)))
    }
  }
  const results = resultsOf(graded, pairs, { samples: config.bootstrapSamples, seed: config.seed })
  return { results: { ...results, ...(own.length && { baselines }) }, graded }
}

const passedOf = ({ rows, failures }: StageOutput) => rows - sum(Object.values(failures))

async function decomposeStage(shop: Workshop, seed: number, source: Source): Promise<StageOutput> {
  const options = stageOptions(shop.config, seed).decompose
  return methodStage(shop, "decompose", { seed, input: source.rows, options }, (row: InstructionRow, set) =>
    decompose(shop.base, row, set),
  )
}

/** Stages 2 to 5. */
async function contrastStages(shop: Workshop, seed: number, decomposed: StageOutput) {
  const { base, config } = shop
  const o = stageOptions(config, seed)
  const corrupted = await methodStage(
    shop,
    "corrupt",
    { seed, input: decomposed, options: o.corrupt },
    (row: DecomposedRow, options) => corrupt(base, row, options),
  )
  const recombined = await methodStage(
    shop,
    "recombine",
    { seed, input: corrupted, options: o.recombine },
    (row: CorruptedRow, options) => recombine(base, row, options),
  )
  const answered = await methodStage(
    shop,
    "respond",
    { seed, input: recombined, options: o.respond },
    (row: RecombinedRow, options) => respond(base, row, options),
  )
  const weighed = await methodStage(
    shop,
    "weigh",
    { seed, input: answered, options: o.weigh },
    async (row: PairRow, options) => shortNumbers(await weigh(base, row, options)),
  )
  return { answered, weighed }
}

async function gradePairs(shop: Workshop, name: string, pairs: StageOutput, n: number): Promise<GradedPair[]> {
  const { gradedPairs } = shop.config
  const options = judgeOptions(shop.config)
  const grade = graderOf(shop.base, options)
  const checked = await rowsStage<PairRow, GradedPair>(shop, {
    name,
    key: keyOf("pairs", evaluateVersion, pairs.key, shop.local.fingerprint, gradedPairs, options),
    total: Math.min(n, gradedPairs),
    rows: () => first(gradedPairs, passed<PairRow>(pairs)),
    work: (row) => gradePair(row, grade),
  })
  return collect(readOutput<GradedPair>(checked))
}

/** Whether the pairs of an output can be graded exactly; a model's judgement of a baseline's pairs is not worth its calls. */
async function checkable(output: StageOutput): Promise<boolean> {
  for await (const row of passed<InstructionRow>(output)) return worldSpec.safeParse(row.world).success
  return false
}

interface Adapter {
  dir: string
  key: string
}

/** Pairs to train on, with the key of all that they are made of. */
interface PairSource {
  output: StageOutput
  key: string
}

/** Stage 6; null for the base model. */
async function trainMethod(
  shop: Workshop,
  seed: number,
  method: MethodName,
  { output, key: made }: PairSource,
): Promise<Adapter | null> {
  const { config, dir, local, cache, signal } = shop
  const settings = trainSettings(config, method, seed)
  if (!settings) return null
  const stage = `seed-${seed}/train/${method}`
  const most = Math.min(config.pairs || Number.POSITIVE_INFINITY, passedOf(output))
  const key = keyOf("train", trainVersion, settings, local.fingerprint, made, most)
  const adapter = await runTraining({
    dir: join(dir, stage),
    key,
    local,
    pairs: () => first(most, passed<TrainRow & InstructionRow>(output)),
    settings,
    checkpointEvery: config.checkpointEvery,
    cache,
    signal,
    onStep: stepProgress(stage, shop),
  })
  return { dir: adapter, key }
}

/** Stage 7: one file a temperature. */
async function evaluateMethod(
  shop: Workshop,
  seed: number,
  method: MethodName,
  adapter: Adapter | null,
  holdout: StageOutput,
): Promise<Findings["graded"]> {
  const { config, local, base, signal, onTokens } = shop
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
  const grade = graderOf(base, judgeOptions(config))
  let lora: Lora | undefined
  let engine: LocalEngine | undefined
  const opened = () => {
    if (adapter && !engine) lora = openAdapter(adapter.dir, local)
    engine ??= lora ? local.engine(lora, { signal, onTokens }) : base
    return engine
  }
  const graded: Findings["graded"] = []
  try {
    for (const temperature of config.evalTemperatures) {
      const options = { method, seed, temperature, maxTokens: config.evalMaxTokens }
      const made = [local.fingerprint, adapter?.key ?? "base", holdout.key, judgeOptions(config)]
      const output = await rowsStage(shop, {
        name: `seed-${seed}/evaluate/${method}-T${temperature}`,
        key: keyOf("evaluate", evaluateVersion, options, ...made),
        total: rows.length,
        rows: () => rows,
        work: (row) => evaluate(opened(), row, grade, options),
      })
      const items = await collect(readOutput<EvalItem>(output))
      graded.push({ method, temperature, seed, key: output.key, items })
    }
  } finally {
    if (engine !== base) engine?.dispose()
    if (lora) tf.dispose(lora.params)
  }
  return graded
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

/** Why rows failed, the most frequent reasons first. */
function reasons({ failures }: StageOutput): string {
  const sorted = Object.entries(failures).sort(([, a], [, b]) => b - a)
  return sorted.length ? ` (${sorted.map(([reason, n]) => `${reason} ${n}`).join(", ")})` : ""
}
