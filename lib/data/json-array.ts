import { createReadStream } from "node:fs"
import { open } from "node:fs/promises"
import { InputError } from "../errors"
import { fileError } from "./files"
import { decode, type Line, MAX_RECORD_BYTES, type Place, parseJson, readLines } from "./jsonl"

/**
 * The records of a JSON array or of a JSONL file, told apart by the first character, one at a time: chat dumps of more
 * than 512 MB, which no JSON.parse can take, are read as well.
 * @throws InputError naming file and line: not JSON, not UTF-8, cut off, empty, a record above `maxBytes` (16 MiB).
 */
export async function* readRecords(
  file: string,
  { maxBytes = MAX_RECORD_BYTES }: { maxBytes?: number } = {},
): AsyncGenerator<{ value: unknown; place: Required<Place> }> {
  const inArray = (await firstByte(file)) === OPEN_BRACKET
  const records = inArray ? arrayElements(file, maxBytes) : readLines(file, { maxLineBytes: maxBytes })
  for await (const { line, text } of records) {
    const place = { file, line }
    yield { value: parseJson(text, place), place }
  }
}

const [QUOTE, BACKSLASH, COMMA, NEWLINE, OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] =
  Buffer.from('"\\,\n[]{}')

async function firstByte(file: string): Promise<number | undefined> {
  try {
    const handle = await open(file)
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096, 0)
      return buffer.subarray(0, bytesRead).find((byte) => byte > 32 && byte < 128) // passes over a byte-order mark
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw fileError(error, file, "read")
  }
}

/** The elements of the one array that a file holds, as texts, each with the line on which it starts. */
async function* arrayElements(file: string, maxBytes: number): AsyncGenerator<Line> {
  let parts: Buffer[] = []
  let size = 0
  let line = 1
  let start = 1
  let depth = 0
  let inString = false
  let escaped = false
  let records = 0
  const add = (bytes: Buffer) => {
    parts.push(bytes)
    size += bytes.length
    if (size <= maxBytes) return
    const problem = `a record must have at most ${maxBytes} bytes, got more; check that this is the right file`
    throw new InputError(problem, { file, line: start })
  }
  const finish = (): Line => {
    const text = decode(Buffer.concat(parts), file, start)
    const done = { line: start, text }
    parts = []
    size = 0
    return done
  }
  try {
    for await (const chunk of createReadStream(file, { highWaterMark: 2 ** 18 }) as AsyncIterable<Buffer>) {
      let from = 0
      for (let at = 0; at < chunk.length; at++) {
        const byte = chunk[at]
        if (byte === NEWLINE) line++
        if (inString) {
          if (escaped) escaped = false
          else if (byte === BACKSLASH) escaped = true
          else if (byte === QUOTE) inString = false
        } else if (byte === QUOTE) inString = true
        else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
          if (depth++ === 0) from = at + 1
          else if (depth === 2) start = line
        } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE || byte === COMMA) {
          const last = byte !== COMMA && depth === 1
          if (last || (byte === COMMA && depth === 1)) {
            add(chunk.subarray(from, at))
            from = at + 1
            const done = finish()
            if (done.text) yield done
            if (done.text) records++
          }
          if (byte !== COMMA) depth--
        }
      }
      if (depth > 0) add(chunk.subarray(from))
    }
  } catch (error) {
    throw fileError(error, file, "read")
  }
  if (depth !== 0)
    throw new InputError("the array must end with ], got the end of the file; fetch it again", { file, line })
  if (!records) throw new InputError("must hold at least one record, got an empty array; check the path", { file })
}
