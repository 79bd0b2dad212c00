import type { Call, Message, TokenSignals } from "../data/schema"

/** How one answer is sampled. */
export interface Sampling {
  /** 0 is greedy. */
  temperature: number
  /** Keep the smallest set of tokens whose probability reaches this; 1 keeps all. */
  topP?: number
  /** Keep this many most likely tokens; 0 keeps all. */
  topK?: number
  /** Most tokens to generate, end-of-turn included. */
  maxTokens: number
  /** Texts that end the answer; they are not part of it. */
  stop?: readonly string[]
}

/**
 * One answer wanted. `seed` is the key of a random stream (`streamKey`), so the answer never depends on other requests.
 */
export interface GenerateRequest extends Sampling {
  messages: readonly Message[]
  seed: number
  /** Wants this many of the most likely first tokens with their log-probs, 1 to 20; not every engine has them. */
  topLogprobs?: number
}

/**
 * The answer: raw text (untrimmed, special tokens left out), tokens made, and why it ended. An engine may leave
 * thoughts in the text or give them apart; `replyOf` (reply.ts) is how callers read both.
 */
export interface Completion extends Omit<Call, "prompt"> {
  /** Tokens of the prompt, where the engine says so. */
  promptTokens?: number
  /** The most likely first tokens with their log-probs in nats, where asked for and given. */
  first?: readonly { token: string; logprob: number }[]
}

/**
 * Writes text. Callers ask for one answer at a time and run many such calls at once; an engine gathers what is pending
 * and serves it in batches, or over several connections.
 */
export interface Generator {
  /** Shown in manifests: model folder name or endpoint model. */
  readonly name: string
  /** Calls that are worth having in flight at once. */
  readonly concurrency: number
  /** Examples that a prompt may show, at most; any number if absent. 0 for a model that was trained on bare prompts. */
  readonly maxShots?: number
  /**
   * Whether an answer never depends on which others are made with it, as from a server or a model on a CPU. Then rows
   * are asked for in a window that slides, and a stopped stage continues at any row.
   */
  readonly independent?: boolean
  generate(request: GenerateRequest): Promise<Completion>
}

/** Answers of one pair under the prompts of the method: clean instruction, noised instruction, empty user turn. */
export interface ScoreRequest {
  clean: readonly Message[]
  noised: readonly Message[]
  empty: readonly Message[]
  /** Scored in one pass that shares the prompt: chosen and rejected. */
  responses: readonly string[]
}

/** Gives the full next-token distributions of responses under several prompts. */
export interface SignalScorer {
  /** Calls that are worth having in flight at once. */
  readonly concurrency: number
  /** As that of a Generator. */
  readonly independent?: boolean
  /** One entry a response, in their order. */
  score(request: ScoreRequest): Promise<TokenSignals[]>
  /**
   * Of engines that work on whole files: computes the signals of all requests, in a folder that a later start continues
   * with. What it gives answers these requests alone.
   */
  prepare?(
    requests: Iterable<ScoreRequest> | AsyncIterable<ScoreRequest>,
    options: { folder: string; signal?: AbortSignal; onDone?: (rows: number) => void },
  ): Promise<PreparedScorer>
}

/** Signals that are computed already. */
export interface PreparedScorer extends Pick<SignalScorer, "score"> {
  dispose(): void
}

/** A model in process does both. */
export type Scorer = Generator & SignalScorer
