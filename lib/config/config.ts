import { z } from "zod"
import { show } from "../data/json-file"
import { backendNames, mathNames } from "../device/tf"
import { serverAddresses } from "../engine/address"
import { ConfigError } from "../errors"
import { modelTraits } from "../model/traits"
import { defaultWeighting, type WeightingName, weighDefaults, weightings } from "../musc/weigh"
import { preferenceLosses } from "../train/losses"
import { explain } from "./problems"

const weightingNames = Object.keys(weightings) as [WeightingName, ...WeightingName[]]

/** Baselines that make pairs of their own: Self-Reward by its judge, and Self-Correct. */
const baselineNames = [
  "self-reward-yesno",
  "self-reward-points",
  "self-reward-external",
  "self-reward-verifier",
  "self-correct",
] as const
export type BaselineName = (typeof baselineNames)[number]
export const isBaseline = (method: string): method is BaselineName => baselineNames.includes(method as BaselineName)

/**
 * Methods that are trained on verified pairs alone, whatever `keepPairs` says, and the method that they are otherwise.
 */
export const verifiedMethods = { "coarse-verified": "coarse", "musc-verified": "musc" } as const
export const isVerified = (method: string): method is keyof typeof verifiedMethods =>
  Object.hasOwn(verifiedMethods, method)

/** What a run can compare. `musc` uses the setting `weighting`; `musc-<weighting>` names its own. */
export const methodNames = [
  "base",
  "sft",
  ...baselineNames,
  "fine",
  "coarse",
  "coarse-verified",
  "tdpo1",
  "tdpo2",
  "musc",
  "musc-dynamic",
  "musc-verified",
  ...weightingNames.map((name) => `musc-${name}` as const),
] as const
export type MethodName = (typeof methodNames)[number]

const share = z.number().min(0).max(1)
const count = (least: number, most = 1e9) => z.int().min(least).max(most)
const rate = z.number().gt(0).max(1)
const temperature = z.number().min(0).max(2)
const tokens = count(1, 131072)
const distinct = <Item extends z.ZodType>(item: Item) =>
  z.array(item).refine((list) => new Set(list).size === list.length, "must not name one twice")

/**
 * Settings of a run: one flat object. Defaults are those of the paper where it states one; small models need others
 * (see the recipes).
 */
