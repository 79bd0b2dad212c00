import type { TokenSignals } from "../data/schema"
import { InputError, RefusedError } from "../errors"
import { encodeChats } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { below } from "./address"
import type { ScoreRequest, SignalScorer } from "./engine"
import { type OpenAIOptions, serverCaller } from "./openai"
import { jsonOf } from "./server-problem"
import { ReplyError } from "./server-reply"

/** How servers give the log-probs of a prompt: vLLM's and SGLang's field, or the old `echo`. */
const ways = {
  prompt_logprobs: { max_tokens: 1, prompt_logprobs: 0 },
  echo: { max_tokens: 0, echo: true, logprobs: 1 },
} as const
type Way = keyof typeof ways

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
export function serverScorer({ tokenizer, ...options }: ServerScorerOptions): SignalScorer {
  const caller = serverCaller(options)
  let way: Way = "prompt_logprobs"

  const askBy = (by: Way, ids: readonly number[]) =>
    caller.call(0, async (server, send) => {
      const sent = { model: options.model, prompt: ids, temperature: 0, ...options.fields, ...ways[by] }
      return logProbsIn(jsonOf(await send(below(server, "completions"), JSON.stringify(sent))), ids)
    })

  /** log p of each id given those before it; that of the first is unknown. */
  const logProbs = async (ids: readonly number[]): Promise<number[]> => {
    const by = way
    const values = await askBy(by, ids).catch((error: unknown) => {
      if (by === "prompt_logprobs" && error instanceof RefusedError) return undefined // it does not know the field
      throw error
    })
    if (values) return values
    if (by === "prompt_logprobs") {
      const echoed = await askBy("echo", ids)
      if (echoed) {
        way = "echo"
        return echoed
      }
    }
    throw new InputError(
      `${options.baseURL} must return log-probs of the prompt (prompt_logprobs or echo), got none; serve with vLLM, weigh in this ` +
        "process, or by --torch",
    )
  }

  const score = async (request: ScoreRequest): Promise<TokenSignals[]> => {
    const under = async (prompt: "clean" | "noised" | "empty") => {
      const { promptIds, responses } = encodeChats(tokenizer, request[prompt], request.responses)
      const values = await Promise.all(responses.map((ids) => logProbs([...promptIds, ...ids])))
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
  return { concurrency: caller.concurrency, independent: true, score }
}

/**
 * The log-probs of a prompt's ids in a reply, the first one 0; undefined where it tells none. @throws ReplyError for
 * odd ones
 */
function logProbsIn(reply: unknown, ids: readonly number[]): number[] | undefined {
  const choice = (reply as { choices?: Record<string, unknown>[] } | null)?.choices?.[0]
  const told = choice?.prompt_logprobs as (Record<string, { logprob?: unknown }> | null)[] | null | undefined
  const echoed = (choice?.logprobs as { token_logprobs?: unknown[] } | null | undefined)?.token_logprobs
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
