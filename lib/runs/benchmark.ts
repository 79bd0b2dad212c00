import { join } from "node:path"
import { z } from "zod"
import { writeAtomic } from "../data/jsonl"
import type { Message } from "../data/schema"
import type { Generator } from "../engine/engine"
import { StoppedError } from "../errors"
import type { Benchmark, BenchmarkItem, Judge, Scoring } from "../eval/benchmark"
import type { BootstrapOptions } from "../eval/bootstrap"
import { type Figure, figuresTable, type Scored, withIntervals } from "../eval/figures"
import { estimateTokens, silentJudge } from "../eval/judge"
import { streamKey } from "../rng"
import { lockFolder } from "./lock"
import { versions } from "./manifest"
import { keyOf, readOutput, runRows, type StageOutput } from "./store"
import { collect, type Progress } from "./workshop"

/** Version of the files below: a change makes answers and replies anew. */
const version = 1

/** Answers made elsewhere, by item id; or the engine that makes them. */
export type AnswerSource =
  | { answers: ReadonlyMap<string, readonly string[]> }
  | {
      engine: Generator
      /** Model name of a server, or fingerprint of a checkpoint: answers of another engine are made anew. */
      id: string
      seed: number
      /** Whether answers depend on which are made together, as those of a local model do to the last bit. */
      local: boolean
    }

export interface BenchmarkRun {
  benchmark: Benchmark
  items: readonly BenchmarkItem[]
  /** Result folder. */
  dir: string
  /** What is measured, for the table: a model, an adapter, a file of answers. */
  subject: string
  source: AnswerSource
  /** Who judges and how: needed where the benchmark is judged. `id` as for answers. */
  judge?: { ask: Judge; id: string; name: string; concurrency: number }
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
  data: z.record(z.string(), z.string()).describe("sha256 of each data file"),
  figures: z.record(z.string(), z.object({ value: number, interval: z.tuple([number, number]) })),
  notes: z.array(z.string()),
  bootstrap: z.object({ samples: z.int(), seed: z.int() }),
})
export type BenchmarkScores = z.infer<typeof benchmarkScores>

interface Answered {
  id: string
  responses: readonly string[]
  /** Turns that the token limit cut off. */
  cut: number
}

/**
 * Answers, asks the judge, scores. In the folder: `answers.jsonl` and `collected.jsonl`, which are made once and resumed;
 * `items.jsonl`, `scores.json` and `table.md`, which are made from them each time, so that another scoring needs no call.
 * Items without an answer are left out.
 * @throws StoppedError when aborted; what engine, judge and disk throw. Finished work is kept.
 */
export async function runBenchmark(run: BenchmarkRun): Promise<{ scores: BenchmarkScores; table: string }> {
  const { benchmark, dir, scoring, judge, signal, onProgress } = run
  const { source } = run
  const items = "answers" in source ? run.items.filter(({ id }) => source.answers.has(id)) : run.items
  const unlock = lockFolder(dir)
  try {
    const stage = <Out extends object>(
      name: string,
      key: string,
      { chunk, replay }: { chunk: number; replay: boolean },
      work: (item: BenchmarkItem, i: number) => Promise<Out>,
    ): Promise<StageOutput> =>
      runRows({
        ...{ stage: name, file: join(dir, `${name}.jsonl`), key, chunk, replay, signal },
        rows: () => items.map((item, i) => ({ item, i })),
        work: ({ item, i }) => work(item, i),
        onRow: (done) => onProgress?.({ stage: name, unit: "rows", done, total: items.length }),
      })
    const made = "answers" in source
    const output = await stage(
      "answers",
      keyOf(version, benchmark.name, items, made ? [...source.answers] : [source.id, source.seed]),
      made ? { chunk: 1000, replay: false } : { chunk: 4 * source.engine.concurrency, replay: source.local },
      (item): Promise<Answered> =>
        made
          ? Promise.resolve({ id: item.id, responses: source.answers.get(item.id)!, cut: 0 })
          : answer(item, benchmark.name, source),
    )
    const answers = await collect(readOutput<Answered>(output))
    let collected: { collected: unknown }[] | undefined
    if (benchmark.judged && judge) {
      const key = keyOf(version, output.key, judge.id)
      const limits = { chunk: 4 * judge.concurrency, replay: true }
      const file = await stage("collected", key, limits, async (item, i) => ({
        id: item.id,
        collected: await benchmark.collect(item, answers[i]!.responses, judge.ask),
      }))
      collected = await collect(readOutput<{ collected: unknown }>(file))
    }
    const rows: Scored[] = items.map((item, i) => {
      const result = benchmark.score(item, answers[i]!.responses, collected?.[i]?.collected ?? null, scoring)
      return { id: item.id, unit: item.unit, result }
    })
    const results = rows.map(({ result }) => result)
    const figures = withIntervals((some) => benchmark.figures(some, scoring), rows, run.bootstrap)
    const cut = answers.filter((row) => row.cut).length
    const scores: BenchmarkScores = {
      musc: versions().musc,
      benchmark: benchmark.name,
      scoring,
      subject: run.subject,
      judge: collected ? judge!.name : null,
      items: rows.length,
      data: { ...run.data },
      figures: withoutNaN(figures),
      notes: [
        ...(run.notes ?? []),
        ...(cut ? [`${cut} answers were cut off at the token limit; they are scored as they are`] : []),
        ...(benchmark.notes?.(results, scoring) ?? []),
      ],
      bootstrap: { samples: run.bootstrap.samples, seed: run.bootstrap.seed },
    }
    const table = scoresTable(scores, figures)
    await writeAtomic(
      join(dir, "items.jsonl"),
      rows.map((row) => `${JSON.stringify(row)}\n`),
    )
    await writeAtomic(join(dir, "table.md"), `${table}\n`)
    await writeAtomic(join(dir, "scores.json"), `${JSON.stringify(scores, null, 2)}\n`)
    return { scores, table }
  } catch (error) {
    if (signal?.aborted && !(error instanceof StoppedError)) {
      throw new StoppedError("stopped on request; run the same command again to go on from here", { cause: error })
    }
    throw error
  } finally {
    unlock()
  }
}

