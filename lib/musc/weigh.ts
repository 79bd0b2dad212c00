import type { Message, PairRow, PairWeights, TokenSignals, WeighedRow } from "../data/schema"
import type { ScoreRequest, SignalScorer } from "../engine/engine"
import { InputError } from "../errors"
import { type Rng, rng } from "../rng"
import { respondMessages } from "./respond"
import { failed, type Outcome, orRefusal, Refused } from "./row"

/**
 * Signals of one answer as its own prompt sees them: clean for the chosen answer, noised for the rejected one. Each
 * answer was sampled from its own prompt and is contrasted with the other one, so that one formula serves both: the
 * tokens that matter in a chosen answer are those which the clean prompt made likelier, the tokens that matter in a
 * rejected answer those which the noised prompt made likelier.
 */
export interface OwnSignals {
  /** log p_own(y_t) */
  logprob: readonly number[]
  /** log p_other(y_t) */
  logprobOther: readonly number[]
  /** log p_empty(y_t) */
  logprobEmpty: readonly number[]
  /** H(p_own) */
  entropy: readonly number[]
  /** KL(p_own || p_other) */
  kl: readonly number[]
  /** KL(p_other || p_own) */
  klReverse: readonly number[]
}

/** The signals of an answer seen from its own prompt. */
export function ownSignals(signals: TokenSignals, answer: "chosen" | "rejected"): OwnSignals {
  const s = signals
  return answer === "chosen"
    ? {
        logprob: s.logprob,
        logprobOther: s.logprob_noised,
        logprobEmpty: s.logprob_empty,
        entropy: s.entropy,
        kl: s.kl,
        klReverse: s.kl_reverse,
      }
    : {
        logprob: s.logprob_noised,
        logprobOther: s.logprob,
        logprobEmpty: s.logprob_empty,
        entropy: s.entropy_noised,
        kl: s.kl_reverse,
        klReverse: s.kl,
      }
}

/** Largest weight of a token. */
export const MAX_WEIGHT = 2

/**
 * Importances (non-negative, any scale) as weights in [0, 2] with mean 1: `w_t = min(2, c s_t)`, where c is the scale
 * at which the mean is 1. So all weightings put the same total weight on an answer, the same step size and beta as
 * plain DPO, and an ablation compares where the weight lies, not how much there is. (Dividing by the mean and then
 * clipping would not: signals such as KL sit on few tokens, and the mean would fall to .2 or so.) When too few
 * importances are positive for any c, those get 2 and the others share the rest; all zero gives all 1.
 */
export function normalise(importances: readonly number[]): number[] {
  const n = importances.length
  const sorted = [...importances].sort((a, b) => b - a)
  const positive = sorted.filter((s) => s > 0).length
  if (positive * MAX_WEIGHT <= n) {
    const rest = (n - positive * MAX_WEIGHT) / (n - positive || 1)
    return importances.map((s) => (s > 0 ? MAX_WEIGHT : rest))
  }
  // With the m largest at the cap, c = (n - 2m) / (sum of the others); the right m is the first that caps no other.
  const sums = [...sorted]
  for (let i = n - 2; i >= 0; i--) sums[i]! += sums[i + 1]!
  const scaleAt = (m: number) => (n - MAX_WEIGHT * m) / sums[m]!
  let capped = 0
  while (scaleAt(capped) * sorted[capped]! > MAX_WEIGHT) capped++
  const scale = scaleAt(capped)
  return importances.map((s) => Math.min(MAX_WEIGHT, scale * s))
}

/**
 * Importance of a signed signal, ln(1 + e^x), x in nats. The sign matters, so no absolute value: a token that its own
 * prompt made unlikelier (x < 0) is no evidence of the constraint and goes towards 0. A plain positive part would also
 * silence every token that both prompts find alike (x = 0), most of an answer, and leave their weight to rounding
 * noise; here they keep ln 2, and a token needs about 2 nats for three times as much.
 */
const signed = (x: number) => (x > 30 ? x : Math.log1p(Math.exp(x)))

/**
 * Importances of a signal that is never negative: the value plus a quarter of the mean over the answer. Most tokens of
 * an answer have next to none, and the added share keeps differences among those (1e-6 or 1e-5 nats) from being blown
 * up.
 */
function unsigned(values: readonly number[]): number[] {
  const clean = values.map((value) => Math.max(0, value)) // KL comes out as -1e-9 at times
  const mean = clean.reduce((sum, value) => sum + value, 0) / (clean.length || 1)
  return clean.map((value) => value + mean / 4)
}

/** The weights of `ratio`, in [0, 2]. Rounding can lift a log-prob above 0: that is certainty, too. */
const recoveredRatio = ({ logprob, logprobOther }: OwnSignals): number[] =>
  logprob.map((own, t) => (own < 0 ? Math.min(MAX_WEIGHT, Math.abs((0.6 * logprobOther[t]!) / own)) : 1.2))

