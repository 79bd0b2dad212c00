import { existsSync } from "node:fs"
import { readdir } from "node:fs/promises"
import { basename, join, resolve } from "node:path"
import { z } from "zod"
import { type Current, currentOf } from "../config/current"
import { type JsonObject, readJsonFile } from "../data/json-file"
import { parseJson, parseRecord, readJsonl, readLines } from "../data/jsonl"
import { type EvalItem, evalItem, metricsLine, type Results, results } from "../data/results"
import {
  type CorruptedRow,
  corruptedRow,
  decomposedRow,
  type Edit,
  editKind,
  type Failure,
  failure,
  type InstructionRow,
  instructionRow,
  type PairRow,
  pairRow,
  recombinedRow,
  type StageName,
  stageName,
  type WeighedRow,
  weighedRow,
} from "../data/schema"
import { InputError } from "../errors"
import type { StageCount } from "../musc/run-stage"
import { countWeights, noWeights, type TrainingLog, type WeightCounts } from "../plots/curves"
import type { EditOutcome } from "../plots/stage-figures"
import { addClassWeights, type ClassWeights, noClassWeights } from "../plots/token-classes"
import { streamKey } from "../rng"
import { readQuestion } from "../world/inverse"
import { answerSample, failedSample, MOST_SAMPLES, pairSample, type Sample } from "./samples"

/** A row with the seed that it belongs to. */
export type Seeded<Row> = Row & { seed: number }

/** All that the report shows of a run folder. Parts that the run has not reached are empty or undefined. */
export interface RunData {
  /** base name of the folder */
  name: string
  config?: JsonObject
  manifest?: JsonObject
  results?: Results
  seeds: number[]
  /** rows of all seeds together, of the stages that have an output */
  stages: StageCount[]
  edits: EditOutcome[]
  /** a few rows that show the edits, the pairs, and the token weights; the same ones each time */
  corrupted: Seeded<CorruptedRow>[]
  pairs: Seeded<PairRow>[]
  weighed: Seeded<WeighedRow>[]
  weights: Record<string, WeightCounts>
  /** by weighting */
  classes: Record<string, ClassWeights>
  logs: TrainingLog[]
  items: EvalItem[]
  /** what the page can be searched for */
  samples: Sample[]
}

/** Rows shown of each kind. */
export const SHOWN = 5

const schemas = {
  source: instructionRow,
  decompose: decomposedRow,
  corrupt: corruptedRow,
  recombine: recombinedRow,
  respond: pairRow,
  verify: pairRow,
  weigh: weighedRow,
} satisfies Record<StageName, z.ZodType>

const failedRow = z.looseObject({ failure })

/** A row of a stage's output, or one that failed there or before. */
type StageRow<Stage extends StageName> =
  | (z.output<(typeof schemas)[Stage]> & { failure?: undefined })
  | { failure: Failure }

/** Rows of a stage's output. A torn last line, left by a run that was stopped, is passed over. */
async function* readStage<Stage extends StageName>(file: string, stage: Stage): AsyncGenerator<StageRow<Stage>> {
  if (!existsSync(file)) return
  for await (const { line, text } of readLines(file, { dropTorn: true, allowEmpty: true })) {
    const value = parseJson(text, { file, line })
    const hasFailed = typeof value === "object" && value !== null && "failure" in value && value.failure
    yield parseRecord(hasFailed ? failedRow : schemas[stage], value, { file, line }) as StageRow<Stage>
  }
}

/**
 * Keeps the `size` entries whose names come first in an order that looks random but is always the same, however many
 * there are and in whatever order they come.
 */
export function sampler<Row>(purpose: string, size = SHOWN): { add(name: string, row: Row): void; rows(): Row[] } {
  let sampled: { key: number; row: Row }[] = []
  return {
    add(name, row) {
      const key = streamKey("report", purpose, name)
      if (sampled.length === size && key >= sampled[size - 1]!.key) return
      sampled = [...sampled, { key, row }].sort((a, b) => a.key - b.key).slice(0, size)
    },
    rows: () => sampled.map(({ row }) => row),
  }
}

/** What the model made of an edit, as far as the world's own questions allow to tell. */
export function editOutcome({ kind, before, after }: Edit): EditOutcome {
  if (after === null) return { intended: kind, got: "dropped" }
  const [old, now] = [readQuestion(before), readQuestion(after)]
  if (!old) return { intended: kind, got: "not checked" }
  const sameValue = now?.kind === old.kind && now.value === old.value
  if (sameValue && now.negated !== old.negated) return { intended: kind, got: "negated" }
  if (now && !sameValue && now.kind === old.kind && now.negated === old.negated)
    return { intended: kind, got: "substituted" }
  return { intended: kind, got: "changed otherwise" }
}

/** Reasons of the corrupt stage begin with the kind of the edit that failed. */
function failedEdit({ stage, reason }: Failure): EditOutcome[] {
  const editKindOfReason = editKind.options.find((kind) => reason.startsWith(`${kind}:`))
  return stage === "corrupt" && editKindOfReason ? [{ intended: editKindOfReason, got: "failed" }] : []
}

/**
 * Reads a run folder, finished or not.
 * @throws InputError for a folder that is none, and for damaged files, with the place.
 */
