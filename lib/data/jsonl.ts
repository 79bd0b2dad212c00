import { createReadStream, existsSync } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import type { z } from "zod"
import { InputError } from "../errors"
import { fileError } from "./files"
import { parseRecordJson } from "./json"
import { isJsonObject, type JsonObject, show } from "./json-file"

/** How a JSONL file is read. */
export interface ReadOptions {
  /** Longest line read, in bytes. */
  maxLineBytes?: number
  /**
   * Passes over a last line without a newline: what an interrupted append leaves behind. Only for files that we wrote.
   */
  dropTorn?: boolean
  /** Whether a file without a record is fine. */
  allowEmpty?: boolean
}

/** A line of a file that holds more than spaces. Lines count from 1. */
export interface Line {
  line: number
  text: string
}

/** Most bytes of one record, if a caller sets no other limit. */
export const MAX_RECORD_BYTES = 16 * 2 ** 20

/** Most bytes of a record that we write ourselves: those that we read with this limit can be read again. */
export const MAX_OWN_BYTES = 2 ** 28

/**
 * The lines of a UTF-8 text file, one at a time, without empty ones. A byte-order mark and CRLF ends are fine.
 * @throws InputError naming file and line: cannot be read, not UTF-8, a line above `maxLineBytes`, nothing in the file.
 */
export async function* readLines(
  file: string,
  { maxLineBytes = MAX_RECORD_BYTES, dropTorn = false, allowEmpty = false }: ReadOptions = {},
): AsyncGenerator<Line> {
  let parts: Buffer[] = []
  let size = 0
  let line = 1
  let records = 0
  const add = (bytes: Buffer) => {
    parts.push(bytes)
    size += bytes.length
    if (size > maxLineBytes) {
      const problem = `a line must have at most ${maxLineBytes} bytes, got more; write one record per line`
      throw new InputError(problem, { file, line })
    }
  }
  const finish = (): Line => {
    const bytes = Buffer.concat(parts)
    const done = { line, text: decode(bytes, file, line) }
    parts = []
    size = 0
    line++
    if (done.text) records++
    return done
  }
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 18 }) as AsyncIterable<Buffer>) {
      let from = 0
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        add(chunk.subarray(from, at))
        from = at + 1
        const done = finish()
        if (done.text) yield done
      }
      add(chunk.subarray(from))
    }
  } catch (error) {
    throw fileError(error, file, "read")
  }
  if (size && !dropTorn) {
    const done = finish()
    if (done.text) yield done
  }
  if (!records && !allowEmpty)
    throw new InputError("must hold at least one record, got an empty file; check the path", { file })
}

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** Other kinds of files by their first bytes, with the way to read them. */
const kinds: readonly (readonly [first: readonly number[], got: string, remedy: string])[] = [
  [[0x1f, 0x8b], "a gzip file", "unpack it, e.g. by gunzip"],
  [[0x28, 0xb5, 0x2f, 0xfd], "a zstd file", "unpack it, e.g. by unzstd"],
  [[...Buffer.from("PK\x03\x04")], "a zip file", "unpack it"],
  [[...Buffer.from("PAR1")], "a Parquet file", "write it as JSON lines, e.g. by pandas: read_parquet, then to_json"],
  [[0xff, 0xfe], "UTF-16", "save the file as UTF-8"],
  [[0xfe, 0xff], "UTF-16", "save the file as UTF-8"],
]

/** The trimmed text of UTF-8 bytes. @throws InputError with the place for other bytes. */
export function decode(bytes: Buffer, file: string, line: number): string {
  try {
    return utf8.decode(bytes).trim()
  } catch (cause) {
    const kind =
      line === 1 ? kinds.find(([first]) => bytes.subarray(0, first.length).equals(Buffer.from(first))) : undefined
    const [, got, remedy] = kind ?? [[], "other bytes", "save the file as UTF-8"]
    throw new InputError(`must be valid UTF-8, got ${got}; ${remedy}`, { file, line }, { cause })
  }
}

/**
 * The records of a JSONL file, each checked against `schema`. Unknown fields are kept where the schema is loose.
 * @throws InputError naming file, line and field; see readLines.
 */
export async function* readJsonl<Schema extends z.ZodType>(
  file: string,
  schema: Schema,
  options: ReadOptions = {},
): AsyncGenerator<z.output<Schema>> {
  for await (const { line, text } of readLines(file, options)) {
    yield parseRecord(schema, parseJson(text, { file, line }), { file, line })
  }
}

/** Where a record stands, for messages. */
export interface Place {
  file: string
  line?: number
}

/** @throws InputError with the place when `text` is not JSON, or nested too deeply. */
export function parseJson(text: string, place: Place): unknown {
  try {
    return parseRecordJson(text)
  } catch (cause) {
    const problem = (cause as Error).message.replace(/\s+/g, " ").slice(0, 120)
    const remedy = otherKind(text, place) ?? "repair or remove this record"
    throw new InputError(`must be JSON, got: ${problem}; ${remedy}`, place, { cause })
  }
}

