import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from "node:fs"
import { mkdir, readFile, rm } from "node:fs/promises"
import { join, resolve } from "node:path"
import { z } from "zod"
import { writeAtomic } from "../data/files"
import { type TokenSignals, tokenSignals } from "../data/schema"
import { breathe } from "../data/stop-signals"
import type { ModelDescription } from "../engine/description"
import type { PreparedScorer, ScoreRequest, SignalScorer } from "../engine/engine"
import { newLines, runJob, type TorchOptions } from "../engine/torch"
import { InputError, RefusedError, StoppedError } from "../errors"
import { writeSafetensors } from "../model/safetensors"
import { encodeChats } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"
import { keyOf } from "./store"

/** Scores that were all computed before they are asked for; engines that score one by one are asked as they are. */
export async function scoredAhead(
  scorer: SignalScorer,
  requests: Iterable<ScoreRequest> | AsyncIterable<ScoreRequest>,
  options: { folder: string; signal?: AbortSignal; onDone?: (rows: number) => void },
): Promise<PreparedScorer> {
  return scorer.prepare ? scorer.prepare(requests, options) : { score: scorer.score, dispose() {} }
}

const numbers = z.array(z.number())
const answer = tokenSignals.omit({ tokens: true }).extend({ logprob: numbers })
const signalLine = z.object({ row: z.int().min(0), chosen: answer, rejected: answer })

/** What decides the signals of such a job, as part of their keys: the model, and the type that it is computed in. */
export const torchFingerprint = (fingerprint: string, { dtype }: TorchOptions): string =>
  dtype === "float32" ? fingerprint : `${fingerprint} ${dtype}`

/** A scorer whose work is done by Python jobs, all rows at once. */
export function torchScorer(model: ModelDescription, torch: TorchOptions): SignalScorer {
  return {
    concurrency: 64,
    score() {
      throw new InputError("scoring by --torch works on whole files; use `musc weigh` or `musc run`", {
        field: "--torch",
      })
    },
    prepare: (requests, options) => prepare(model, torch, requests, options),
  }
}

async function prepare(
  { tokenizer, dir, fingerprint }: ModelDescription,
  torch: TorchOptions,
  requests: Iterable<ScoreRequest> | AsyncIterable<ScoreRequest>,
  { folder, signal, onDone }: { folder: string; signal?: AbortSignal; onDone?: (rows: number) => void },
): Promise<PreparedScorer> {
  const { places, refusals, ids, starts } = await encodedRequests(tokenizer, requests, signal)
  const rows = places.size
  const key = keyOf("score", 1, fingerprint, torch.dtype, torch.rowsPerPass, [...places.keys()])
  const keyFile = join(folder, "key.txt")
  if ((await readFile(keyFile, "utf8").catch(() => "")).trim() !== key) {
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    await writeSafetensors(join(folder, "requests.safetensors"), [
      { name: "ids", dtype: "I32", shape: [ids.length], data: ids },
      { name: "starts", dtype: "I32", shape: [starts.length], data: starts },
    ])
    const settings = { model: resolve(dir), dtype: torch.dtype, rows_per_pass: torch.rowsPerPass }
    await writeAtomic(join(folder, "settings.json"), `${JSON.stringify(settings, null, 2)}\n`)
    await writeAtomic(keyFile, `${key}\n`)
  }
  if (!finishedShards(folder)) {
    const onPoll = () => onDone?.(shardFiles(folder).reduce((n, file) => n + lineCount(file), 0))
    await runJob({ folder, script: "score.py", command: torch.command, signal, onPoll })
  }
  const shards = finishedShards(folder)
  if (!shards) throw new InputError("the job ended without its signals; see log.txt there", { file: folder })
  const index = indexOf(shards, rows)
  return {
    async score(request) {
      const name = keyOf(request)
      const refusal = refusals.get(name)
      if (refusal) throw refusal
      const place = places.get(name)
      if (place === undefined) throw new InputError("this pair is not one of the job; start the stage again")
      const { chosen, rejected } = index.read(place)
      const { responses } = encodeChats(tokenizer, request.clean, request.responses)
      return [chosen, rejected].map((signals, i) => withTokens(tokenizer.tokenText(responses[i]!), signals, folder))
    },
    dispose: () => index.close(),
  }
}

