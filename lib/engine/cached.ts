import { createHash } from "node:crypto"
import pLimit from "p-limit"
import { z } from "zod"
import { appendJsonl, readJsonl } from "../data/jsonl"
import { RefusedError, StoppedError } from "../errors"
import type { Completion, GenerateRequest, Generator } from "./engine"

export interface CacheOptions {
  /** JSONL file of finished calls; made if absent. One process at a time may have it open. */
  file: string
  /** What answers: a server's model, or the fingerprint of a checkpoint. Part of every key. */
  id: string
  /** When aborted, `close` does not wait for calls under way. */
  signal?: AbortSignal
}

export interface CallTotals {
  /** Calls that the engine answered. */
  calls: number
  /** Answers that were there already. */
  cached: number
  /** Tokens of the engine's answers and of their prompts, as far as it says so. */
  tokens: number
  promptTokens: number
}

export interface CachedGenerator extends Generator {
  readonly totals: Readonly<CallTotals>
  /** Waits for the calls under way, so that none is lost, and closes the file. */
  close(): Promise<void>
}

const cachedCall = z.object({
  key: z.string(),
  text: z.string(),
  tokens: z.number(),
  finish: z.enum(["stop", "length"]),
  promptTokens: z.number().optional(),
  first: z.array(z.object({ token: z.string(), logprob: z.number() })).optional(),
})

/**
 * A Generator that keeps each answer on disk before it hands it on, and never asks for it again: the key is a hash of the
 * engine's `id` and everything in the request, the seed included, which tells attempts apart. Equal requests under way
 * share one call. After a failed call no new one is begun, unless the engine refused that one request alone (RefusedError).
 * @throws InputError naming file and line for a line that is none of a cache (a torn last one is dropped), or a file that
 * cannot be written.
 */
export async function cachedGenerator(engine: Generator, { file, id, signal }: CacheOptions): Promise<CachedGenerator> {
  const writer = await appendJsonl(file, { resume: true })
  const known = new Map<string, Completion>()
  try {
    for await (const { key, ...answer } of readJsonl(file, cachedCall, { allowEmpty: true })) known.set(key, answer)
  } catch (error) {
    await writer.close()
    throw error
  }
  const totals: CallTotals = { calls: 0, cached: 0, tokens: 0, promptTokens: 0 }
  const pending = new Map<string, Promise<Completion>>()
  const limit = pLimit(engine.concurrency)
  let failure: unknown

  const call = async (key: string, request: GenerateRequest): Promise<Completion> => {
    if (failure) throw failure
    if (signal?.aborted) throw new StoppedError("stopped on request; run the same command again to go on from here")
    try {
      const answer = await engine.generate(request)
      totals.calls++
      totals.tokens += answer.tokens
      totals.promptTokens += answer.promptTokens ?? 0
      await writer.write({ key, ...answer })
      known.set(key, answer)
      return answer
    } catch (error) {
      if (!(error instanceof RefusedError)) failure ??= error
      throw error
    } finally {
      pending.delete(key)
    }
  }

  return {
    name: engine.name,
    concurrency: engine.concurrency,
    maxShots: engine.maxShots,
    totals,
    async generate(request) {
      const key = requestKey(id, request)
      const found = known.get(key) ?? pending.get(key)
      if (found) {
        totals.cached++
        return found
      }
      const answer = limit(() => call(key, request))
      pending.set(key, answer)
      return answer
    },
    async close() {
      const aborted = new Promise<void>((resolve) => {
        if (signal?.aborted) resolve()
        signal?.addEventListener("abort", () => resolve(), { once: true })
      })
      await Promise.race([Promise.allSettled(pending.values()), aborted])
      await writer.close()
    },
  }
}

function requestKey(id: string, request: GenerateRequest): string {
  const { messages, temperature, topP, topK, maxTokens, stop, seed, topLogprobs } = request
  const chat = messages.map(({ role, content }) => [role, content])
  const parts = [id, chat, temperature, topP ?? 1, topK ?? 0, maxTokens, stop ?? [], seed, topLogprobs ?? 0]
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex")
}
