import { existsSync } from "node:fs"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { hashesOf, writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { lockFolder } from "../data/lock"
import type { Message } from "../data/schema"
import type { Generator } from "../engine/engine"
import { replyOf } from "../engine/reply"
import { InputError, RefusedError, StoppedError } from "../errors"
import type { Benchmark, BenchmarkItem, Judge, Scoring } from "../eval/benchmark"
import type { BootstrapOptions } from "../eval/bootstrap"
import { type Figure, figuresTable, type Scored, withIntervals } from "../eval/figures"
import { streamKey } from "../rng"
import { collect, type Progress } from "./context"
import { versions } from "./manifest"
import { keyFileOf, keyOf, readOutput, readState, runRows, type StageOutput } from "./store"

/** Version of the files below: a change needs new answers and replies. */
const version = 2

/** Answers made elsewhere, by item id; or the engine that makes them. */
export type AnswerSource =
  | { answers: ReadonlyMap<string, readonly string[]> }
  | {
      engine: Generator
      /** Model name of a server, or fingerprint of a checkpoint: answers of another engine are recomputed. */
      id: string
      seed: number
      /** Whether answers depend on which are made together, as those of a local model do to the last bit. */
      local: boolean
    }

/** A benchmark to run: its items, who answers, who judges, and where results go. */
export interface BenchmarkRun {
  benchmark: Benchmark
  items: readonly BenchmarkItem[]
  /** Result folder. */
  dir: string
  /** What is measured, for the table: a model, an adapter, a file of answers. */
  subject: string
  source: AnswerSource
  /** Who judges and how: needed where the benchmark is judged. `id` as for answers. */
  judge?: { ask: Judge; id: string; name: string; concurrency: number; independent?: boolean }
  scoring: Scoring
  bootstrap: BootstrapOptions
  /** Notes on data and answers, which go into the results. */
  notes?: readonly string[]
  /** SHA-256 of each data file, by name. */
  data?: Readonly<Record<string, string>>
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}

const number = z.number().nullable().describe("null: nothing to divide by")

/** `scores.json` of a result folder. */
export const benchmarkScores = z.looseObject({
  musc: z.string(),
  benchmark: z.string(),
  scoring: z.enum(["official", "corrected"]),
  subject: z.string(),
  judge: z.string().nullable(),
  items: z.int(),
  refused: z.int().default(0).describe("items left out since an engine refused their request"),
  data: z.record(z.string(), z.string()).describe("sha256 of each data file"),
  files: z.record(z.string(), z.string()).optional().describe("sha256 of the other files of the result folder"),
  figures: z.record(z.string(), z.object({ value: number, interval: z.tuple([number, number]) })),
  notes: z.array(z.string()),
  bootstrap: z.object({ samples: z.int(), seed: z.int() }),
})
/** What `scores.json` of a benchmark holds. @interface */
export type BenchmarkScores = z.infer<typeof benchmarkScores>

interface Answered {
  id: string
  responses: readonly string[]
  /** Turns that the token limit cut off. */
  cut: number
  /** Why turns have no answer; an empty one is scored in its place. */
  problems?: readonly string[]
  failure?: Failure
}

/** What the outputs are called for people. */
const stageNames = { answers: "answer", collected: "judge" } as const
type StageName = keyof typeof stageNames

/** Why an item has no result. */
export interface Failure {
  stage: string
  reason: string
}

/** So many first items refused, and none answered, is no matter of the items. */
const HOPELESS = 10

/**
 * Answers, asks the judge, scores. In the folder: `answers.jsonl` and `collected.jsonl`, which are made once and
 * resumed; `items.jsonl`, `scores.json` and `table.md`, which are made from them each time, so that another scoring
 * needs no call. Items without an answer are left out. So are those whose request is refused: they keep the reason, are
 * counted, and are asked for again by the next run.
 * @throws StoppedError when aborted; InputError when the first items are all refused; what engine, judge and disk
 * throw. Finished work is kept.
 */
export async function runBenchmark(run: BenchmarkRun): Promise<{ scores: BenchmarkScores; table: string }> {
  const { dir, source } = run
  const items = "answers" in source ? run.items.filter(({ id }) => source.answers.has(id)) : run.items
  const lock = lockFolder(dir)
  const signal = AbortSignal.any([lock.lost, ...(run.signal ? [run.signal] : [])])
  try {
    // Finished calls of servers are kept, so all but refused ones come from disk; another scoring shall need no call at
    // all.
    const again: StageName[] = "answers" in source || source.local ? ["collected"] : ["answers", "collected"]
    if (scoringOf(dir) === run.scoring) await forgetRefused(dir, again)
    const folder = { ...run, items, signal }
    const output = await answerItems(folder)
    const answers = await collect(readOutput<Answered>(output))
    return await writeScores(folder, answers, await collectReplies(folder, answers, output.key))
  } catch (error) {
    if (signal.aborted && !(error instanceof StoppedError)) {
      throw new StoppedError(undefined, { cause: error })
    }
    throw error
  } finally {
    lock.release()
  }
}

/** An output of a result folder, a row an item. */
function itemStage<Out extends object>(
  { dir, items, signal, onProgress }: BenchmarkRun,
  name: StageName,
  { key, chunk, replay }: { key: string; chunk: number; replay: boolean },
  work: (item: BenchmarkItem, i: number) => Promise<Out>,
): Promise<StageOutput> {
  const guarded = keepRefused(stageNames[name], Math.min(HOPELESS, items.length), work)
  return runRows({
    ...{ stage: name, file: join(dir, `${name}.jsonl`), key, chunk: () => chunk, replay: () => replay, signal },
    rows: () => items.map((item, i) => ({ item, i })),
    work: ({ item, i }) => guarded(item, i),
    onRow: (done) => onProgress?.({ stage: stageNames[name], unit: "rows", done, total: items.length }),
  })
}

function answerItems(run: BenchmarkRun): Promise<StageOutput> {
  const { benchmark, items, source } = run
  const keyBy = (by: unknown[]) => keyOf(version, benchmark.name, items, by)
  if ("answers" in source) {
    const limits = { key: keyBy([...source.answers]), chunk: 1000, replay: false }
    const work = async ({ id }: BenchmarkItem): Promise<Answered> => ({
      id,
      responses: source.answers.get(id)!,
      cut: 0,
    })
    return itemStage(run, "answers", limits, work)
  }
  const { engine, id, seed, local } = source
  const chunk = (local ? 4 : 1) * engine.concurrency
  // Of servers a reply with a problem can have a text: version 3 scores nothing of it.
  const limits = { key: keyBy([id, seed, ...(local ? [] : [3])]), chunk, replay: local && !engine.independent }
  return itemStage(run, "answers", limits, (item) => answer(item, benchmark.name, source))
}

/** What the judge says of each answer; undefined where none is asked. */
async function collectReplies(
  run: BenchmarkRun,
  answers: readonly Answered[],
  answersKey: string,
): Promise<Collected[] | undefined> {
  const { benchmark, judge } = run
  if (!benchmark.judged || !judge) return undefined
  const { id, concurrency, independent, ask } = judge
  const chunk = (independent ? 1 : 4) * concurrency
  const limits = { key: keyOf(version, answersKey, id), chunk, replay: !independent }
  const output = await itemStage(run, "collected", limits, async (item, i) => {
    const { failure, responses } = answers[i]!
    if (failure) return { id: item.id, failure }
    return { id: item.id, collected: await benchmark.collect(item, responses, ask) }
  })
  return collect(readOutput<Collected>(output))
}

interface Collected {
  collected?: unknown
  failure?: Failure
}

/** Scores what was answered and collected, and writes `items.jsonl`, `table.md` and `scores.json`. */
async function writeScores(
  run: BenchmarkRun,
  answers: readonly Answered[],
  collected: readonly Collected[] | undefined,
): Promise<{ scores: BenchmarkScores; table: string }> {
  const { benchmark, dir, items, scoring, judge } = run
  const lines = items.map(({ id, unit, ...item }, i): (Scored & { failure?: undefined }) | Refused => {
    const failure = answers[i]!.failure ?? collected?.[i]?.failure
    if (failure) return { id, unit, failure }
    const reply = collected?.[i]?.collected ?? null
    return { id, unit, result: benchmark.score({ id, unit, ...item }, answers[i]!.responses, reply, scoring) }
  })
  const rows = lines.filter((line) => !line.failure) as Scored[]
  const refused = lines.filter((line): line is Refused => !!line.failure)
  if (!rows.length) {
    throw new InputError(`${benchmark.name}: must have an item to score, got none; ${refusedNote(refused)}`)
  }
  const figures = withIntervals((some) => benchmark.figures(some, scoring), rows, run.bootstrap)
  const cut = answers.filter((row) => row.cut).length
  const problems = answers.flatMap((row) => row.problems ?? [])
  const results = rows.map(({ result }) => result)
  const empty = "answers" in run.source ? 0 : answers.filter((row) => isEmpty(row)).length
  const scores: BenchmarkScores = {
    musc: versions().musc,
    benchmark: benchmark.name,
    scoring,
    subject: run.subject,
    judge: collected ? judge!.name : null,
    items: rows.length,
    refused: refused.length,
    data: { ...run.data },
    figures: withoutNaN(figures),
    notes: [
      ...(run.notes ?? []),
      ...(refused.length ? [refusedNote(refused)] : []),
      ...(cut ? [`answers cut off at the token limit, scored as they are: ${cut}`] : []),
      ...(empty ? [`empty answers, scored as they are: ${empty}`] : []),
      ...(problems.length ? [`turns without an answer, scored as empty: ${problems.length} (${tally(problems)})`] : []),
      ...(benchmark.notes?.(results, scoring) ?? []),
    ],
    bootstrap: { samples: run.bootstrap.samples, seed: run.bootstrap.seed },
  }
  const table = scoresTable(scores, figures)
  await writeAtomic(
    join(dir, "items.jsonl"),
    lines.map((line) => `${JSON.stringify(line)}\n`),
  )
  await writeAtomic(join(dir, "table.md"), `${table}\n`)
  scores.files = await hashesOf(dir, ["answers.jsonl", "collected.jsonl", "items.jsonl", "table.md"])
  await writeAtomic(join(dir, "scores.json"), `${JSON.stringify(scores, null, 2)}\n`)
  return { scores, table }
}

/** Whether the model itself said nothing. */
const isEmpty = ({ responses = [], problems = [] }: Answered) =>
  responses.filter((text) => !text.trim()).length > problems.length

/** A line of `items.jsonl` without a result. */
interface Refused {
  id: string
  unit: string
  failure: Failure
}

const refusedNote = (refused: readonly Refused[]) =>
  `left out because their request was refused, to be asked for again by the same command: ${refused.length} ` +
  `(${refused[0]!.id}, ${refused[0]!.failure.stage}: ${refused[0]!.failure.reason}${refused.length > 1 ? "; …" : ""})`

/** How often each text occurs, the most frequent first: "refusal 3, content filter 1". */
function tally(texts: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1)
  const sorted = [...counts].sort(([, a], [, b]) => b - a)
  return sorted.map(([text, n]) => `${text} ${n}`).join(", ")
}

