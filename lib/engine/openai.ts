import { setTimeout as sleep } from "node:timers/promises"
import pLimit from "p-limit"
import { secretVariable, variable } from "../environment"
import { InputError, StoppedError } from "../errors"
import { uniformAt } from "../rng"
import { below, serverAddresses, shownAddress } from "./address"
import type { Completion, GenerateRequest, Generator } from "./engine"
import { type HttpReply, httpClient, ServerError } from "./http"
import { givenUp, HttpError, jsonOf, type OptionalField, optionalFields, Problem } from "./server-problem"
import { readReply } from "./server-reply"
import { Servers } from "./servers"

/** How an OpenAI-compatible server is reached and asked. */
export interface OpenAIOptions {
  /** Model name as the server knows it. */
  model: string
  /**
   * Where the server is, e.g. `http://127.0.0.1:8000/v1`; OPENAI_BASE_URL or the official service if not given.
   * Several, separated by commas, must serve the same model: calls are dealt to them in turn, and one out of reach is
   * passed over.
   */
  baseURL?: string
  /** Environment variable that holds the key. The key is read from there and goes nowhere but to the server. */
  keyVariable?: string
  /** Requests under way at once, 1 to 1024, over all servers. */
  concurrency?: number
  /**
   * Further tries after 408, 409, 424, 425, 429, 5xx, a broken connection or an invalid reply. Pauses grow, or are those
   * that the server asks for (Retry-After).
   */
  maxRetries?: number
  /** Seconds to keep trying while no server can be reached (or says that it is starting), beyond `maxRetries`. */
  wait?: number
  /** Longest wait for one whole answer, and longest pause that a server may ask for, in seconds. */
  timeout?: number
  /**
   * How the server calls the token limit; newer models of the official service want `max_completion_tokens`; null:
   * none.
   */
  limitField?: string | null
  /**
   * Request fields that the server refuses. Without `seed` answers are not repeatable; without `temperature` the
   * server's own counts.
   */
  leaveOut?: readonly OptionalField[]
  /**
   * Further fields of every request, such as `{ top_k: -1 }` or `{ chat_template_kwargs: { enable_thinking: false } }`.
   */
  fields?: Readonly<Record<string, unknown>>
  /** Tokens that a model may think, added to the limit of every request. */
  thinkingTokens?: number
  /** Whether the prompt of the server's chat template opens the thoughts, so that replies begin inside them. */
  thoughtsOpen?: boolean
  /** When aborted, calls under way end with StoppedError. */
  signal?: AbortSignal
  /** Called before each further try with what went wrong and the pause in seconds. */
  onRetry?: (problem: string, pause: number) => void
}

/** Most bytes of a reply that are read, unpacked. No answer is as long; a record of a file holds 16 MiB. */
const MAX_REPLY_BYTES = 8 * 2 ** 20

/** Fields of a request that are not for options to set. */
const ownFields = [
  "model",
  "messages",
  "stream",
  "n",
  "logprobs",
  "top_logprobs",
  "max_tokens",
  "max_completion_tokens",
]

/**
 * A Generator that asks an OpenAI-compatible chat server. It has no distributions, so it cannot weigh tokens. Every
 * reply is checked; one without text has a `problem`. `top_p` is always sent, since some servers take it from the
 * model's files otherwise; `topK` when it is set. Tokens count as 0 where the server reports none.
 * @throws InputError for an address that holds a secret, options out of range, and an empty key variable where no
 * server of one's own is named; from `generate`: InputError for a refused key, model or address (401 to 405), a
 * redirect and a certificate; RefusedError for a refused request (400, 413, 422 and their like), and for one that keeps
 * failing while others are answered; MuscError when the server stays out of reach or keeps failing; StoppedError when
 * aborted.
 */
