import type { Message, PairWeights } from "../data/schema"
import { valuesOf } from "../device/tf"
import { InputError, RefusedError } from "../errors"
import { grouped, microBatches } from "../model/batch"
import { planFor } from "../model/executor"
import { responseLogProbs, unpadded } from "../model/logprobs"
import { bind, release } from "../model/lora"
import { type Bound, type Model, sizeOf } from "../model/transformer"
import { encodeChats } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { type PairItem, packItems, tokensOf } from "./objective"

/** Preference pairs as token ids. */

/** A pair as text. */
export interface PairText {
  id: string
  prompt: readonly Message[]
  chosen: string
  rejected: string
  /** one weight a response token; absent is all 1 */
  weights?: PairWeights
  /** whether the first token of both answers weighs 0, whatever `weights` say */
  firstTokenZero?: boolean
  /** log-prob of each response token under the reference model, if known */
  reference?: PairWeights
}

/** Pairs that do not fit into the cut-off, or have no tokens. */
export interface CutOff {
  /** pairs left out, as their prompt alone reaches it */
  leftOut: number
  /** pairs left out, as tokenizer or chat template refuse them; the reason of the first */
  refused?: number
  refusal?: string
  /** pairs with an answer whose end is left out */
  shortened: number
}

/**
 * Tokenises pairs with an exact boundary. Prompt and longer answer together are cut at `maxTokens` (2048 in the paper)
 * by shortening the answers; a pair whose prompt alone is that long, or that tokenizer or template refuse, is left out.
 * All are counted in `cutOff`.
 * @throws InputError naming the pair whose weights do not fit its tokens
 */
export function encodePairs(
  tokenizer: Tokenizer,
  pairs: readonly PairText[],
  maxTokens: number,
  cutOff: CutOff = { leftOut: 0, shortened: 0 },
): PairItem[] {
  return pairs.flatMap(({ id, prompt, chosen, rejected, weights, reference, firstTokenZero }) => {
    const encoded = encodedOrRefused(tokenizer, prompt, [chosen, rejected])
    if ("refused" in encoded) {
      cutOff.refused = (cutOff.refused ?? 0) + 1
      cutOff.refusal ??= encoded.refused
      return []
    }
    const { promptIds, responses } = encoded
    const room = maxTokens - promptIds.length
    if (room < 1) {
      cutOff.leftOut++
      return []
    }
    if (responses.some(({ length }) => length > room)) cutOff.shortened++
    const answer = (side: "chosen" | "rejected", ids: readonly number[]) => {
      const fitted = (values: readonly number[] | undefined, what: string) => {
        if (values && values.length !== ids.length) {
          const rule = `${what} must have one number a token of the ${side} answer, ${ids.length}`
          throw new InputError(`pair ${id}: ${rule}, got ${values.length}; run the weigh stage again with this model`)
        }
        return values?.slice(0, room)
      }
      const weight = fitted(weights?.[side], "weights") ?? ids.slice(0, room).map(() => 1)
      return {
        ids: ids.slice(0, room),
        weights: firstTokenZero ? weight.map((value, t) => (t ? value : 0)) : weight,
        reference: fitted(reference?.[side], "reference log-probs"),
      }
    }
    const c = answer("chosen", responses[0]!)
    const r = answer("rejected", responses[1]!)
    return [
      {
        prompt: promptIds,
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

function encodedOrRefused(tokenizer: Tokenizer, prompt: readonly Message[], answers: readonly string[]) {
  try {
    return encodeChats(tokenizer, prompt, answers)
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error
    return { refused: error.reason ?? error.message }
  }
}

/** The items with reference log-probs, under the model without an adapter, where they lack them. */
export async function withReference(
  model: Model,
  items: readonly PairItem[],
  tokenBudget: number,
): Promise<PairItem[]> {
  const missing = items.filter((item) => !item.chosenReference || !item.rejectedReference)
  if (!missing.length) return [...items]
  const plan = planFor(sizeOf(model.params), { kind: "score" })
  const batches = grouped(microBatches<PairItem>(missing, tokensOf, tokenBudget), plan.together > 1)
  const ready = bind(model, { plan })
  const read: Float32Array[] = []
  for (const batch of batches) read.push(await referenceOf(ready, batch))
  release(ready)
  const known = new Map<PairItem, PairItem>()
  for (const [i, logProbs] of read.entries()) {
    let at = 0
    const take = (n: number) => {
      at += n
      return [...logProbs.subarray(at - n, at)]
    }
    for (const item of batches[i]!.flat()) {
      const chosenReference = take(item.chosen.length)
      known.set(item, { ...item, chosenReference, rejectedReference: take(item.rejected.length) })
    }
  }
  return items.map((item) => known.get(item) ?? item)
}

/** Log-probs of all response tokens of some micro-batches, in nats. */
async function referenceOf(model: Bound, parts: readonly (readonly PairItem[])[]): Promise<Float32Array> {
  const batch = packItems(parts, model.plan)
  return unpadded(batch, await valuesOf(() => responseLogProbs(model, batch)))
}
