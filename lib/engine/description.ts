import { createHash, type Hash } from "node:crypto"
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs"
import { join } from "node:path"
import { readJsonFile } from "../data/json-file"
import { endable } from "../data/stop-signals"
import { currentDevice } from "../device/device"
import { loadConfig, type ModelConfig } from "../model/config"
import { modelName } from "../model/merge"
import { openSafetensors } from "../model/safetensors"
import { withThinking } from "../text/chat"
import { defaultTemplate } from "../text/chat-template"
import { addedMap, countsTokenMap, loadTokenizer, type Tokenizer, tokenMap } from "../text/tokenizer"

/** A checkpoint without its weights: all that is needed to drive engines that hold them elsewhere. */
export interface ModelDescription {
  name: string
  dir: string
  config: ModelConfig
  tokenizer: Tokenizer
  /**
   * sha256 over what decides what the model says: config, tokenizer, weights, and maths other than f32. Of weights that
   * may be sampled, see DescribeOptions, it holds sizes, headers, and 4 KiB at the beginning, middle and end of each
   * tensor.
   */
  readonly fingerprint: string
}

export interface DescribeOptions {
  /** Whether the model thinks, where its template can say so. */
  thinking?: boolean
  /**
   * For weights that no part of this process reads: above 4 GiB in all, their fingerprint is made of samples. Another
   * training of the same shapes changes every tensor, so it gets another fingerprint; damage between the samples does
   * not.
   */
  elsewhere?: boolean
}

/** Weights up to this size in bytes are hashed whole, wherever they are read. */
const WHOLE = 4 * 2 ** 30
const SAMPLE = 4096

/** @throws CheckpointError, InputError naming the file that is missing, broken or not supported */
export function describeModel(dir: string, { thinking, elsewhere = false }: DescribeOptions = {}): ModelDescription {
  let hash: string | null = null
  return {
    name: modelName(dir),
    dir,
    config: loadConfig(dir),
    tokenizer: endable(() => withThinking(loadTokenizer(dir), thinking)),
    get fingerprint() {
      hash ??= endable(() => fingerprint(dir, thinking, elsewhere))
      return hash
    },
  }
}

function fingerprint(dir: string, thinking: boolean | undefined, elsewhere: boolean): string {
  const hash = createHash("sha256")
  if (thinking !== undefined) hash.update(`thinking ${thinking}\n`)
  const { precision } = currentDevice()
  if (precision !== "f32") hash.update(`${precision} maths\n`)
  const settings = join(dir, "tokenizer_config.json")
  const names = readdirSync(dir).filter((name) =>
    /^(config|generation_config|tokenizer.*)\.json$|\.safetensors$|\.jinja$/.test(name),
  )
  if (countsTokenMap(existsSync(settings) ? readJsonFile(settings) : {})) names.push(tokenMap, addedMap)
  names.push(defaultTemplate)
  const isWeights = (name: string) => name.endsWith(".safetensors")
  const size = names.filter(isWeights).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0)
  for (const name of names.filter((name) => existsSync(join(dir, name))).sort()) {
    hash.update(`${name}\n`)
    const add = elsewhere && size > WHOLE && isWeights(name) ? addSamples : addWhole
    add(hash, join(dir, name))
  }
  return hash.digest("hex")
}

function addWhole(hash: Hash, path: string): void {
  const block = Buffer.alloc(1 << 20)
  const file = openSync(path, "r")
  try {
    for (let n = readSync(file, block); n > 0; n = readSync(file, block)) hash.update(block.subarray(0, n))
  } finally {
    closeSync(file)
  }
}

/** @throws CheckpointError for a header that is broken */
function addSamples(hash: Hash, path: string): void {
  const { tensors, close } = openSafetensors(path)
  close()
  const file = openSync(path, "r")
  try {
    const { size } = statSync(path)
    const first = Math.min(size, ...[...tensors.values()].map(({ begin }) => begin))
    hash.update(`samples of ${size} bytes\n`)
    const add = (from: number, bytes: number) => {
      const block = Buffer.alloc(bytes)
      hash.update(block.subarray(0, readSync(file, block, 0, bytes, from)))
    }
    add(0, first) // the header
    for (const { begin, end } of tensors.values()) {
      const bytes = Math.min(SAMPLE, end - begin)
      for (const from of [begin, Math.floor((begin + end - bytes) / 2), end - bytes]) add(from, bytes)
    }
  } finally {
    closeSync(file)
  }
}
