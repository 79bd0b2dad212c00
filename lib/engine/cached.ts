import { createHash } from "node:crypto"
import pLimit from "p-limit"
import { RefusedError, StoppedError } from "../errors"
import { type BrokenLines, CallFile } from "./call-file"
import type { Completion, GenerateRequest, Generator } from "./engine"

/** Where finished calls are kept, and what answers them. */
export interface CacheOptions {
  /** JSONL file of finished calls; made if absent. One process at a time may have it open. */
  file: string
  /** What answers: a server's model, or the fingerprint of a checkpoint. Part of every key. */
  id: string
  /** When aborted, `close` does not wait for calls under way. */
  signal?: AbortSignal
}

/** Calls and tokens so far. */
export interface CallTotals {
  /** Calls that the engine answered. */
  calls: number
  /** Answers that were there already. */
  cached: number
  /** Tokens of the engine's answers and of their prompts, as far as it says so. */
  tokens: number
  promptTokens: number
}

/** A generator that keeps its finished calls in a file and does not repeat them. */
export interface CachedGenerator extends Generator {
  readonly totals: Readonly<CallTotals>
  /** Lines of the file that hold no call and were passed over when it was opened, and the first of them (from 1). */
  readonly broken: BrokenLines
  /** Waits for the calls under way, so that none is lost, and closes the file. */
  close(): Promise<void>
}

/**
 * A Generator that keeps each answer on disk before it hands it on, and never asks for it again: the key is a hash of
 * the engine's `id` and everything in the request, the seed included, which tells attempts apart. Equal requests under
 * way share one call. After a failed call no new one is begun, unless the engine refused that one request alone
 * (RefusedError). An answer that could not be read again is handed on but not kept; lines of the file that hold no
 * call, or one that was changed, are passed over and counted (a torn last one is cut off).
 * @throws InputError for a file that cannot be read or written
 */
export async function cachedGenerator(engine: Generator, { file, id, signal }: CacheOptions): Promise<CachedGenerator> {
  const kept = await CallFile.open(file)
  const calls = new Calls(engine, kept, signal)
  let closing: Promise<void> | undefined
  return {
    name: engine.name,
    concurrency: engine.concurrency,
    maxShots: engine.maxShots,
    independent: engine.independent,
    totals: calls.totals,
    broken: kept.broken,
    generate: (request) => calls.answer(requestKey(id, request), request),
    close() {
      closing ??= calls.ended().then(() => kept.close())
      return closing
    },
  }
}

/** The calls of one generator: those that are kept, and those that it is asked for. */
class Calls {
  readonly totals: CallTotals = { calls: 0, cached: 0, tokens: 0, promptTokens: 0 }
  private readonly underWay = new Map<string, Promise<Completion>>()
  private readonly limit: ReturnType<typeof pLimit>
  private failure: unknown

  constructor(
    private readonly engine: Generator,
    private readonly kept: CallFile,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.limit = pLimit(engine.concurrency)
  }

  answer(key: string, request: GenerateRequest): Promise<Completion> {
    const underWay = this.underWay.get(key)
    if (underWay) {
      this.totals.cached++
      return underWay
    }
    const answer = this.keptOrAsked(key, request).finally(() => this.underWay.delete(key))
    this.underWay.set(key, answer)
    return answer
  }

  private async keptOrAsked(key: string, request: GenerateRequest): Promise<Completion> {
    const kept = await this.kept.get(key)
    if (!kept) return this.ask(key, request)
    this.totals.cached++
    return kept
  }

  /** A call that is being written down holds no place of those that the engine takes at once. */
  private async ask(key: string, request: GenerateRequest): Promise<Completion> {
    const answer = await this.limit(() => this.begin(request))
    this.totals.calls++
    this.totals.tokens += answer.tokens
    this.totals.promptTokens += answer.promptTokens ?? 0
    await this.kept.keep(key, answer).catch((error) => this.fail(error))
    return answer
  }

  private async begin(request: GenerateRequest): Promise<Completion> {
    if (this.failure) throw this.failure
    if (this.signal?.aborted) throw new StoppedError()
    return this.engine.generate(request).catch((error) => this.fail(error))
  }

  private fail(error: unknown): never {
    if (!(error instanceof RefusedError)) this.failure ??= error
    throw error
  }

  /** When no call is under way any more, or at once when aborted. */
  async ended(): Promise<void> {
    const aborted = new Promise<void>((resolve) => {
      if (this.signal?.aborted) resolve()
      this.signal?.addEventListener("abort", () => resolve(), { once: true })
    })
    await Promise.race([Promise.allSettled(this.underWay.values()), aborted])
  }
}

function requestKey(id: string, request: GenerateRequest): string {
  const { messages, temperature, topP, topK, maxTokens, stop, seed, topLogprobs } = request
  const chat = messages.map(({ role, content }) => [role, content])
  const parts = [id, chat, temperature, topP ?? 1, topK ?? 0, maxTokens, stop ?? [], seed, topLogprobs ?? 0]
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex")
}
