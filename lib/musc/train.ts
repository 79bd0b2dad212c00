import type { FilePair } from "../data/pair-files"
import type { Message, PairRow, PairWeights, WeighedRow } from "../data/schema"
import { Spool } from "../data/spool"
import { breathe } from "../data/stop-signals"
import { tf } from "../device/tf"
import type { LocalModel } from "../engine/local"
import { InputError, StoppedError } from "../errors"
import { type Plan, planFor } from "../model/executor"
import type { Sequence } from "../model/logprobs"
import { initLora, type Lora } from "../model/lora"
import { type Model, sizeOf } from "../model/transformer"
import { withFloats } from "../model/weights"
import type { Tokenizer } from "../text/tokenizer"
import { epochs, type Items, type TrainOptions, train } from "../train/loop"
import { needsDivergence, type PreferenceOptions, preferenceDefaults, readsWeights } from "../train/losses"
import { type Objective, type PairItem, tokensOf } from "../train/objective"
import { encodePairs, type PairText, withReference } from "../train/pairs"
import { preferenceOf } from "./respond"
import { openReweigher } from "./reweigh"
import { type FailedRow, hasPassed } from "./row"
import type { Rows } from "./run-stage"
import { defaultWeighting, type ScoredPair, type WeightingName, weightsOf } from "./weigh"

/** Settings of a training, whatever its loss. */
export interface SharedSettings {
  /** Run seed, any integer: start of the adapter and order of the pairs. */
  seed: number
  /** Rank of the LoRA, on all linear layers; paper 8. */
  rank: number
  /** Paper 16. */
  alpha: number
  /** Peak learning rate (AdamW, cosine); paper 5e-6, small models up to 1e-3. */
  lr: number
  /** Passes over the pairs; paper 1 to 3. */
  epochs: number
  /** Pairs an optimizer step; paper 8. */
  batchSize: number
  /** Share of the steps with rising learning rate; paper .1. */
  warmup: number
  /** Padded tokens in one forward pass; less saves memory. */
  tokenBudget: number
  /** Computes each layer again in the backward pass instead of keeping its activations: less memory, more time. */
  gradientCheckpointing: boolean
  /** Tokens of prompt and answer, at most; paper 2048. */
  cutoff: number
  /** `all`: all weights instead of a LoRA, see trainModel; absent is a LoRA. */
  trained?: "all"
}

/** SFT on the chosen answers, or a preference loss with token weights (`uniform`: coarse-grained). */
export type TrainSettings = SharedSettings &
  (
    | { kind: "sft" }
    | {
        kind: "preference"
        weighting: WeightingName
        firstTokenZero: boolean
        preference: PreferenceOptions
        /**
         * Dynamic weights: epochs after which weights are recomputed from the policy; absent or 0: once, from the base.
         */
        weighEvery?: number
      }
  )

/** The paper's settings with the default weighting. */
export const trainDefaults: TrainSettings = {
  kind: "preference",
  seed: 0,
  rank: 8,
  alpha: 16,
  lr: 5e-6,
  epochs: 1,
  batchSize: 8,
  warmup: 0.1,
  tokenBudget: 4096,
  gradientCheckpointing: false,
  cutoff: 2048,
  weighting: defaultWeighting,
  firstTokenZero: false,
  preference: preferenceDefaults,
}

/** What training needs of a pair: a weighed row, or one without signals, all of whose tokens weigh 1. */
export type TrainRow = Pick<PairRow, "id" | "input" | "clean_instruction" | "chosen" | "rejected"> &
  Partial<Pick<WeighedRow, "signals" | "weights" | "rejected_from" | "noised_instruction">> & {
    /** The whole prompt of a pair from another program's file, which may have more than one turn. */
    prompt?: readonly Message[]
    /** Token weights of such a file, which count whatever the weighting. */
    tokenWeights?: PairWeights
  }

/** A pair of another program's file as a row to train on. */
export const toTrainRow = ({ id, prompt, chosen, rejected, tokenWeights }: FilePair): TrainRow => ({
  ...{ id, input: null, clean_instruction: prompt.at(-1)?.content ?? "", chosen, rejected, prompt },
  ...(tokenWeights && { tokenWeights }),
})