export const runConfig = z.strictObject({
  model: z.string().min(1).default("world").describe("model folder (Hugging Face files) or embedded model"),
  backend: z
    .enum(["auto", ...backendNames])
    .default("auto")
    .describe("TensorFlow.js backend; auto: the fastest that runs"),
  math: z
    .enum(mathNames)
    .default("f32")
    .describe("matmul precision of the native backend; bf16 is faster with AMX or AVX512_BF16, and less exact"),
  thinking: z
    .enum(["template", "on", "off"])
    .default("template")
    .describe("thinking on or off, for chat templates with enable_thinking"),
  workers: count(0, 256)
    .default(0)
    .describe(
      "worker processes that generate and score, each with its own copy of the model; " +
        "0: one per core for models below .5 GB if half of the free memory can hold them, otherwise 1; does not change results",
    ),
  instructionsFrom: z
    .string()
    .min(1)
    .default("world")
    .describe(
      "instructions to start from: world (of the embedded world), checkable (plain English with constraints that rules can check, " +
        "for any chat model), self-instruct (written by the model), or a file",
    ),
  stages: z
    .enum(["model", "world"])
    .default("model")
    .describe(
      "who decomposes, corrupts and recombines: the model, or exact rules " +
        "(world; only for instructionsFrom world and checkable), for models too weak for it; " +
        "answers and token signals always come from the model",
    ),
  instructions: count(1).default(1000).describe("maximum number of training instructions; 600 to 10,000"),
  minConstraints: count(2, 8)
    .default(3)
    .describe("world, checkable: minimum constraints per instruction, including the task; 2 to 4"),
  maxConstraints: count(2, 8).default(6).describe("world, checkable: maximum constraints per instruction; 4 to 7"),
  nearDuplicate: z
    .number()
    .min(0.1)
    .max(1.1)
    .default(0.7)
    .describe("similarity (Jaccard of 5-grams) above which an instruction is a near-duplicate; above 1 keeps all"),
  holdout: share
    .default(0.1)
    .describe(
      "share of the instructions held out for evaluation, by hash of their text; not for world and checkable, which have their own splits",
    ),
  seed: count(0, 2 ** 31 - 1)
    .default(0)
    .describe("random seed of the first repetition"),
  repeat: count(1, 100)
    .default(1)
    .describe("repetitions of the run, with seeds seed, seed + 1, …; 3 or more to rank methods"),

  shots: count(0, 5)
    .default(5)
    .describe(
      "few-shot examples in prompts; paper 5 (recombine 2, edits and verdicts 4 at most); 0 for the embedded model",
    ),
  findText: z
    .boolean()
    .default(true)
    .describe(
      "whether decompose looks for an input text inside the instruction if it has no separate one; not for the embedded model",
    ),
  selfInstructTemperature: temperature.default(0.5).describe("sampling temperature; paper .5"),
  selfInstructMaxTokens: tokens.default(512).describe("maximum tokens of a new instruction"),
  decomposeTemperature: temperature.default(0.1).describe("sampling temperature; paper .1"),
  decomposeMaxTokens: tokens.default(1024).describe("maximum tokens of a reply"),
  noiseRatio: share.default(0.3).describe("share of the constraints that are corrupted, at least one; paper .3"),
  drop: z.number().min(0).default(0.5).describe("share of edits that drop the constraint; paper .5"),
  negate: z.number().min(0).default(0.25).describe("share of edits that negate the constraint; paper .25"),
  substitute: z.number().min(0).default(0.25).describe("share of edits that substitute another value; paper .25"),
  corruptTemperature: temperature.default(0.5).describe("sampling temperature; paper .5"),
  corruptMaxTokens: tokens.default(128).describe("maximum tokens of an edited question"),
  corruptAttempts: count(1, 20).default(2).describe("attempts per edited question; 1 to 5"),
  recombineTemperature: temperature.default(0.1).describe("sampling temperature; paper .1"),
  recombineMaxTokens: tokens.default(1024).describe("maximum tokens of an instruction"),
  respondTemperature: temperature.default(0.5).describe("sampling temperature; paper .5"),
  respondMaxTokens: tokens.default(1024).describe("maximum tokens of an answer"),
  keepCut: z.boolean().default(false).describe("whether to keep pairs with an answer cut off at the token limit"),
  keepPairs: z
    .enum(["all", "verified"])
    .default("all")
    .describe(
      "verified keeps only pairs whose chosen answer keeps more constraints than the rejected one; " +
        "checked by exact rules (world, checkable), else by judgeEndpoint, else by the model itself",
    ),
  weightings: distinct(z.enum(weightingNames))
    .min(1)
    .default([...weighDefaults.weightings])
    .describe(`token weightings to compute: ${weightingNames.join(", ")}`),
  firstTokenZero: z
    .boolean()
    .default(false)
    .describe("whether the first response token gets weight 0, as in the authors' code"),

  samples: count(2, 64)
    .default(4)
    .describe("Self-Reward and Self-Correct: answers sampled per instruction, at respondTemperature; paper 4"),
  pointsFrom: z
    .enum(["reply", "verdicts"])
    .default("reply")
    .describe(
      "self-reward-points: reply reads the points that the judge writes, verdicts counts its verdicts on the constraints",
    ),
  judgeEndpoint: z
    .string()
    .default("")
    .describe("OpenAI-compatible judge for self-reward-external and keepPairs=verified, e.g. http://127.0.0.1:8000/v1"),
  judgeModel: z.string().default("").describe("model of that server"),
  evalJudgeEndpoint: z
    .string()
    .default("")
    .describe(
      "OpenAI-compatible judge of the evaluation and the benchmarks, for what exact checks cannot judge; empty: the untrained model judges",
    ),
  evalJudgeModel: z.string().default("").describe("model of that server"),
  evalJudgeTries: count(1, 10).default(3).describe("attempts per benchmark question while the reply cannot be parsed"),
  judgeMaxTokens: tokens.default(128).describe("maximum tokens of a judge's reply"),

  methods: distinct(z.enum(methodNames))
    .min(1)
    .default(["base", "sft", "coarse", "musc"])
    .describe(
      "methods to compare: base, sft (on chosen answers), coarse (plain DPO), tdpo1, tdpo2 (coarse with that loss), " +
        "musc, musc-<weighting>, musc-dynamic (weights recomputed each epoch), " +
        "fine (token weights on the pairs of self-reward-yesno: clean against empty prompt), " +
        "coarse-verified and musc-verified (verified pairs only, see keepPairs), " +
        "self-correct, self-reward-yesno, -points, -external (judged by a server), -verifier (judged by exact checks)",
    ),
  equalPairs: z
    .boolean()
    .default(false)
    .describe("whether all methods of a seed train on as many pairs as the method with the fewest"),
  pairs: count(0).default(0).describe("maximum number of training pairs; 0: all"),
  weighting: z.enum(weightingNames).default(defaultWeighting).describe("token weighting of the method musc"),
  weighEvery: count(0, 100)
    .default(0)
    .describe(
      "recompute the token weights with the current policy every so many epochs (dynamic weights); 0: compute once with the base model",
    ),
  loss: z
    .enum(preferenceLosses)
    .default("dpo")
    .describe(`preference loss: ${preferenceLosses.join(", ")}; paper dpo`),
  beta: z
    .number()
    .gt(0)
    .max(100)
    .default(0.1)
    .describe("β of the preference loss (λ of ORPO): larger stays closer to the reference; .01 to .5, paper .1"),
  labelSmoothing: z
    .number()
    .min(0)
    .max(0.5)
    .default(0)
    .describe("assumed share of reversed preferences (cDPO); 0 to .3"),
  lengthNormalised: z.boolean().default(false).describe("whether to divide each answer's sum by its number of tokens"),
  sftWeight: z.number().min(0).max(100).default(0).describe("weight of an SFT term on the chosen answer; 0 to 1"),
  simpoBeta: z.number().gt(0).max(1000).default(2).describe("β of SimPO, which has no reference; 2 to 10"),
  simpoMargin: z.number().min(0).max(100).default(0.5).describe("target margin of SimPO; .3 to 1.6"),
  tdpoAlpha: z
    .number()
    .min(0)
    .max(100)
    .default(0.5)
    .describe("weight of the KL terms in tdpo2; 0 is dpo; TDPO paper .5"),
  trained: z
    .enum(["lora", "all"])
    .default("lora")
    .describe(
      "lora trains a LoRA on all linear layers, all trains every weight (writes a full checkpoint, needs more memory)",
    ),
  rank: count(1, 1024).default(8).describe("rank of the LoRA; 4 to 64, paper 8"),
  alpha: z.number().gt(0).max(4096).default(16).describe("alpha of the LoRA, usually twice the rank; paper 16"),
  lr: rate.default(5e-6).describe("peak learning rate of preference training; paper 5e-6, small models up to 1e-3"),
  sftLr: rate.default(5e-6).describe("peak learning rate of sft"),
  epochs: z.number().gt(0).max(100).default(1).describe("passes over the pairs; paper 1 to 3"),
  batchSize: count(1, 4096).default(8).describe("pairs per optimizer step; paper 8"),
  warmup: share.default(0.1).describe("share of the steps with linear warm-up; paper .1"),
  tokenBudget: count(1, 1e6)
    .default(4096)
    .describe("maximum padded tokens per forward pass in training; lower saves memory"),
  gradientCheckpointing: z
    .boolean()
    .default(false)
    .describe("recompute activations in the backward pass; saves memory, a third more work"),
  cutoff: count(8, 131072).default(2048).describe("maximum tokens of prompt and answer together; paper 2048"),
  checkpointEvery: count(1).default(50).describe("optimizer steps between checkpoints"),

  evalInstructions: count(0).default(500).describe("maximum number of held-out instructions; 0 skips evaluation"),
  evalSplit: z
    .enum(["test", "development"])
    .default("test")
    .describe("held-out split: test for reported results, development for choosing settings"),
  evalTemperatures: distinct(temperature).min(1).default([0, 0.5]).describe("sampling temperatures of the evaluation"),
  evalMaxTokens: tokens.default(1024).describe("maximum tokens of an answer"),
  gradedPairs: count(0)
    .default(500)
    .describe("maximum number of training pairs whose two answers are graded, for the report"),
  benchmarks: distinct(z.string().min(1))
    .default([])
    .describe("benchmarks to run on every method, such as ifeval, followbench; musc benchmark --help lists them"),
  benchmarkData: z
    .string()
    .default("")
    .describe("folder of official data: of one benchmark, or with one subfolder per benchmark"),
  benchmarkScoring: z
    .enum(["official", "corrected"])
    .default("official")
    .describe("official reproduces the quirks of the published scorers, corrected fixes them"),
  benchmarkItems: count(0).default(0).describe("maximum number of items per benchmark, in whole groups; 0: all"),
  benchmarkMaxTokens: count(0, 131072).default(0).describe("maximum tokens of an answer; 0: as the benchmark says"),
  bootstrapSamples: count(100, 1e6)
    .default(2000)
    .describe("bootstrap resamples for confidence intervals; 1,000 to 10,000"),
})
/**
 * * All settings of a run, checked and with defaults filled in. `npx musc run --help` lists them with unit and usual
 * range.
 * @interface
 */
