import { existsSync } from "node:fs"
import { cp, mkdir, readFile, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { appendJsonl, fileError, readLines, writeAtomic } from "../data/jsonl"
import type { MetricsLine } from "../data/results"
import { tf } from "../device/tf"
import type { LocalModel } from "../engine/local"
import { CheckpointError, MuscError } from "../errors"
import { readAdapter, writeAdapter } from "../model/adapter"
import { fromAdapter, type Lora, toAdapter } from "../model/lora"
import { baseMismatch, writeCheckpoint } from "../model/merge"
import { openSafetensors } from "../model/safetensors"
import type { Model } from "../model/transformer"
import { weightsFile } from "../musc/reweigh"
import type { FailedRow } from "../musc/row"
import { type PairCounts, type TrainRow, type TrainSettings, trainAdapter, trainModel } from "../musc/train"
import type { StepLog } from "../train/loop"

export interface TrainStage {
  /** Folder for `metrics.jsonl`, `pairs.json`, `adapter/` (or `model/`) and, while training, `checkpoint.safetensors`. */
  dir: string
  /** See keyOf: training version, settings, the model, the key of the pairs. */
  key: string
  local: LocalModel
  pairs: () => AsyncIterable<TrainRow | FailedRow>
  settings: TrainSettings
  checkpointEvery: number
  /** Folder of finished trainings by key, shared by runs. */
  cache?: string
  signal?: AbortSignal
  onStep?: (log: StepLog) => void
  /** Told of pairs that were left out, cut or weighed anew. */
  onNote?: (line: string) => void
}

/**
 * Trains an adapter, or finds it done. A stopped or killed training goes on from its checkpoint, to the same adapter and
 * the same metrics as without the stop. Returns the adapter's folder (PEFT), or where all weights are trained that of a plain
 * checkpoint.
 * @throws StoppedError when aborted; InputError for a disk that is full or read-only.
 */
export async function runTraining(stage: TrainStage): Promise<string> {
  const { dir, key, local, pairs, settings, checkpointEvery, cache, signal, onStep, onNote } = stage
  const all = settings.trained === "all"
  const adapter = join(dir, all ? "model" : "adapter")
  const metrics = join(dir, "metrics.jsonl")
  const checkpoint = join(dir, "checkpoint.safetensors")
  const cached = cache && join(cache, `train-${key.slice(0, 32)}`)
  const found = await readKey(dir)
  if (found?.key === key && found.complete && existsSync(join(adapter, all ? "config.json" : "adapter_config.json"))) {
    await rm(checkpoint, { force: true })
    return adapter
  }
  try {
    if (found?.key !== key) {
      await rm(join(dir, "key.json"), { force: true }) // first, so that old files never stand under the new key
      for (const old of [metrics, checkpoint, weightsFile(checkpoint), adapter])
        await rm(old, { recursive: true, force: true })
    }
    await mkdir(dir, { recursive: true })
    if (cached && (await readKey(cached))?.complete) {
      await cp(cached, dir, { recursive: true })
      return adapter
    }
  } catch (error) {
    throw fileError(error, dir, "write")
  }
  await writeKey(dir, { key, complete: false })
  await cutMetrics(metrics, await checkpointStep(checkpoint, key))
  const writer = await appendJsonl(metrics, { resume: true })
  let made: Lora | Model
  try {
    made = await (all ? trainModel : trainAdapter)(local, pairs(), settings, {
      checkpoint: { file: checkpoint, every: checkpointEvery, key },
      signal,
      onNote,
      onPairs: (counts) => writeAtomic(join(dir, "pairs.json"), `${JSON.stringify(counts, null, 2)}\n`),
      // Waited for, so that the checkpoint of a step never stands without its line.
      onStep: async (log) => {
        if (!Number.isFinite(log.loss)) {
          throw new MuscError(`${metrics}: the loss must be finite, got ${log.loss} at step ${log.step}; lower lr`)
        }
        await writer.write(metricsOf(log))
        onStep?.(log)
      },
    })
  } catch (error) {
    await writer.close().catch(() => {}) // the first error is the one to tell
    throw error
  }
  await writer.close()
  try {
    await rm(`${adapter}.tmp`, { recursive: true, force: true })
    if ("scale" in made) await writeAdapter(`${adapter}.tmp`, await toAdapter(made, local.config), local.name)
    else await writeCheckpoint(local.dir, made as Model, `${adapter}.tmp`)
    await rm(adapter, { recursive: true, force: true })
    await rename(`${adapter}.tmp`, adapter)
  } catch (error) {
    throw fileError(error, adapter, "write")
  } finally {
    tf.dispose(made.params)
  }
  await writeKey(dir, { key, complete: true })
  for (const done of [checkpoint, weightsFile(checkpoint)]) await rm(done, { force: true })
  if (cached && !existsSync(cached)) {
    const temporary = `${cached}.${process.pid}.tmp`
    await cp(dir, temporary, { recursive: true })
    await rename(temporary, cached).catch(() => rm(temporary, { recursive: true })) // another run was faster
  }
  return adapter
}

/**
 * The adapter of a PEFT folder for a model, as tensors; the caller disposes `params`. `onNote` is told where the adapter
 * names another base model of the same shapes.
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
export const trainingKey = async (dir: string): Promise<string | undefined> => (await readKey(dir))?.key

interface Key {
  key: string
  complete: boolean
}

const writeKey = (dir: string, state: Key) => writeAtomic(join(dir, "key.json"), `${JSON.stringify(state, null, 2)}\n`)

/** undefined for a key file that is absent or cannot be read: training then starts anew. */
async function readKey(dir: string): Promise<Key | undefined> {
  try {
    return JSON.parse(await readFile(join(dir, "key.json"), "utf8"))
  } catch {
    return undefined
  }
}

/** Steps done by the state in a checkpoint; 0 without one of this key. One that cannot be used is removed. */
async function checkpointStep(file: string, key: string): Promise<number> {
  if (!existsSync(file)) return 0
  try {
    const held = openSafetensors(file)
    held.close()
    if (held.metadata.key === key) return Number(held.metadata.step)
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error
  }
  await rm(file, { force: true })
  return 0
}

/** Removes the lines of steps that will be done again. */
async function cutMetrics(file: string, steps: number): Promise<void> {
  if (!existsSync(file)) return
  const kept: string[] = []
  for await (const { text } of readLines(file, { dropTorn: true, allowEmpty: true })) {
    if (kept.length < steps) kept.push(`${text}\n`)
  }
  await writeAtomic(file, kept)
}

/** A step as a line of `metrics.jsonl`. No time in it: the same run writes the same file. */
function metricsOf({ step, steps, loss, lr, gradNorm, tokens, ...logs }: StepLog): MetricsLine {
  return { step, steps, loss, lr, grad_norm: gradNorm, tokens, ...logs }
}
