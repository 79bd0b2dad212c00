import { existsSync } from "node:fs"
import { join } from "node:path"
import type { RunConfig } from "../config/config"
import { sha256File } from "../data/files"
import type { ModelDescription } from "../engine/description"
import type { SignalScorer } from "../engine/engine"
import type { OpenAIOptions } from "../engine/openai"
import { openServer } from "../engine/server"
import { toldOnce } from "../engine/server-problem"
import { serverScorer } from "../engine/server-scorer"
import { InputError } from "../errors"
import { modelName } from "../model/merge"
import { checkServerWeightings, distributionsFrom, needsDistributions } from "../musc/weigh"
import { loadTokenizer } from "../text/tokenizer"
import type { RunContext } from "./context"
import { modelFolder } from "./model"
import type { openServed, WritingServer } from "./servers"
import { trainSettings } from "./stages"
import { keyOf } from "./store"

/**
 * A server that scores, with tokenizer and chat template of a model folder; its identity is made of both.
 * @throws InputError without a folder
 */
export async function openScoring(
  server: OpenAIOptions,
  model: string | undefined,
  { signal, onNote, onProgress }: Pick<RunContext, "signal" | "onNote" | "onProgress">,
): Promise<{ engine: SignalScorer; identity: string }> {
  if (!model) {
    const rule = "must name the folder of the served model, whose tokenizer and chat template are needed, got nothing"
    throw new InputError(`${rule}; add it`, { field: "--model" })
  }
  const { id, listed } = await openServer({ ...server, signal })
  const dir = await modelFolder(model, { signal, onProgress })
  return scoringBy(server, { id, listed }, { dir, tokenizer: loadTokenizer(dir) }, { signal, onNote })
}

/** The same for a server and a model that are known already. */
export async function scoringBy(
  server: OpenAIOptions,
  { id, listed }: Pick<WritingServer, "id" | "listed">,
  { dir, tokenizer }: Pick<ModelDescription, "dir" | "tokenizer">,
  { signal, onNote }: Pick<RunContext, "signal" | "onNote">,
) {
  const last = (name: string) => modelName(name).split("/").at(-1)!.toLowerCase()
  if (listed?.root && last(listed.root) !== last(dir)) {
    const served = `the server says that it serves ${listed.root}, and --model is ${modelName(dir)}`
    onNote(`note: ${served}: signals are right only if both are the same checkpoint`)
  }
  const onRetry = toldOnce((problem) => onNote(`signals: retrying after: ${problem}`))
  const files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map((name) => join(dir, name))
  const hashes = await Promise.all(files.filter((file) => existsSync(file)).map(sha256File))
  const engine = serverScorer({ ...server, signal, onRetry, tokenizer })
  return { engine, identity: keyOf("server scorer", id, hashes) }
}

/** The signals of a run by the server that writes: one that runs, or one that the run starts. */
export async function serverSignals(
  model: ModelDescription,
  {
    server,
    writer,
    served,
    ...opening
  }: Pick<RunContext, "signal" | "onNote"> & {
    server?: OpenAIOptions
    writer?: WritingServer
    served?: Awaited<ReturnType<typeof openServed>>
  },
): Promise<{ engine: SignalScorer; identity: string }> {
  if (served) return { engine: served.text.scorer, identity: keyOf("server scorer", served.id) }
  return scoringBy(server!, writer!, model, opening)
}

/** @throws InputError without a server, and for weightings of the settings or of a method that log-probs cannot make */
export function checkServerSignals(config: RunConfig, hasServer: boolean): void {
  if (!hasServer) {
    throw new InputError("takes signals from a server, got none; add --endpoint or --serve", {
      field: "--server-signals",
    })
  }
  checkServerWeightings(config.weightings)
  const refused = config.methods.flatMap((method) => {
    const settings = trainSettings(config, method, config.seed)
    const weighting = settings?.kind === "preference" ? settings.weighting : "uniform"
    return needsDistributions(weighting) ? [`${method} (${weighting})`] : []
  })
  if (!refused.length) return
  const rule = `must do with the log-probs of a server, got ${refused.join(", ")}; ${distributionsFrom}`
  throw new InputError(`${rule}; or --set weighting=contrast`, { field: "methods" })
}
