import { existsSync, readdirSync } from "node:fs"
import { mkdir, readFile, rm } from "node:fs/promises"
import { join, resolve } from "node:path"
import { writeAtomic } from "../data/files"
import { metricsLine } from "../data/results"
import { tf } from "../device/tf"
import type { ModelDescription } from "../engine/description"
import type { SignalScorer } from "../engine/engine"
import { newLines, removeJob, runJob, type TorchOptions } from "../engine/torch"
import { ConfigError, InputError, RefusedError } from "../errors"
import { readAdapter, writeAdapter } from "../model/adapter"
import { initLora, toAdapter } from "../model/lora"
import { writeSafetensors } from "../model/safetensors"
import { respondMessages } from "../musc/respond"
import { type FailedRow, hasPassed } from "../musc/row"
import type { Rows } from "../musc/run-stage"
import { checkSettings, encodedPairs, notesOf, type PairCounts, type TrainRow, type TrainSettings } from "../musc/train"
import { epochs, type StepLog } from "../train/loop"
import { ROUNDING } from "../train/losses"
import type { PairItem } from "../train/objective"
import { adamDefaults } from "../train/optim"
import { scoredAhead } from "./torch-score"

export interface TrainingJob {
  /** Job folder; see lib/engine/python/train.py for what lies in it. */
  folder: string
  /** See keyOf; a folder of another key is replaced. */
  key: string
  model: ModelDescription
  pairs: () => Rows<TrainRow | FailedRow>
  settings: TrainSettings
  checkpointEvery: number
  torch: TorchOptions
  /** Gives the reference log-probs of pairs that have no signals (those of the baselines). */
  scorer: SignalScorer
  /** Called when all is written that the job needs, and it is about to start. */
  beforeJob?: () => Promise<void>
  signal?: AbortSignal
  /** Receives one line about each pair that was left out, cut or reweighted. */
  onNote?: (line: string) => void
  /** Called once a step, those of an earlier start included. */
  onStep?: (line: StepLog) => void
}

/** Where references are computed: beside the folder, which is made anew until all that it needs is there. */
const referencesOf = (folder: string) => `${folder}-references`

/** What became of the rows; see PairCounts. */
const pairsFile = "pairs.json"

/**
 * Trains an adapter by a Python job, equal to training in process but for rounding: the same pairs in the same order
 * from the same first adapter. Started again, it resumes from the job's last checkpoint. Returns the adapter's folder
 * (PEFT).
 * @throws ConfigError for a loss that the job does not have; PendingJobError, BackendError, MuscError, StoppedError as
 * runJob
 */
export async function trainByJob(job: TrainingJob): Promise<{ adapter: string; metrics: string; pairs: string }> {
  const { folder, key, model, torch, signal, onStep } = job
  const adapter = join(folder, "adapter")
  const metrics = join(folder, "metrics.jsonl")
  const keyFile = join(folder, "key.txt")
  const earlierKey = await readFile(keyFile, "utf8").catch(() => "")
  if (earlierKey.trim() !== key) {
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    await writeJob(job)
    await writeAtomic(keyFile, `${key}\n`) // last: a folder with its key is whole
  }
  await removeJob(referencesOf(folder))
  let read = 0
  const onPoll = () => {
    const { lines, end } = newLines(metrics, read)
    read = end
    for (const line of lines) {
      const { grad_norm: gradNorm, ...log } = metricsLine.parse(JSON.parse(line))
      onStep?.({ ...log, gradNorm } as StepLog)
    }
  }
  if (!existsSync(join(adapter, "adapter_config.json"))) {
    await job.beforeJob?.()
    await cutToCheckpoint(folder, metrics)
    await runJob({ folder, script: "train.py", command: torch.command, signal, onPoll })
  }
  readAdapter(adapter, model.config)
  return { adapter, metrics, pairs: join(folder, pairsFile) }
}

/** Removes the job of a training whose adapter stands elsewhere. */
export async function removeTrainingJob(folder: string): Promise<void> {
  await removeJob(referencesOf(folder))
  await removeJob(folder)
}

