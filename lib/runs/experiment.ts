import { join } from "node:path"
import { tf } from "../backend/tf"
import type { EvalItem, Results } from "../data/results"
import type { CorruptedRow, DecomposedRow, InstructionRow, PairRow, RecombinedRow, WeighedRow } from "../data/schema"
import type { LocalEngine } from "../engine/local"
import { InputError } from "../errors"
import type { Lora } from "../model/lora"
import { corrupt } from "../musc/corrupt"
import { decompose } from "../musc/decompose"
import { evaluate } from "../musc/evaluate"
import { stageVersion } from "../musc/pipeline"
import { recombine } from "../musc/recombine"
import { respond } from "../musc/respond"
import { trainVersion } from "../musc/train"
import { weigh } from "../musc/weigh"
import type { MethodName } from "./config"
import { type GradedPair, gradePair, graderOf } from "./graders"
import { type Graded, resultsOf } from "./results"
import { holdoutStage, sourceStage } from "./source"
import { shortNumbers, stageOptions, trainSettings } from "./stages"
import { keyOf, readOutput, type StageOutput } from "./store"
import { openAdapter, runTraining } from "./train-stage"
import { collect, first, methodStage, passed, rowsStage, type Workshop } from "./workshop"

/** Part of the key of evaluations; to be raised when a change makes them write something else. */
const evaluateVersion = 1

/** The paper's figure, once for each seed: instructions to pairs, pairs to adapters, adapters to answers and verdicts. */
export async function experiment(shop: Workshop, seeds: readonly number[]): Promise<Results> {
  const { config } = shop
  const graded: Graded[] = []
  const pairs: { seed: number; n: number; graded: GradedPair[] }[] = []
  let holdout: StageOutput | undefined
  for (const seed of seeds) {
    const { source, answered, weighed } = await dataHalf(shop, seed)
    const n = weighed.rows - sum(Object.values(weighed.failures))
    if (!n && config.methods.some((method) => method !== "base")) {
      const got = `none of ${weighed.rows} rows${reasons(weighed)}`
      throw new InputError(`training needs at least one pair, got ${got}; cure the most frequent reason`, {
        file: weighed.file,
      })
    }
    shop.onNote(`seed ${seed}: ${n} pairs of ${weighed.rows} instructions${reasons(weighed)}`)
    pairs.push({ seed, n, graded: await gradePairs(shop, seed, answered, n) })
    if (config.evalInstructions) holdout ??= await holdoutStage(shop, source)
    for (const method of config.methods) {
      const adapter = await trainMethod(shop, seed, method, answered, weighed)
      if (holdout) graded.push(...(await evaluateMethod(shop, seed, method, adapter, holdout)))
    }
  }
  return resultsOf(graded, pairs, { samples: config.bootstrapSamples, seed: config.seed })
}

/** Stages 0 to 5. */
async function dataHalf(shop: Workshop, seed: number) {
  const { base, config } = shop
  const o = stageOptions(config, seed)
  const source = await sourceStage(shop, seed)
  const decomposed = await methodStage(
    shop,
    "decompose",
    { seed, input: source.rows, options: o.decompose },
    (row: InstructionRow, options) => decompose(base, row, options),
  )
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
  return { source, answered, weighed }
}

async function gradePairs(shop: Workshop, seed: number, answered: StageOutput, n: number): Promise<GradedPair[]> {
  const { gradedPairs, judgeMaxTokens } = shop.config
  const grade = graderOf(shop.base, { maxTokens: judgeMaxTokens })
  const checked = await rowsStage<PairRow, GradedPair>(shop, {
    name: `seed-${seed}/pairs`,
    key: keyOf("pairs", evaluateVersion, answered.key, shop.local.fingerprint, gradedPairs, judgeMaxTokens),
    total: Math.min(n, gradedPairs),
    rows: () => first(gradedPairs, passed<PairRow>(answered)),
    work: (row) => gradePair(row, grade),
  })
  return collect(readOutput<GradedPair>(checked))
}

interface Adapter {
  dir: string
  key: string
}

/** Stage 6; null for the base model. */
async function trainMethod(
  shop: Workshop,
  seed: number,
  method: MethodName,
  answered: StageOutput,
  weighed: StageOutput,
): Promise<Adapter | null> {
  const { config, dir, local, cache, signal, onProgress } = shop
  const settings = trainSettings(config, method, seed)
  if (!settings) return null
  const stage = `seed-${seed}/train/${method}`
  // Weights are made of the signals, so a longer list of weightings to write down changes no adapter.
  const key = keyOf("train", trainVersion, settings, local.fingerprint, answered.key, stageVersion.weigh)
  const adapter = await runTraining({
    dir: join(dir, stage),
    key,
    local,
    pairs: () => passed<WeighedRow>(weighed),
    settings,
    checkpointEvery: config.checkpointEvery,
    cache,
    signal,
    onStep: ({ step, steps, loss }) =>
      onProgress({ stage, unit: "steps", done: step, total: steps, note: `loss ${loss.toFixed(3)}` }),
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
): Promise<Graded[]> {
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
  const grade = graderOf(base, { maxTokens: config.judgeMaxTokens })
  let lora: Lora | undefined
  let engine: LocalEngine | undefined
  const opened = () => {
    if (adapter && !engine) lora = openAdapter(adapter.dir, local)
    engine ??= lora ? local.engine(lora, { signal, onTokens }) : base
    return engine
  }
  const graded: Graded[] = []
  try {
    for (const temperature of config.evalTemperatures) {
      const options = { method, seed, temperature, maxTokens: config.evalMaxTokens }
      const made = [local.fingerprint, adapter?.key ?? "base", holdout.key, config.judgeMaxTokens]
      const output = await rowsStage(shop, {
        name: `seed-${seed}/evaluate/${method}-T${temperature}`,
        key: keyOf("evaluate", evaluateVersion, options, ...made),
        total: rows.length,
        rows: () => rows,
        work: (row) => evaluate(opened(), row, grade, options),
      })
      graded.push({ method, temperature, items: await collect(readOutput<EvalItem>(output)) })
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