/** Work whose refused requests become rows with the reason, unless the first ones are all refused. */
function keepRefused<Out extends object>(
  stage: string,
  first: number,
  work: (item: BenchmarkItem, i: number) => Promise<Out>,
): (item: BenchmarkItem, i: number) => Promise<Out | { id: string; failure: Failure }> {
  let hopeless = 0
  return async (item, i) => {
    try {
      return await work(item, i)
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error
      if (i < first && ++hopeless === first) {
        throw new InputError(`all of the first ${first} items were refused: ${error.message}`, {}, { cause: error })
      }
      return { id: item.id, failure: { stage, reason: error.message } }
    }
  }
}

/** Lets finished outputs (in order of their making) be made again where requests were refused. */
async function forgetRefused(dir: string, stages: readonly StageName[]): Promise<void> {
  let stale = false
  for (const name of stages) {
    const file = join(dir, `${name}.jsonl`)
    stale ||= Object.keys(readState(file)?.failures ?? {}).length > 0
    if (stale) await rm(keyFileOf(file), { force: true })
  }
}

/** How the results of a folder were scored; undefined for a folder without. */
function scoringOf(dir: string): Scoring | undefined {
  const file = join(dir, "scores.json")
  return existsSync(file) ? benchmarkScores.safeParse(readJsonFile(file)).data?.scoring : undefined
}