/** Removes the lines of steps that a killed job will do again, so that each is told once. */
async function cutToCheckpoint(folder: string, metrics: string): Promise<void> {
  if (!existsSync(metrics)) return
  const state = join(folder, "state")
  const steps = (existsSync(state) ? readdirSync(state) : [])
    .filter((name) => existsSync(join(state, name, "trainer_state.json"))) // its last file
    .map((name) => Number(name.replace("checkpoint-", "")))
  const { lines } = newLines(metrics, 0)
  await writeAtomic(
    metrics,
    lines.slice(0, Math.max(0, ...steps)).map((line) => `${line}\n`),
  )
}

async function writeJob(job: TrainingJob) {
  const { folder, model, pairs, settings, checkpointEvery, torch, scorer } = job
  checkSettings(settings)
  const loss = lossOf(settings)
  const items = await withReferences(pairs(), model, settings, scorer, job)
  if (!items.length) {
    throw new InputError("training needs at least one pair, got none; see why rows failed in the earlier stages")
  }
  const { rank, alpha, seed, batchSize } = settings
  const order = orderOf(items, settings)
  await writeSafetensors(join(folder, "order.safetensors"), [
    { name: "row", dtype: "I32", shape: [order.steps, batchSize], data: order.rows },
    { name: "share", dtype: "F32", shape: [order.steps, batchSize], data: order.shares },
  ])
  await writeSafetensors(join(folder, "pairs.safetensors"), pairTensors(items, settings, loss.beta))
  const lora = initLora(model.config, { rank, alpha, seed })
  try {
    await writeAdapter(join(folder, "init"), await toAdapter(lora, model.config), resolve(model.dir))
  } finally {
    tf.dispose(lora.params)
  }
  const written = {
    ...{ model: resolve(model.dir), dtype: torch.dtype, rows_per_pass: torch.rowsPerPass, seed: seed >>> 0 },
    ...{ ...loss, lr: settings.lr, warmup_steps: Math.ceil(settings.warmup * order.steps), adam: adamDefaults },
    ...{ gradient_checkpointing: settings.gradientCheckpointing, checkpoint_every: checkpointEvery },
  }
  await writeAtomic(join(folder, "settings.json"), `${JSON.stringify(written, null, 2)}\n`)
}

/** The losses that train.py has. @throws ConfigError for another, with the way */
function lossOf(settings: TrainSettings) {
  if (settings.kind === "sft") {
    if (settings.trained) throw new ConfigError(["trained must be lora with --torch, got all; leave --torch out"])
    return { loss: "sft", beta: 0, label_smoothing: 0 }
  }
  const { loss, beta, labelSmoothing, lengthNormalised, sftWeight } = settings.preference
  const remedy = "leave --torch out to train in process"
  const problems = [
    ...(loss === "dpo" ? [] : [`loss must be dpo with --torch, got ${loss}; ${remedy}`]),
    ...(lengthNormalised ? [`lengthNormalised must be false with --torch, got true; ${remedy}`] : []),
    ...(settings.trained ? [`trained must be lora with --torch, got all; ${remedy}`] : []),
    ...(settings.weighEvery ? [`weighEvery must be 0 with --torch, got ${settings.weighEvery}; ${remedy}`] : []),
    ...(sftWeight ? [`sftWeight must be 0 with --torch, got ${sftWeight}; ${remedy}`] : []),
  ]
  if (problems.length) throw new ConfigError(problems)
  return { loss: "dpo", beta, label_smoothing: labelSmoothing }
}

function refusedAsNone(error: unknown): undefined {
  if (!(error instanceof RefusedError)) throw error
}

/**
 * Pairs as ids with reference log-probs: those of the weigh stage, or what the scorer says of pairs without signals.
 */
