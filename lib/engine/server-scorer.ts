import type { TokenSignals } from "../data/schema"
import { InputError, RefusedError } from "../errors"
import { encodeChats } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { below, shownAddress } from "./address"
import type { ScoreRequest, SignalScorer } from "./engine"
import { type OpenAIOptions, serverCaller } from "./openai"
import { HttpError, jsonOf } from "./server-problem"
import { ReplyError } from "./server-reply"

/** How servers give the log-probs of a prompt: vLLM's and SGLang's field, or the old `echo`. */
const ways = {
  prompt_logprobs: { max_tokens: 1, prompt_logprobs: 0 },
  echo: { max_tokens: 0, echo: true, logprobs: 1 },
} as const
type Way = keyof typeof ways

/** How a server is asked for log-probs. */
export interface ServerScorerOptions extends OpenAIOptions {
  /** Tokenizer and chat template of the model that is served: the server gets token ids. */
  tokenizer: Tokenizer
}

/**
 * Log-probs of answers under several prompts from a server that tells those of its prompts (`/completions` of vLLM, or
 * any with `echo`). It has no distributions, so entropy and KL are empty: the weightings contrast, pmi, logprob, ratio
 * and tis-dpo can be made of what it gives, kl and entropy cannot. Six calls a pair.
 * @throws from `score`: InputError where the server tells no log-probs of prompts; else as `openaiGenerator`
 */
export const serverScorer = (options: ServerScorerOptions): SignalScorer => new ServerScorer(options)

class ServerScorer implements SignalScorer {
  readonly independent = true
  private readonly caller: ReturnType<typeof serverCaller>
  private readonly sameTokens: ReturnType<typeof tokenCheck>
  private way: Way = "prompt_logprobs"

  constructor(private readonly options: ServerScorerOptions) {
    const { tokenizer, ...calls } = options
    this.caller = serverCaller(calls)
    this.sameTokens = tokenCheck(tokenizer)
  }

  get concurrency(): number {
    return this.caller.concurrency
  }

  async score(request: ScoreRequest): Promise<TokenSignals[]> {
    const { tokenizer } = this.options
    const under = async (prompt: "clean" | "noised" | "empty") => {
      const { promptIds, responses } = encodeChats(tokenizer, request[prompt], request.responses)
      const values = await Promise.all(responses.map((ids) => this.logProbs([...promptIds, ...ids])))
      return responses.map((ids, i) => ({ ids, values: values[i]!.slice(promptIds.length) }))
    }
    const [clean, noised, empty] = await Promise.all([under("clean"), under("noised"), under("empty")])
    return clean.map(({ ids, values }, i) => ({
      tokens: tokenizer.tokenText(ids),
      logprob: values,
      logprob_noised: noised[i]!.values,
      logprob_empty: empty[i]!.values,
      ...{ entropy: [], entropy_noised: [], kl: [], kl_reverse: [] },
    }))
  }

  /** log p of each id given those before it; that of the first is unknown. */
  private async logProbs(ids: readonly number[]): Promise<number[]> {
    const by = this.way
    const values = await this.ask(by, ids).catch((error: unknown) => {
      if (by === "prompt_logprobs" && error instanceof RefusedError) return undefined // it does not know the field
      throw error
    })
    if (values) return values
    const echoed = await this.ask("echo", ids).catch((error: unknown) => {
      if (!(error instanceof RefusedError) || !/echo|log_?probs/i.test(error.message)) throw error
      throw new InputError(`${error.message}; serve with vLLM, weigh in this process, or by --torch`)
    })
    this.way = "echo"
    return echoed!
  }

