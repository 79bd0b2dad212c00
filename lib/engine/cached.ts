import { createHash } from "node:crypto"
import { type FileHandle, open } from "node:fs/promises"
import pLimit from "p-limit"
import { z } from "zod"
import { fileError } from "../data/files"
import { appendJsonl, MAX_RECORD_BYTES } from "../data/jsonl"
import { RefusedError, StoppedError } from "../errors"
import type { Completion, GenerateRequest, Generator } from "./engine"
import { type Place, Places } from "./places"

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

/** A generator that keeps its finished calls in a file and does not repeat them. */
export interface CachedGenerator extends Generator {
  readonly totals: Readonly<CallTotals>
  /** Lines of the file that hold no call and were passed over when it was opened, and the first of them (from 1). */
  readonly broken: { readonly lines: number; readonly first: number }
  /** Waits for the calls under way, so that none is lost, and closes the file. */
  close(): Promise<void>
}

const tokens = z.int().min(0)
const cachedCall = z.object({
  key: z.string().min(32),
  text: z.string(),
  thoughts: z.string().optional(),
  tokens,
  finish: z.enum(["stop", "length"]),
  problem: z.string().optional(),
  promptTokens: tokens.optional(),
  first: z.array(z.object({ token: z.string(), logprob: z.number().max(1e-3) })).optional(),
  sum: z.string().optional(),
})
type CachedCall = z.infer<typeof cachedCall>

/** A checksum of the call, so that a changed line is not believed. Older caches have none. */
function sumOf({ key, text, thoughts, tokens, finish, problem, promptTokens, first }: CachedCall): string {
  const parts = [key, text, thoughts, tokens, finish, problem, promptTokens, first?.map(Object.values)]
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16)
}

/**
 * A Generator that keeps each answer on disk before it hands it on, and never asks for it again: the key is a hash of
 * the engine's `id` and everything in the request, the seed included, which tells attempts apart. Memory holds places,
 * not texts. Equal requests under way share one call. After a failed call no new one is begun, unless the engine
 * refused that one request alone (RefusedError). An answer that could not be read again is handed on but not kept;
 * lines of the file that hold no call, or one that was changed, are passed over and counted (a torn last one is cut
 * off).
 * @throws InputError for a file that cannot be read or written
 */
export async function cachedGenerator(engine: Generator, { file, id, signal }: CacheOptions): Promise<CachedGenerator> {
  const writer = await appendJsonl(file, { resume: true })
  const reader = await open(file).catch(async (error) => {
    await writer.close()
    throw fileError(error, file, "read")
  })
  const { places, broken } = await callsIn(reader).catch(async (error) => {
    await Promise.all([writer.close(), reader.close()])
    throw fileError(error, file, "read")
  })
  const totals: CallTotals = { calls: 0, cached: 0, tokens: 0, promptTokens: 0 }
  const pending = new Map<string, Promise<Completion>>()
  const limit = pLimit(engine.concurrency)
  let failure: unknown
  let closing: Promise<void> | undefined

  const keep = async (key: string, answer: Completion) => {
    const row = cachedCall.safeParse({ key, ...answer }).data
    if (!row || row.text.length + (row.thoughts?.length ?? 0) > MAX_RECORD_BYTES / 6) return
    places.set(key, await writer.write({ ...row, sum: sumOf(row) }))
  }

  const fail = (error: unknown) => {
    if (!(error instanceof RefusedError)) failure ??= error
    throw error
  }

  const begin = async (request: GenerateRequest): Promise<Completion> => {
    if (failure) throw failure
    if (signal?.aborted) throw new StoppedError()
    return engine.generate(request).catch(fail)
  }

  // A call that is being written down holds no place of those under way.
  const call = async (key: string, request: GenerateRequest): Promise<Completion> => {
    const answer = await limit(() => begin(request))
    totals.calls++
    totals.tokens += answer.tokens
    totals.promptTokens += answer.promptTokens ?? 0
    await keep(key, answer).catch(fail)
    return answer
  }

  const answerTo = async (key: string, request: GenerateRequest): Promise<Completion> => {
    const place = places.get(key)
    const kept = place && (await callAt(reader, place))
    if (kept?.key !== key) return call(key, request)
    totals.cached++
    const { key: _, sum: __, ...answer } = kept
    return answer
  }

  return {
    name: engine.name,
    concurrency: engine.concurrency,
    maxShots: engine.maxShots,
    independent: engine.independent,
    totals,
    broken,
    generate(request) {
      const key = requestKey(id, request)
      const underWay = pending.get(key)
      if (underWay) {
        totals.cached++
        return underWay
      }
      const answer = answerTo(key, request).finally(() => pending.delete(key))
      pending.set(key, answer)
      return answer
    },
    close() {
      closing ??= close()
      return closing
    },
  }

  async function close() {
    const aborted = new Promise<void>((resolve) => {
      if (signal?.aborted) resolve()
      signal?.addEventListener("abort", () => resolve(), { once: true })
    })
    await Promise.race([Promise.allSettled(pending.values()), aborted])
    await Promise.all([writer.close(), reader.close()])
  }
}

function requestKey(id: string, request: GenerateRequest): string {
  const { messages, temperature, topP, topK, maxTokens, stop, seed, topLogprobs } = request
  const chat = messages.map(({ role, content }) => [role, content])
  const parts = [id, chat, temperature, topP ?? 1, topK ?? 0, maxTokens, stop ?? [], seed, topLogprobs ?? 0]
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex")
}

function parsed(line: Buffer): CachedCall | undefined {
  try {
    const call = cachedCall.safeParse(JSON.parse(line.toString("utf8"))).data
    return call && (call.sum === undefined || call.sum === sumOf(call)) ? call : undefined
  } catch {
    return undefined
  }
}

async function callAt(reader: FileHandle, { start, bytes }: Place) {
  const { buffer, bytesRead } = await reader.read(Buffer.alloc(bytes), 0, bytes, start)
  return bytesRead === bytes ? parsed(buffer) : undefined
}

/** The calls of a file by key, and the lines that hold none. A line above the limit is not taken into memory. */
async function callsIn(reader: FileHandle): Promise<{ places: Places; broken: CachedGenerator["broken"] }> {
  const places = new Places()
  const broken = { lines: 0, first: 0 }
  const block = Buffer.alloc(2 ** 18)
  let parts: Buffer[] = []
  let [bytes, start, line] = [0, 0, 1]
  const add = (part: Buffer) => {
    bytes += part.length
    if (bytes <= MAX_RECORD_BYTES) parts.push(Buffer.from(part))
  }
  const finish = () => {
    const whole = Buffer.concat(parts)
    const call = bytes > MAX_RECORD_BYTES ? undefined : parsed(whole)
    if (call) places.set(call.key, { start, bytes })
    else if (bytes > MAX_RECORD_BYTES || whole.toString("utf8").trim()) {
      broken.lines++
      broken.first ||= line
    }
    start += bytes + 1
    line++
    parts = []
    bytes = 0
  }
  for (let position = 0; ; ) {
    const { bytesRead } = await reader.read(block, 0, block.length, position)
    if (!bytesRead) return { places, broken }
    position += bytesRead
    let from = 0
    for (let at = block.indexOf(10); at >= 0 && at < bytesRead; at = block.indexOf(10, from)) {
      add(block.subarray(from, at))
      finish()
      from = at + 1
    }
    add(block.subarray(from, bytesRead))
  }
}