/** To be raised when a change makes training give another adapter. */
export const trainVersion = 3

/** What training made of the rows that it got. */
export interface PairCounts {
  /** pairs trained on */
  pairs: number
  /** pairs left out, as their prompt alone reaches the cut-off */
  leftOut: number
  /** pairs left out, as tokenizer or chat template refuse them; the reason of the first */
  refused?: number
  refusal?: string
  /** pairs with an answer whose end the cut-off takes */
  shortened: number
  /** pairs that hold other weights than their signals and the settings give, which count */
  otherWeights: number
  /** pairs whose two answers are the same text */
  equal?: number
  /** pairs whose chosen answer is empty */
  empty?: number
}

/** How a training is watched, stopped and resumed. */
export interface TrainControl extends Pick<TrainOptions, "checkpoint" | "signal" | "onStep"> {
  /** Called once, before the first step. */
  onPairs?: (counts: PairCounts) => void | Promise<void>
  /** Called once, before the first step, with how the steps are run. */
  onPlan?: (plan: Plan) => void
  /** Receives one line about each pair that was left out, cut or reweighted. By default they go to console.warn. */
  onNote?: (line: string) => void
}

/**
 * Stage 6 (paper: token-aware preference optimization): weighed pairs -> LoRA adapter. The reference log-probs are
 * those of the weigh stage, which scored the same answers under the same prompt. Weights are made here, of its signals
 * and the settings; those that a row holds count only where it holds no signals. Pairs without either (those of the
 * baselines) can only be weighed uniformly. Failed rows are passed over; what the cut-off takes, or the tokenizer
 * refuses, is counted and told. Pairs wait in a temporary file, so their number is bound by the disk. The
 * caller disposes the adapter's tensors.
 * @throws InputError without pairs, without the signals of a weighting, or for token weights under a loss that reads
 * none; StoppedError when aborted, after writing the checkpoint.
 */
export async function trainAdapter(
  local: LocalModel,
  pairs: Rows<TrainRow | FailedRow>,
  settings: TrainSettings,
  control: TrainControl = {},
): Promise<Lora> {
  checkSettings(settings)
  const { rank, alpha, seed } = settings
  const lora = initLora(local.config, { rank, alpha, seed })
  try {
    await trainOn(local, pairs, settings, control, { model: local.model, lora })
    return lora
  } catch (error) {
    tf.dispose(lora.params)
    throw error
  }
}

/**
 * The same for all weights of the model: full fine-tuning. The model of `local` stays as it is and is the reference.
 * The caller disposes the new model's tensors. Takes four times the memory of the weights (weights, gradient, two
 * moments) and more.
 * @throws as trainAdapter; InputError for settings that need a LoRA beside the model
 */
export async function trainModel(
  local: LocalModel,
  pairs: Rows<TrainRow | FailedRow>,
  settings: TrainSettings,
  control: TrainControl = {},
): Promise<Model> {
  checkSettings({ ...settings, trained: "all" })
  const model = withFloats(local.model)
  try {
    await trainOn(local, pairs, settings, control, { model })
    return model
  } catch (error) {
    tf.dispose(model.params)
    throw error
  }
}