const minus = (a: readonly number[], b: readonly number[]) => a.map((value, t) => value - b[t]!)

/** Weights of the tokens of one answer. `stream` is that answer's own random stream. */
export type Weighting = (own: OwnSignals, stream: Rng) => number[]

/**
 * The weightings, by name. All are non-negative and at most 2; all but `ratio` have mean 1 over an answer. Only `ratio`
 * has a public source (the released demo data); the others follow the signals that the released code computes, with our
 * normalisation, because the authors' formulas were never published.
 */
export const weightings = {
  /** 1: plain DPO, the coarse-grained method alone. */
  uniform: ({ logprob }) => logprob.map(() => 1),

  /** Uniform random numbers: the control that any weighting must beat. */
  random: ({ logprob }, stream) => normalise(logprob.map(() => stream.next())),

  /** Surprise, -log p_own: tokens that the model was unsure to write. */
  logprob: ({ logprob }) => normalise(unsigned(logprob.map((value) => -value))),

  /** ln(1 + p_own / p_other): tokens that its own prompt made likelier than the other prompt. */
  contrast: ({ logprob, logprobOther }) => normalise(minus(logprob, logprobOther).map(signed)),

  /** ln(1 + p_own / p_empty): tokens that the prompt made likelier than no prompt (pointwise mutual information). */
  pmi: ({ logprob, logprobEmpty }) => normalise(minus(logprob, logprobEmpty).map(signed)),

  /**
   * H(p_own): places where the model had a choice. The released code takes a mean over the vocabulary, sign flipped.
   */
  entropy: ({ entropy }) => normalise(unsigned(entropy)),

  /** KL(p_own || p_other): places where the prompts disagree, whichever token was drawn; the mean of the contrast. */
  kl: ({ kl }) => normalise(unsigned(kl)),

  /** KL(p_other || p_own): what the released code calls kldiv. */
  "kl-reverse": ({ klReverse }) => normalise(unsigned(klReverse)),

  /** The sum of both, which is the same for either prompt. */
  "bi-kl": ({ kl, klReverse }) => normalise(unsigned(kl.map((value, t) => value + klReverse[t]!))),

  /**
   * 1.2 where log p_own = 0, else min(2, .6 |log p_other| / |log p_own|): the form of the released demo data, recovered
   * from its 100 pairs. It weighs up what its own prompt made likelier; a token that both prompts find alike gets .6,
   * and the mean over an answer is about .7, so that a step is smaller than with the others. Not normalised further.
   */
  ratio: (own) => recoveredRatio(own),

  /** `ratio` scaled to mean 1 like the others: the same direction, the same total weight. */
  "ratio-scaled": (own) => normalise(recoveredRatio(own)),

  /**
   * exp(clamp(contrast, -.5, 1.5)): the weight of TIS-DPO (arXiv 2410.04350) with the two prompts instead of its two
   * contrast models, here normalised like the others.
   */
  "tis-dpo": ({ logprob, logprobOther }) =>
    normalise(minus(logprob, logprobOther).map((gap) => Math.exp(Math.min(1.5, Math.max(-0.5, gap))))),
} satisfies Record<string, Weighting>

/** Name of a token weighting. */
export type WeightingName = keyof typeof weightings

/** The weighting of every entry (recipes, command line, library) unless another is named: the best of the ablation. */
export const defaultWeighting: WeightingName = "kl"

/** Which token weights are computed. */
export interface WeighOptions {
  /** Run seed, any integer; for `random` alone. */
  seed: number
  /** Weightings to compute, one or more. */
  weightings: readonly WeightingName[]
  /** Whether the first response token weighs 0, as it does in the released code by two shifts that nearly cancel. */
  firstTokenZero: boolean
}

/** Uniform weights, contrast and KL. */
export const weighDefaults: WeighOptions = {
  seed: 0,
  weightings: ["uniform", "contrast", defaultWeighting],
  firstTokenZero: false,
}

/** What weights depend on besides the signals. */
export interface WeightsOptions {
  /** Of the row; part of the random stream of `random`. */
  id?: string
  seed?: number
  firstTokenZero?: boolean
  /**
   * The prompt that the rejected answer was sampled from: the noised one, or, as both of a pair of samples, the clean
   * one.
   */
  rejectedFrom?: "noised" | "clean"
}

/**
 * The weights of both answers of a pair under one weighting.
 * @throws InputError for signals that are not finite or of different lengths.
 */
