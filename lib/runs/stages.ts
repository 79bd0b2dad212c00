import { checkableInstructions } from "../checkable/spec"
import {
  type ConfigKey,
  isBaseline,
  isVerified,
  type MethodName,
  type RunConfig,
  verifiedMethods,
} from "../config/config"
import { withoutEffect } from "../config/effect"
import { readInstructions } from "../data/formats"
import type { InstructionRow, StageName } from "../data/schema"
import { ConfigError } from "../errors"
import { failed, type Outcome } from "../musc/row"
import { HELD_OUT, markNearDuplicates, type SelfInstructOptions } from "../musc/source"
import type { StageOptions } from "../musc/stages"
import { checkSettings, type TrainSettings } from "../musc/train"
import { streamKey } from "../rng"
import { worldInstructions } from "../world/spec"

/** The settings that each command or stage reads, for help texts. */
export const stageSettings = {
  source: [
    ...(["instructionsFrom", "instructions", "minConstraints", "maxConstraints", "nearDuplicate", "holdout"] as const),
    ...(["selfInstructTemperature", "selfInstructMaxTokens"] as const),
  ],
  decompose: ["stages", "shots", "findText", "decomposeTemperature", "decomposeMaxTokens"],
  corrupt: [
    ...(["stages", "shots", "noiseRatio", "drop", "negate", "substitute"] as const),
    ...(["corruptTemperature", "corruptMaxTokens", "corruptAttempts"] as const),
  ],
  recombine: ["stages", "shots", "recombineTemperature", "recombineMaxTokens"],
  respond: ["respondTemperature", "respondMaxTokens", "keepCut"],
  verify: ["keepPairs", "judgeEndpoint", "judgeModel", "judgeMaxTokens", "shots"],
  weigh: ["weightings", "firstTokenZero"],
  train: [
    ...([
      "weighting",
      "weighEvery",
      "firstTokenZero",
      "loss",
      "beta",
      "labelSmoothing",
      "lengthNormalised",
      "sftWeight",
    ] as const),
    ...([
      "simpoBeta",
      "simpoMargin",
      "tdpoAlpha",
      "rank",
      "alpha",
      "lr",
      "sftLr",
      "epochs",
      "batchSize",
      "warmup",
      "tokenBudget",
    ] as const),
    ...(["gradientCheckpointing", "cutoff", "checkpointEvery"] as const),
  ],
  evaluate: [
    ...(["evalInstructions", "evalSplit", "evalTemperatures", "evalMaxTokens", "shots", "judgeMaxTokens"] as const),
    "bootstrapSamples",
  ],
} as const satisfies Record<StageName | "train" | "evaluate", readonly ConfigKey[]>

/**
 * The options of each stage under a run's settings. They are part of the key of its output, so nothing else may matter.
 */
export function stageOptions(config: RunConfig, seed: number): StageOptions & { source: SelfInstructOptions } {
  const c = config
  const sampling = (temperature: number, maxTokens: number) => ({ seed, temperature, maxTokens })
  return {
    source: { ...sampling(c.selfInstructTemperature, c.selfInstructMaxTokens), textDemos: 2, plainDemos: 2 },
    decompose: { ...sampling(c.decomposeTemperature, c.decomposeMaxTokens), shots: c.shots, findText: c.findText },
    corrupt: {
      ...sampling(c.corruptTemperature, c.corruptMaxTokens),
      ratio: c.noiseRatio,
      drop: c.drop,
      negate: c.negate,
      substitute: c.substitute,
      shots: Math.min(4, c.shots),
      attempts: c.corruptAttempts,
    },
    recombine: { ...sampling(c.recombineTemperature, c.recombineMaxTokens), shots: Math.min(2, c.shots) },
    respond: { ...sampling(c.respondTemperature, c.respondMaxTokens), keepCut: c.keepCut },
    weigh: { seed, weightings: c.weightings, firstTokenZero: c.firstTokenZero },
  }
}

/** How a method is trained; null for the base model. */
export function trainSettings(config: RunConfig, method: MethodName, seed: number): TrainSettings | null {
  if (method === "base") return null
  if (isVerified(method)) return trainSettings(config, verifiedMethods[method], seed)
  const { rank, alpha, epochs, batchSize, warmup, tokenBudget, gradientCheckpointing, cutoff } = config
  const all = config.trained === "all" && { trained: "all" as const }
  const shared = { seed, rank, alpha, epochs, batchSize, warmup, tokenBudget, gradientCheckpointing, cutoff, ...all }
  if (method === "sft") return { ...shared, kind: "sft", lr: config.sftLr }
  const tdpo = method === "tdpo1" || method === "tdpo2"
  const weighting =
    method === "coarse" || tdpo || isBaseline(method)
      ? "uniform"
      : method === "musc" || method === "musc-dynamic" || method === "fine"
        ? config.weighting
        : method.slice("musc-".length)
  const { loss, beta, labelSmoothing, lengthNormalised, sftWeight, firstTokenZero } = config
  const { simpoBeta, simpoMargin, tdpoAlpha } = config
  const weighEvery = weighting === "uniform" ? 0 : Math.max(config.weighEvery, Number(method === "musc-dynamic"))
  return {
    ...shared,
    kind: "preference",
    lr: config.lr,
    weighting: weighting as RunConfig["weighting"],
    ...(weighEvery && { weighEvery }),
    firstTokenZero,
    preference: {
      loss: tdpo ? method : loss,
      ...{ beta, labelSmoothing, lengthNormalised, sftWeight, simpoBeta, simpoMargin, tdpoAlpha },
    },
  }
}

