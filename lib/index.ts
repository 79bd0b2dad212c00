/**
 * The public names of musc. From instructions to pairs:
 *
 *     await useBackend()
 *     const local = openLocal("world")
 *     const engine = local.engine()
 *     const pairs: PairRow[] = []
 *     for await (const row of makePairs(engine, readInstructions("seeds.jsonl"))) if (!row.failure) pairs.push(row)
 *
 * and from pairs to an adapter:
 *
 *     const weighed = await Promise.all(pairs.map((pair) => weigh(engine, pair)))
 *     const lora = await trainAdapter(local, weighed, { ...trainDefaults, lr: 1e-3 })
 *     await writeAdapter("adapter", await toAdapter(lora, local.config), local.name)
 */

export { judgeMessages, judgePrompt, parseVerdict } from "./baselines/judge"
export { parsePoints, pointsOf, pointsPrompt } from "./baselines/points"
export { parseRevision, revisePrompt } from "./baselines/revise"
export { type SampledRow, type SampleOptions, sample, sampleDefaults } from "./baselines/sample"
export { type CorrectOptions, selfCorrect } from "./baselines/self-correct"
export {
  type BaselinePair,
  type JudgedRow,
  judgeByConstraint,
  judgeByPoints,
  selfReward,
} from "./baselines/self-reward"
export { type CheckableSpec, checkableInstructions, gradeCheckable } from "./checkable/spec"
export { checkableWorld } from "./checkable/world"
export { parseConfig, type RunConfig, runConfig } from "./config/config"
export { type Recipe, recipeOf, recipes } from "./config/recipes"
export { writeAtomic } from "./data/files"
export { readInstructions } from "./data/formats"
export { readJsonFile } from "./data/json-file"
export { appendJsonl, readJsonl } from "./data/jsonl"
export {
  datasetInfo,
  fromRanking,
  fromTokenWeighted,
  fromTrl,
  jsonArray,
  type Preference,
  sharesFirstWeight,
  toRanking,
  toTokenWeighted,
  toTrl,
  toTrlStandard,
  type WeightedPreference,
} from "./data/preferences"
export { type EvalItem, evalItem, type MetricsLine, type Results, results, type Score } from "./data/results"
export {
  type Call,
  type CorruptedRow,
  corruptedRow,
  type DecomposedRow,
  decomposedRow,
  type Edit,
  type Failure,
  type InstructionRow,
  instructionRow,
  type Message,
  type PairRow,
  type PairWeights,
  pairRow,
  type RecombinedRow,
  recombinedRow,
  type StageName,
  type TokenSignals,
  type WeighedRow,
  weighedRow,
} from "./data/schema"
export { currentDevice, type Device } from "./device/device"
export { type BackendChoice, type BackendName, backendNames, tf, type UsedBackend, useBackend } from "./device/tf"
export { type CachedGenerator, cachedGenerator } from "./engine/cached"
export type { Completion, GenerateRequest, Generator, Sampling, ScoreRequest, Scorer } from "./engine/engine"
export { type LocalEngine, type LocalModel, openLocal } from "./engine/local"
export { type OpenAIOptions, openaiGenerator } from "./engine/openai"
export { replyOf } from "./engine/reply"
export { scripted } from "./engine/scripted"
export { type ListedModel, type OpenServer, openServer } from "./engine/server"
export { serverScorer } from "./engine/server-scorer"
export {
  BackendError,
  CheckpointError,
  ConfigError,
  InputError,
  MuscError,
  PendingJobError,
  RefusedError,
  StoppedError,
} from "./errors"
export type { Benchmark, BenchmarkItem, Judge, Scoring } from "./eval/benchmark"
export { bootstrap, quantile } from "./eval/bootstrap"
export { figuresTable, pairedDifferences, withIntervals } from "./eval/figures"
export { constraintShare, type Grader, type Verdicts } from "./eval/grader"
export { judgeOf } from "./eval/judge"
export { readAnswers } from "./eval/responses"
export { differenceOf, scoreOf } from "./eval/score"
export { pullModel } from "./hub/hub"
export { type HubName, parseHubName } from "./hub/name"
export { type Adapter, readAdapter, writeAdapter } from "./model/adapter"
export { loadConfig } from "./model/config"
export { describePlan, type Plan, plan, type Work } from "./model/executor"
export { fromAdapter, initLora, type Lora, merge, toAdapter } from "./model/lora"
export { type Batch, planNeed, planStages } from "./model/memory"
export { type MergeOptions, mergeAdapter } from "./model/merge"
export { parameterCount, saveModel } from "./model/weights"
export { type CorruptOptions, corrupt, corruptDefaults, planEdits } from "./musc/corrupt"
export {
  type DecomposeOptions,
  decompose,
  decomposeDefaults,
  decomposePrompt,
  parseConstraints,
} from "./musc/decompose"
export { type EvaluateOptions, evaluate } from "./musc/evaluate"
export { type ExactWorld, exactCorrupt, exactDecompose, exactRecombine } from "./musc/exact"
export { makePairs, type PairOptions } from "./musc/pipeline"
export { type RecombineOptions, recombine, recombineDefaults } from "./musc/recombine"
export { preferenceOf, type RespondOptions, respond, respondDefaults, respondMessages } from "./musc/respond"
export { type FailedRow, hasPassed, type Outcome } from "./musc/row"
export { type Rows, runStage, stageTally } from "./musc/run-stage"
export { markNearDuplicates, type SelfInstructOptions, selfInstruct, selfInstructDefaults } from "./musc/source"
export { type TrainSettings, trainAdapter, trainDefaults, trainModel } from "./musc/train"
export { type PairVerdicts, verify } from "./musc/verify"
export {
  defaultWeighting,
  type WeighOptions,
  type Weighting,
  type WeightingName,
  weigh,
  weighDefaults,
  weighSamples,
  weightings,
  weightsOf,
} from "./musc/weigh"
export { writeReport } from "./report/report"
export { resultFrame } from "./report/tables"
export { type Rng, rng, streamKey } from "./rng"
export { type BenchmarkRun, type BenchmarkScores, runBenchmark } from "./runs/benchmark"
export { benchmarkOf, benchmarks } from "./runs/benchmarks"
export { type Comparison, compareFolders } from "./runs/compare"
export { exactGrader, gradePair, graderOf, judgeGrader, worldGrader } from "./runs/graders"
export { isEmbedded, modelFolder } from "./runs/model"
export { resultsTable } from "./runs/results"
export { type RunOptions, run } from "./runs/run"
export { stageOptions, trainSettings } from "./runs/stages"
export { runStudy, type Study, type Variant } from "./runs/study"
export { openAdapter } from "./runs/train-stage"
export { encodeChat, encodePrompt, renderChat } from "./text/chat"
export { loadTokenizer, type Tokenizer } from "./text/tokenizer"
export { type StepLog, train } from "./train/loop"
export { type PreferenceOptions, preferenceDefaults, preferenceLoss, preferenceLosses, sftLoss } from "./train/losses"
export type { Objective } from "./train/objective"
export { readQuestion } from "./world/inverse"
export { satisfies } from "./world/kinds"
export { gradeAnswer, sameConstraints, type WorldSpec, worldInstructions } from "./world/spec"
