import { setTimeout } from "node:timers/promises"
import OpenAI, { APIConnectionError, APIError } from "openai"
import pLimit from "p-limit"
import { InputError, MuscError } from "../errors"
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
  /** Further tries after 408, 409, 429, 5xx or a broken connection, with growing pauses or those that the server asks for. */
  maxRetries?: number
  /** Longest wait for one answer, in seconds. */
  timeout?: number
  /** How the server calls the token limit; newer models of the official service want `max_completion_tokens`. */
  limitField?: "max_tokens" | "max_completion_tokens"
  /** Whether the seed is sent. Servers that honour it give the same answers again. */
  sendSeed?: boolean
}

/**
 * A Generator that asks an OpenAI-compatible chat server. It has no distributions, so it cannot weigh tokens. `topK` is
 * sent when set, which only some servers know. Tokens count as 0 where the server reports none.
 * @throws InputError when the key variable is empty and no server of one's own is named; from `generate`: InputError for a
 * refused key, model or request (400 to 404, 422), MuscError when the server stays out of reach or keeps failing.
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
}: OpenAIOptions): Generator {
  const key = process.env[keyVariable]
  if (!key && !baseURL) {
    throw new InputError("must hold the key of the service, got nothing; set it, or name a server by baseURL", {
      field: keyVariable,
    })
  }
  const client = new OpenAI({
    apiKey: key || "none",
    baseURL,
    maxRetries,
    timeout: timeout * 1000,
    logLevel: "off",
  })
  const limit = pLimit(concurrency)
  const { origin, pathname } = new URL(client.baseURL)
  const where = origin + pathname

  const request = async ({
    messages,
    temperature,
    topP,
    topK,
    maxTokens,
    stop,
    seed,
  }: GenerateRequest): Promise<Completion> => {
    const body = {
      model,
      messages: [...messages],
      temperature,
      [limitField]: maxTokens,
      ...(topP !== undefined && { top_p: topP }),
      ...(topK ? { top_k: topK } : {}),
      ...(stop?.length && { stop: [...stop] }),
      ...(sendSeed && { seed }),
    }
    const reply = await client.chat.completions.create(body)
    const choice = reply.choices?.[0]
    if (!choice) throw new MuscError(`${where}: a reply must hold one choice, got none; check the server`)
    const finish = choice.finish_reason === "length" ? "length" : "stop"
    return { text: choice.message?.content ?? "", tokens: reply.usage?.completion_tokens ?? 0, finish }
  }

  // The client tries again as long as no reply has begun; a connection cut within a reply is tried again here.
  const generate = async (wanted: GenerateRequest): Promise<Completion> => {
    for (let cut = 0; ; cut++) {
      try {
        return await request(wanted)
      } catch (error) {
        if (error instanceof APIError || error instanceof MuscError || cut >= maxRetries) throw explain(error)
        await setTimeout(Math.min(8000, 250 * 2 ** cut))
      }
    }
  }

  const explain = (error: unknown): Error => {
    if (error instanceof MuscError) return error
    const said = `${error instanceof Error ? error.message : error}`.replaceAll(key || "\0", "[key]").slice(0, 300)
    const status = error instanceof APIError ? error.status : undefined
    if (status === 401 || status === 403) {
      return new InputError(`${where} must accept the key, got: ${said}; set the right key`, { field: keyVariable })
    }
    if (status && status < 500 && ![408, 409, 429].includes(status)) {
      return new InputError(`${where} must accept a request for model ${model}, got: ${said}; check model and options`)
    }
    const tries = `${maxRetries + 1} ${maxRetries ? "tries" : "try"}`
    if (error instanceof APIConnectionError || status === undefined) {
      return new MuscError(
        `${where}: must answer, got no whole reply in ${tries} (${said}); check that the server runs`,
      )
    }
    return new MuscError(`${where}: must answer, got after ${tries}: ${said}; wait, or lower the concurrency`)
  }

  return { name: model, concurrency, generate: (wanted) => limit(() => generate(wanted)) }
}
