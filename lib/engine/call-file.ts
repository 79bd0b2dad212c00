import { createHash } from "node:crypto"
import { type FileHandle, open } from "node:fs/promises"
import { z } from "zod"
import { fileError } from "../data/files"
import { appendJsonl, type JsonlWriter, MAX_RECORD_BYTES } from "../data/jsonl"
import type { Completion } from "./engine"
import { type Place, Places } from "./places"

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

/** Lines of a file that hold no call, and the first of them (from 1). */
export interface BrokenLines {
  readonly lines: number
  readonly first: number
}

/**
 * A JSONL file of finished calls by the key of their request. Memory holds places, not texts. Lines that hold no call,
 * or one that was changed, are passed over and counted; a torn last one is cut off.
 */
export class CallFile {
  private constructor(
    private readonly writer: JsonlWriter,
    private readonly reader: FileHandle,
    private readonly places: Places,
    readonly broken: BrokenLines,
  ) {}

  /** @throws InputError for a file that cannot be read or written */
  static async open(file: string): Promise<CallFile> {
    const writer = await appendJsonl(file, { resume: true })
    let reader: FileHandle | undefined
    try {
      reader = await open(file)
      const { places, broken } = await callsIn(reader)
      return new CallFile(writer, reader, places, broken)
    } catch (error) {
      await Promise.all([writer.close(), reader?.close()])
      throw fileError(error, file, "read")
    }
  }

  async get(key: string): Promise<Completion | undefined> {
    const place = this.places.get(key)
    const kept = place && (await callAt(this.reader, place))
    if (kept?.key !== key) return undefined
    const { key: _, sum: __, ...answer } = kept
    return answer
  }

  /** Writes an answer down, unless it could not be read again. @throws InputError for a file that cannot be written */
  async keep(key: string, answer: Completion): Promise<void> {
    const row = cachedCall.safeParse({ key, ...answer }).data
    if (!row || row.text.length + (row.thoughts?.length ?? 0) > MAX_RECORD_BYTES / 6) return
    this.places.set(key, await this.writer.write({ ...row, sum: sumOf(row) }))
  }

  async close(): Promise<void> {
    await Promise.all([this.writer.close(), this.reader.close()])
  }
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

/** Where a file's calls stand, by key, and the lines that hold none. A line above the limit is not read into memory. */
async function callsIn(reader: FileHandle): Promise<{ places: Places; broken: BrokenLines }> {
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
