import { existsSync } from "node:fs"
import { mkdir, rm } from "node:fs/promises"
import { dirname } from "node:path"
import { z } from "zod"
import { writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { type CachedGenerator, cachedGenerator } from "../engine/cached"
import type { ModelDescription } from "../engine/description"
import type { OpenAIOptions } from "../engine/openai"
import { type ServedText, type ServeOptions, servedText } from "../engine/serve"
import { type ListedModel, listedModel, type OpenServer, openServer, serverAs } from "../engine/server"
import { toldOnce } from "../engine/server-problem"
import { InputError, StoppedError } from "../errors"

/** Servers that are open, with the calls that they finished kept in a file. */
export interface WritingServer {
  engine: CachedGenerator
  id: string
  /** What the server says of its model, if it lists it. */
  listed?: ListedModel
  /** Requests that were sent again. */
  readonly retries: number
  close(): Promise<void>
  /** Closes, and removes the file of calls, which are all in finished outputs. */
  finish(): Promise<void>
}

export interface OpeningOptions {
  /** JSONL file of finished calls. */
  file: string
  signal?: AbortSignal
  onNote: (line: string) => void
  /** What the server is called in notes, if not by its model. */
  role?: string
}

/** Opens a server whose finished calls are kept in `file`, and says what goes wrong on the way, each thing once. */
export async function openWriting(
  options: OpenAIOptions,
  { file, signal, onNote, role = options.model }: OpeningOptions,
): Promise<WritingServer> {
  await mkdir(dirname(file), { recursive: true })
  let retries = 0
  const tell = toldOnce((problem) => onNote(`${role}: retrying after: ${problem}`))
  const onRetry = (problem: string) => {
    retries++
    tell(problem)
  }
  const { engine, id, listed } = await openKnown({ ...options, signal, onRetry }, { file, signal, onNote, role })
  const cached = await cachedGenerator(engine, { file, id, signal })
  const { lines, first } = cached.broken
  if (lines) onNote(`${file}: ${lines} lines hold no call and are passed over, the first is line ${first}`)
  return {
    engine: cached,
    id,
    listed,
    get retries() {
      return retries
    },
    close: () => cached.close(),
    async finish() {
      await cached.close()
      await rm(file, { force: true })
    },
  }
}

/** A server that this process starts and stops, with the calls that it finished kept in `file`; adapters keep none. */
export async function openServed(
  model: ModelDescription,
  options: ServeOptions,
  { file, signal, onNote }: OpeningOptions,
): Promise<WritingServer & { text: ServedText }> {
  await mkdir(dirname(file), { recursive: true })
  const text = servedText(model, { ...options, signal, onNote })
  const cached = await cachedGenerator(text.base, { file, id: text.identity, signal })
  const close = async () => {
    await cached.close()
    await text.pause()
  }
  return {
    ...{ engine: cached, id: text.identity, retries: 0, text: { ...text, base: cached, identity: text.identity } },
    close,
    async finish() {
      await close()
      await rm(file, { force: true })
    },
  }
}

/** What a server said of its model, for when it is not there and nothing is left to ask. */
const memory = z.object({ model: z.string(), listed: listedModel.nullable() })

/** Opens a server, or one that was known before and is out of reach now: finished work needs no server. */
async function openKnown(options: OpenAIOptions, { file, onNote, role }: OpeningOptions): Promise<OpenServer> {
  const remembered = `${file.replace(/\.calls\.jsonl$/, "")}.server.json`
  const known = existsSync(remembered) ? memory.safeParse(readJsonFile(remembered)).data : undefined
  const same = known?.model === options.model ? known : undefined
  try {
    const server = await openServer(same ? { ...options, maxRetries: 0, wait: 0 } : options)
    const listed = server.listed ?? null
    await writeAtomic(remembered, `${JSON.stringify({ model: options.model, listed })}\n`)
    return server
  } catch (error) {
    const keyWanted = error instanceof InputError && error.field === (options.keyVariable ?? "OPENAI_API_KEY")
    if (!same || error instanceof StoppedError || (error instanceof InputError && !keyWanted)) throw error
    onNote(`${role}: ${(error as Error).message}; going on with what is finished, until it is needed`)
    return serverAs(options, same.listed ?? undefined)
  }
}
