import { tf } from "../backend/tf"
import type { ModelConfig } from "../model/config"
import { generate } from "../model/generate"
import { type Packed, pack, responseLogProbs, type Sequence } from "../model/logprobs"
import { bind, release } from "../model/lora"
import type { Model } from "../model/transformer"
import { streamKey } from "../rng"
import { encodeChat, encodePrompt } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { sftLoss } from "../train/losses"
import { train, type TrainOptions } from "../train/loop"
import { checkTask } from "./check"
import { type CorpusExample, corpusExample, type Phase, type Task, tasks } from "./corpus"
import { gradeAnswer } from "./spec"

/** Shape of the embedded model: a Llama of 1.8 M parameters. `vocabSize` is the world tokenizer's. */
export function worldConfig(vocabSize: number, eosId: number, padId: number): ModelConfig {
  const layers = 4
  return {
    family: "llama",
    vocabSize,
    dim: 192,
    layers,
    heads: 6,
    kvHeads: 3,
    headDim: 32,
    ffn: 512,
    normEps: 1e-5,
    normOffset: 0,
    tiedHead: true,
    attentionBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    activation: "silu",
    embedScale: 1,
    queryScale: 32 ** -0.5,
    postNorms: false,
    rope: Array.from({ length: layers }, () => ({ theta: 10000, scaling: { type: "none" as const } })),
    window: Array.from({ length: layers }, () => null),
    logitSoftcap: null,
    attentionSoftcap: null,
    maxPositions: 512,
    eosIds: [eosId],
    bosId: null,
    padId,
  }
}

/** Settings of one phase of the embedded model's training. */
export interface PhaseOptions {
  phase: Phase
  steps: number
  /** examples a step */
  batchSize: number
  /** peak learning rate: reached after `warmupSteps`, held, and brought to 0 over the last fifth */
  lr: number
  seed: number
}

const warmupSteps = 60

/** Trains all weights on the corpus of one phase: mean cross-entropy of the response tokens of each step. */
export function trainPhase(
  model: Model,
  tokenizer: Tokenizer,
  { phase, steps, batchSize, lr, seed }: PhaseOptions,
  control: Pick<TrainOptions<Sequence>, "checkpoint" | "signal" | "onStep"> = {},
): Promise<void> {
  const responseTokens = (sequences: readonly Sequence[]) =>
    sequences.flatMap(({ responses }) => responses).reduce((n, { length }) => n + length, 0)
  return train<Sequence>({
    model,
    batches: {
      steps,
      at: (step) =>
        Array.from({ length: batchSize }, (_, k) =>
          encode(tokenizer, corpusExample(step * batchSize + k, { seed, phase })),
        ),
    },
    tokensOf: ({ prompt, responses }) => responses.reduce((n, { length }) => n + length, prompt.length),
    loss: (bound, sequences, all) => {
      const batch: Packed = pack(sequences)
      const weights = tf.fill([batch.targets.length], 1 / responseTokens(all)) as ReturnType<typeof responseLogProbs>
      return { loss: sftLoss(responseLogProbs(bound, batch), weights) }
    },
    lr,
    shape: "plateau",
    warmup: warmupSteps / steps,
    adam: { beta2: 0.98, weightDecay: 0.01 },
    tokenBudget: 6144,
    ...control,
  })
}

function encode(tokenizer: Tokenizer, { prompt, response, others = [] }: CorpusExample): Sequence {
  const encoded = [response, ...others].map((text) => encodeChat(tokenizer, [{ role: "user", content: prompt }], text))
  return { prompt: encoded[0]!.promptIds, responses: encoded.map(({ responseIds }) => responseIds) }
}

/** Share solved, with counts. */
export interface Share {
  solved: number
  n: number
}

/** How well a model does each task, and how well its answers satisfy each kind of constraint (respond only). */
export interface WorldReport {
  tasks: Partial<Record<Task, Share>>
  kinds: Record<string, Share>
}

/**
 * Answers held-out examples of every task and checks them. `examples` counts those drawn from the corpus mixture, so
 * rare tasks get few; streams differ from those of training.
 */
export async function checkWorld(
  model: Model,
  tokenizer: Tokenizer,
  options: { examples: number; temperature: number; seed: number; only?: readonly Task[]; signal?: AbortSignal },
): Promise<WorldReport> {
  const wanted = new Set(options.only ?? tasks)
  const drawn = Array.from({ length: options.examples }, (_, i) =>
    corpusExample(i, { seed: streamKey(options.seed, "check-world"), phase: "able" }),
  ).filter(({ task }) => wanted.has(task))
  const report: WorldReport = { tasks: {}, kinds: {} }
  const count = (shares: Record<string, Share>, name: string, solved: boolean) => {
    shares[name] ??= { solved: 0, n: 0 }
    shares[name].n++
    if (solved) shares[name].solved++
  }
  const bound = bind(model)
  const order = [...drawn].sort((a, b) => a.prompt.length - b.prompt.length)
  for (let at = 0; at < order.length; at += 128) {
    const examples = order.slice(at, at + 128)
    const answers = await generate(
      bound,
      examples.map(({ prompt }, i) => ({
        prompt: encodePrompt(tokenizer, [{ role: "user", content: prompt }]),
        seed: streamKey(options.seed, "check-world", at + i),
        temperature: options.temperature,
        maxTokens: 160,
      })),
      { eosIds: tokenizer.eosIds, signal: options.signal },
    )
    examples.forEach((example, i) => {
      const text = tokenizer.decode(answers[i]!.ids, { skipSpecial: true })
      count(report.tasks, example.task, checkTask(example.task, example, text))
      if (example.task !== "respond") return
      for (const { kind, negated, satisfied } of gradeAnswer(example.spec, text)) {
        count(report.kinds, negated ? `not ${kind}` : kind, satisfied)
      }
    })
  }
  release(bound)
  return report
}