async function trainOn(
  local: LocalModel,
  pairs: Rows<TrainRow | FailedRow>,
  settings: TrainSettings,
  control: TrainControl,
  { model, lora }: { model: Model; lora?: Lora },
): Promise<void> {
  const { seed, batchSize, tokenBudget, lr, warmup, gradientCheckpointing } = settings
  const { onPairs, onPlan, onNote, ...stepControl } = control
  const objective: Objective =
    settings.kind === "sft"
      ? { kind: "sft", weighting: "even" }
      : { kind: "preference", preference: settings.preference }
  const items = new Spool<PairItem>()
  const rows = new Spool<ScoredPair>()
  const every = settings.kind === "preference" ? (settings.weighEvery ?? 0) : 0
  try {
    const counts: PairCounts = { pairs: 0, leftOut: 0, shortened: 0, otherWeights: 0 }
    let tokens = 0
    for await (const some of encodedPairs(local.tokenizer, pairs, settings, counts, control.signal)) {
      const plain = some.map(({ item }) => item)
      const ready = settings.kind === "sft" ? plain : await withReference(local.model, plain, tokenBudget)
      for (const item of ready) items.push(item)
      if (every) for (const { row } of some) rows.push(row)
      tokens += ready.reduce((sum, item) => sum + tokensOf(item), 0)
    }
    counts.pairs = items.length
    for (const line of notesOf(counts, settings)) (onNote ?? console.warn)(line)
    if (!items.length) {
      const refused = counts.refused ? `none, as ${counts.refused} were refused: ${counts.refusal}` : undefined
      const reason = counts.leftOut
        ? `none of ${counts.leftOut}, as every prompt reaches the cut-off of ${settings.cutoff} tokens; raise cutoff`
        : (refused ?? "none; see why rows failed in the earlier stages")
      throw new InputError(`training needs at least one pair, got ${reason}`)
    }
    await onPairs?.(counts)
    const chosen = (i: number): Sequence => ({ prompt: items.at(i)!.prompt, responses: [items.at(i)!.chosen] })
    const perEpoch = Math.ceil(items.length / batchSize)
    const reweigh =
      settings.kind === "preference" && every && lora
        ? openReweigher(local, lora, { rows, every, settings, perEpoch, checkpoint: control.checkpoint })
        : null
    const pairAt = (i: number) => reweigh?.item(items.at(i)!, i) ?? items.at(i)!
    const at = settings.kind === "sft" ? chosen : pairAt
    const trainItems: Items<PairItem | Sequence> = { length: items.length, at }
    const work = { adapter: lora !== undefined, tokens: tokens * settings.epochs, checkpointing: gradientCheckpointing }
    const plan = planFor(sizeOf(model.params), { kind: "train", ...work })
    onPlan?.(plan)
    const batches = epochs(trainItems, { epochs: settings.epochs, batchSize, seed })
    const beforeStep = reweigh?.beforeStep
    await train({ model, lora, objective, plan, batches, lr, warmup, tokenBudget, beforeStep, ...stepControl })
  } finally {
    items.dispose()
    rows.dispose()
  }
}

/** @throws InputError for settings that would be without effect */
export function checkSettings(settings: TrainSettings): void {
  if (settings.trained && settings.kind === "preference") {
    const { weighEvery, preference } = settings
    if (weighEvery) throw new InputError(`trained: must be lora with weighEvery ${weighEvery}, got all; leave one out`)
    if (needsDivergence(preference.loss)) {
      const rule = `must be lora with the loss ${preference.loss}, whose reference is the model without the LoRA`
      throw new InputError(`trained: ${rule}, got all; leave one out`)
    }
  }
  if (settings.kind === "preference" && settings.weighEvery && settings.weighEvery >= settings.epochs) {
    const rule = `must be below the epochs, ${settings.epochs}, as weights are recomputed between epochs`
    throw new InputError(`weighEvery ${rule}, got ${settings.weighEvery}; lower it, or raise epochs`)
  }
  if (settings.kind === "sft" || readsWeights(settings.preference.loss)) return
  const { weighting, firstTokenZero, preference } = settings
  if (weighting === "uniform" && !firstTokenZero) return
  const setting = firstTokenZero ? "firstTokenZero" : `weighting ${weighting}`
  throw new InputError(
    `loss ${preference.loss} must go with uniform weights, as it reads no token weights and musc would equal coarse, ` +
      `got ${setting}; leave out the methods musc and fine, or take another loss`,
  )
}