export function openaiGenerator(options: OpenAIOptions): Generator {
  const { body } = bodyOf(options)
  const ask = (server: URL, send: Connection["send"], wanted: GenerateRequest) =>
    send(below(server, "chat/completions"), JSON.stringify(body(wanted)))
  const { concurrency, call } = serverCaller(options, async (server, send) =>
    readReply(jsonOf(await ask(server, send, simple))),
  )
  const generate = (wanted: GenerateRequest): Promise<Completion> =>
    call(wanted.seed, async (server, send) => {
      const reply = await ask(server, send, wanted)
      const { topLogprobs, maxTokens } = wanted
      const limit = options.limitField === null ? undefined : maxTokens + (options.thinkingTokens ?? 0)
      return readReply(jsonOf(reply), { topLogprobs, thoughtsOpen: options.thoughtsOpen, limit })
    })
  return { name: options.model, concurrency, independent: true, generate }
}

/** A request that any model can answer, sent where another keeps failing. */
const simple: GenerateRequest = {
  messages: [{ role: "user", content: "Say yes." }],
  ...{ temperature: 0, maxTokens: 16, seed: 0 },
}

/** Makes calls to servers: at most so many at once, dealt in turn, repeated where that can help. */
export interface ServerCaller {
  concurrency: number
  /** `work` makes one try at one server; `seed` decides how the pauses differ. @throws as `openaiGenerator` */
  call<Result>(seed: number, work: (server: URL, send: Connection["send"]) => Promise<Result>): Promise<Result>
}

/**
 * `probe` makes a simple call, which tells whether a server that keeps failing at one request answers others.
 * @throws InputError for options out of range
 */
export function serverCaller(
  options: OpenAIOptions,
  probe?: (server: URL, send: Connection["send"]) => Promise<unknown>,
): ServerCaller {
  const { model, concurrency = 8, maxRetries = 5, wait = 0, timeout = 300, signal, onRetry } = options
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1024) {
    throw new InputError(`must be a whole number from 1 to 1024, got ${concurrency}; correct it`, {
      field: "concurrency",
    })
  }
  const connection = openConnection(options)
  const servers = new Servers(connection.urls)
  const limit = pLimit(concurrency)

  const answers = async (url: URL) => {
    if (!probe) return false
    const done = probe(url, connection.send)
    return done.then(
      () => true,
      () => false,
    )
  }

  const repeat = async <Result>(
    seed: number,
    work: (server: URL, send: Connection["send"]) => Promise<Result>,
  ): Promise<Result> => {
    const began = Date.now()
    let firstFailure = Number.POSITIVE_INFINITY
    for (let tries = 1; ; ) {
      if (signal?.aborted) throw new StoppedError()
      const server = servers.take()
      try {
        const result = await work(server.url, connection.send)
        servers.answered(server)
        return result
      } catch (error) {
        if (signal?.aborted) throw new StoppedError()
        const problem = new Problem(error, connection.redact)
        const where = shownAddress(server.url)
        const fatal = problem.fatal(where, model, connection.keyVariable, connection.keyed)
        if (fatal) throw fatal
        if (problem.outOfReach) servers.unreachable(server)
        if (problem.outOfReach && servers.anyReady) {
          onRetry?.(problem.text, 0)
          continue
        }
        const growing = Math.min(8, 0.5 * 2 ** Math.min(9, tries - 1)) * (1 - uniformAt(seed, tries) / 4)
        const pause = problem.askedPause ?? growing
        firstFailure = Math.min(firstFailure, Date.now())
        const waiting = problem.outOfReach && (Date.now() - began) / 1000 + pause <= wait
        if (pause > timeout || (tries > maxRetries && !waiting)) {
          const alone = problem.ofRequest && (servers.lastAnswer > firstFailure || (await answers(server.url)))
          throw givenUp(where, problem, { tries, pause, timeout, alone })
        }
        onRetry?.(problem.text, pause)
        tries++
        await sleep(pause * 1000, undefined, { signal }).catch(() => {})
      } finally {
        server.busy--
      }
    }
  }
  return { concurrency, call: (seed, work) => limit(() => repeat(seed, work)) }
}