/** What to do with a file that holds no JSON records at all, by its first line. */
function otherKind(text: string, { file, line }: Place): string | undefined {
  if (line !== 1) return undefined
  if (/\.(csv|tsv|txt)$/i.test(file))
    return "write it as JSON lines, e.g. by pandas: to_json(file, orient='records', lines=True)"
  if (/^\{(?:\s*$|\s*"[^"]*"\s*:?\s*[[{]?\s*$)/.test(text))
    return "write one record per line, or all records as one array"
  return undefined
}

/** A record that is an object. @throws InputError with the place for anything else */
export function objectOf(value: unknown, place: Place): JsonObject {
  if (isJsonObject(value)) return value
  throw new InputError(`a record must be a JSON object, got ${show(value)}; repair it`, place)
}

/** @throws InputError with the place, the field, what was expected, and how many more fields are wrong. */
export function parseRecord<Schema extends z.ZodType>(schema: Schema, value: unknown, place: Place): z.output<Schema> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [outer, ...more] = result.error.issues
  const first = innermost(outer!)
  const problem = first.message.replace(/^Invalid input: /, "").replace(", received", ", got")
  const others = more.length ? ` (${more.length} more fields are wrong)` : ""
  const field = first.path.length ? first.path.join(".") : undefined
  throw new InputError(`${problem}${others}; correct the record or remove it`, { ...place, field })
}

/** Where none of several forms fits, the problem of the one that fits best: the one that is wrong deepest inside. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue
  const inside = issue.errors.flatMap(([first]) => (first ? [innermost(first)] : []))
  const [deepest] = inside.sort((a, b) => b.path.length - a.path.length)
  return deepest?.path.length ? { ...deepest, path: [...issue.path, ...deepest.path] } : issue
}

/** Rows after which the disk is told to keep them (fsync). It is also told on close. */
const syncEvery = 100

/** Adds rows to a JSONL file. */
export interface JsonlWriter {
  /**
   * Resolves when the row is handed to the system: it then survives the death of this process. Calls may overlap. Gives
   * the row's place in the file, without the end of its line.
   */
  write(row: object): Promise<{ start: number; bytes: number }>
  /** Waits for all rows, syncs and closes. */
  close(): Promise<void>
}

/**
 * Opens a JSONL file for appending: one write a row, so a crash tears the last line at most. A power cut can lose the
 * rows since the last sync (every 100 rows and on close). After a failed write all further ones fail too. With `resume`
 * what is in the file stays, but for a torn last line; otherwise the file must not be there yet.
 * @throws InputError naming the file: disk full, read-only, no permission, already there (without `resume`).
 */
export async function appendJsonl(file: string, { resume = false } = {}): Promise<JsonlWriter> {
  const handle = await open(file, resume ? "a+" : "ax").catch((error) => {
    throw fileError(error, file, "write")
  })
  if (resume) {
    await cutTornLine(handle).catch(async (error) => {
      await handle.close()
      throw fileError(error, file, "write")
    })
  }
  let rows = 0
  let end = (await handle.stat()).size
  let tail: Promise<unknown> = Promise.resolve()
  const put = async (row: object) => {
    const bytes = Buffer.from(`${JSON.stringify(row)}\n`)
    if (bytes.length > MAX_OWN_BYTES) {
      const id = show((row as { id?: unknown }).id)
      throw new InputError(`a row must have at most ${MAX_OWN_BYTES} bytes, got ${bytes.length}; shorten it`, {
        file,
        field: id,
      })
    }
    const place = { start: end, bytes: bytes.length - 1 }
    try {
      const { bytesWritten } = await handle.write(bytes)
      if (bytesWritten < bytes.length) throw Object.assign(new Error("short write"), { code: "ENOSPC" })
      end += bytesWritten
      if (++rows % syncEvery === 0) await handle.datasync()
      return place
    } catch (error) {
      throw fileError(error, file, "write")
    }
  }
  return {
    write(row) {
      const place = tail.then(() => put(row))
      tail = place
      tail.catch(() => {})
      return place
    },
    async close() {
      try {
        await tail
        await handle.datasync()
      } finally {
        await handle.close()
      }
    },
  }
}

/** The number of bytes before the first whole line that is no JSON object; undefined where there is none such. */
export async function soundBytes(file: string): Promise<number | undefined> {
  if (!existsSync(file)) return undefined
  let [before, parts]: [number, Buffer[]] = [0, []]
  const isRow = (line: Buffer) => {
    try {
      return isJsonObject(JSON.parse(utf8.decode(line)))
    } catch {
      return false
    }
  }
  for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 18 }) as AsyncIterable<Buffer>) {
    let from = 0
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const line = Buffer.concat([...parts, chunk.subarray(from, at)])
      if (!isRow(line)) return before
      before += line.length + 1
      parts = []
      from = at + 1
    }
    if (from < chunk.length) parts.push(chunk.subarray(from))
  }
  return undefined
}

/** Cuts a file back to its last newline. */
async function cutTornLine(handle: FileHandle): Promise<void> {
  const { size } = await handle.stat()
  const block = Buffer.alloc(2 ** 16)
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - block.length)
    const { bytesRead } = await handle.read(block, 0, end - from, from)
    const at = block.subarray(0, bytesRead).lastIndexOf(10)
    if (at >= 0) {
      if (from + at + 1 < size) await handle.truncate(from + at + 1)
      return
    }
    end = from
  }
  if (size) await handle.truncate(0)
}
