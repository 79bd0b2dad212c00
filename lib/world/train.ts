import { tf } from "../backend/tf"
import type { ModelConfig } from "../model/config"
import { pack, responseLogProbs, type Sequence } from "../model/logprobs"
import type { Model } from "../model/transformer"
import { encodeChat } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { type TrainOptions, train } from "../train/loop"
import { sftLoss } from "../train/losses"
import { type CorpusExample, corpusExample, type Phase } from "./corpus"

/** Sizes of embedded models: `world` has 1.8 M parameters, `small` .6 M. */
export const worldSizes = {
  world: { layers: 4, dim: 192, heads: 6, kvHeads: 3, headDim: 32, ffn: 512 },
  small: { layers: 3, dim: 128, heads: 4, kvHeads: 2, headDim: 32, ffn: 352 },
} as const
export type WorldSize = keyof typeof worldSizes

/** Shape of the embedded model, a Llama. `vocabSize` is the world tokenizer's. */
export function worldConfig(vocabSize: number, eosId: number, padId: number, size: WorldSize = "world"): ModelConfig {
  const { layers, headDim } = worldSizes[size]
  return {
    family: "llama",
    vocabSize,
    ...worldSizes[size],
    normEps: 1e-5,
    normOffset: 0,
    tiedHead: true,
    attentionBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    activation: "silu",
    embedScale: 1,
    queryScale: headDim ** -0.5,
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
  /** peak learning rate, reached after `warmupSteps` */
  lr: number
  /** `plateau` brings the rate to 0 over the last fifth, `constant` holds it */
  shape: "plateau" | "constant"
  seed: number
}

const warmupSteps = 40

/**
 * Trains all weights on the corpus of one phase: weighted mean cross-entropy of the response tokens of each step. A token
 * weighs 1 / sqrt(tokens of its response), so that a verdict of one word is not lost among answers.
 */
export function trainPhase(
  model: Model,
  tokenizer: Tokenizer,
  { phase, steps, batchSize, lr, shape, seed }: PhaseOptions,
  control: Pick<TrainOptions<Sequence>, "checkpoint" | "signal" | "onStep"> = {},
): Promise<void> {
  const total = (sequences: readonly Sequence[]) =>
    sequences
      .flatMap(({ responses }) => responses.map(({ length }) => Math.sqrt(length)))
      .reduce((sum, part) => sum + part, 0)
  const example = (i: number) => encode(tokenizer, corpusExample(i, { seed, phase }))
  return train<Sequence>({
    model,
    batches: {
      steps,
      at: (step) => Array.from({ length: batchSize }, (_, k) => example(step * batchSize + k)),
    },
    tokensOf: ({ prompt, responses }) => responses.reduce((n, { length }) => n + length, prompt.length),
    loss: (bound, sequences, all) => {
      const scale = 1 / total(all)
      const weights = sequences.flatMap(({ responses }) =>
        responses.flatMap(({ length }) => Array<number>(length).fill(scale / Math.sqrt(length))),
      )
      return { loss: sftLoss(responseLogProbs(bound, pack(sequences)), tf.tensor1d(weights)) }
    },
    lr,
    shape,
    warmup: warmupSteps / steps,
    adam: { beta2: 0.98, weightDecay: 0.01 },
    tokenBudget: 2048,
    ...control,
  })
}

function encode(
  tokenizer: Tokenizer,
  { prompt, response, others = [] }: Pick<CorpusExample, "prompt" | "response" | "others">,
): Sequence {
  const encoded = [response, ...others].map((text) => encodeChat(tokenizer, [{ role: "user", content: prompt }], text))
  return { prompt: encoded[0]!.promptIds, responses: encoded.map(({ responseIds }) => responseIds) }
}
