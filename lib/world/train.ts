import { type ModelConfig, parseConfig } from "../model/config"
import { planFor } from "../model/executor"
import type { Sequence } from "../model/logprobs"
import { type Model, sizeOf } from "../model/transformer"
import { encodeChats } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { type TrainOptions, train } from "../train/loop"
import { type SftObjective, tokensOf } from "../train/objective"
import { type CorpusExample, corpusExample, type Phase } from "./corpus"

/** Sizes of embedded models: `world` has 1.8 M parameters, `small` .6 M. */
export const worldSizes = {
  world: { layers: 4, dim: 192, heads: 6, kvHeads: 3, headDim: 32, ffn: 512 },
  small: { layers: 3, dim: 128, heads: 4, kvHeads: 2, headDim: 32, ffn: 352 },
} as const
export type WorldSize = keyof typeof worldSizes

/** Shape of the embedded model, a Llama. `vocabSize` is the world tokenizer's. */
export function worldConfig(vocabSize: number, eosId: number, padId: number, size: WorldSize = "world"): ModelConfig {
  const { dim, layers, heads, kvHeads, headDim, ffn } = worldSizes[size]
  return parseConfig({
    ...{ model_type: "llama", vocab_size: vocabSize, hidden_size: dim, num_hidden_layers: layers },
    ...{ num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim, intermediate_size: ffn },
    ...{ rms_norm_eps: 1e-5, rope_theta: 10000, max_position_embeddings: 512, tie_word_embeddings: true },
    ...{ eos_token_id: eosId, pad_token_id: padId },
  })
}

/** Settings of one phase of the embedded model's training. */
export interface PhaseOptions {
  phase: Phase
  steps: number
  /** examples a step */
  batchSize: number
  /** peak learning rate, reached after `warmupSteps` */
  lr: number
  /** `linear` brings the rate to 0 from the start on, `plateau` over the last fifth, `constant` holds it */
  shape: "linear" | "plateau" | "constant"
  seed: number
}

const warmupSteps = 40

/** A token weighs 1 / sqrt(tokens of its response), so that a verdict of one word is not lost among answers. */
const objective: SftObjective = { kind: "sft", weighting: "root" }

export type PhaseControl = Pick<TrainOptions<SftObjective>, "checkpoint" | "signal" | "onStep">

/** Trains all weights on the corpus of one phase: weighted mean cross-entropy of the response tokens of each step. */
export async function trainPhase(
  model: Model,
  tokenizer: Tokenizer,
  options: PhaseOptions,
  control: PhaseControl = {},
): Promise<void> {
  const { phase, steps, batchSize, lr, shape, seed } = options
  const example = exampleOf(tokenizer, { phase, seed })
  const tokens = phaseTokens(tokenizer, options)
  const plan = planFor(sizeOf(model.params), { kind: "train", adapter: false, tokens })
  await train({
    ...{ model, objective, plan },
    batches: {
      steps,
      at: (step) => Array.from({ length: batchSize }, (_, k) => example(step * batchSize + k)),
    },
    lr,
    shape,
    warmup: warmupSteps / steps,
    adam: { beta2: 0.98, weightDecay: 0.01 },
    tokenBudget: 2048,
    ...control,
  })
}

/** Tokens of a phase, prompts included and padding not, estimated from its first examples. */
export function phaseTokens(tokenizer: Tokenizer, { phase, steps, batchSize, seed }: PhaseOptions): number {
  const example = exampleOf(tokenizer, { phase, seed })
  const counted = Math.min(1000, steps * batchSize)
  const tokens = Array.from({ length: counted }, (_, i) => tokensOf(example(i)))
  return Math.round((tokens.reduce((sum, n) => sum + n, 0) / counted) * steps * batchSize)
}

const exampleOf = (tokenizer: Tokenizer, of: { phase: Phase; seed: number }) => (i: number) =>
  encode(tokenizer, corpusExample(i, of))

function encode(
  tokenizer: Tokenizer,
  { prompt, response, others = [] }: Pick<CorpusExample, "prompt" | "response" | "others">,
): Sequence {
  const messages = [{ role: "user", content: prompt }] as const
  const { promptIds, responses } = encodeChats(tokenizer, messages, [response, ...others])
  return { prompt: promptIds, responses }
}
