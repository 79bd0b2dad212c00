import type { Tensor1D, Tensor2D } from "@tensorflow/tfjs-core"
import { tf, valuesOf } from "../device/tf"
import { contrastOf } from "../ops/contrast"
import { divergence } from "../ops/distribution"
import { floatTable } from "../ops/frozen"
import { headLogProbs } from "../ops/head"
import { operation } from "../ops/operation"
import { boundsOf, contexts, extentOf, type Places } from "./context"
import type { Plan } from "./executor"
import { evenStarts } from "./layer-graph"
import { type Bound, forward, forwardTogether, type Pass } from "./transformer"

/**
 * The only place where tokens are shifted against their predictions: the logits at position t are about token t + 1, so
 * the first token of a response is predicted at the last token of its prompt. Training, weighting and evaluation call
 * it.
 *
 * R responses in all, M response tokens in all.
 */

/** A prompt and the answers to it, as token ids; answers end with their end-of-turn token. */
export interface Sequence {
  prompt: readonly number[]
  responses: readonly (readonly number[])[]
}

/** Sequences as one batch: each is `[prompt | response 1 | response 2 | …]`, so the prompt is read once. */
export interface Packed extends Places {
  ids: Int32Array // [B · T]
  /** Where each response token is predicted: an index into B · T. */
  predictors: Int32Array // [M]
  /** The response tokens. */
  targets: Int32Array // [M]
  /** Which response a token belongs to, counted over the whole batch. */
  owners: Int32Array // [M]
  responses: number // R
}

/**
 * Padding of a pack, in tokens, that makes the values of a row the same to the last digit whatever batch it is in:
 * vector units sum and compute remainders of less differently from the rest, and a product of a single row differently
 * from one of several. Our own kernels go by rows.
 */
export const batchInvariantPadding = operation(({ kernels }) => () => ({
  row: kernels === "none" ? 32 : 1,
  predictors: 32,
}))

/**
 * The least of few sizes that is enough: powers of two and their midpoints. Of them padding takes a third at most, and
 * twice the size costs two more compilations.
 */
export function bucket(size: number, least = 1): number {
  const power = 2 ** Math.ceil(Math.log2(Math.max(size, least)))
  return Math.max(size, least) <= 0.75 * power ? 0.75 * power : power
}

/** From here on buckets are multiples of 32: see `batchInvariantPadding`. */
const leastBucket = 64

/**
 * Lays sequences side by side, padded on the right, or end to end where the plan says so (`paddingFree`). Rows are a
 * multiple of `multiple.row` tokens long; there is a multiple of `multiple.predictors` of those, whose padding has the
 * owner R. Where XLA compiles anew for each shape (`xla`), rows, their length and predictors go up to a bucket instead.
 */
export function pack(
  sequences: readonly Sequence[],
  multiple = { row: 1, predictors: 1 },
  { paddingFree = false, xla = false }: Partial<Pick<Plan, "paddingFree" | "xla">> = {},
): Packed {
  const fit = (n: number, unit: number) => (xla ? bucket(n, leastBucket) : unit * Math.ceil(n / unit))
  const lengths = sequences.map(({ prompt, responses }) => responses.reduce((n, r) => n + r.length, prompt.length))
  const widest = fit(Math.max(...lengths), multiple.row)
  const rows = xla ? bucket(lengths.length) : lengths.length
  const extent = extentOf(paddingFree ? lengths : Array<number>(rows).fill(widest), paddingFree)
  const bounds = boundsOf(extent)
  const total = bounds.at(-1)!
  const ids = new Int32Array(total)
  const positions = new Int32Array(total)
  const segments = new Int32Array(total).fill(-1)
  const predictors: number[] = []
  const targets: number[] = []
  const owners: number[] = []
  let owner = 0
  sequences.forEach(({ prompt, responses }, b) => {
    let t = bounds[b]!
    const put = (id: number, position: number, segment: number) => {
      ids[t] = id
      positions[t] = position
      segments[t++] = segment
    }
    for (const [i, id] of prompt.entries()) put(id, i, 0)
    const last = t - 1
    responses.forEach((response, r) => {
      const start = t
      response.forEach((id, i) => {
        predictors.push(i === 0 ? last : start + i - 1)
        targets.push(id)
        owners.push(owner)
        put(id, prompt.length + i, r + 1)
      })
      owner++
    })
  })
  const wanted = fit(targets.length, multiple.predictors)
  while (targets.length < wanted) {
    predictors.push(predictors[0]!)
    targets.push(0)
    owners.push(owner)
  }
  return {
    ...extent,
    ids,
    positions,
    segments,
    predictors: Int32Array.from(predictors),
    targets: Int32Array.from(targets),
    owners: Int32Array.from(owners),
    responses: owner,
  }
}