/**
 * Looks, before hours of stages, whether all methods of a run can be trained as the settings say.
 * @throws ConfigError for settings that no method reads; InputError for token weights under a loss that reads none
 */
export function checkMethods(config: RunConfig): void {
  const problems = withoutEffect(config)
  if (problems.length) throw new ConfigError(problems)
  for (const method of config.methods) {
    const settings = trainSettings(config, method, config.seed)
    if (settings) checkSettings(settings)
  }
}

/** Whether an instruction is kept for evaluation: by its text alone, so that it is so in every run and repetition. */
export function isHeldOut(
  { instruction, input }: Pick<InstructionRow, "instruction" | "input">,
  share: number,
): boolean {
  return streamKey("holdout", instruction, input ?? "") / 2 ** 32 < share
}

/**
 * Share kept from training: the first `holdout` is the test; a run on development keeps as much again, and answers
 * that.
 */
const keptShare = ({ holdout, evalSplit }: HeldOut): number => (evalSplit === "test" ? holdout : 2 * holdout)

type HeldOut = Pick<RunConfig, "holdout" | "evalSplit">

/**
 * The instructions that a run may draw on, near-duplicates marked as failed: those of the seed file, or those that the
 * model wrote (`generated`). Not for `instructionsFrom: world`, which never runs out.
 */
export function candidates(
  { instructionsFrom, nearDuplicate }: RunConfig,
  generated?: AsyncIterable<Outcome<InstructionRow>>,
): AsyncGenerator<Outcome<InstructionRow>> {
  const rows = generated ?? (readInstructions(instructionsFrom) as AsyncIterable<Outcome<InstructionRow>>)
  return markNearDuplicates(rows, nearDuplicate)
}

/**
 * Stage 0: candidates up to `instructions` good ones; those held out for evaluation come out failed, with the reason.
 */
export async function* sourceRows(
  { instructions, ...config }: Pick<RunConfig, "instructions"> & HeldOut,
  rows: AsyncIterable<Outcome<InstructionRow>>,
): AsyncGenerator<Outcome<InstructionRow>> {
  let passed = 0
  for await (const row of rows) {
    if (row.failure) yield row
    else if (isHeldOut(row, keptShare(config))) yield failed(row, "source", HELD_OUT)
    else {
      yield row
      if (++passed === instructions) return
    }
  }
}

/** The candidates that are held out to be answered, however far down the file they stand. */
export async function* heldOutRows(
  config: HeldOut,
  rows: AsyncIterable<Outcome<InstructionRow>>,
): AsyncGenerator<InstructionRow> {
  const least = config.evalSplit === "test" ? 0 : config.holdout
  for await (const row of rows)
    if (!row.failure && isHeldOut(row, keptShare(config)) && !isHeldOut(row, least)) yield row
}

/** How many instructions the model writes, so that enough are left when a share is held out. */
export const selfInstructed = ({ instructions, ...config }: RunConfig) =>
  Math.ceil(instructions / (1 - Math.min(0.9, keptShare(config))))

/** Whether a run starts from instructions that a world makes, without end. */
export const isWorld = ({ instructionsFrom: from }: Pick<RunConfig, "instructionsFrom">): boolean =>
  from === "world" || from === "checkable"

/** A world's own instructions for training, different ones for each seed. */
export function worldSource(config: RunConfig, seed: number): InstructionRow[] {
  const { instructionsFrom, instructions: n, minConstraints, maxConstraints } = config
  const make = instructionsFrom === "checkable" ? checkableInstructions : worldInstructions
  return make({ n, seed, split: "train", constraints: [minConstraints, maxConstraints] })
}

/** A world's held-out instructions: the same in every run. */
export function worldHoldout(config: RunConfig): InstructionRow[] {
  const { instructionsFrom, evalSplit, evalInstructions: n, minConstraints, maxConstraints } = config
  const constraints = [minConstraints, maxConstraints] as const
  if (instructionsFrom === "checkable") return checkableInstructions({ n, seed: 0, split: evalSplit, constraints })
  return worldInstructions({ n, seed: 0, split: evalSplit === "test" ? "eval" : "development", constraints })
}
