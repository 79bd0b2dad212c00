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
export type { Constraint as CheckableConstraint, KindName as CheckableKind } from "./checkable/kinds"
export { type CheckableSpec, checkableInstructions, gradeCheckable } from "./checkable/spec"
export { checkableWorld, type Item as CheckableItem } from "./checkable/world"
export { parseConfig, type RunConfig, runConfig } from "./config/config"
export { type Recipe, recipeOf, recipes } from "./config/recipes"
export { writeAtomic } from "./data/files"
export { readInstructions } from "./data/formats"
export { type JsonObject, readJsonFile } from "./data/json-file"
export { appendJsonl, type JsonlWriter, type Place, type ReadOptions, readJsonl } from "./data/jsonl"
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
export {
  type Difference,
  type EvalItem,
  evalItem,
  type MetricsLine,
  type Results,
  results,
  type Score,
} from "./data/results"
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
  stageName,
  type TokenSignals,
  type WeighedRow,
  weighedRow,
} from "./data/schema"
export { currentDevice, type Device, type Kernels } from "./device/device"
export { type BackendChoice, type BackendName, backendNames, tf, type UsedBackend, useBackend } from "./device/tf"
export { type CachedGenerator, type CacheOptions, type CallTotals, cachedGenerator } from "./engine/cached"
export type {
  Completion,
  GenerateRequest,
  Generator,
  PreparedScorer,
  Sampling,
  ScoreRequest,
  Scorer,
  SignalScorer,
} from "./engine/engine"
export { type LocalEngine, type LocalModel, type LocalOptions, type OpenOptions, openLocal } from "./engine/local"
export { type OpenAIOptions, openaiGenerator } from "./engine/openai"
export { replyOf } from "./engine/reply"
export { type ScriptedAnswer, type ScriptedGenerator, scripted } from "./engine/scripted"
export type { ServeOptions } from "./engine/serve"
export { type ListedModel, type OpenServer, openServer } from "./engine/server"
export { type ServerScorerOptions, serverScorer } from "./engine/server-scorer"
export type { TorchOptions } from "./engine/torch"
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
export type { Benchmark, BenchmarkItem, Judge, Judgement, JudgeReply, JudgeRequest, Scoring } from "./eval/benchmark"
export { type BootstrapOptions, bootstrap, type Interval, quantile } from "./eval/bootstrap"
export {
  type Figure as BenchmarkFigure,
  type Figures as BenchmarkFigures,
  figuresTable,
  type PairedDifference,
  pairedDifferences,
  type Scored,
  withIntervals,
} from "./eval/figures"
export { constraintShare, type Grader, type Verdicts } from "./eval/grader"
export { type JudgeCounts, type JudgeOptions, judgeOf } from "./eval/judge"
export { type Answers, readAnswers } from "./eval/responses"
export { differenceOf, scoreOf } from "./eval/score"
export { type PullOptions, pullModel } from "./hub/hub"
export { type HubName, parseHubName } from "./hub/name"
export { type Adapter, type Matrix as AdapterMatrix, readAdapter, writeAdapter } from "./model/adapter"
export { loadConfig, type ModelConfig } from "./model/config"
export { describePlan, type Plan, plan, type Work } from "./model/executor"
export type { FloatDtype } from "./model/floats"
export type { Sequence } from "./model/logprobs"
export { fromAdapter, initLora, type Lora, merge, toAdapter } from "./model/lora"
export { type Batch, type Need, planNeed, planStages } from "./model/memory"
export { type MergeOptions, mergeAdapter } from "./model/merge"
export type { Rope, RopeScaling } from "./model/rope-config"
export type { Model, ModelParams, Params } from "./model/transformer"
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
export { makePairs, type PairOptions, type TextStageName } from "./musc/pipeline"
export { type RecombineOptions, recombine, recombineDefaults } from "./musc/recombine"
export { preferenceOf, type RespondOptions, respond, respondDefaults, respondMessages } from "./musc/respond"
export { type FailedRow, hasPassed, type Outcome } from "./musc/row"
export { type Rows, runStage, type StageCount, type StageRunOptions, stageTally } from "./musc/run-stage"
export { markNearDuplicates, type SelfInstructOptions, selfInstruct, selfInstructDefaults } from "./musc/source"
export { type RowStageName, type StageOptions, textStages } from "./musc/stages"
export {
  type PairCounts,
  type SharedSettings,
  type TrainControl,
  type TrainRow,
  type TrainSettings,
  trainAdapter,
  trainDefaults,
  trainModel,
} from "./musc/train"
export { type PairVerdicts, verify } from "./musc/verify"
export {
  defaultWeighting,
  type OwnSignals,
  type ScoredPair,
  type WeighOptions,
  type Weighting,
  type WeightingName,
  type WeightsOptions,
  weigh,
  weighDefaults,
  weighSamples,
  weightings,
  weightsOf,
} from "./musc/weigh"
export type { Frozen } from "./ops/frozen"
export { writeReport } from "./report/report"
export { resultFrame } from "./report/tables"
export { type Rng, rng, streamKey } from "./rng"
export { type AnswerSource, type BenchmarkRun, type BenchmarkScores, runBenchmark } from "./runs/benchmark"
export { benchmarkOf, benchmarks } from "./runs/benchmarks"
export { type Comparison, compareFolders } from "./runs/compare"
export type { Progress } from "./runs/context"
export {
  exactGrader,
  type GradedPair,
  gradePair,
  graderOf,
  type JudgeOptions as GraderOptions,
  judgeGrader,
  worldGrader,
} from "./runs/graders"
export { isEmbedded, modelFolder } from "./runs/model"
export { resultsTable } from "./runs/results"
export { type RunOptions, run } from "./runs/run"
export { stageOptions, trainSettings } from "./runs/stages"
export { runStudy, type Study, type Variant } from "./runs/study"
export { openAdapter } from "./runs/train-stage"
export { type EncodedChat, encodeChat, encodePrompt, renderChat } from "./text/chat"
export type { ChatTemplate } from "./text/chat-template"
export { loadTokenizer, type Tokenizer } from "./text/tokenizer"
export { type Batches, type StepLog, type TrainOptions, train } from "./train/loop"
export {
  type PairScores,
  type PreferenceOptions,
  type PreferenceResult,
  preferenceDefaults,
  preferenceLoss,
  preferenceLosses,
  sftLoss,
} from "./train/losses"
export type { ItemOf, Objective, PairItem, PreferenceObjective, SftObjective } from "./train/objective"
export type { AdamOptions } from "./train/optim"
export { readQuestion } from "./world/inverse"
export { type Constraint, satisfies } from "./world/kinds"
export {
  type Graded as GradedAnswer,
  gradeAnswer,
  sameConstraints,
  type WorldSpec,
  worldInstructions,
} from "./world/spec"
