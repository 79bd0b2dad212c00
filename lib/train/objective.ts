import type { Scalar, Tensor, Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import type { Plan } from "../model/executor"
import {
  type Packed,
  pack,
  padded,
  responseDivergence,
  responseLogProbs,
  type Sequence,
  type Together,
  together,
} from "../model/logprobs"
import { bind } from "../model/lora"
import type { Bound, Model } from "../model/transformer"
import { needsDivergence, type PreferenceOptions, preferenceLoss, sftLoss, sumByResponse } from "./losses"

/** What is trained for, as plain data, so that any process can compute it. A loss of your own is one more kind here. */
export type Objective = SftObjective | PreferenceObjective

/** Cross-entropy of the response tokens of each step. */
export interface SftObjective {
  kind: "sft"
  /** a token weighs 1 (`even`), or 1 / sqrt(tokens of its response), so that short responses count (`root`) */
  weighting: "even" | "root"
}

/**
 * Mean loss over the pairs of each step: token-weighted DPO and its relatives. Weights all 1 and `dpo` is plain DPO.
 */
export interface PreferenceObjective {
  kind: "preference"
  preference: PreferenceOptions
}

/** A pair as ids; responses end with the end-of-turn token. All per-token lists have the response's length. */
export interface PairItem {
  prompt: readonly number[]
  chosen: readonly number[]
  rejected: readonly number[]
  chosenWeights: readonly number[]
  rejectedWeights: readonly number[]
  /** log π_ref of each token; filled in by `withReference` where absent */
  chosenReference?: readonly number[]
  rejectedReference?: readonly number[]
}

/** What a step of an objective is made of; plain data too. */
export type ItemOf<O extends Objective> = O extends SftObjective ? Sequence : PairItem
export type Item = ItemOf<Objective>

/** Responses of an item, all under its prompt. */
const responsesOf = (item: Item) => ("responses" in item ? item.responses : [item.chosen, item.rejected])

/** Tokens that an item takes, for grouping. */
export const tokensOf = (item: Item): number =>
  responsesOf(item).reduce((n, { length }) => n + length, item.prompt.length)

/** Items as batches, which threads compute side by side if there are several. */
export function packItems(parts: readonly (readonly Item[])[], plan: Plan): Packed | Together {
  const sequences = (items: readonly Item[]): Sequence[] =>
    items.map((item) => ({ prompt: item.prompt, responses: responsesOf(item) }))
  const packs = parts.map((items) => pack(sequences(items), undefined, plan))
  return packs.length > 1 ? together(packs) : packs[0]!
}

/** What an item counts for in its step: the loss is divided by the sum of it over all items. */
export function weightOf(objective: Objective, item: Item): number {
  if (objective.kind === "preference") return 1
  const of = objective.weighting === "root" ? Math.sqrt : (length: number) => length
  return responsesOf(item).reduce((sum, { length }) => sum + of(length), 0)
}

/** What some items of a step give. */
export interface LossShare {
  /** differentiable; shares of all micro-batches add up to the loss of the step */
  loss: Scalar
  /** vectors whose elements are added up over the step, to log */
  logs: Record<string, Tensor>
}

/**
 * Share of some items, laid out as `packItems` does, in the loss of a step whose items weigh `total`. `reference` is
 * the model without its adapter, which TDPO reads; pairs must have their reference log-probs (`withReference`). Logs of
 * pairs: rewards of both sides (β Σ w Δ), their margin, and accuracy (share of pairs whose margin is above 0 by more
 * than rounding).
 */
export function lossOf(
  objective: Objective,
  bound: Bound,
  parts: readonly (readonly Item[])[],
  total: number,
  reference: Model,
): LossShare {
  if (objective.kind === "preference")
    return preferenceOf(objective.preference, bound, parts as PairItem[][], total, reference)
  const batch = packItems(parts, bound.plan)
  const items = parts.flat()
  const weights = items.flatMap((item) =>
    responsesOf(item).flatMap(({ length }) => {
      const weight = objective.weighting === "root" ? 1 / Math.sqrt(length) : 1
      return Array<number>(length).fill(weight / total)
    }),
  )
  return { loss: sftLoss(responseLogProbs(bound, batch), tf.tensor1d(padded(batch, weights))), logs: {} }
}

function preferenceOf(
  options: PreferenceOptions,
  bound: Bound,
  parts: readonly (readonly PairItem[])[],
  total: number,
  model: Model,
): LossShare {
  const batch = packItems(parts, bound.plan)
  const items = parts.flat()
  const compared = needsDivergence(options.loss) ? responseDivergence(bound, bind(model), batch) : null
  const logProbs = compared?.logProbs ?? responseLogProbs(bound, batch)
  const perToken = (of: (item: PairItem) => readonly number[]) => padded(batch, items.flatMap(of))
  const weights = perToken((item) => [...item.chosenWeights, ...item.rejectedWeights])
  const reference = perToken((item) => [...item.chosenReference!, ...item.rejectedReference!])
  const delta = tf.sub(logProbs, tf.tensor1d(reference)) as Tensor1D
  const ones = new Float32Array(weights.length).fill(1)
  const [chosen, rejected] = sides(delta, batch, weights)
  const [chosenLogProb, rejectedLogProb] = sides(logProbs, batch, ones)
  const [chosenDivergence, rejectedDivergence] = compared ? sides(compared.divergence, batch, ones) : []
  const tokens = (of: (item: PairItem) => readonly number[]) =>
    tf.tensor1d(
      items.map((item) => of(item).length),
      "float32",
    )
  const result = preferenceLoss(
    {
      chosen,
      rejected,
      chosenLogProb,
      rejectedLogProb,
      chosenTokens: tokens((item) => item.chosen),
      rejectedTokens: tokens((item) => item.rejected),
      chosenDivergence,
      rejectedDivergence,
    },
    options,
  )
  const margin = tf.sub(result.chosenRewards, result.rejectedRewards)
  const share = (x: Tensor) => tf.div(x, total)
  return {
    loss: tf.div(tf.sum(result.losses), total) as Scalar,
    logs: {
      chosen_reward: share(result.chosenRewards),
      rejected_reward: share(result.rejectedRewards),
      margin: share(margin),
      accuracy: share(result.ordered),
    },
  }
}

/** Σ of per-token values of the chosen and of the rejected answers, each [pairs]. */
function sides(
  values: Tensor1D,
  batch: Pick<Packed, "owners" | "responses">,
  weights: Float32Array,
): [Tensor1D, Tensor1D] {
  const sums = tf.reshape(sumByResponse(values, batch.owners, weights, batch.responses), [-1, 2])
  const [chosen, rejected] = tf.split(sums, 2, 1)
  return [tf.reshape(chosen!, [-1]), tf.reshape(rejected!, [-1])]
}
