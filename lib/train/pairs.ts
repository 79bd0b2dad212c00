import type { Tensor1D } from "@tensorflow/tfjs"
import { tf, valuesOf } from "../backend/tf"
import type { Message, PairWeights } from "../data/schema"
import { InputError } from "../errors"
import { microBatches } from "../model/batch"
import { type Packed, pack, responseDivergence, responseLogProbs } from "../model/logprobs"
import { bind, type Lora, release } from "../model/lora"
import type { Bound, Model } from "../model/transformer"
import { encodeChat } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { epochs, type Items, type TrainOptions, train } from "./loop"
import { needsDivergence, type PreferenceOptions, preferenceLoss, sftLoss, sumByResponse } from "./losses"

/** Preference pairs and supervised examples as token ids, and the two ways of training on them. */

/** A pair as text. */
export interface PairText {
  id: string
  prompt: readonly Message[]
  chosen: string
  rejected: string
  /** one weight a response token; absent is all 1 */
  weights?: PairWeights
  /** log-prob of each response token under the reference model, if known */
  reference?: PairWeights
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

/**
 * Tokenises pairs with an exact boundary. Prompt and longer answer together are cut at `maxTokens` (2048 in the paper)
 * by shortening the answers; a pair whose prompt alone is that long is left out.
 * @throws InputError naming the pair whose weights do not fit its tokens
 */
export function encodePairs(tokenizer: Tokenizer, pairs: readonly PairText[], maxTokens: number): PairItem[] {
  return pairs.flatMap(({ id, prompt, chosen, rejected, weights, reference }) => {
    const encoded = [encodeChat(tokenizer, prompt, chosen), encodeChat(tokenizer, prompt, rejected)] as const
    const room = maxTokens - encoded[0].promptIds.length
    if (room < 1) return []
    const answer = (side: "chosen" | "rejected", ids: readonly number[]) => {
      const fitted = (values: readonly number[] | undefined, what: string) => {
        if (values && values.length !== ids.length) {
          const counts = `${what} must have one number a token of the ${side} answer, ${ids.length}, got ${values.length}`
          throw new InputError(`pair ${id}: ${counts}; run the weigh stage again with this model`)
        }
        return values?.slice(0, room)
      }
      return {
        ids: ids.slice(0, room),
        weights: fitted(weights?.[side], "weights") ?? ids.slice(0, room).map(() => 1),
        reference: fitted(reference?.[side], "reference log-probs"),
      }
    }
    const c = answer("chosen", encoded[0].responseIds)
    const r = answer("rejected", encoded[1].responseIds)
    return [
      {
        prompt: encoded[0].promptIds,
        chosen: c.ids,
        rejected: r.ids,
        chosenWeights: c.weights,
        rejectedWeights: r.weights,
        chosenReference: c.reference,
        rejectedReference: r.reference,
      },
    ]
  })
}

/** What both trainers need beside their data; see `TrainOptions` for the fields. */
export interface FitOptions
  extends Pick<
    TrainOptions<never>,
    "lr" | "shape" | "warmup" | "adam" | "tokenBudget" | "gradientCheckpointing" | "checkpoint" | "onStep" | "signal"
  > {
  model: Model
  lora: Lora
  epochs: number
  batchSize: number
  /** of the order of the items */
  seed: number
}

const tokensOf = ({ prompt, chosen, rejected }: PairItem) => prompt.length + chosen.length + rejected.length
const packPairs = (items: readonly PairItem[]) =>
  pack(items.map(({ prompt, chosen, rejected }) => ({ prompt, responses: [chosen, rejected] })))

/**
 * Token-weighted DPO and its relatives (see losses.ts); weights all 1 and `loss: "dpo"` is plain DPO. Items must have
 * their reference log-probs: see `withReference`. Logs a step: rewards of both sides (β Σ w Δ), their margin, and accuracy
 * (share of pairs with a positive margin).
 */
export async function trainPreference(items: Items<PairItem>, options: FitOptions & { preference: PreferenceOptions }) {
  const { preference, epochs: rounds, batchSize, seed, ...rest } = options
  await train<PairItem>({
    ...rest,
    batches: epochs(items, { epochs: rounds, batchSize, seed }),
    ...preferenceObjective(preference, options.model),
  })
}

/**
 * Mean preference loss over the pairs of a step, for `train`. Items must have their reference log-probs; TDPO needs the
 * reference model too, which then reads each micro-batch as well.
 * @throws InputError for TDPO without it
 */
export function preferenceObjective(
  preference: PreferenceOptions,
  reference?: Model,
): Pick<TrainOptions<PairItem>, "tokensOf" | "loss"> {
  if (needsDivergence(preference.loss) && !reference) {
    throw new InputError(`preference loss ${preference.loss}: needs the reference model, got none; pass it too`)
  }
  return { tokensOf, loss: (bound, some, step) => preferenceOf(bound, some, step.length, preference, reference) }
}

/** Loss of some pairs of a step of `total` pairs. */
function preferenceOf(
  bound: Bound,
  items: readonly PairItem[],
  total: number,
  options: PreferenceOptions,
  model?: Model,
) {
  const batch = packPairs(items)
  const compared = needsDivergence(options.loss) ? responseDivergence(bound, bind(model!), batch) : null
  const logProbs = compared?.logProbs ?? responseLogProbs(bound, batch)
  const perToken = (of: (item: PairItem) => readonly number[]) => Float32Array.from(items.flatMap(of))
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
  const share = (x: ReturnType<typeof tf.sub>) => tf.div(x, total)
  return {
    loss: tf.div(tf.sum(result.losses), total) as ReturnType<typeof sftLoss>,
    logs: {
      chosen_reward: share(result.chosenRewards),
      rejected_reward: share(result.rejectedRewards),
      margin: share(margin),
      accuracy: share(tf.cast(tf.greater(margin, 0), "float32")),
    },
  }
}

/** Σ of per-token values of the chosen and of the rejected answers, each [pairs]. */
function sides(values: Tensor1D, batch: Packed, weights: Float32Array): [Tensor1D, Tensor1D] {
  const sums = tf.reshape(sumByResponse(values, batch.owners, weights, batch.responses), [-1, 2])
  const [chosen, rejected] = tf.split(sums, 2, 1)
  return [tf.reshape(chosen!, [-1]), tf.reshape(rejected!, [-1])]
}

/** The items with reference log-probs, under the model without an adapter, where they lack them. */
export async function withReference(
  model: Model,
  items: readonly PairItem[],
  tokenBudget: number,
): Promise<PairItem[]> {
  const known = new Map<PairItem, PairItem>()
  const missing = items.filter((item) => !item.chosenReference || !item.rejectedReference)
  const bound = bind(model)
  for (const some of microBatches(missing, tokensOf, tokenBudget)) {
    const logProbs = await valuesOf(() => responseLogProbs(bound, packPairs(some)))
    let at = 0
    const take = (n: number) => {
      at += n
      return [...logProbs.subarray(at - n, at)]
    }
    for (const item of some) {
      const chosenReference = take(item.chosen.length)
      known.set(item, { ...item, chosenReference, rejectedReference: take(item.rejected.length) })
    }
  }
  release(bound)
  return items.map((item) => known.get(item) ?? item)
}

/** A supervised example as ids. */
export interface SftItem {
  prompt: readonly number[]
  response: readonly number[]
}

/** Supervised fine-tuning: mean cross-entropy of the response tokens of each step. */
export async function trainSft(items: Items<SftItem>, options: FitOptions): Promise<void> {
  const { epochs: rounds, batchSize, seed, ...rest } = options
  await train<SftItem>({
    ...rest,
    batches: epochs(items, { epochs: rounds, batchSize, seed }),
    tokensOf: ({ prompt, response }) => prompt.length + response.length,
    loss: (bound, some, step) => {
      const batch = pack(some.map(({ prompt, response }) => ({ prompt, responses: [response] })))
      const total = step.reduce((n, { response }) => n + response.length, 0)
      return { loss: sftLoss(responseLogProbs(bound, batch), tf.fill([batch.targets.length], 1 / total) as Tensor1D) }
    },
  })
}
