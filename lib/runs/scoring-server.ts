import { existsSync } from "node:fs"
import { join } from "node:path"
import { sha256File } from "../data/files"
import type { Scorer } from "../engine/engine"
import type { OpenAIOptions } from "../engine/openai"
import { openServer } from "../engine/server"
import { serverScorer } from "../engine/server-scorer"
import { InputError } from "../errors"
import { loadTokenizer } from "../text/tokenizer"
import type { RunContext } from "./context"
import { modelFolder } from "./model"
import { keyOf } from "./store"

/**
 * A server that scores, with tokenizer and chat template of a model folder; its identity is made of both.
 * @throws InputError without a folder
 */
export async function openScoring(
  server: OpenAIOptions,
  model: string | undefined,
  { signal, onNote, onProgress }: Pick<RunContext, "signal" | "onNote" | "onProgress">,
): Promise<{ engine: Scorer; identity: string }> {
  if (!model) {
    const rule = "must name the folder of the served model, whose tokenizer and chat template are needed, got nothing"
    throw new InputError(`${rule}; add it`, { field: "--model" })
  }
  const onRetry = (problem: string) => onNote(`trying again after: ${problem}`)
  const options = { ...server, signal, onRetry }
  const { id } = await openServer(options)
  const dir = await modelFolder(model, { signal, onProgress })
  const files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"].map((name) => join(dir, name))
  const hashes = await Promise.all(files.filter((file) => existsSync(file)).map(sha256File))
  const engine = serverScorer({ ...options, tokenizer: loadTokenizer(dir) }) as unknown as Scorer
  return { engine, identity: keyOf("server scorer", id, hashes) }
}
