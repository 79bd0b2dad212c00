import type { PairRow, WeighedRow } from "../data/schema"
import { Spool } from "../data/spool"
import { tf } from "../device/tf"
import { openHelpers } from "../engine/learner"
import type { LocalModel } from "../engine/local"
import { InputError } from "../errors"
import type { Sequence } from "../model/logprobs"
import { initLora, type Lora } from "../model/lora"
import { worthGraphs } from "../train/gradients"
import { epochs, type Items, type TrainOptions, train } from "../train/loop"
import { type PreferenceOptions, preferenceDefaults } from "../train/losses"
import { type Objective, type PairItem, tokensOf } from "../train/objective"
import { encodePairs, withReference } from "../train/pairs"
import { preferenceOf } from "./respond"
import { type FailedRow, hasPassed } from "./row"
import type { Rows } from "./run-stage"
import { type WeightingName, weightsOf } from "./weigh"

interface SharedSettings {
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
}

/** SFT on the chosen answers, or a preference loss with token weights (`uniform`: coarse-grained). */
export type TrainSettings = SharedSettings &
  (
    | { kind: "sft" }
    | { kind: "preference"; weighting: WeightingName; firstTokenZero: boolean; preference: PreferenceOptions }
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
  weighting: "contrast",
  firstTokenZero: false,
  preference: preferenceDefaults,
}

/** What training needs of a pair: a weighed row, or one without signals, all of whose tokens weigh 1. */
export type TrainRow = Pick<PairRow, "id" | "input" | "clean_instruction" | "chosen" | "rejected"> &
  Partial<Pick<WeighedRow, "signals" | "weights">>

/** To be raised when a change makes training give another adapter. */
export const trainVersion = 2

/**
 * Stage 6 (paper: token-aware preference optimization): weighed pairs -> LoRA adapter. The reference log-probs are those
 * of the weigh stage, which scored the same answers under the same prompt; weights that it did not compute are made from
 * its signals here. Pairs without signals (those of the baselines) can only be weighed uniformly. Failed rows are passed
 * over. Pairs wait in a temporary file, so their number is bound by the disk. The processes of `local` share the work, with
 * the same result. The caller disposes the adapter's tensors.
 * @throws InputError without pairs, or without the signals of a weighting; StoppedError when aborted, after writing the checkpoint.
 */
export async function trainAdapter(
  local: LocalModel,
  pairs: Rows<TrainRow | FailedRow>,
  settings: TrainSettings,
  control: Pick<TrainOptions, "checkpoint" | "signal" | "onStep"> = {},
): Promise<Lora> {
  const { rank, alpha, seed, batchSize, tokenBudget } = settings
  const { lr, warmup, gradientCheckpointing } = settings
  const objective: Objective =
    settings.kind === "sft"
      ? { kind: "sft", weighting: "even" }
      : { kind: "preference", preference: settings.preference }
  const lora = initLora(local.config, { rank, alpha, seed })
  const plain = { model: local.model, lora, objective, gradientCheckpointing }
  const readers = openHelpers(local.pool, plain)
  let helpers: typeof readers = null
  const items = new Spool<PairItem>()
  try {
    let tokens = 0
    for await (const some of encoded(local, pairs, settings)) {
      const ready = settings.kind === "sft" ? some : await withReference(local.model, some, tokenBudget, readers)
      for (const item of ready) items.push(item)
      tokens += ready.reduce((sum, item) => sum + tokensOf(item), 0)
    }
    if (!items.length) {
      throw new InputError("training needs at least one pair, got none; look for the reasons in the stages before")
    }
    const chosen = (i: number): Sequence => ({ prompt: items.at(i)!.prompt, responses: [items.at(i)!.chosen] })
    const given: Items<PairItem | Sequence> = settings.kind === "sft" ? { length: items.length, at: chosen } : items
    const learner = { ...plain, graphs: worthGraphs(local.model, tokens * settings.epochs) }
    helpers = openHelpers(local.pool, learner)
    const batches = epochs(given, { epochs: settings.epochs, batchSize, seed })
    await train({ ...learner, batches, lr, warmup, tokenBudget, helpers, ...control })
    return lora
  } catch (error) {
    tf.dispose(lora.params)
    throw error
  } finally {
    helpers?.close()
    readers?.close()
    items.dispose()
  }
}

/** The pairs as ids, a few hundred at a time. */
async function* encoded({ tokenizer }: LocalModel, pairs: Rows<TrainRow | FailedRow>, settings: TrainSettings) {
  let some: PairItem[] = []
  for await (const row of pairs) {
    if (hasPassed(row)) some.push(...encodePairs(tokenizer, [pairText(row, settings)], settings.cutoff))
    if (some.length < 256) continue
    yield some
    some = []
  }
  yield some
}

function pairText({ signals, weights: known, ...row }: TrainRow, settings: TrainSettings) {
  const pair = { id: row.id, ...preferenceOf(row) }
  if (settings.kind === "sft") return pair
  const { weighting, firstTokenZero, seed } = settings
  if (!signals) {
    if (weighting === "uniform" && !firstTokenZero) return pair
    throw new InputError(`pair ${row.id} must have signals to be weighed by ${weighting}, got none; run weigh first`)
  }
  const weights = known?.[weighting] ?? weightsOf(signals, weighting, { id: row.id, seed, firstTokenZero })
  return { ...pair, weights, reference: { chosen: signals.chosen.logprob, rejected: signals.rejected.logprob } }
}
