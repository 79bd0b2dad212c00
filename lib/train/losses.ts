import type { Scalar, Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import { withGradient } from "../ops/gradient"

/**
 * Losses are pure: tensors in, tensors out. Letters: M response tokens of a batch, R responses, P pairs.
 *
 * A pair's answers enter through s = Σ_t w_t (log π(y_t) - log π_ref(y_t)); weights all 1 make it DPO.
 */

/** Supervised loss: -Σ_t w_t log π(y_t), with weights [M] that already hold the division (1 / tokens for a mean). */
export function sftLoss(logProbs: Tensor1D, weights: Tensor1D): Scalar {
  return tf.neg(tf.sum(tf.mul(logProbs, weights))) as Scalar
}

/**
 * Σ of `values` [M] by response -> [R]: `owners` [M] says which response a token belongs to, R for none, `weights` [M]
 * its weight.
 */
export function sumByResponse(
  values: Tensor1D,
  owners: Int32Array,
  weights: ArrayLike<number>,
  responses: number,
): Tensor1D {
  const M = owners.length
  const select = new Float32Array(responses * M)
  for (let t = 0; t < M; t++) if (owners[t]! < responses) select[owners[t]! * M + t] = weights[t]!
  return tf.reshape(tf.matMul(tf.tensor2d(select, [responses, M]), tf.reshape(values, [M, 1])), [responses])
}

/** What a preference loss may use of P pairs, each [P]. */
export interface PairScores {
  /** Σ w (log π - log π_ref) of the chosen answers */
  chosen: Tensor1D
  rejected: Tensor1D
  /** Σ log π of the chosen answers, unweighted, and their tokens: for the reference-free losses and the SFT term */
  chosenLogProb: Tensor1D
  rejectedLogProb: Tensor1D
  chosenTokens: Tensor1D
  rejectedTokens: Tensor1D
  /** Σ_t KL(π_ref || π) over the places of the chosen answers, in nats, unweighted: for TDPO, which needs them */
  chosenDivergence?: Tensor1D
  rejectedDivergence?: Tensor1D
}

/** Names of the preference losses. */
export const preferenceLosses = ["dpo", "tdpo1", "tdpo2", "ipo", "hinge", "simpo", "orpo"] as const
export type PreferenceLoss = (typeof preferenceLosses)[number]

/** Whether a loss compares whole distributions with the reference's, not log-probs of tokens alone. */
export const needsDivergence = (loss: PreferenceLoss): boolean => loss === "tdpo1" || loss === "tdpo2"

/** Whether a loss reads token weights. SimPO and ORPO compare the mean log-probs of whole answers. */
export const readsWeights = (loss: PreferenceLoss): boolean => loss !== "simpo" && loss !== "orpo"

/** A preference loss and its constants. */
export interface PreferenceOptions {
  loss: PreferenceLoss
  /** β: how strongly the reference holds; .1 in the paper. ORPO's λ. SimPO has its own */
  beta: number
  /** cDPO: the share of pairs taken to be labelled the wrong way round; 0 to .5 */
  labelSmoothing: number
  /** divide each answer's sum by its number of tokens */
  lengthNormalised: boolean
  /** weight of an SFT term on the chosen answer, mean log-prob a token; 0 leaves it out */
  sftWeight: number
  /** SimPO's own β, which scales the mean log-prob of an answer; 2 to 10 in its paper */
  simpoBeta: number
  /** SimPO's target margin γ, in units of β-scaled mean log-prob */
  simpoMargin: number
  /** TDPO2's α: weight of the divergences; .5 in its paper, 0 is DPO */
  tdpoAlpha: number
}

/** DPO with the paper's β of .1. */
export const preferenceDefaults: PreferenceOptions = {
  loss: "dpo",
  beta: 0.1,
  labelSmoothing: 0,
  lengthNormalised: false,
  sftWeight: 0,
  simpoBeta: 2,
  simpoMargin: 0.5,
  tdpoAlpha: 0.5,
}

/** Loss of each pair, and for logging the rewards β·s that it compares, and whether chosen is ahead; each [P]. */
export interface PreferenceResult {
  losses: Tensor1D
  chosenRewards: Tensor1D
  rejectedRewards: Tensor1D
  /** 1 where the margin of rewards is above 0 by more than rounding, else 0: an equal pair is not in order */
  ordered: Tensor1D
}

/**
 * What rounding can make of a sum of log-probs, as a share of it: 32 units in the last place of a 32-bit float. Policy
 * and reference may be computed in another order, and so a pair that both find alike has a margin of about this, not of
 * 0.
 */
export const ROUNDING = 2 ** -18

/**
 * Token-weighted DPO (the paper's fine-grained loss) and its relatives. The released code sums over tokens in its
 * weighted branch alone and applies plain DPO token by token; here both sum.
 * - dpo: Rafailov 2023 eq. 7; with label smoothing cDPO, Mitchell 2023
 * - tdpo1, tdpo2: Zeng 2024 (arXiv 2404.11999), a KL term at each token instead of token weights: with
 *   D = Σ_t KL(π_ref || π), s + D (tdpo1) or s + α D (tdpo2, whose chosen D has no gradient) takes the place of s
 * - ipo: Azar 2023 eq. 17, on per-token means as in TRL
 * - hinge: SLiC, Zhao 2023
 * - simpo: Meng 2024 eq. 6; its β is `simpoBeta`
 * - orpo: Hong 2024 eq. 6-7; its λ is `beta`, its SFT term is always there
 */
export function preferenceLoss(pairs: PairScores, options: PreferenceOptions): PreferenceResult {
  const { beta, labelSmoothing: eps } = options
  const perToken = options.lengthNormalised || options.loss === "ipo"
  const mean = (sum: Tensor1D, tokens: Tensor1D) => tf.div(sum, tokens) as Tensor1D
  const values = needsDivergence(options.loss) ? withDivergence(pairs, options) : pairs
  const chosen = perToken ? mean(values.chosen, pairs.chosenTokens) : values.chosen
  const rejected = perToken ? mean(values.rejected, pairs.rejectedTokens) : values.rejected
  const chosenMean = mean(pairs.chosenLogProb, pairs.chosenTokens)
  const rejectedMean = mean(pairs.rejectedLogProb, pairs.rejectedTokens)

  const scale = options.loss === "simpo" ? options.simpoBeta : beta
  const sides = readsWeights(options.loss) ? [chosen, rejected] : [chosenMean, rejectedMean]
  const [chosenRewards, rejectedRewards] = sides.map((side) => tf.mul(side, scale)) as [Tensor1D, Tensor1D]
  const margin = tf.sub(chosenRewards, rejectedRewards) as Tensor1D
  const [c, r] =
    perToken || !readsWeights(options.loss) ? [chosenMean, rejectedMean] : [pairs.chosenLogProb, pairs.rejectedLogProb]
  const rounding = tf.mul(tf.add(tf.abs(c), tf.abs(r)), ROUNDING * scale)
  const ordered = tf.cast(tf.greater(margin, rounding), "float32") as Tensor1D
  // tf.logSigmoid has a gradient that fails inside a taped function that frees its tensors
  const logSigmoid = (x: Tensor1D) => tf.neg(tf.softplus(tf.neg(x))) as Tensor1D
  const smoothed = (x: Tensor1D) =>
    tf.neg(tf.add(tf.mul(logSigmoid(x), 1 - eps), tf.mul(logSigmoid(tf.neg(x)), eps))) as Tensor1D

  const byName: Record<PreferenceLoss, () => Tensor1D> = {
    // -log σ(β s_chosen - β s_rejected)
    dpo: () => smoothed(margin),
    // -log σ(β s_chosen - β s_rejected - α (β D_rejected - β D_chosen)), α = 1 in tdpo1
    tdpo1: () => smoothed(margin),
    tdpo2: () => smoothed(margin),
    // (s_chosen - s_rejected - 1 / 2β)²
    ipo: () => tf.square(tf.sub(tf.sub(chosen, rejected), 1 / (2 * beta))) as Tensor1D,
    // max(0, 1 - margin)
    hinge: () => tf.relu(tf.sub(1, margin)) as Tensor1D,
    // -log σ(β mean_chosen - β mean_rejected - γ), β = simpoBeta
    simpo: () => smoothed(tf.sub(margin, options.simpoMargin)),
    // -mean_chosen - λ log σ(log odds_chosen - log odds_rejected), odds = p / (1 - p)
    orpo: () => {
      const logOdds = (m: Tensor1D) => tf.sub(m, tf.log1p(tf.neg(tf.minimum(tf.exp(m), 1 - 1e-6))))
      const ratio = tf.sub(logOdds(chosenMean), logOdds(rejectedMean)) as Tensor1D
      return tf.sub(tf.neg(chosenMean), tf.mul(logSigmoid(ratio), beta))
    },
  }
  const base = byName[options.loss]()
  const losses = options.sftWeight ? (tf.sub(base, tf.mul(chosenMean, options.sftWeight)) as Tensor1D) : base
  return { losses, chosenRewards, rejectedRewards, ordered }
}

/** What TDPO puts instead of s, [P] each. */
function withDivergence(pairs: PairScores, { loss, tdpoAlpha }: PreferenceOptions) {
  const [chosen, rejected] = [pairs.chosenDivergence!, pairs.rejectedDivergence!]
  const [alpha, chosenTerm] = loss === "tdpo1" ? [1, chosen] : [tdpoAlpha, constant(chosen)]
  return {
    chosen: tf.add(pairs.chosen, tf.mul(chosenTerm, alpha)) as Tensor1D,
    rejected: tf.add(pairs.rejected, tf.mul(rejected, alpha)) as Tensor1D,
  }
}

/** `x`, through which no gradient goes. */
const constant = (x: Tensor1D) =>
  withGradient(
    [x],
    () => tf.clone(x),
    (dy) => [tf.zerosLike(dy)],
  )