/** A value of each response token [M], in their order, with 0 for padding. */
export function padded(
  { owners, responses }: Pick<Packed, "owners" | "responses">,
  values: readonly number[],
): Float32Array {
  let at = 0
  return Float32Array.from(owners, (owner) => (owner < responses ? values[at++]! : 0))
}

/** The reverse: values without those of padding. */
export const unpadded = ({ owners, responses }: Pick<Packed, "owners" | "responses">, values: Float32Array) =>
  values.filter((_, i) => owners[i]! < responses)

/** Packs that threads compute side by side: targets, owners and responses of all, in their order. */
export interface Together extends Pick<Packed, "targets" | "owners" | "responses"> {
  packs: readonly Packed[]
}

/** Several packs as one batch: responses of all, counted through. */
export function together(packs: readonly Packed[]): Together {
  const all = packs.reduce((n, pack) => n + pack.responses, 0)
  let responses = 0
  const owners = packs.map((pack) => {
    responses += pack.responses
    return pack.owners.map((owner) => (owner < pack.responses ? owner + responses - pack.responses : all))
  })
  return { packs, targets: joined(packs.map(({ targets }) => targets)), owners: joined(owners), responses }
}

function joined(lists: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(lists.reduce((n, { length }) => n + length, 0))
  let at = 0
  for (const list of lists) {
    all.set(list, at)
    at += list.length
  }
  return all
}

/** Hidden states at the predictors of all response tokens -> [M, D]; only these go through the head. */
export function responseStates(model: Bound, batch: Packed | Together): Tensor2D {
  if ("packs" in batch)
    return forwardTogether(
      model,
      batch.packs.map((pack) => passOf(model, pack)),
    )
  const { ids, places, perLayer } = passOf(model, batch)
  return forward(model, ids, places, perLayer)
}

function passOf(model: Bound, pack: Packed): Pass {
  const selected = pack.predictors
  const { gradient, layers, xla } = model.plan
  const blocks = gradient && layers === "graph" ? evenStarts(pack, selected) : undefined
  // For XLA attention is whole: blocks that begin where the first response does would be shapes without end.
  const starts = xla ? [0] : blocks
  const perLayer = contexts(model.config, pack, { selected, starts, batchInvariant: !gradient })
  return { ids: tf.tensor1d(pack.ids), places: pack, perLayer }
}

/**
 * log p(token | prompt, answer so far) of every response token -> [M], in nats. Differentiable in what `model` trains.
 */
export function responseLogProbs(model: Bound, batch: Packed | Together): Tensor1D {
  return logProbsAt(model, responseStates(model, batch), batch)
}

/**
 * As responseLogProbs, and KL(p_reference || p) of the next-token distributions at the same places -> [M], in nats. No
 * gradient goes to the reference; the head must be frozen.
 */
export function responseDivergence(
  model: Bound,
  reference: Bound,
  batch: Packed | Together,
): { logProbs: Tensor1D; divergence: Tensor1D } {
  const states = responseStates(model, batch)
  const softcap = model.config.logitSoftcap
  return {
    logProbs: logProbsAt(model, states, batch),
    divergence: divergence(states, () => responseStates(reference, batch), floatTable(model.head), { softcap }),
  }
}

function logProbsAt(model: Bound, states: Tensor2D, batch: Packed | Together): Tensor1D {
  const options = { trainTable: model.trainAll, softcap: model.config.logitSoftcap }
  return headLogProbs(states, model.head, tf.tensor1d(batch.targets), options)
}

/** Statistics of every response token under a clean and another prompt, each [M], in nats. */
export interface Contrast {
  logprob: Float32Array // log p_clean(y)
  logprobOther: Float32Array // log p_other(y)
  entropy: Float32Array // H(p_clean)
  entropyOther: Float32Array // H(p_other)
  kl: Float32Array // KL(p_clean || p_other)
  klReverse: Float32Array // KL(p_other || p_clean)
}

/** Compares the next-token distributions of the same responses under two prompts. */
export async function contrast(model: Bound, clean: Packed, other: Packed): Promise<Contrast> {
  const M = clean.targets.length
  const values = await valuesOf(() => {
    const states = [responseStates(model, clean), responseStates(model, other)] as const
    const options = { softcap: model.config.logitSoftcap }
    return contrastOf(states, model.head, tf.tensor1d(clean.targets), options)
  })
  const column = (i: number) => values.subarray(i * M, (i + 1) * M)
  return {
    logprob: column(0),
    logprobOther: column(1),
    entropy: column(2),
    entropyOther: column(3),
    kl: column(4),
    klReverse: column(5),
  }
}
