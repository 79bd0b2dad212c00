import { createHash } from "node:crypto"
import { basename } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { z } from "zod"
import { InputError, MuscError, StoppedError } from "../errors"
import { below, shownAddress } from "./address"
import type { Generator } from "./engine"
import { type OpenAIOptions, openaiGenerator, openConnection } from "./openai"
import { HttpError, jsonOf, Problem } from "./server-problem"
import { ReplyError } from "./server-reply"

/** What `/v1/models` says of a model; each server says some of it. */
export const listedModel = z.object({
  id: z.string(),
  root: z.string().nullish(),
  revision: z.string().nullish(),
  owned_by: z.string().nullish(),
  max_model_len: z.number().nullish(),
})
/** A model as the server lists it under `/models`. @interface */
export type ListedModel = z.infer<typeof listedModel>
const modelList = z.object({ data: z.array(z.unknown()) })

/**
 * Sampling fields that make the engines which know them draw from the model's own distribution. Otherwise they take
 * top_k, repetition_penalty and the like from the model's files.
 */
const neutral: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  vllm: { top_k: -1, min_p: 0, repetition_penalty: 1 },
  sglang: { top_k: -1, min_p: 0, repetition_penalty: 1 },
  llamacpp: { top_k: 0, min_p: 0, repeat_penalty: 1 },
}

/** A server that has been asked what it serves. */
export interface OpenServer {
  engine: Generator
  /**
   * All that decides what it answers: the model, its revision, how it is sampled. Not its address, so that a server
   * which comes back elsewhere continues with the same work.
   */
  id: string
  /** What the server says of the model; undefined where it lists none. */
  listed?: ListedModel
}

/**
 * Asks the servers for their models, and opens a Generator that sends every sampling field which they know.
 * @throws as `openaiGenerator`; InputError where one wants another key; MuscError when no server answers, or two of
 * several serve different models
 */
export async function openServer(options: OpenAIOptions): Promise<OpenServer> {
  return serverAs(options, await listedModels(options))
}

/** The same for servers whose listing is known already, so that they need not be there yet. */
export function serverAs(options: OpenAIOptions, listed: ListedModel | undefined): OpenServer {
  const { model, fields = {}, leaveOut = [], limitField = "max_tokens", thinkingTokens = 0, thoughtsOpen } = options
  const kind = (listed?.owned_by ?? "").toLowerCase()
  const known = Object.hasOwn(neutral, kind) ? neutral[kind]! : {}
  const sent = { ...known, ...fields }
  const parts = [
    model,
    sourceOf(listed),
    Object.entries({ top_p: 1, ...sent }).sort(([a], [b]) => (a < b ? -1 : 1)),
    [...leaveOut].sort(),
    limitField === null,
    thinkingTokens,
    !!thoughtsOpen,
  ]
  const hash = createHash("sha256").update(JSON.stringify(parts)).digest("hex")
  return { engine: openaiGenerator({ ...options, fields: sent }), id: `${model} ${hash.slice(0, 16)}`, listed }
}

/** Which weights stand behind a name: their source and revision, without the folders of one machine. */
function sourceOf(listed: ListedModel | undefined): string[] {
  const root = listed?.root ?? ""
  return [/^([/~]|[a-z]:)/i.test(root) ? basename(root) : root, listed?.revision ?? ""]
}

/** Longest wait for the list of models, in seconds. */
const LISTING = 60

/** What all servers say of the model; undefined where they list no models. */
async function listedModels(options: OpenAIOptions): Promise<ListedModel | undefined> {
  const { model } = options
  const connection = openConnection({ ...options, timeout: Math.min(LISTING, options.timeout ?? LISTING) })
  const models: (ListedModel | undefined)[] = []
  const errors: unknown[] = []
  for (const url of connection.urls) {
    try {
      models.push(await listedAt(url, connection, options))
    } catch (error) {
      if (error instanceof StoppedError || error instanceof InputError || connection.urls.length === 1) throw error
      errors.push(error) // the others can answer in its place
    }
  }
  if (!models.length) throw errors[0]
  const different = models.find((one) => `${sourceOf(one)}` !== `${sourceOf(models[0])}`)
  if (different) {
    const both = [models[0], different].map((one) => sourceOf(one).filter(Boolean).join(" at revision ") || "nothing")
    throw new MuscError(
      `servers must serve the same model as ${model}, got ${both.join(" and ")}; give those alone that do`,
    )
  }
  return models[0]
}

async function listedAt(
  url: URL,
  { send, redact, keyVariable, keyed }: ReturnType<typeof openConnection>,
  { model, maxRetries = 5, wait = 0, signal, onRetry }: OpenAIOptions,
): Promise<ListedModel | undefined> {
  const began = Date.now()
  for (let tries = 1; ; tries++) {
    try {
      const list = modelList.safeParse(jsonOf(await send(below(url, "models")))).data
      const models = (list?.data ?? []).flatMap((entry) => listedModel.safeParse(entry).data ?? [])
      const only = models.length === 1 && models[0]!.owned_by === "llamacpp" ? models[0] : undefined // takes any name
      return models.find(({ id }) => id === model) ?? only
    } catch (error) {
      if (signal?.aborted) throw new StoppedError()
      const status = error instanceof HttpError ? error.reply.status : 0
      // The first answer is hours away where a server only judges; a key may be barred from the list alone (403).
      if (status === 401) throw new Problem(error, redact).fatal(shownAddress(url), model, keyVariable, keyed)
      const noList = status >= 300 && ![408, 425, 429, 502, 503, 504].includes(status)
      if (noList || error instanceof ReplyError) return undefined
      const problem = redact(error instanceof Error ? error.message : `${error}`)
      const pause = Math.min(8, 0.5 * 2 ** Math.min(9, tries - 1))
      const setup = (error as { kind?: string }).kind === "setup"
      if (setup || (tries > maxRetries && (Date.now() - began) / 1000 + pause > wait)) {
        const remedy = `check address and server${setup ? "" : ", or give it time with --wait (wait)"}`
        throw new MuscError(`${shownAddress(url)}: could not list its models: ${problem}; ${remedy}`)
      }
      onRetry?.(problem, pause)
      await sleep(pause * 1000, undefined, { signal }).catch(() => {})
    }
  }
}
