import { createHash } from "node:crypto"
import { existsSync, mkdirSync } from "node:fs"
import { rm, truncate } from "node:fs/promises"
import { dirname, join } from "node:path"
import pLimit from "p-limit"
import { z } from "zod"
import { copyFinished, damageOf, fileError, printOf, removeTemporaries, writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { appendJsonl, type JsonlWriter, MAX_OWN_BYTES, parseJson, readLines, soundBytes } from "../data/jsonl"
import { InputError, StoppedError } from "../errors"

/** What the key file beside a stage's output says. A file counts only as far as its key is the one wanted. */
export const stageState = z.object({
  stage: z.string(),
  key: z.string(),
  complete: z.boolean(),
  rows: z.int().describe("rows of a complete output"),
  failures: z.record(z.string(), z.int()).describe("rows of a complete output that failed, by stage and reason"),
  bytes: z.int().describe("size of a complete output"),
  sha256: z.string().describe("of a complete output"),
})
export type StageState = z.infer<typeof stageState>

/** A finished output: where it is, and the key of everything that made it. */
export interface StageOutput extends StageState {
  file: string
}

/** sha256 over values, whatever the order of their fields. */
export function keyOf(...parts: readonly unknown[]): string {
  const sorted = (_: string, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value
  return createHash("sha256").update(JSON.stringify(parts, sorted)).digest("hex")
}

/** The key file of an output: `decompose.key.json` beside `decompose.jsonl`. */
export const keyFileOf = (file: string) => `${file.replace(/\.jsonl$/, "")}.key.json`

/** The state of an output; undefined when there is none, or its key file cannot be read, which starts it over. */
export function readState(file: string): StageState | undefined {
  if (!existsSync(keyFileOf(file))) return undefined
  try {
    return stageState.parse(readJsonFile(keyFileOf(file)))
  } catch (error) {
    if (error instanceof InputError || error instanceof z.ZodError) return undefined
    throw error
  }
}

/** The state of an output that is whole, has this key, and holds what was written then. */
async function readFinished(
  file: string,
  key: string,
  onNote?: (line: string) => void,
): Promise<StageState | undefined> {
  const state = readState(file)
  if (!state?.complete || state.key !== key) return undefined
  const damage = await damageOf(file, state)
  if (damage) onNote?.(`note: ${file} ${damage}; it is made again`)
  return damage ? undefined : state
}

/** Rows begun, by rows at once: the others continue while a slow one is waited for. */
const WINDOW = 8

export interface RowStage<In, Out extends object> {
  /** Name of the stage. */
  stage: string
  /** Output, JSONL. */
  file: string
  /** See keyOf: stage version, its options, the model, the key of its input. */
  key: string
  /** Input rows, in the same order each time. */
  rows: () => AsyncIterable<In> | Iterable<In>
  work: (row: In) => Promise<Out>
  /**
   * Rows worked on together, or without `replay` at once; asked only when there is something to do, as it may need
   * weights.
   */
  chunk: () => number
  /**
   * Whether a resumed run does the rows of a half-written chunk again, without writing them twice. Then batches hold
   * the same rows as in a run that was never stopped, so a model on a GPU gives the same answers. Without, a row begins
   * as soon as another ends, up to 8 times `chunk` rows ahead of the first that is not done. Asked when `chunk` is.
   */
  replay: () => boolean
  /** Folder of finished outputs by key, shared by runs. */
  cache?: string
  signal?: AbortSignal
  /** Called with the number of rows done so far. */
  onRow?: (done: number) => void
  /** Told what was found damaged, and is made again. */
  onNote?: (line: string) => void
}

/**
 * Resume is rerun: returns a finished output of this key at once, takes one from the cache, resumes behind the last
 * whole row of an unfinished one, or starts over where the key is another. Rows are appended one by one, in input
 * order. A finished output, here or in the cache, is compared with the hash in its key file first; one that differs is
 * made again.
 * @throws StoppedError when aborted; InputError for a disk that is full or read-only.
 */
export async function runRows<In, Out extends object>(options: RowStage<In, Out>): Promise<StageOutput> {
  const { stage, file, key, cache, onNote } = options
  const cached = cache && join(cache, `${stage}-${key.slice(0, 32)}.jsonl`)
  const finished = (await readFinished(file, key, onNote)) ?? (await takeFinished(file, key, cached, onNote))
  if (finished) return { ...finished, file }
  const begun: StageState = { stage, key, complete: false, rows: 0, failures: {}, bytes: 0, sha256: "" }
  await writeState(file, begun)
  await cutDamage(file, onNote)
  const writer = await appendJsonl(file, { resume: true })
  try {
    await fill(writer, options, (await tallyOf(file)).rows)
  } catch (error) {
    await writer.close().catch(() => {}) // the first error is the one to tell
    throw error
  }
  await writer.close()
  const state = { ...begun, complete: true, ...(await tallyOf(file)), ...(await printOf(file)) }
  await writeState(file, state)
  if (cached) {
    await shareFinished(cached, onNote, async () => {
      await copyFinished(file, cached)
      await writeState(cached, state)
    })
  }
  return { ...state, file }
}

/** Removes an output of another key, and puts the finished one of the cache in its place, if there is one. */
async function takeFinished(
  file: string,
  key: string,
  cached: string | undefined,
  onNote?: (line: string) => void,
): Promise<StageState | undefined> {
  try {
    mkdirSync(dirname(file), { recursive: true })
    const state = readState(file)
    if (state?.key !== key || state.complete) {
      await rm(keyFileOf(file), { force: true }) // first, so that old rows never stand under the new key
      await rm(file, { force: true })
    }
  } catch (error) {
    throw fileError(error, file, "write")
  }
  const shared = cached === undefined ? undefined : await readFinished(cached, key, onNote)
  if (!cached || !shared) return undefined
  await copyFinished(cached, file)
  await writeState(file, shared)
  return shared
}

/** Does the rows behind the first `have`, and appends them in input order. */
async function fill<In, Out extends object>(writer: JsonlWriter, options: RowStage<In, Out>, have: number) {
  const chunk = options.chunk()
  return options.replay() ? fillByChunks(writer, options, have, chunk) : fillBySliding(writer, options, have, chunk)
}

async function fillByChunks<In, Out extends object>(
  writer: JsonlWriter,
  { rows, work, signal, onRow }: RowStage<In, Out>,
  have: number,
  chunk: number,
) {
  const first = have - (have % chunk)
  let done = first
  let written = first
  let index = 0
  let pending: In[] = []
  const flush = async () => {
    const results = pending.map(async (row) => {
      const out = await work(row)
      onRow?.(++done)
      return out
    })
    for (const result of results) result.catch(() => {}) // it is thrown when its turn comes
    pending = []
    for (const result of results) {
      const out = await unlessAborted(result, signal)
      if (written++ >= have) await writer.write(out)
    }
  }
  onRow?.(first)
  for await (const row of rows()) {
    if (index++ < first) continue
    if (pending.push(row) === chunk) await flush()
  }
  await flush()
}

async function fillBySliding<In, Out extends object>(
  writer: JsonlWriter,
  { rows, work, signal, onRow }: RowStage<In, Out>,
  have: number,
  chunk: number,
) {
  const limit = pLimit(2 * chunk) // some rows read and write while the calls of others are under way
  const pending: Promise<Out>[] = []
  let done = have
  let index = 0
  const writeNext = async () => writer.write(await unlessAborted(pending.shift()!, signal))
  const start = async (row: In) => {
    const out = await work(row)
    onRow?.(++done)
    return out
  }
  onRow?.(have)
  try {
    for await (const row of rows()) {
      if (index++ < have) continue
      const result = limit(start, row)
      result.catch(() => {}) // it is thrown when its turn comes
      pending.push(result)
      if (pending.length >= WINDOW * chunk) await writeNext()
    }
    while (pending.length) await writeNext()
  } finally {
    limit.clearQueue()
  }
}

/** Puts something finished into the cache. Where that fails, other runs have to make it again. */
export async function shareFinished(
  cached: string,
  onNote: ((line: string) => void) | undefined,
  copy: () => Promise<void>,
): Promise<void> {
  try {
    mkdirSync(dirname(cached), { recursive: true })
    removeTemporaries(dirname(cached))
    await copy()
  } catch (error) {
    onNote?.(`note: not kept for other runs: ${(fileError(error, cached, "write") as Error).message}`)
  }
}

/** Cuts an unfinished output off before the first line that is no row: a power cut can leave zeros behind. */
async function cutDamage(file: string, onNote?: (line: string) => void): Promise<void> {
  const sound = await soundBytes(file)
  if (sound === undefined) return
  onNote?.(`note: ${file} is damaged behind byte ${sound}; the rows from there on are made again`)
  await truncate(file, sound)
}

interface Tally {
  rows: number
  failures: Record<string, number>
}

const ownFile = { allowEmpty: true, maxLineBytes: MAX_OWN_BYTES }

async function tallyOf(file: string): Promise<Tally> {
  const tally: Tally = { rows: 0, failures: {} }
  for await (const { text } of readLines(file, ownFile)) {
    tally.rows++
    if (!text.includes('"failure":{')) continue
    const { failure } = JSON.parse(text) as { failure?: { stage: string; reason: string } }
    if (!failure) continue
    const name = `${failure.stage}: ${failure.reason}`
    tally.failures[name] = (tally.failures[name] ?? 0) + 1
  }
  return tally
}

function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason instanceof StoppedError ? signal.reason : new StoppedError())
    if (signal.aborted) return stop()
    signal.addEventListener("abort", stop, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop))
  })
}

const writeState = (file: string, state: StageState) =>
  writeAtomic(keyFileOf(file), `${JSON.stringify(state, null, 2)}\n`)

/** The rows of a finished output. @throws InputError naming file and line for a line that is not JSON. */
export async function* readOutput<Row>({ file }: { file: string }): AsyncGenerator<Row> {
  for await (const { line, text } of readLines(file, ownFile)) yield parseJson(text, { file, line }) as Row
}
