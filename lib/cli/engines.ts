import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import type { RunConfig } from "../config/config"
import { sha256File } from "../data/files"
import { cachedGenerator } from "../engine/cached"
import type { Generator } from "../engine/engine"
import type { LocalModel } from "../engine/local"
import type { OpenAIOptions } from "../engine/openai"
import { type JudgeCounts, judgeOf } from "../eval/judge"
import type { AnswerSource, BenchmarkRun } from "../runs/benchmark"
import { openWriting, type WritingServer } from "../runs/servers"
import { openAdapter } from "../runs/train-stage"
import type { Display } from "./display"
import { type JudgeFlags, judgeServerOptions, type ServerFlags, writerOptions } from "./servers"
import { openModel, readConfig } from "./support"

/** Who answers and who judges. */
export interface EngineOptions extends ServerFlags, JudgeFlags {
  responses?: string
  model?: string
  adapter?: string
  backend?: RunConfig["backend"]
  math?: RunConfig["math"]
  workers?: number
  judgeSelf?: boolean
  tries: number
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
  const { responses, judgeSelf, tries } = options
  const open: Partial<Record<Role, OpenEngine>> = {}
  const openServerFor = async (role: Role, server: OpenAIOptions) => {
    const file = join(dir, `${role}.calls.jsonl`)
    const opened = await openWriting(server, { file, signal, onNote: show.note, role })
    open[role] = opened
    return opened
  }
  const openLocalFor = async (role: Role, engine: Generator, id: string) => {
    await mkdir(dir, { recursive: true })
    const cached = await cachedGenerator(engine, { file: join(dir, `${role}.calls.jsonl`), id, signal })
    const opened = { engine: cached, id, retries: 0, close: () => cached.close() }
    open[role] = opened
    return opened
  }
  let counts: Readonly<JudgeCounts> | undefined
  const engines: Engines = {
    totals: () =>
      Object.fromEntries(
        Object.entries(open).map(([role, { engine, retries }]) => [
          role,
          { ...engine.totals, retries, ...(role === "judge" && counts) },
        ]),
      ),
    close: async () => {
      for (const { close } of Object.values(open)) await close()
    },
  }
  try {
    const { model, backend, math, workers } = options
    const local = model ? await openModel(readConfig({ model, backend, math, workers }), show, signal) : undefined
    if (!responses && options.endpoint) {
      const { engine, id } = await openServerFor("answers", writerOptions(options))
      engines.answers = { engine, id, local: false }
    }
    if (!responses && local) engines.answers = { ...(await localAnswers(local, options, signal, show)), local: true }
    if (judged) {
      const plain = () => local!.engine(null, { signal, onTokens: show.tokens })
      const server = judgeSelf ? options.endpoint && writerOptions(options) : judgeServerOptions(options)
      const { engine, id } = server
        ? await openServerFor("judge", server)
        : await openLocalFor("judge", plain(), local!.fingerprint)
      const opened = judgeOf(engine, { tries })
      counts = opened.counts
      const { name, concurrency, independent } = engine
      engines.judge = { ask: opened.judge, id: `${id}, ${tries} tries`, name, concurrency, independent }
    }
    return engines
  } catch (error) {
    await engines.close()
    throw error
  }
}

type Role = "answers" | "judge"
type OpenEngine = Pick<WritingServer, "engine" | "id" | "retries" | "close">

async function localAnswers(local: LocalModel, { adapter }: EngineOptions, signal: AbortSignal, show: Display) {
  const lora = adapter ? openAdapter(adapter, local) : null
  const weights = adapter ? await sha256File(join(adapter, "adapter_model.safetensors")) : "base"
  const engine = local.engine(lora, { signal, onTokens: show.tokens })
  return { engine, id: `${local.fingerprint} ${weights}` }
}