/** How requests are written. @throws InputError for options out of range */
function bodyOf(options: OpenAIOptions) {
  const { model, limitField = "max_tokens", leaveOut = [], fields = {}, thinkingTokens = 0 } = options
  const unknown = leaveOut.find((name) => !optionalFields.includes(name))
  if (unknown !== undefined) {
    const rule = `must name ${optionalFields.join(", ")}, got ${unknown}`
    throw new InputError(`${rule}; the token limit is renamed or left out by limitField`, { field: "leaveOut" })
  }
  // Some servers stream unless they are told not to.
  const own = ownFields.find((name) => Object.hasOwn(fields, name) && !(name === "stream" && fields.stream === false))
  if (own) throw new InputError(`must be fields beside our own, got ${own}; leave it out`, { field: "fields" })
  const left = new Set<string>(leaveOut)
  const body = ({ messages, temperature, topP = 1, topK, maxTokens, stop, seed, topLogprobs }: GenerateRequest) => {
    const whole: Record<string, unknown> = {
      model,
      messages,
      temperature,
      top_p: topP,
      ...fields,
      ...(topK ? { top_k: topK } : {}),
      ...(limitField && { [limitField]: maxTokens + thinkingTokens }),
      ...(stop?.length && { stop }),
      seed,
      ...(topLogprobs && { logprobs: true, top_logprobs: topLogprobs }),
    }
    for (const name of left) delete whole[name]
    return whole
  }
  return { body }
}

/** The way to the servers: addresses, key, time-out. */
export interface Connection {
  urls: URL[]
  keyVariable: string
  /** Whether that variable holds a key. */
  keyed: boolean
  /** Sends a body by POST, or asks by GET. @throws HttpError for a status other than 200, ServerError */
  send(url: URL, body?: string): Promise<HttpReply>
  /** A text without the key. */
  redact(text: string): string
}

/** @throws InputError for an address that holds a secret, or no key for the official service */
export function openConnection(options: Omit<OpenAIOptions, "model">): Connection {
  const { baseURL = variable("OPENAI_BASE_URL"), keyVariable = "OPENAI_API_KEY", concurrency = 8 } = options
  const { timeout = 300, signal } = options
  const key = secretVariable(keyVariable)
  if (!key && !baseURL) {
    const rule = "must hold the key of the service, got nothing; set it, or name a server by baseURL (--endpoint)"
    throw new InputError(rule, { field: keyVariable })
  }
  if (!/^[\x20-\x7e]*$/.test(key)) {
    throw new InputError("must hold a key of plain letters, got others; copy the key again", { field: keyVariable })
  }
  const urls = serverAddresses(baseURL || "https://api.openai.com/v1", baseURL ? "server" : undefined)
  const client = httpClient({ connections: concurrency, maxBytes: MAX_REPLY_BYTES })
  const authorization = /^(Basic|Bearer) /.test(key) ? key : `Bearer ${key || "none"}`
  const secrets = secretForms(key)
  const redact = (text: string) => secrets.reduce((rest, secret) => rest.replaceAll(secret, "[key]"), text)
  const active = new Set<AbortController>()
  signal?.addEventListener("abort", () => {
    for (const controller of active) controller.abort(new StoppedError())
  })
  const send = async (url: URL, body?: string): Promise<HttpReply> => {
    const controller = new AbortController()
    const late = () => controller.abort(new ServerError(`no whole reply in ${timeout} s`, "reply"))
    const timer = setTimeout(late, timeout * 1000)
    active.add(controller)
    try {
      const headers = {
        authorization,
        accept: "application/json",
        "user-agent": "musc",
        ...(url.searchParams.has("api-version") && key && { "api-key": key }),
        ...(body !== undefined && { "content-type": "application/json" }),
      }
      const method = body === undefined ? "GET" : "POST"
      const reply = await client.send({ url, method, headers, body, signal: controller.signal })
      if (reply.status !== 200) throw new HttpError(reply)
      return reply
    } finally {
      clearTimeout(timer)
      active.delete(controller)
    }
  }
  return { urls, keyVariable, keyed: !!key, send, redact }
}

/** The key, and how it looks in base64 with and without its scheme, as servers may echo it. */
function secretForms(key: string): string[] {
  if (key.length < 4) return []
  const encoded = [key, `Bearer ${key}`].flatMap((text) => {
    const base64 = Buffer.from(text).toString("base64")
    return [base64, base64.replace(/=+$/, "")]
  })
  return [key.replace(/^(Basic|Bearer) /, ""), encodeURIComponent(key), ...encoded]
}