/** The texts of an answer's tokens and its signals. @throws InputError where these are not as many */
function withTokens(tokens: string[], signals: z.output<typeof answer>, folder: string): TokenSignals {
  const wrong = Object.entries(signals).find(([, values]) => values.length !== tokens.length)
  if (!wrong) return { tokens, ...signals }
  const got = `${wrong[1].length} of ${wrong[0]}`
  throw new InputError(`must have a number for each of ${tokens.length} tokens, got ${got}; delete the folder`, {
    file: folder,
  })
}

/** Requests as one list of ids: of each its three prompts, then its two answers; `starts` says where each begins. */
async function encodedRequests(
  tokenizer: Tokenizer,
  requests: Iterable<ScoreRequest> | AsyncIterable<ScoreRequest>,
  signal?: AbortSignal,
) {
  const places = new Map<string, number>()
  const refusals = new Map<string, RefusedError>()
  let ids = new Int32Array(1 << 16)
  const starts: number[] = []
  let at = 0
  const push = (part: readonly number[]) => {
    if (at + part.length > ids.length) {
      const larger = new Int32Array(2 * (at + part.length))
      larger.set(ids)
      ids = larger
    }
    starts.push(at)
    ids.set(part, at)
    at += part.length
  }
  for await (const request of requests) {
    const name = keyOf(request)
    if (places.has(name) || refusals.has(name)) continue
    await breathe()
    if (signal?.aborted) throw new StoppedError("scoring stopped")
    const under = encodedUnder(tokenizer, request)
    if (under instanceof RefusedError) {
      refusals.set(name, under)
      continue
    }
    places.set(name, places.size)
    for (const { promptIds } of under) push(promptIds)
    for (const response of under[0]!.responses) push(response)
  }
  starts.push(at)
  return { places, refusals, ids: ids.subarray(0, at), starts: Int32Array.from(starts) }
}

/** A pair as ids under each of its prompts, or why tokenizer or template refuse it. */
function encodedUnder(tokenizer: Tokenizer, request: ScoreRequest) {
  try {
    return (["clean", "noised", "empty"] as const).map((prompt) =>
      encodeChats(tokenizer, request[prompt], request.responses),
    )
  } catch (error) {
    if (error instanceof RefusedError) return error
    throw error
  }
}

const shardName = /^signals-(\d+)-of-(\d+)\.jsonl$/
const shardFiles = (folder: string) =>
  readdirSync(folder)
    .filter((name) => shardName.test(name))
    .map((name) => join(folder, name))

const lineCount = (file: string) => newLines(file, 0).lines.length

/** The files of a job whose processes have all ended well, in the order of the processes. */
function finishedShards(folder: string): string[] | undefined {
  if (!existsSync(folder)) return undefined
  const worlds = new Set(shardFiles(folder).map((file) => Number(shardName.exec(file.split(/[\\/]/).at(-1)!)![2])))
  for (const world of worlds) {
    const files = Array.from({ length: world }, (_, rank) => join(folder, `signals-${rank}-of-${world}.jsonl`))
    if (files.every((file) => existsSync(file.replace(/jsonl$/, "done")))) return files
  }
  return undefined
}

/** Where each row's line stands; lines are read one by one, so memory holds two numbers a row. */
function indexOf(files: readonly string[], rows: number) {
  const spans: { file: number; start: number; length: number }[] = []
  const open = files.map((file) => openSync(file, "r"))
  files.forEach((file, rank) => {
    const bytes = readFileSync(file)
    let start = 0
    for (let i = 0, end = bytes.indexOf("\n"); end >= 0; i++, end = bytes.indexOf("\n", start)) {
      spans[rank + i * files.length] = { file: rank, start, length: end - start }
      start = end + 1
    }
  })
  const close = () => {
    for (const file of open) closeSync(file)
  }
  const missing = Array.from({ length: rows }, (_, row) => row).find((row) => !spans[row])
  if (missing !== undefined) {
    close()
    throw new InputError(`must hold a line for each of ${rows} rows, got none for row ${missing}; delete the folder`, {
      file: files[0]!,
    })
  }
  return {
    read(row: number) {
      const { file, start, length } = spans[row]!
      const bytes = Buffer.alloc(length)
      readSync(open[file]!, bytes, 0, length, start)
      const line = signalLine.parse(JSON.parse(bytes.toString("utf8")))
      if (line.row !== row)
        throw new InputError(`line of row ${row} is of row ${line.row}; delete the folder`, { file: files[file]! })
      return line
    },
    close,
  }
}
