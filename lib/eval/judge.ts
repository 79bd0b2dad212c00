import type { Generator } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { streamKey } from "../rng"
import type { Judge, JudgeReply, JudgeRequest } from "./benchmark"

/** How a judge is asked again. */
export interface JudgeOptions {
  /** Times that one question is asked at most, 1 to 10, until the reply can be read. */
  tries: number
  /**
   * Lowest temperature of the second and further tries: a greedy judge would say the same again. The first try has the
   * benchmark's own.
   */
  retryTemperature: number
}

export const judgeDefaults: JudgeOptions = { tries: 3, retryTemperature: 0.5 }

/** How often a judge was asked, and how often in vain. */
export interface JudgeCounts {
  /** Questions put to the judge. */
  asked: number
  /** Further tries after replies that could not be read. */
  again: number
  /** Questions without a readable reply after all tries. They are never guessed. */
  unparsed: number
}

/**
 * A judge over any engine that writes text; put a cached one in so that no finished call is repeated. Each try has a
 * seed of its own, which also tells its cache entry from those of the tries before.
 */
export function judgeOf(
  engine: Generator,
  options: Partial<JudgeOptions> = {},
): { judge: Judge; counts: Readonly<JudgeCounts> } {
  const { tries, retryTemperature } = { ...judgeDefaults, ...options }
  const counts: JudgeCounts = { asked: 0, again: 0, unparsed: 0 }
  const judge: Judge = async (request, readable) => {
    counts.asked++
    const replies: JudgeReply[] = []
    for (let attempt = 0; attempt < tries; attempt++) {
      if (attempt) counts.again++
      const temperature = attempt ? Math.max(request.temperature, retryTemperature) : request.temperature
      const seed = streamKey("judge", attempt)
      const { text, first, finish, problem } = await replyOf(engine, { ...request, temperature, seed })
      // The words of a refusal, or what a filter left, are no verdict.
      const said = problem ? { text: "", problem } : { text }
      const reply: JudgeReply = { ...said, ...(first && { first }), ...(finish === "length" && { cut: true }) }
      replies.push(reply)
      if (!problem && readable(reply)) return { replies, parsed: true }
    }
    counts.unparsed++
    return { replies, parsed: false }
  }
  return { judge, counts }
}

/** A no that belongs to the next word ("No faults found."), unless a verdict without a comma goes on so. */
const noOfMore =
  /^[^\p{L}\p{N}]*(?:[\p{L} ]{3,30}:[*_\s]*)?no[^\S\n]+(?!(?:because|since|as|it|its|the|this|that|there|they|but|not|answer)\b)\p{L}/iu
const yesOrNo = /^[^\p{L}\p{N}]*(?:yes\s*(?:\/|or\b|and\b)\s*no|no\s*(?:\/|or\b|and\b)\s*yes)\b/iu

/** Whether the yes or no that a line begins with, after a label or none, is no verdict. */
export const isNoVerdict = (line: string): boolean => noOfMore.test(line) || yesOrNo.test(line)

/** A judge that is never asked: it notes the requests and gives empty replies that pass as readable. */
export function silentJudge(): { judge: Judge; requests: readonly JudgeRequest[] } {
  const requests: JudgeRequest[] = []
  const judge: Judge = async (request) => {
    requests.push(request)
    return { replies: [{ text: "" }], parsed: true }
  }
  return { judge, requests }
}

/** Tokens of a text within about a third, without a tokenizer: four ASCII characters, or one other, are a token. */
export function estimateTokens(text: string): number {
  const ascii = text.replace(/[^\0-\x7f]+/g, "").length
  return Math.ceil(ascii / 4) + (text.length - ascii)
}
