import { join } from "node:path"
import type { RunConfig } from "../config/config"
import type { EvalItem } from "../data/results"
import { cachedGenerator } from "../engine/cached"
import type { Generator } from "../engine/engine"
import type { OpenAIOptions } from "../engine/openai"
import type { Engines } from "./engines"
import { openWriting } from "./servers"

/** A server that judges the final evaluation and the benchmarks of a run. */
export interface RunJudge {
  engine: Generator
  /**
   * What decides its verdicts: part of the keys of all that it judged. Not its address, so that it may come back
   * elsewhere.
   */
  id: string
  close(): Promise<void>
}

/**
 * The judge that the settings name, undefined for none. Its finished calls are kept in `judge.calls.jsonl` of the run
 * folder, so that none is made twice. `judge` says how it is asked; `evalJudge` stands in for the server.
 */
export async function openRunJudge(
  { evalJudgeEndpoint, evalJudgeModel }: RunConfig,
  { dir, signal, onNote, judge, evalJudge }: OpeningOptions,
): Promise<RunJudge | undefined> {
  const file = join(dir, "judge.calls.jsonl")
  if (evalJudge) {
    const cachedJudge = await cachedGenerator(evalJudge, { file, id: evalJudge.name, signal })
    return { engine: cachedJudge, id: evalJudge.name, close: () => cachedJudge.close() }
  }
  if (!evalJudgeEndpoint) return undefined
  const server = { ...judge, model: evalJudgeModel, baseURL: evalJudgeEndpoint }
  return openWriting(server, { file, signal, onNote, role: "judge" })
}

interface OpeningOptions {
  dir: string
  signal?: AbortSignal
  onNote: (line: string) => void
  judge?: Omit<OpenAIOptions, "model" | "baseURL">
  evalJudge?: Generator
}

/** Who said which constraints the answers keep, for the head of tables: exact checks leave no reply, judges do. */
export function judgedBy(
  items: readonly EvalItem[],
  {
    name,
    base,
    textIdentity,
    answerIdentity,
  }: Pick<Engines, "name" | "textIdentity" | "answerIdentity"> & {
    base: { name: string }
  },
  judge?: Pick<RunJudge, "id">,
): string {
  const verdicts = items.flatMap(({ constraints }) => constraints)
  const replies = verdicts.filter(({ reply }) => reply !== undefined).length
  const own = `the model itself (${name}, untrained), which leans to its own answers`
  const who = judge
    ? `the judge ${judge.id}`
    : textIdentity === answerIdentity
      ? own
      : `the server's model ${base.name}`
  if (!replies) return "exact checks"
  return replies === verdicts.length ? who : `exact checks where there are any, else ${who}`
}
