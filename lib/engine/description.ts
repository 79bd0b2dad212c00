import { createHash } from "node:crypto"
import { closeSync, openSync, readdirSync, readSync } from "node:fs"
import { join } from "node:path"
import { endable } from "../data/stop-signals"
import { currentDevice } from "../device/device"
import { loadConfig, type ModelConfig } from "../model/config"
import { modelName } from "../model/merge"
import { withThinking } from "../text/chat"
import { loadTokenizer, type Tokenizer } from "../text/tokenizer"

/** A checkpoint without its weights: all that is needed to drive engines that hold them elsewhere. */
export interface ModelDescription {
  name: string
  dir: string
  config: ModelConfig
  tokenizer: Tokenizer
  /** sha256 over what decides what the model says: config, tokenizer, weights, and maths other than f32 */
  readonly fingerprint: string
}

/** @throws CheckpointError, InputError naming the file that is missing, broken or not supported */
export function describeModel(dir: string, thinking?: boolean): ModelDescription {
  let hash: string | null = null
  return {
    name: modelName(dir),
    dir,
    config: loadConfig(dir),
    tokenizer: endable(() => withThinking(loadTokenizer(dir), thinking)),
    get fingerprint() {
      hash ??= endable(() => fingerprint(dir, thinking))
      return hash
    },
  }
}

function fingerprint(dir: string, thinking?: boolean): string {
  const hash = createHash("sha256")
  if (thinking !== undefined) hash.update(`thinking ${thinking}\n`)
  const { precision } = currentDevice()
  if (precision !== "f32") hash.update(`${precision} maths\n`)
  const names = readdirSync(dir).filter((name) =>
    /^(config|generation_config|tokenizer.*)\.json$|\.safetensors$|\.jinja$/.test(name),
  )
  const block = Buffer.alloc(1 << 20)
  for (const name of names.sort()) {
    hash.update(`${name}\n`)
    const file = openSync(join(dir, name), "r")
    try {
      for (let n = readSync(file, block); n > 0; n = readSync(file, block)) hash.update(block.subarray(0, n))
    } finally {
      closeSync(file)
    }
  }
  return hash.digest("hex")
}
