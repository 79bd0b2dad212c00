import { setTimeout } from "node:timers/promises"
import OpenAI, { APIError } from "openai/index"
import pLimit from "p-limit"
import { InputError, MuscError, RefusedError } from "../errors"
import { uniformAt } from "../rng"
import type { Completion, GenerateRequest, Generator } from "./engine"

export interface OpenAIOptions {
  /** Model name as the server knows it. */
  model: string
  /** Where the server is, e.g. `http://127.0.0.1:8000/v1`; OPENAI_BASE_URL or the official service if not given. */
  baseURL?: string
  /** Environment variable that holds the key. The key is read from there and goes nowhere but to the server. */
  keyVariable?: string
  /** Requests under way at once, 1 to 256. */
  concurrency?: number
  /**
   * Further tries after 408, 409, 429, 5xx, a broken connection or a reply that is none, with growing pauses or those that
   * the server asks for (Retry-After).
   */
  maxRetries?: number
  /** Longest wait for one whole answer, and longest pause that a server may ask for, in seconds. */
  timeout?: number
  /** How the server calls the token limit; newer models of the official service want `max_completion_tokens`. */
  limitField?: "max_tokens" | "max_completion_tokens"
  /** Whether the seed is sent. Servers that honour it give the same answers again. */
  sendSeed?: boolean
  /** Called before each further try with what went wrong and the pause in seconds. */
  onRetry?: (problem: string, pause: number) => void
}

/**
 * A Generator that asks an OpenAI-compatible chat server. It has no distributions, so it cannot weigh tokens. `topK` is
 * sent when set, which only some servers know. Tokens count as 0 where the server reports none.
 * @throws InputError when the key variable is empty and no server of one's own is named; from `generate`: InputError for a
 * refused key, model or address (401 to 405), RefusedError for a refused request (400, 413, 422 and their like), MuscError
 * when the server stays out of reach or keeps failing.
 */
export function openaiGenerator({
  model,
  baseURL = process.env.OPENAI_BASE_URL,
  keyVariable = "OPENAI_API_KEY",
  concurrency = 8,
  maxRetries = 5,
  timeout = 300,
  limitField = "max_tokens",
  sendSeed = true,
  onRetry,
}: OpenAIOptions): Generator {
  const key = process.env[keyVariable]
  if (!key && !baseURL) {
    throw new InputError("must hold the key of the service, got nothing; set it, or name a server by baseURL", {
      field: keyVariable,
    })
  }
  const client = new OpenAI({ apiKey: key || "none", baseURL, maxRetries: 0, logLevel: "off" })
  const limit = pLimit(concurrency)
  const { origin, pathname } = new URL(client.baseURL)
  const where = origin + pathname

  const request = async (wanted: GenerateRequest, signal: AbortSignal): Promise<Completion> => {
    const { messages, temperature, topP, topK, maxTokens, stop, seed, topLogprobs } = wanted
    const body = {
      model,
      messages: [...messages],
      temperature,
      [limitField]: maxTokens,
      ...(topP !== undefined && { top_p: topP }),
      ...(topK ? { top_k: topK } : {}),
      ...(stop?.length && { stop: [...stop] }),
      ...(sendSeed && { seed }),
      ...(topLogprobs && { logprobs: true, top_logprobs: topLogprobs }),
    }
    const reply = await client.chat.completions.create(body, { signal })
    const choice = reply?.choices?.[0]
    const text = choice?.message?.content ?? ""
    if (!choice?.message || typeof text !== "string") {
      throw new Error("a reply must hold one choice with a message, got none")
    }
    const top = topLogprobs && choice.logprobs?.content?.[0]?.top_logprobs
    return {
      text,
      tokens: reply.usage?.completion_tokens ?? 0,
      finish: choice.finish_reason === "length" ? "length" : "stop",
      ...(reply.usage && { promptTokens: reply.usage.prompt_tokens }),
      ...(top && { first: top.map(({ token, logprob }) => ({ token, logprob })) }),
    }
  }

  // The client's own timer ends when a reply begins, and it takes any pause: so both are watched here.
  const generate = async (wanted: GenerateRequest): Promise<Completion> => {
    for (let tries = 1; ; tries++) {
      const signal = AbortSignal.timeout(timeout * 1000)
      try {
        return await request(wanted, signal)
      } catch (error) {
        const problem = signal.aborted ? `no whole reply in ${timeout} s` : messageOf(error)
        const status = error instanceof APIError ? error.status : undefined
        const pause = askedPause(error) ?? Math.min(8, 0.5 * 2 ** (tries - 1)) * (1 - uniformAt(wanted.seed, tries) / 4)
        if (isRefusal(status)) throw refused(problem, status!)
        if (tries > maxRetries || pause > timeout) throw givenUp(problem, tries, status, pause)
        onRetry?.(problem, pause)
        await setTimeout(pause * 1000)
      }
    }
  }

  const messageOf = (error: unknown) =>
    `${error instanceof Error ? error.message : error}`.replaceAll(key || "\0", "[key]").slice(0, 300)

  const refused = (problem: string, status: number): Error => {
    if (status === 401 || status === 403)
      return new InputError(`${where} must accept the key, got: ${problem}; set the right key`, { field: keyVariable })
    if (status > 401 && status < 406)
      return new InputError(`${where} must have model ${model}, got: ${problem}; check address and model`)
    return new RefusedError(
      `${where} must accept a request for model ${model}, got: ${problem}; check model and options`,
    )
  }

  const givenUp = (problem: string, tries: number, status: number | undefined, pause: number): Error => {
    const number = `${tries} ${tries === 1 ? "try" : "tries"}`
    if (pause > timeout) {
      const asked = `asked to wait ${Math.ceil(pause)} s`
      return new MuscError(`${where}: must answer, got ${asked} (${problem}); run again then, or raise the time-out`)
    }
    if (status) {
      return new MuscError(`${where}: must answer, got after ${number}: ${problem}; wait, or lower the concurrency`)
    }
    const rule = `must answer, got no whole reply in ${number} (${problem})`
    return new MuscError(`${where}: ${rule}; check that the server runs`)
  }

  return { name: model, concurrency, generate: (wanted) => limit(() => generate(wanted)) }
}

/** Whether a server will not take this request however often it is asked. */
const isRefusal = (status: number | undefined) =>
  status !== undefined && status >= 400 && status < 500 && ![408, 409, 429].includes(status)

/** The pause in seconds that a server asks for by `retry-after-ms` or `Retry-After` (seconds, or a date). */
function askedPause(error: unknown): number | undefined {
  const headers = error instanceof APIError ? error.headers : undefined
  const milliseconds = Number.parseFloat(headers?.get("retry-after-ms") ?? "")
  const after = headers?.get("retry-after") ?? ""
  const seconds = /^\s*[\d.]+\s*$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000
  const pause = Number.isNaN(milliseconds) ? seconds : milliseconds / 1000
  return Number.isNaN(pause) ? undefined : Math.max(0, pause)
}