/** The answers to all turns of an item, each with the conversation so far. */
async function answer(
  item: BenchmarkItem,
  benchmark: string,
  { engine, seed }: { engine: Generator; seed: number },
): Promise<Answered> {
  const messages: Message[] = []
  const responses: string[] = []
  const problems: string[] = []
  let cut = 0
  for (const [turn, content] of item.turns.entries()) {
    messages.push({ role: "user", content })
    const { temperature, maxTokens } = item
    const key = streamKey(seed, "benchmark", benchmark, item.id, turn)
    const request = { messages: [...messages], temperature, maxTokens, seed: key }
    const { text, finish, problem } = await replyOf(engine, request)
    messages.push({ role: "assistant", content: text })
    responses.push(problem ? "" : text)
    if (problem) problems.push(problem)
    else if (finish === "length") cut++
  }
  return { id: item.id, responses, cut, ...(problems.length && { problems }) }
}

/** NaN is not JSON; it becomes null, explicitly. */
function withoutNaN(figures: Readonly<Record<string, Figure>>): BenchmarkScores["figures"] {
  const finite = (value: number) => (Number.isFinite(value) ? value : null)
  const plain = ({ value, interval: [low, high] }: Figure) => {
    const interval: [number | null, number | null] = [finite(low), finite(high)]
    return { value: finite(value), interval }
  }
  return Object.fromEntries(Object.entries(figures).map(([name, figure]) => [name, plain(figure)]))
}

function scoresTable(scores: BenchmarkScores, figures: Readonly<Record<string, Figure>>): string {
  const { benchmark, scoring, subject, judge, items, notes } = scores
  const head = `${benchmark}, ${scoring} scoring: ${subject}, ${items} items${judge ? `, judge ${judge}` : ""}`
  return [head, figuresTable(figures), ...(notes.length ? [notes.map((note) => `- ${note}`).join("\n")] : [])].join(
    "\n\n",
  )
}