async function withReferences(
  pairs: Rows<TrainRow | FailedRow>,
  { tokenizer }: ModelDescription,
  settings: TrainSettings,
  scorer: SignalScorer,
  { folder, signal, onNote = console.warn }: Pick<TrainingJob, "folder" | "signal" | "onNote">,
): Promise<PairItem[]> {
  const rows: TrainRow[] = []
  for await (const row of pairs) if (hasPassed(row)) rows.push(row)
  if (settings.kind !== "sft" && rows.some(({ signals }) => !signals)) {
    const requestOf = (row: TrainRow) => {
      const prompt = respondMessages(row.clean_instruction, row.input)
      return { clean: prompt, noised: prompt, empty: prompt, responses: [row.chosen, row.rejected] }
    }
    const missing = rows.filter(({ signals }) => !signals)
    const ready = await scoredAhead(scorer, missing.map(requestOf), { folder: referencesOf(folder), signal })
    try {
      for (const [i, row] of rows.entries()) {
        if (row.signals) continue
        // A refused pair stays without signals, and is counted when it is encoded.
        const scored = await ready.score(requestOf(row)).catch(refusedAsNone)
        if (scored) rows[i] = { ...row, signals: { chosen: scored[0]!, rejected: scored[1]! } }
      }
    } finally {
      ready.dispose()
    }
  }
  const items: PairItem[] = []
  const counts: PairCounts = { pairs: 0, leftOut: 0, shortened: 0, otherWeights: 0 }
  for await (const some of encodedPairs(tokenizer, rows, settings, counts, signal))
    items.push(...some.map(({ item }) => item))
  counts.pairs = items.length
  for (const line of notesOf(counts, settings)) onNote(line)
  await writeAtomic(join(folder, pairsFile), `${JSON.stringify(counts, null, 2)}\n`)
  return items
}

/**
 * The pairs of every step and their shares in its loss; the last step of an epoch may be short: row 0 with share 0
 * fills it.
 */
function orderOf(items: readonly PairItem[], settings: TrainSettings) {
  const { batchSize, seed } = settings
  const places = items.map((_, i) => i)
  const batches = epochs<number>({ length: places.length, at: (i) => places[i] }, { ...settings, batchSize, seed })
  const rows = new Int32Array(batches.steps * batchSize)
  const shares = new Float32Array(batches.steps * batchSize)
  for (let step = 0; step < batches.steps; step++) {
    const dealt = batches.at(step)
    const tokens = dealt.reduce((sum, row) => sum + items[row]!.chosen.length, 0)
    dealt.forEach((row, i) => {
      rows[step * batchSize + i] = row
      shares[step * batchSize + i] = settings.kind === "sft" ? 1 / tokens : 1 / dealt.length
    })
  }
  return { rows, shares, steps: batches.steps }
}

function pairTensors(items: readonly PairItem[], { kind }: TrainSettings, beta: number) {
  const total = items.reduce(
    (n, { prompt, chosen, rejected }) => n + prompt.length + chosen.length + rejected.length,
    0,
  )
  const ids = new Int32Array(total)
  const weights = new Float32Array(total)
  const starts = new Int32Array(3 * items.length + 1)
  const reference = new Float32Array(3 * items.length)
  let at = 0
  items.forEach((item, i) => {
    const parts = [item.prompt, item.chosen, item.rejected]
    for (const [p, part] of parts.entries()) {
      starts[3 * i + p] = at
      ids.set(part, at)
      if (p === 1) weights.set(kind === "sft" ? part.map(() => 1) : item.chosenWeights, at)
      if (p === 2) weights.set(kind === "sft" ? part.map(() => 0) : item.rejectedWeights, at)
      at += part.length
    }
    if (kind === "sft") return
    const sum = (w: readonly number[], logProbs: readonly number[]) => w.reduce((s, x, j) => s + x * logProbs[j]!, 0)
    const [chosen, rejected] = [item.chosenReference!, item.rejectedReference!]
    reference[3 * i] = sum(item.chosenWeights, chosen)
    reference[3 * i + 1] = sum(item.rejectedWeights, rejected)
    const size = [chosen, rejected].reduce((n, values) => n + Math.abs(values.reduce((a, b) => a + b, 0)), 0)
    reference[3 * i + 2] = ROUNDING * size * beta // a margin up to this is rounding
  })
  starts[3 * items.length] = at
  return [
    { name: "ids", dtype: "I32" as const, shape: [total], data: ids },
    { name: "weights", dtype: "F32" as const, shape: [total], data: weights },
    { name: "starts", dtype: "I32" as const, shape: [starts.length], data: starts },
    { name: "reference", dtype: "F32" as const, shape: [items.length, 3], data: reference },
  ]
}
