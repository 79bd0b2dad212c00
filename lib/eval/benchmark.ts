import type { Message } from "../data/schema"

/**
 * `official` reproduces the published scorer with its quirks, so that figures compare; `corrected` fixes what is wrong
 * in it.
 */
export type Scoring = "official" | "corrected"

/** One thing to answer. */
export interface BenchmarkItem<Data = unknown> {
  /** Unique in the benchmark; rows of results and answers are matched by it. */
  id: string
  /** Unit of resampling for intervals: items that stand or fall together, such as the levels of one instruction. */
  unit: string
  /** User messages in order; each is answered with the ones before it in the conversation. */
  turns: readonly string[]
  temperature: number
  maxTokens: number
  /** What grading needs. */
  data: Data
}

/** What a benchmark asks a judge. */
export interface JudgeRequest {
  messages: readonly Message[]
  temperature: number
  maxTokens: number
  /** Wants the most likely first tokens with their log-probs (AlpacaEval). */
  topLogprobs?: number
}

/** What a judge said to one question. */
export interface JudgeReply {
  text: string
  /** The most likely first tokens with their log-probs, where asked for and given. */
  first?: readonly { token: string; logprob: number }[]
  /** Whether the token limit cut it off, so that its last line is none that was meant as the last. */
  cut?: true
  /** Why it says nothing (the judge refused, a filter stopped it): its text is empty then. */
  problem?: string
}

/** All replies to one request: each but the last could not be read, the last one could unless `parsed` is false. */
export interface Judgement {
  replies: readonly JudgeReply[]
  parsed: boolean
}

/** Asks until `readable` says that a reply can be parsed, or the tries are used up. */
export type Judge = (request: JudgeRequest, readable: (reply: JudgeReply) => boolean) => Promise<Judgement>

/**
 * A benchmark: how its official files are read, what a judge is asked, and how the answers are scored. `collect` is the
 * only part that makes calls; what it returns is kept, so that `score` and `figures`, which are pure, can run again.
 */
export interface Benchmark<Data = unknown, Collected = unknown, Result = unknown> {
  name: string
  /** A line for the help: what it measures, how many items. */
  about: string
  /**
   * Where the official files come from, their licence, and the SHA-256 of the files that the scorer was tested on. A
   * file without a URL is known but not fetched; no files at all means that the benchmark brings its own items.
   */
  source: { home: string; files: readonly { name: string; url?: string; sha256?: string }[]; licence: string }
  /** Whether any item needs a judge. */
  judged: boolean
  /**
   * Reads a file or folder of official data; an empty path means the benchmark's own items. @throws InputError naming
   * file, line and field of all that is wrong.
   */
  load(path: string): Promise<BenchmarkItem<Data>[]>
  /** Asks the judge what must be asked of the responses (one a turn); null when rules suffice. */
  collect(item: BenchmarkItem<Data>, responses: readonly string[], judge: Judge): Promise<Collected | null>
  /** The item's result, a JSON value. */
  score(item: BenchmarkItem<Data>, responses: readonly string[], collected: Collected | null, scoring: Scoring): Result
  /**
   * All figures of these results by name, in the order to be shown: rates in [0, 1] unless the name says otherwise,
   * e.g. "prompt strict", "HSR level 1", "type: keywords:existence". NaN where there is nothing to divide by. Called
   * again on resampled results for intervals, so it must be fast.
   */
  figures(results: readonly Result[], scoring: Scoring): Record<string, number>
  /** Counts that a reader must know beside the figures, such as unparsed replies or warnings about the data. */
  notes?(results: readonly Result[], scoring: Scoring): string[]
}
