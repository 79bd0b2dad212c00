import { InputError } from "../errors"
import { nearest, type RunConfig } from "../runs/config"

/** An experiment: what it shows, and only those settings that differ from the defaults. */
export interface Recipe {
  summary: string
  config: Partial<RunConfig>
  /** what holds beside `config` when another model than the embedded one is given */
  otherModels?: Partial<RunConfig>
}

/** What the embedded model needs: it was trained on bare prompts and short texts, and it is small. */
const embedded: Partial<RunConfig> = {
  shots: 0,
  instructions: 600,
  minConstraints: 3,
  maxConstraints: 5,
  decomposeMaxTokens: 160,
  corruptMaxTokens: 40,
  recombineMaxTokens: 120,
  respondMaxTokens: 160,
  evalMaxTokens: 160,
  judgeMaxTokens: 32,
  cutoff: 512,
  rank: 16,
  alpha: 32,
  lr: 1e-3,
  sftLr: 1e-3,
  epochs: 3,
  batchSize: 16,
  weighting: "kl",
  pointsFrom: "verdicts",
}

/** The experiments that come with musc. */
export const recipes: Readonly<Record<string, Recipe>> = {
  smoke: {
    summary: "the whole method in minutes on the embedded model: base, SFT, coarse DPO and MuSC; --model tries another",
    config: embedded,
    otherModels: {
      shots: 5,
      decomposeMaxTokens: 256,
      corruptMaxTokens: 64,
      recombineMaxTokens: 256,
      respondMaxTokens: 256,
      evalMaxTokens: 256,
      cutoff: 2048,
      rank: 8,
      alpha: 16,
      lr: 1e-4,
      sftLr: 1e-4,
      batchSize: 8,
      tokenBudget: 1024,
    },
  },
  paper: {
    summary: "the paper's settings, for a chat model of your own (--model) that writes its own instructions",
    config: { seeds: "self-instruct", epochs: 3, weightings: ["uniform", "contrast", "pmi", "entropy", "kl"] },
  },
  weightings: {
    summary: "ablation: every token weighting on the same pairs of the embedded model, three seeds",
    config: {
      ...embedded,
      repeat: 3,
      weightings: ["uniform", "random", "logprob", "contrast", "pmi", "entropy", "kl", "bi-kl", "ratio", "tis-dpo"],
      methods: [
        ...(["base", "coarse", "musc-random", "musc-logprob", "musc-contrast", "musc-pmi", "musc-entropy"] as const),
        ...(["musc-kl", "musc-bi-kl", "musc-ratio", "musc-tis-dpo"] as const),
      ],
    },
  },
  dropout: {
    summary: "ablation: constraints are only dropped, on the embedded model",
    config: { ...embedded, drop: 1, negate: 0, substitute: 0 },
  },
  negate: {
    summary: "ablation: constraints are only negated, on the embedded model",
    config: { ...embedded, drop: 0, negate: 1, substitute: 0 },
  },
  substitute: {
    summary: "ablation: constraints are only substituted, on the embedded model",
    config: { ...embedded, drop: 0, negate: 0, substitute: 1 },
  },
}

/** A recipe by name. @throws InputError naming the nearest one. */
export function recipeOf(name: string): Recipe {
  if (Object.hasOwn(recipes, name)) return recipes[name]!
  const near = nearest(name, Object.keys(recipes))
  const hint = near ? `did you mean ${near}?` : "or give the path of a .yaml or .json file"
  throw new InputError(`a recipe must be one of ${Object.keys(recipes).join(", ")}, got ${name}; ${hint}`)
}