/** What is to be said of the pairs, a line each. */
export function notesOf(
  { pairs, leftOut, refused = 0, refusal, shortened, otherWeights, equal, empty }: PairCounts,
  settings: TrainSettings,
): string[] {
  const all = pairs + leftOut + refused
  const notes = []
  if (refused) notes.push(`training: ${refused} of ${all} pairs left out, as they were refused: ${refusal}`)
  if (leftOut) {
    const reason = `as the prompt alone reaches the cut-off of ${settings.cutoff} tokens; raise cutoff to keep them`
    notes.push(`training: ${leftOut} of ${all} pairs left out, ${reason}`)
  }
  if (shortened) {
    const reason = `cut at ${settings.cutoff} tokens of prompt and answer; raise cutoff to train on whole answers`
    notes.push(`training: ${shortened} of ${all} pairs hold an answer that was ${reason}`)
  }
  if (otherWeights && settings.kind === "preference") {
    const instead = `those of the signals and of the settings are used; remove \`signals\` to train on what rows hold`
    notes.push(`training: ${otherWeights} of ${all} pairs hold other weights of ${settings.weighting}; ${instead}`)
  }
  if (equal && settings.kind === "preference")
    notes.push(`training: ${equal} of ${all} pairs have two equal answers, which show no preference; leave them out`)
  if (empty) {
    const taught = settings.kind === "sft" ? "teaches the model to say nothing" : "is preferred to the other"
    notes.push(`training: ${empty} of ${all} pairs have an empty chosen answer, which ${taught}; leave them out`)
  }
  return notes
}

/** The pairs as ids, a few hundred at a time. */
export async function* encodedPairs(
  tokenizer: Tokenizer,
  pairs: Rows<TrainRow | FailedRow>,
  settings: TrainSettings,
  counts: PairCounts,
  signal?: AbortSignal,
) {
  let some: { item: PairItem; row: ScoredPair }[] = []
  for await (const row of pairs) {
    if (hasPassed(row)) {
      await breathe()
      if (signal?.aborted) throw new StoppedError("training stopped")
      if (row.chosen === row.rejected) counts.equal = (counts.equal ?? 0) + 1
      if (!row.chosen.trim()) counts.empty = (counts.empty ?? 0) + 1
      const fitting = encodePairs(tokenizer, [pairText(row, settings, counts)], settings.cutoff, counts)
      some.push(...fitting.map((item) => ({ item, row: scoredOf(row) })))
    }
    if (some.length < 256) continue
    yield some
    some = []
  }
  yield some
}

/** What scoring a row again takes, without its signals and calls. */
const scoredOf = ({ id, input, clean_instruction, noised_instruction, chosen, rejected, rejected_from }: TrainRow) => ({
  ...{ id, input, clean_instruction, noised_instruction, chosen, rejected, rejected_from },
})

/** The pair of a row with its weights. Counts where those that the row holds are others. */
function pairText(row: TrainRow, settings: TrainSettings, counts: Pick<PairCounts, "otherWeights">): PairText {
  const { chosen, rejected, prompt } = row
  const pair = { id: row.id, ...(prompt ? { prompt, chosen, rejected } : preferenceOf(row)) }
  if (settings.kind === "sft") return pair
  const { weighting, firstTokenZero, seed } = settings
  const { signals, weights: ownWeights, tokenWeights } = row
  if (settings.weighEvery && (prompt || (row.noised_instruction === undefined && row.rejected_from !== "clean"))) {
    const rule = `pair ${row.id} must have a noised instruction, with which weighEvery ${settings.weighEvery} weighs it again`
    throw new InputError(`${rule}, got none; train on rows of \`musc weigh\`, or leave out weighEvery (musc-dynamic)`)
  }
  if (tokenWeights && weighting !== "uniform") return { ...pair, weights: tokenWeights, firstTokenZero }
  if (!signals) {
    const weights = ownWeights?.[weighting]
    if (weights || weighting === "uniform") return { ...pair, weights, firstTokenZero }
    throw new InputError(
      `pair ${row.id} must have signals to be weighed by ${weighting}, got none; run \`musc weigh\` first, ` +
        "or train with uniform weights (--method coarse)",
    )
  }
  const weights = weightsOf(signals, weighting, { id: row.id, seed, firstTokenZero, rejectedFrom: row.rejected_from })
  if (ownWeights?.[weighting] && differs(ownWeights[weighting], weights)) counts.otherWeights++
  return { ...pair, weights, reference: { chosen: signals.chosen.logprob, rejected: signals.rejected.logprob } }
}

/** Whether weights differ by more than what numbers in a file leave out. */
const differs = (a: PairWeights, b: PairWeights): boolean =>
  (["chosen", "rejected"] as const).some((side) =>
    a[side].some((weight, t) => Math.abs(weight - (b[side][t] ?? 9)) > 1e-3),
  )