export type RunConfig = z.output<typeof runConfig>
export type ConfigKey = keyof RunConfig

/** Settings that had another name, by that name. */
export const formerNames: Readonly<Record<string, ConfigKey>> = { seeds: "instructionsFrom" }

/** Settings under the names that they have now. @throws ConfigError for one given under both names */
export function withCurrentNames(settings: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const both = Object.entries(formerNames).filter(([name, now]) => name in settings && now in settings)
  if (both.length)
    throw new ConfigError(both.map(([name, now]) => `${name}: is the former name of ${now}, got both; leave it out`))
  return Object.fromEntries(Object.entries(settings).map(([name, value]) => [formerNames[name] ?? name, value]))
}

/** The setting as engines take it; undefined leaves it to the template. */
export const thinkingOf = ({ thinking }: Pick<RunConfig, "thinking">): boolean | undefined =>
  thinking === "template" ? undefined : thinking === "on"

export const configKeys = Object.keys(runConfig.shape) as ConfigKey[]

/** What each setting means, as in the help. */
export const meanings = Object.fromEntries(
  configKeys.map((key) => [key, runConfig.shape[key].description ?? ""]),
) as Readonly<Record<ConfigKey, string>>

/** The default of every setting. */
export const configDefaults: RunConfig = runConfig.parse({})

