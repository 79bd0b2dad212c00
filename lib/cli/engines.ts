import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import type { RunConfig } from "../config/config"
import { type CachedGenerator, cachedGenerator } from "../engine/cached"
import type { Generator } from "../engine/engine"
import type { LocalModel } from "../engine/local"
import { type OpenAIOptions, openaiGenerator } from "../engine/openai"
import { type JudgeCounts, judgeOf } from "../eval/judge"
import type { AnswerSource, BenchmarkRun } from "../runs/benchmark"
import { sha256File } from "../runs/manifest"
import { openAdapter } from "../runs/train-stage"
import type { Display } from "./display"
import { openModel, readConfig } from "./support"

/** Who answers and who judges. */
export interface EngineOptions {
  responses?: string
  model?: string
  adapter?: string
  backend?: RunConfig["backend"]
  math?: RunConfig["math"]
  workers?: number
  endpoint?: URL
  endpointModel?: string
  judge?: URL
  judgeModel?: string
  judgeSelf?: boolean
  concurrency: number
  timeout: number
  retries: number
  tries: number
  keyVariable: string
  judgeKeyVariable: string
  limitField: OpenAIOptions["limitField"]
  seed: number
}

export type Totals = Record<string, number>

export interface Engines {
  answers?: Omit<Extract<AnswerSource, { engine: Generator }>, "seed">
  judge?: BenchmarkRun["judge"]
  /** Calls, tokens and retries of this time. */
  totals(): Record<string, Totals>
  close(): Promise<void>
}

/**
 * Opens the engines that the options name. Finished calls of servers, and of any judge, are kept in the folder.
 * @throws InputError, CheckpointError for a model or server that cannot be used
 */
export async function openEngines(
  options: EngineOptions,
  dir: string,
  { signal, show, judged }: { signal: AbortSignal; show: Display; judged: boolean },
): Promise<Engines> {
  const { responses, judge, judgeSelf, tries } = options
  const retries: Totals = { answers: 0, judge: 0 }
  const told = new Set<string>()
  const server = (role: "answers" | "judge", baseURL: URL, model: string, keyVariable: string) => {
    const onRetry: OpenAIOptions["onRetry"] = (problem) => {
      retries[role]!++
      if (!told.has(problem)) show.note(`${role}: trying again after: ${problem}`)
      told.add(problem)
    }
    const { concurrency, timeout, retries: maxRetries, limitField } = options
    const engine = openaiGenerator({
      model,
      baseURL: baseURL.href,
      keyVariable,
      concurrency,
      timeout,
      maxRetries,
      limitField,
      onRetry,
    })
    return { engine, id: model } // whatever the address: a server may come back at another one
  }
  const own = options.endpoint && server("answers", options.endpoint, options.endpointModel!, options.keyVariable)
  const local = options.model
    ? await openModel(
        readConfig({ model: options.model, backend: options.backend, math: options.math, workers: options.workers }),
        show,
      )
    : undefined
  const cached: Record<string, CachedGenerator> = {}
  const keep = async (role: "answers" | "judge", { engine, id }: { engine: Generator; id: string }) => {
    await mkdir(dir, { recursive: true })
    cached[role] = await cachedGenerator(engine, { file: join(dir, `${role}.calls.jsonl`), id, signal })
    return cached[role]
  }
  const engines: Engines = {
    totals: () =>
      Object.fromEntries(
        Object.entries(cached).map(([role, { totals }]) => [
          role,
          { ...totals, retries: retries[role]!, ...(role === "judge" && counts) },
        ]),
      ),
    close: async () => {
      for (const one of Object.values(cached)) await one.close()
    },
  }
  let counts: Readonly<JudgeCounts> | undefined
  if (!responses && own) engines.answers = { engine: await keep("answers", own), id: own.id, local: false }
  if (!responses && local) engines.answers = { ...(await localAnswers(local, options, signal, show)), local: true }
  if (judged) {
    const plain = local && { engine: local.engine(null, { signal, onTokens: show.tokens }), id: local.fingerprint }
    const judging = judgeSelf ? (own ?? plain!) : server("judge", judge!, options.judgeModel!, options.judgeKeyVariable)
    const engine = await keep("judge", judging)
    const opened = judgeOf(engine, { tries })
    counts = opened.counts
    const { name, concurrency } = engine
    engines.judge = { ask: opened.judge, id: `${judging.id}, ${tries} tries`, name, concurrency }
  }
  return engines
}

async function localAnswers(local: LocalModel, { adapter }: EngineOptions, signal: AbortSignal, show: Display) {
  const lora = adapter ? openAdapter(adapter, local) : null
  const weights = adapter ? await sha256File(join(adapter, "adapter_model.safetensors")) : "base"
  const engine = local.engine(lora, { signal, onTokens: show.tokens })
  return { engine, id: `${local.fingerprint} ${weights}` }
}
