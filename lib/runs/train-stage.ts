import { existsSync, mkdirSync, readdirSync, statSync } from "node:fs"
import { mkdir, readFile, rm, truncate } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { copyFinished, damageOf, type FilePrint, fileError, finish, printOf, writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { appendJsonl, readLines, soundBytes } from "../data/jsonl"
import type { MetricsLine } from "../data/results"
import { tf } from "../device/tf"
import type { LocalModel } from "../engine/local"
import { CheckpointError, InputError, MuscError } from "../errors"
import { readAdapter, writeAdapter } from "../model/adapter"
import type { Plan } from "../model/executor"
import { fromAdapter, type Lora, toAdapter } from "../model/lora"
import { baseMismatch, baseName, writeCheckpoint } from "../model/merge"
import { verifySafetensors } from "../model/safetensors"
import type { Model } from "../model/transformer"
import { weightsFile } from "../musc/reweigh"
import type { FailedRow } from "../musc/row"
import { type PairCounts, type TrainRow, type TrainSettings, trainAdapter, trainModel } from "../musc/train"
import type { StepLog } from "../train/loop"
import { shareFinished } from "./store"
import { removeTrainingJob, type TrainingJob, trainByJob } from "./torch-train"

export interface TrainStage {
  /**
   * Folder for `metrics.jsonl`, `pairs.json`, `adapter/` (or `model/`) and, while training, `checkpoint.safetensors`.
   */
  dir: string
  /** See keyOf: training version, settings, the model, the key of the pairs. */
  key: string
  /** The model in this process, or what a Python job needs of it. */
  by: LocalModel | JobTrainer
  pairs: () => AsyncIterable<TrainRow | FailedRow>
  settings: TrainSettings
  checkpointEvery: number
  /** Folder of finished trainings by key, shared by runs. */
  cache?: string
  signal?: AbortSignal
  onStep?: (log: StepLog) => unknown
  /** Called with how the steps are run; not for a training that is done already, or by a Python job. */
  onPlan?: (plan: Plan) => void
  /**
   * Receives lines about pairs that were left out, cut or reweighted, and of what was found damaged and is made again.
   */
  onNote?: (line: string) => void
}

/** Trains by a Python job; see trainByJob. */
export type JobTrainer = Pick<TrainingJob, "model" | "torch" | "scorer" | "beforeJob">

/**
 * Trains an adapter, or finds it done. A stopped or killed training resumes from its checkpoint, to the same adapter
 * and the same metrics as without the stop. A finished one, here or in the cache, is compared with the hashes in its
 * key file first; one that differs is made again. Returns the adapter's folder (PEFT), or where all weights are trained
 * that of a plain checkpoint.
 * @throws StoppedError when aborted; InputError for a disk that is full or read-only.
 */
export async function runTraining(stage: TrainStage): Promise<string> {
  const { dir, key, by, settings, cache, onNote } = stage
  const all = settings.trained === "all"
  const adapter = join(dir, all ? "model" : "adapter")
  const metrics = join(dir, "metrics.jsonl")
  const checkpoint = join(dir, checkpointFile)
  const parts = ["metrics.jsonl", "pairs.json", all ? "model" : "adapter"]
  const cached = cache && join(cache, `train-${key.slice(0, 32)}`)
  if (await readFinished(dir, key, onNote)) {
    await removeLeft(dir)
    return adapter
  }
  const earlierKey = readKey(dir)
  try {
    if (earlierKey?.key !== key || earlierKey.complete) {
      await rm(join(dir, "key.json"), { force: true }) // first, so that old files never stand under the new key
      for (const old of [metrics, checkpoint, weightsFile(checkpoint), adapter])
        await rm(old, { recursive: true, force: true })
    }
    mkdirSync(dir, { recursive: true })
    const finished = cached && (await readFinished(cached, key, onNote))
    if (finished) {
      for (const part of parts) await copyFinished(join(cached, part), join(dir, part))
      await writeKey(dir, finished) // last, so that it never stands beside a part
      await removeLeft(dir)
      return adapter
    }
  } catch (error) {
    throw fileError(error, dir, "write")
  }
  await writeKey(dir, { key, complete: false })
  if ("torch" in by) await trainElsewhere(stage, by)
  else await trainHere(stage, by)
  const state = { key, complete: true, files: await printsOf(dir, parts) }
  await writeKey(dir, state)
  await removeLeft(dir)
  if (cached) {
    await shareFinished(cached, onNote, () =>
      finish(cached, async (temporary) => {
        await mkdir(temporary)
        for (const part of parts) await copyFinished(join(dir, part), join(temporary, part))
        await writeKey(temporary, state)
      }),
    )
  }
  return adapter
}

/** Removes what a training that is done needs no longer: its checkpoint, its job. */
async function removeLeft(dir: string): Promise<void> {
  const checkpoint = join(dir, checkpointFile)
  for (const left of [checkpoint, weightsFile(checkpoint)]) await rm(left, { force: true })
  await removeTrainingJob(jobOf(dir))
}

const checkpointFile = "checkpoint.safetensors"

/** Folder of the Python job of a training, beside the training's own. */
const jobOf = (dir: string) => `${dir}.job`

/** Trains in this process, from the checkpoint of an earlier start if there is one. */
async function trainHere(stage: TrainStage, local: LocalModel): Promise<void> {
  const { dir, key, pairs, settings, checkpointEvery, signal, onStep, onPlan, onNote } = stage
  const all = settings.trained === "all"
  const metrics = join(dir, "metrics.jsonl")
  const checkpoint = join(dir, checkpointFile)
  await resumeFrom(checkpoint, metrics, key, onNote)
  const writer = await appendJsonl(metrics, { resume: true })
  let trained: Lora | Model
  try {
    trained = await (all ? trainModel : trainAdapter)(local, pairs(), settings, {
      checkpoint: { file: checkpoint, every: checkpointEvery, key },
      signal,
      onNote,
      onPlan,
      onPairs: (counts) => writeAtomic(join(dir, "pairs.json"), `${JSON.stringify(counts, null, 2)}\n`),
      // Waited for, so that the checkpoint of a step never stands without its line.
      onStep: async (log) => {
        if (!Number.isFinite(log.loss)) {
          throw new MuscError(`${metrics}: the loss must be finite, got ${log.loss} at step ${log.step}; lower lr`)
        }
        await writer.write(metricsOf(log))
        await onStep?.(log)
      },
    })
  } catch (error) {
    await writer.close().catch(() => {}) // the first error is the one to tell
    throw error
  }
  await writer.close()
  try {
    const { config, dir: base } = local
    if ("scale" in trained) {
      const values = await toAdapter(trained, config)
      await finish(join(dir, "adapter"), (temporary) => writeAdapter(temporary, values, baseName(base)))
    } else await finish(join(dir, "model"), (temporary) => writeCheckpoint(base, trained as Model, temporary))
  } finally {
    tf.dispose(trained.params)
  }
}

/** Trains by a Python job in a folder beside this one, which stays until the training is complete. */
async function trainElsewhere({ dir, pairs, ...stage }: TrainStage, by: JobTrainer): Promise<void> {
  const { model } = by
  const { key, settings, checkpointEvery, signal, onStep, onNote } = stage
  const folder = jobOf(dir)
  const work = { key, settings, checkpointEvery, signal, onStep, onNote }
  const done = await trainByJob({ ...work, ...by, folder, pairs })
  const values = readAdapter(done.adapter, model.config)
  await finish(join(dir, "adapter"), (temporary) => writeAdapter(temporary, values, baseName(model.dir)))
  await copyFinished(done.metrics, join(dir, "metrics.jsonl"))
  await copyFinished(done.pairs, join(dir, "pairs.json"))
}

/**
 * The adapter of a PEFT folder for a model, as tensors; the caller disposes `params`. `onNote` is told where the
 * adapter names another base model of the same shapes.
 */
export function openAdapter(dir: string, local: LocalModel, onNote?: (line: string) => void): Lora {
  const adapter = readAdapter(dir, local.config)
  const mismatch = baseMismatch(dir, local.dir)
  if (mismatch) onNote?.(`note: ${mismatch}`)
  return fromAdapter(adapter)
}

/** What the training in a folder was done on; undefined where it does not say. */
export const trainedOn = async (dir: string): Promise<PairCounts | undefined> =>
  readFile(join(dir, "pairs.json"), "utf8").then(JSON.parse, () => undefined)

/** The key of what stands in a training folder; undefined without one. */
export const trainingKey = (dir: string): string | undefined => readKey(dir)?.key

/** `key.json` of a training folder. */
export const trainingState = z.object({
  key: z.string(),
  complete: z.boolean(),
  files: z
    .record(z.string(), z.object({ bytes: z.int(), sha256: z.string() }))
    .optional()
    .describe("of a complete training, by path in the folder"),
})
type TrainingState = z.infer<typeof trainingState>

const writeKey = (dir: string, state: TrainingState) =>
  writeAtomic(join(dir, "key.json"), `${JSON.stringify(state, null, 2)}\n`)

/** undefined for a key file that is absent or cannot be read: training then starts over. */
function readKey(dir: string): TrainingState | undefined {
  if (!existsSync(join(dir, "key.json"))) return undefined
  try {
    return trainingState.safeParse(readJsonFile(join(dir, "key.json"))).data
  } catch (error) {
    if (error instanceof InputError) return undefined
    throw error
  }
}

/** Size and hash of files, and of the files of folders. */
async function printsOf(dir: string, parts: readonly string[]): Promise<Record<string, FilePrint>> {
  const prints: Record<string, FilePrint> = {}
  for (const part of parts) {
    const inside = statSync(join(dir, part)).isDirectory() ? readdirSync(join(dir, part)).sort() : undefined
    for (const file of inside?.map((name) => `${part}/${name}`) ?? [part]) prints[file] = await printOf(join(dir, file))
  }
  return prints
}

/** The state of a training that is whole, has this key, and holds what was written then. */
async function readFinished(
  dir: string,
  key: string,
  onNote: (line: string) => void = () => {},
): Promise<TrainingState | undefined> {
  const state = readKey(dir)
  if (!state?.complete || state.key !== key) return undefined
  const files = Object.entries(state.files ?? {})
  if (!files.length) {
    onNote(`note: ${join(dir, "key.json")} names no hashes; the training is made again`)
    return undefined
  }
  for (const [file, print] of files) {
    const damage = await damageOf(join(dir, file), print)
    if (!damage) continue
    onNote(`note: ${join(dir, file)} ${damage}; the training is made again`)
    return undefined
  }
  return state
}

/**
 * Brings checkpoint and metrics to the same step: lines of steps that will be done again go. Without a usable
 * checkpoint of this key, or without the lines up to it, training starts over.
 */
async function resumeFrom(
  checkpoint: string,
  metrics: string,
  key: string,
  onNote: (line: string) => void = () => {},
): Promise<void> {
  const steps = await checkpointStep(checkpoint, key, onNote)
  const lines: string[] = []
  if (existsSync(metrics)) {
    const sound = await soundBytes(metrics)
    if (sound !== undefined) await truncate(metrics, sound)
    for await (const { text } of readLines(metrics, { dropTorn: true, allowEmpty: true }))
      if (lines.length < steps) lines.push(`${text}\n`)
  }
  if (lines.length < steps) {
    onNote(`note: ${metrics} lacks lines before the checkpoint, step ${steps}; the training starts over`)
    for (const left of [checkpoint, weightsFile(checkpoint)]) await rm(left, { force: true })
    lines.length = 0
  }
  if (existsSync(metrics)) await writeAtomic(metrics, lines)
}

/** Steps done by the state in a checkpoint; 0 without one of this key. One that cannot be used is removed. */
async function checkpointStep(file: string, key: string, onNote: (line: string) => void): Promise<number> {
  if (!existsSync(file)) return 0
  try {
    const { metadata } = await verifySafetensors(file)
    if (metadata.key === key) return Number(metadata.step)
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
    onNote(`note: ${error.message}; the training starts over`)
  }
  for (const left of [file, weightsFile(file)]) await rm(left, { force: true })
  return 0
}

/** A step as a line of `metrics.jsonl`. No time in it: the same run writes the same file. */
export function metricsOf({ step, steps, loss, lr, gradNorm, tokens, ...logs }: StepLog): MetricsLine {
  return { step, steps, loss, lr, grad_norm: gradNorm, tokens, ...logs }
}