/**
 * The settings, with defaults for those not given, former names taken for the present ones; `shots` and `findText` are
 * what the model takes where its folder says so.
 * @throws ConfigError listing every problem.
 */
export function parseConfig(named: Readonly<Record<string, unknown>>): RunConfig {
  const settings = withCurrentNames(named)
  const model = typeof settings.model === "string" ? settings.model : configDefaults.model
  const most = modelTraits(model).shots ?? 5
  const values = {
    ...settings,
    shots: settings.shots ?? Math.min(configDefaults.shots, most),
    findText: settings.findText ?? (most > 0 && configDefaults.findText),
  }
  const parsed = runConfig.safeParse(values)
  const problems = parsed.success ? [] : parsed.error.issues.flatMap((issue) => explain(issue, values, meanings))
  const all = { ...configDefaults, ...values } as RunConfig
  const { minConstraints, maxConstraints, drop, negate, substitute, instructionsFrom, stages } = all
  if (Number(values.shots) > most)
    problems.push(`shots: must be at most ${most} for the model ${model}, got ${show(values.shots)}; leave it out`)
  if (minConstraints > maxConstraints)
    problems.push(`minConstraints: must be at most maxConstraints (${maxConstraints}), got ${minConstraints}; lower it`)
  if (drop + negate + substitute === 0)
    problems.push("drop, negate, substitute: one must be above 0, got 0 for all; raise one")
  if (stages === "world" && instructionsFrom === "self-instruct")
    problems.push(
      "stages: world needs instructions that a world knows, got self-instruct; " +
        "set instructionsFrom=checkable or stages=model",
    )
  const { methods, judgeEndpoint, judgeModel, evalJudgeEndpoint, evalJudgeModel } = all
  if (Array.isArray(methods) && methods.includes("self-reward-external") && !(judgeEndpoint && judgeModel))
    problems.push(
      "judgeEndpoint, judgeModel: self-reward-external needs both, got none or one; set them, or leave it out",
    )
  if (typeof judgeEndpoint === "string" && judgeEndpoint)
    problems.push(...addressProblems(judgeEndpoint, "judgeEndpoint"))
  if (Boolean(evalJudgeEndpoint) !== Boolean(evalJudgeModel))
    problems.push(
      "evalJudgeEndpoint, evalJudgeModel: a judge has both, got one; set both (--judge, --judge-model) or none",
    )
  if (typeof evalJudgeEndpoint === "string" && evalJudgeEndpoint)
    problems.push(...addressProblems(evalJudgeEndpoint, "evalJudgeEndpoint"))
  if (!parsed.success || problems.length) throw new ConfigError(problems)
  return parsed.data
}

function addressProblems(list: string, field: ConfigKey): string[] {
  try {
    serverAddresses(list, field)
    return []
  } catch (error) {
    return [(error as Error).message]
  }
}