/** The answers to all turns of an item, each with the conversation so far. */
async function answer(
  item: BenchmarkItem,
  benchmark: string,
  { engine, seed }: { engine: Generator; seed: number },
): Promise<Answered> {
  const messages: Message[] = []
  const responses: string[] = []
  let cut = 0
  for (const [turn, content] of item.turns.entries()) {
    messages.push({ role: "user", content })
    const { temperature, maxTokens } = item
    const key = streamKey(seed, "benchmark", benchmark, item.id, turn)
    const { text, finish } = await engine.generate({ messages: [...messages], temperature, maxTokens, seed: key })
    messages.push({ role: "assistant", content: text })
    responses.push(text)
    if (finish === "length") cut++
  }
  return { id: item.id, responses, cut }
}

/** NaN is not JSON; it becomes null, explicitly. */
function withoutNaN(figures: Readonly<Record<string, Figure>>): BenchmarkScores["figures"] {
  const finite = (value: number) => (Number.isFinite(value) ? value : null)
  const entries = Object.entries(figures).map(
    ([
      name,
      {
        value,
        interval: [low, high],
      },
    ]) => {
      const interval: [number | null, number | null] = [finite(low), finite(high)]
      return [name, { value: finite(value), interval }] as const
    },
  )
  return Object.fromEntries(entries)
}

function scoresTable(scores: BenchmarkScores, figures: Readonly<Record<string, Figure>>): string {
  const { benchmark, scoring, subject, judge, items, notes } = scores
  const head = `${benchmark}, ${scoring} scoring: ${subject}, ${items} items${judge ? `, judge ${judge}` : ""}`
  return [head, figuresTable(figures), ...(notes.length ? [notes.map((note) => `- ${note}`).join("\n")] : [])].join(
    "\n\n",
  )
}

/** At most `limit` items from the front, without cutting a unit of resampling in two (but for the first). */
export function firstItems(items: readonly BenchmarkItem[], limit: number): BenchmarkItem[] {
  const sizes = new Map<string, number>()
  for (const { unit } of items) sizes.set(unit, (sizes.get(unit) ?? 0) + 1)
  const taken = new Set<string>()
  let count = 0
  for (const [unit, size] of sizes) {
    if (taken.size && count + size > limit) break
    taken.add(unit)
    count += size
  }
  return items.filter(({ unit }) => taken.has(unit))
}

/** What stands for an answer that is yet to be made in a plan. */
const unknownAnswer = "[the answer]"

/**
 * What a run would ask, without asking: numbers of calls and tokens, and the first prompts. Questions that depend on a
 * reply are taken to be asked; repeated tries are not counted.
 */
export async function benchmarkPlan(
  benchmark: Benchmark,
  items: readonly BenchmarkItem[],
  answers?: ReadonlyMap<string, readonly string[]>,
): Promise<string> {
  const { judge, requests } = silentJudge()
  const asked = answers ? items.filter(({ id }) => answers.has(id)) : items
  if (benchmark.judged) {
    for (const item of asked) {
      await benchmark.collect(item, answers?.get(item.id) ?? item.turns.map(() => unknownAnswer), judge)
    }
  }
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)
  const tokensOf = (messages: readonly Message[]) => sum(messages.map(({ content }) => estimateTokens(content)))
  const count = (value: number) => value.toLocaleString("en")
  const turns = items.flatMap((item) => item.turns.map((text) => ({ text, most: item.maxTokens })))
  const answering = answers
    ? `answers: ${count(asked.length)} of ${count(items.length)} items, made elsewhere`
    : `answers: ${count(turns.length)} calls, about ${count(sum(turns.map(({ text }) => estimateTokens(text))))} tokens of ` +
      `prompts, at most ${count(sum(turns.map(({ most }) => most)))} tokens of answers`
  const judging = benchmark.judged
    ? `judge: ${count(requests.length)} calls, about ${count(sum(requests.map(({ messages }) => tokensOf(messages))))} tokens ` +
      `of prompts${answers ? "" : " without the answers"}, at most ${count(sum(requests.map(({ maxTokens }) => maxTokens)))} of replies`
    : "judge: none needed"
  const prompts = (answers ? [] : turns.slice(0, 2).map(({ text }) => `--- a prompt to answer\n${text}`)).concat(
    requests.slice(0, 3).map(({ messages, temperature, maxTokens }) => {
      const head = `--- to the judge, temperature ${temperature}, at most ${maxTokens} tokens`
      return [head, ...messages.map(({ role, content }) => `[${role}] ${content}`)].join("\n")
    }),
  )
  return [`${benchmark.name}: ${count(items.length)} items`, answering, judging, ...prompts].join("\n")
}