  /** The log-probs in one of the ways; undefined where the server passes over the field that asks for them. */
  private ask(by: Way, ids: readonly number[]): Promise<number[] | undefined> {
    const { model, fields } = this.options
    return this.caller.call(0, async (server, send) => {
      const url = below(server, "completions")
      const sent = { model, prompt: ids, temperature: 0, ...fields, ...ways[by] }
      const reply = await send(url, JSON.stringify(sent)).catch((error: unknown) => {
        throw hasNoPath(error, model) ? tellsNone(url, (error as Error).message) : error
      })
      const value = jsonOf(reply)
      const other = this.sameTokens(value, ids)
      if (other) {
        const rule = `${shownAddress(server)} must serve the model whose tokenizer is used (--model), got other tokens`
        throw new InputError(`${rule}: ${other}; serve that model, weigh in this process, or by --torch`)
      }
      const values = logProbsIn(value, ids)
      if (values || by === "prompt_logprobs") return values
      throw tellsNone(server, "none")
    })
  }
}

/** Whether a server does not know the path. Where the model is not known, its name is in the words. */
function hasNoPath(error: unknown, model: string): boolean {
  return error instanceof HttpError && [404, 405, 501].includes(error.reply.status) && !error.words.includes(model)
}

function tellsNone(server: URL, got: string): InputError {
  const rule = `${shownAddress(server)} must return log-probs of the prompt (prompt_logprobs or echo), got ${got}`
  return new InputError(`${rule}; serve with vLLM, weigh in this process, or by --torch`)
}

/** Tokens that are compared with those of a server before it is believed to read ids as we do. */
const COMPARED = 8

/**
 * Compares the texts that a server's replies tell of their ids with those of a tokenizer, words alone, as servers show
 * blanks and parts of characters in many ways. Gives the first that differ, where more than half of some do.
 */
function tokenCheck({ decode }: Tokenizer): (reply: unknown, ids: readonly number[]) => string | undefined {
  let left = COMPARED
  const differing: string[] = []
  const word = /^[\p{L}\p{N}]+$/u
  return (reply, ids) => {
    if (left <= 0) return undefined
    const choice = (reply as { choices?: Record<string, unknown>[] } | null)?.choices?.[0]
    const told = choice?.prompt_logprobs as (Record<string, { decoded_token?: unknown }> | null)[] | null | undefined
    const echoed = (choice?.logprobs as { tokens?: unknown[] } | null | undefined)?.tokens
    for (const [i, id] of ids.entries()) {
      const theirs = Array.isArray(told) ? told[i]?.[id]?.decoded_token : echoed?.[i]
      const ours = decode([id]).trim()
      if (left <= 0 || typeof theirs !== "string" || !word.test(ours)) continue
      left--
      if (theirs.trim() !== ours) differing.push(`id ${id} is ${JSON.stringify(theirs)} there and "${ours}" here`)
    }
    return differing.length > COMPARED / 2 ? differing.slice(0, 2).join(", ") : undefined
  }
}

/**
 * The log-probs of a prompt's ids in a reply, the first one 0; undefined where it tells none. @throws ReplyError for
 * odd ones
 */
function logProbsIn(reply: unknown, ids: readonly number[]): number[] | undefined {
  const choice = (reply as { choices?: Record<string, unknown>[] } | null)?.choices?.[0]
  const told = choice?.prompt_logprobs as (Record<string, { logprob?: unknown }> | null)[] | null | undefined
  const logprobs = choice?.logprobs as { token_logprobs?: unknown[]; tokens?: unknown } | null | undefined
  // The first token of a prompt has no log-prob. A number there may be that of what a server without echo wrote.
  const isPrompt = !logprobs?.token_logprobs?.[0] || Array.isArray(logprobs.tokens)
  const echoed = isPrompt ? logprobs?.token_logprobs : undefined
  if (!Array.isArray(told) && !(Array.isArray(echoed) && echoed.length >= ids.length)) return undefined
  if (Array.isArray(told) && told.length !== ids.length) {
    throw new ReplyError(`a prompt of ${ids.length} ids must have as many log-probs, got ${told.length}`)
  }
  return ids.map((id, i) => {
    if (i === 0) return 0
    const value = Array.isArray(told) ? told[i]?.[id]?.logprob : echoed![i]
    if (typeof value === "number" && Number.isFinite(value) && value <= 1e-3) return Math.min(0, value)
    throw new ReplyError(`id ${i + 1} of a prompt must have a log-prob, got ${JSON.stringify(value) ?? "none"}`)
  })
}
