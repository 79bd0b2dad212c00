import { InputError } from "../errors"
import { type WeightingName, weightings } from "../musc/weigh"
import { type ConfigKey, configDefaults, type RunConfig } from "./config"
import { nearest } from "./problems"

/** An experiment: what it shows, and only those settings that differ from the defaults. */
export interface Recipe {
  summary: string
  config: Partial<RunConfig>
  /** what holds beside `config` when another model than the embedded one is given */
  otherModels?: Partial<RunConfig>
  /** what holds beside them when instructions come from a file */
  fromFile?: Partial<RunConfig>
  /** the model, if none is given */
  model?: string
  /** the runs of the experiment by name, with what each changes; one run if absent */
  variants?: Readonly<Record<string, Partial<RunConfig>>>
  /** setting that the variants change in steps: the figure's axis */
  axis?: "noiseRatio" | "pairs"
  /** models that every variant is run with, if none is given */
  models?: readonly string[]
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
  lr: 5e-4,
  sftLr: 1e-3,
  epochs: 3,
  batchSize: 16,
  pointsFrom: "verdicts",
}

/** The defaults (the paper's values) of the settings that `embedded` changes. */
const standard = Object.fromEntries(
  Object.keys(embedded).map((key) => [key, configDefaults[key as ConfigKey]]),
) as Partial<RunConfig>

/** The settings of the authors' released scripts for models of 7 and 8 B, on the methods of the paper. */
const released: Omit<Recipe, "summary" | "model"> = {
  config: {
    ...{ instructionsFrom: "self-instruct", instructions: 1000, pairs: 1000, epochs: 3, gradientCheckpointing: true },
    weightings: ["uniform", "contrast", "pmi", "entropy", "kl"],
    methods: [
      ...([
        "base",
        "sft",
        "self-reward-yesno",
        "self-reward-points",
        "self-correct",
        "fine",
        "coarse",
        "musc",
      ] as const),
    ],
  },
  fromFile: { instructions: 2000 },
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
      respondMaxTokens: 128,
      judgeMaxTokens: 64,
      evalMaxTokens: 128,
      cutoff: 2048,
      rank: 8,
      alpha: 16,
      lr: 1e-4,
      sftLr: 1e-4,
      epochs: 2,
      batchSize: 4,
      tokenBudget: 1024,
    },
  },
  paper: {
    summary:
      "the paper's table: base, SFT, Self-Reward with three judges, Self-Correct, fine only, coarse only and MuSC; five seeds",
    config: {
      ...embedded,
      repeat: 5,
      methods: [
        ...([
          "base",
          "sft",
          "self-reward-yesno",
          "self-reward-points",
          "self-reward-verifier",
          "self-correct",
        ] as const),
        ...(["fine", "coarse", "musc"] as const),
      ],
    },
    otherModels: {
      ...standard,
      instructionsFrom: "self-instruct",
      repeat: 1,
      epochs: 3,
      weightings: ["uniform", "contrast", "pmi", "entropy", "kl"],
      methods: ["base", "sft", "self-reward-yesno", "self-reward-points", "self-correct", "fine", "coarse", "musc"],
    },
  },
  checkable: {
    summary:
      "your chat model (--model) on plain English instructions whose constraints are checked by rules; " +
      "rules also decompose, corrupt and recombine",
    config: {
      instructionsFrom: "checkable",
      stages: "world",
      instructions: 400,
      minConstraints: 3,
      maxConstraints: 6,
      respondMaxTokens: 128,
      evalMaxTokens: 128,
      evalInstructions: 200,
      lr: 1e-4,
      sftLr: 1e-4,
      epochs: 3,
      batchSize: 8,
      tokenBudget: 1024,
      methods: ["base", "sft", "coarse", "coarse-verified", "musc", "musc-verified"],
    },
  },
  "llama-3-8b": {
    summary:
      "the paper's table at full size: 1,000 self-instructed instructions or 2,000 chats, 3 epochs on 1,000 pairs",
    model: "meta-llama/Meta-Llama-3-8B-Instruct",
    ...released,
  },
  "qwen2-7b": { summary: "the same with Qwen2", model: "Qwen/Qwen2-7B-Instruct", ...released },
  "ablation-weights": {
    summary:
      "every token weighting on the same pairs, KL on verified pairs only, and TDPO; five seeds, development split",
    config: {
      ...embedded,
      repeat: 5,
      evalSplit: "development",
      weightings: Object.keys(weightings) as WeightingName[],
      methods: [
        ...(["base", "coarse", "musc-random", "musc-logprob", "musc-contrast", "musc-pmi", "musc-entropy"] as const),
        ...(["musc-kl", "musc-kl-reverse", "musc-bi-kl", "musc-ratio", "musc-ratio-scaled"] as const),
        ...(["musc-tis-dpo", "musc-dynamic", "musc-verified", "tdpo1", "tdpo2"] as const),
      ],
    },
    otherModels: standard,
  },
  "ablation-noise": {
    summary: "each kind of noise alone, in twos, and all three; ratios .1 to .7; five seeds, development split",
    config: { ...embedded, repeat: 5, evalSplit: "development", methods: ["base", "musc"] },
    otherModels: standard,
    variants: {
      all: { noiseRatio: 0.3 },
      drop: { drop: 1, negate: 0, substitute: 0 },
      negate: { drop: 0, negate: 1, substitute: 0 },
      substitute: { drop: 0, negate: 0, substitute: 1 },
      "drop-negate": { drop: 0.5, negate: 0.5, substitute: 0 },
      "drop-substitute": { drop: 0.5, negate: 0, substitute: 0.5 },
      "negate-substitute": { drop: 0, negate: 0.5, substitute: 0.5 },
      "ratio-0.1": { noiseRatio: 0.1 },
      "ratio-0.5": { noiseRatio: 0.5 },
      "ratio-0.7": { noiseRatio: 0.7 },
    },
    axis: "noiseRatio",
  },
  scaling: {
    summary: "increasing numbers of pairs, for two sizes of the embedded model (--models for others); five seeds",
    config: { ...embedded, repeat: 5, instructions: 1200, methods: ["base", "coarse", "musc"] },
    otherModels: { ...standard, instructions: 4000 },
    variants: {
      "pairs-60": { pairs: 60 },
      "pairs-125": { pairs: 125 },
      "pairs-250": { pairs: 250 },
      "pairs-500": { pairs: 500 },
      "pairs-1000": { pairs: 1000 },
    },
    axis: "pairs",
    models: ["world-small", "world"],
  },
}

/** A recipe by name. @throws InputError naming the nearest one. */
export function recipeOf(name: string): Recipe {
  if (Object.hasOwn(recipes, name)) return recipes[name]!
  const near = nearest(name, Object.keys(recipes))
  const hint = near ? `did you mean ${near}?` : "or give the path of a .yaml or .json file"
  throw new InputError(`a recipe must be one of ${Object.keys(recipes).join(", ")}, got ${name}; ${hint}`)
}