export function weightsOf(
  signals: { chosen: TokenSignals; rejected: TokenSignals },
  name: WeightingName,
  { id = "", seed = 0, firstTokenZero = false, rejectedFrom = "noised" }: WeightsOptions = {},
): PairWeights {
  const of = (answer: "chosen" | "rejected") => {
    const own = ownSignals(signals[answer], rejectedFrom === "clean" ? "chosen" : answer)
    const n = signals[answer].tokens.length
    for (const [signal, values] of Object.entries(own) as [keyof OwnSignals, readonly number[]][]) {
      if (values.length === n && values.every(Number.isFinite)) continue
      if (!values.length && distributionSignals.includes(signal)) {
        if (!needsDistributions(name)) continue
        throw new InputError(`${name} needs ${signal}, got log-probs alone for row ${id}; ${distributionsFrom}`)
      }
      const got = values.length === n ? "others" : `${values.length}`
      throw new InputError(`${answer} must have ${n} finite values of ${signal}, got ${got}; score the row ${id} again`)
    }
    const weigh: Weighting = weightings[name]
    const weights = weigh(own, rng(seed, "weigh", id, name, answer))
    return firstTokenZero ? weights.map((weight, t) => (t ? weight : 0)) : weights
  }
  return { chosen: of("chosen"), rejected: of("rejected") }
}

/** Signals that are made of whole distributions, which a server does not give: it leaves them empty. */
const distributionSignals: readonly (keyof OwnSignals)[] = ["entropy", "kl", "klReverse"]
export const distributionsFrom =
  "these take the distribution over the whole vocabulary, which no server gives: " +
  "weigh with the model in this process, or by --torch"

/** Whether a weighting needs whole distributions, and not just the log-probs that servers give. */
export const needsDistributions = (name: WeightingName): boolean =>
  (["entropy", "kl", "kl-reverse", "bi-kl"] as const satisfies WeightingName[]).includes(name as never)

/** @throws InputError naming the weightings that a server's log-probs cannot make */
export function checkServerWeightings(names: readonly WeightingName[]): void {
  const refused = names.filter(needsDistributions)
  if (!refused.length) return
  const rule = `must do with the log-probs of a server, got ${refused.join(", ")}; ${distributionsFrom}`
  throw new InputError(`${rule}; or --set weightings=uniform,contrast,pmi,logprob,tis-dpo`, { field: "weightings" })
}

/**
 * What a pair is scored by: its rows of the method, or of samples (`rejected_from` is clean), which know no noised
 * prompt.
 */
export type ScoredPair = Pick<PairRow, "id" | "input" | "clean_instruction" | "chosen" | "rejected"> &
  Partial<Pick<PairRow, "noised_instruction">> &
  Partial<Pick<WeighedRow, "rejected_from">>

/**
 * Both answers of a pair under the clean, the noised and the empty prompt. Pairs of samples are contrasted with the
 * empty prompt in place of a noised one.
 * @throws InputError for a pair without a noised instruction that is none of samples
 */
export function weighRequest(row: ScoredPair): ScoreRequest {
  const empty: Message[] = [{ role: "user", content: "" }]
  const clean = respondMessages(row.clean_instruction, row.input)
  const responses = [row.chosen, row.rejected]
  if (row.rejected_from === "clean") return { clean, noised: empty, empty, responses }
  if (row.noised_instruction === undefined)
    throw new InputError(`pair ${row.id} must have noised_instruction to be weighed, got none; run recombine first`)
  return { clean, noised: respondMessages(row.noised_instruction, row.input), empty, responses }
}

/**
 * Stage 5 (paper: token-level supervision): scores both answers under the clean, the noised and the empty prompt, and
 * turns the signals into the weightings asked for. The pair is judged by what it holds; a row fails only where the
 * scorer refuses its texts.
 */
export async function weigh(
  scorer: SignalScorer,
  row: PairRow,
  options: Partial<WeighOptions> = {},
): Promise<Outcome<WeighedRow>> {
  const signals = await orRefusal(scorer, () => weighed(scorer, row, options))
  return signals instanceof Refused ? failed(row, "weigh", signals.reason) : { ...row, ...signals, failure: undefined }
}

/**
 * Weighs a pair of samples of one prompt ("fine only": token weights without contrastive pairs): the clean prompt
 * against the empty one, for both answers. `rejected_from` says so in the row.
 */
export async function weighSamples<Row extends ScoredPair>(
  scorer: SignalScorer,
  row: Row,
  options: Partial<WeighOptions> = {},
): Promise<Row & Pick<WeighedRow, "signals" | "weights" | "rejected_from">> {
  const sampled = { ...row, rejected_from: "clean" as const }
  return { ...sampled, ...(await weighed(scorer, sampled, options)) }
}

async function weighed(scorer: SignalScorer, row: ScoredPair, options: Partial<WeighOptions>) {
  const { seed, weightings: names, firstTokenZero } = { ...weighDefaults, ...options }
  const [chosen, rejected] = await scorer.score(weighRequest(row))
  const signals = { chosen: chosen!, rejected: rejected! }
  const about = { id: row.id, seed, firstTokenZero, rejectedFrom: row.rejected_from }
  const entries = names.map((name) => [name, weightsOf(signals, name, about)] as const)
  return { signals, weights: Object.fromEntries(entries) }
}