export async function readRun(dir: string): Promise<RunData> {
  const object = (name: string) => (existsSync(join(dir, name)) ? readJsonFile(join(dir, name)) : undefined)
  const names = existsSync(dir) ? await readdir(dir) : []
  const folders = names.flatMap((name) => /^seed-(-?\d+)$/.exec(name)?.[1] ?? [])
  if (!folders.length && !names.includes("config.json"))
    throw new InputError(
      `must be the folder of a run, got ${existsSync(dir) ? "one without config.json and seed-<n>" : "no such folder"}; check the path`,
      {
        file: dir,
      },
    )
  const [config, manifest] = [object("config.json"), object("manifest.json")]
  // The manifest is written last and removed first: without it, results are those of an earlier run in this folder.
  const resultsFile = manifest && object("results.json")
  const now = currentOf(config)
  const seeds = folders
    .map(Number)
    .filter(now.seed)
    .sort((a, b) => a - b)
  const collector = rowCollector()
  for (const seed of seeds)
    for (const stage of stageName.options)
      for await (const row of readStage(join(dir, `seed-${seed}`, `${stage}.jsonl`), stage))
        collector.add(stage, row, seed)
  const { logs, items } = await readOutcomes(dir, seeds, now)
  for (const item of items) collector.browse(answerSample(item))
  return {
    ...{ name: basename(resolve(dir)), config, manifest, seeds, logs, items },
    results: resultsFile && parseRecord(results, resultsFile, { file: join(dir, "results.json") }),
    ...collector.data(),
  }
}

type RowData = Pick<RunData, "stages" | "edits" | "corrupted" | "pairs" | "weighed" | "weights" | "classes" | "samples">

/** Counts the rows of a run's stages, and keeps a few of them to show. */
function rowCollector() {
  const tally = new Map<StageName, StageCount>()
  const edits: EditOutcome[] = []
  const weights: RunData["weights"] = {}
  const classes: RunData["classes"] = {}
  const corrupted = sampler<Seeded<CorruptedRow>>("corrupt")
  const pairs = sampler<Seeded<PairRow>>("respond")
  const weighed = sampler<Seeded<WeighedRow>>("weigh")
  const browsed = new Map<string, ReturnType<typeof sampler<Sample>>>()
  const browse = (sample: Sample) => {
    const list = browsed.get(sample.stage) ?? sampler<Sample>("browse", MOST_SAMPLES)
    browsed.set(sample.stage, list)
    list.add(`${sample.seed} ${sample.id}`, sample)
  }
  const onRow: { [Stage in StageName]?: (row: z.output<(typeof schemas)[Stage]>, seed: number) => void } = {
    corrupt(row, seed) {
      edits.push(...row.edits.map(editOutcome))
      corrupted.add(`${seed} ${row.id}`, { ...row, seed })
    },
    respond(row, seed) {
      pairs.add(`${seed} ${row.id}`, { ...row, seed })
      browse(pairSample(row, seed))
    },
    weigh(row, seed) {
      for (const [name, own] of Object.entries(row.weights)) {
        weights[name] ??= noWeights()
        countWeights(weights[name], own)
        classes[name] ??= noClassWeights()
        addClassWeights(classes[name], row, own)
      }
      weighed.add(`${seed} ${row.id}`, { ...row, seed })
    },
  }
  return {
    browse,
    add<Stage extends StageName>(stage: Stage, row: StageRow<Stage>, seed: number) {
      count(tally, stage, row.failure)
      if (row.failure?.stage === stage) {
        edits.push(...failedEdit(row.failure))
        browse(failedSample(row as unknown as InstructionRow & { failure: Failure }, seed))
      }
      if (!row.failure) onRow[stage]?.(row as z.output<(typeof schemas)[Stage]>, seed)
    },
    data: (): RowData => ({
      ...{ stages: [...tally.values()], edits, weights, classes },
      ...{ corrupted: corrupted.rows(), pairs: pairs.rows(), weighed: weighed.rows() },
      samples: [...browsed.values()].flatMap((list) => list.rows()),
    }),
  }
}

/** Training logs and graded answers of a run folder, of the methods and temperatures that it is configured for now. */
export async function readOutcomes(
  dir: string,
  seeds: readonly number[],
  now: Current,
): Promise<Pick<RunData, "logs" | "items">> {
  const logs: TrainingLog[] = []
  const items: EvalItem[] = []
  for (const seed of seeds) {
    const all = await readLogs(join(dir, `seed-${seed}`, "train"), seed)
    logs.push(...all.filter(({ method }) => now.method(method)))
    for (const file of await filesOf(join(dir, `seed-${seed}`, "evaluate"), ".jsonl"))
      for await (const item of readJsonl(file, evalItem, { dropTorn: true, allowEmpty: true }))
        if (now.method(item.method) && now.temperature(item.temperature)) items.push(item)
  }
  return { logs, items }
}

/** Counts a row of a stage's output; rows that failed before the stage never reached it. */
function count(tally: Map<StageName, StageCount>, stage: StageName, failed: Failure | undefined): void {
  const entry = tally.get(stage) ?? { stage, rows: 0, passed: 0, reasons: {} }
  tally.set(stage, entry)
  if (failed && failed.stage !== stage) return
  entry.rows++
  if (failed) entry.reasons[failed.reason] = (entry.reasons[failed.reason] ?? 0) + 1
  else entry.passed++
}

async function readLogs(folder: string, seed: number): Promise<TrainingLog[]> {
  if (!existsSync(folder)) return []
  const logs: TrainingLog[] = []
  for (const method of (await readdir(folder)).sort()) {
    const file = join(folder, method, "metrics.jsonl")
    if (!existsSync(file)) continue
    const lines = []
    for await (const line of readJsonl(file, metricsLine, { dropTorn: true, allowEmpty: true })) lines.push(line)
    logs.push({ method, seed, lines })
  }
  return logs
}

const filesOf = async (folder: string, ending: string): Promise<string[]> =>
  existsSync(folder)
    ? (await readdir(folder))
        .filter((name) => name.endsWith(ending))
        .sort()
        .map((name) => join(folder, name))
    : []
