/**
 * What WebGPU computes on the fixtures, as one JSON line, or why it cannot run. Run by tests/model/webgpu.test.ts in a
 * process of its own.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { tf, useBackend, valuesOf } from "../../lib/device/tf"
import { BackendError } from "../../lib/errors"
import { readAdapter } from "../../lib/model/adapter"
import { loadConfig } from "../../lib/model/config"
import { contexts } from "../../lib/model/context"
import { generate } from "../../lib/model/generate"
import { pack } from "../../lib/model/logprobs"
import { bind, fromAdapter, toAdapter } from "../../lib/model/lora"
import { forward } from "../../lib/model/transformer"
import { loadModel } from "../../lib/model/weights"
import { cappedLogits } from "../../lib/ops/head"
import { type StepLog, train } from "../../lib/train/loop"
import { preferenceDefaults } from "../../lib/train/losses"
import { withReference } from "../../lib/train/pairs"
import { preferring } from "./step"

export interface WebgpuAnswer {
  /** why there is no device; the rest is absent then */
  reason?: string
  device: string
  /** largest difference of a logit to transformers', by fixture */
  logitGaps: Record<string, number>
  /** greedy answers to the prompts of the llama fixture, as one batch */
  answers: number[][]
  /** two steps of token-weighted DPO of its adapter */
  steps: StepLog[]
  /** how far the adapter moved: the largest change of a number of a first matrix A */
  moved: number
  tensorsLeft: number
}

const fixture = (name: string) => join(__dirname, "../fixtures/models", name)
const expectedOf = (name: string) => JSON.parse(readFileSync(join(fixture(name), "expected.json"), "utf8"))

function open(name: string) {
  const config = loadConfig(fixture(name))
  return { config, model: loadModel(fixture(name), config), expected: expectedOf(name) }
}

async function logitGap(name: string): Promise<number> {
  const { config, model, expected } = open(name)
  const bound = bind(model)
  let gap = 0
  const { ids, ...places } = pack([{ prompt: expected.inputs[0], responses: [] }])
  const logits = await valuesOf(() => {
    const hidden = forward(bound, tf.tensor1d(ids), places, contexts(config, places))
    return cappedLogits(hidden, bound.head, config.logitSoftcap).logits
  })
  const wanted = (expected.logits as { row: number; position: number; values: number[] }[]).filter(({ row }) => !row)
  for (const { position, values } of wanted) {
    const got = logits.subarray(position * config.vocabSize, (position + 1) * config.vocabSize)
    for (const [i, value] of values.entries()) gap = Math.max(gap, Math.abs(got[i]! - value))
  }
  tf.dispose([model.params, bound.layers.map(({ qkNorm }) => qkNorm ?? [])])
  return wanted.length ? gap : Number.NaN
}

async function trained(): Promise<Pick<WebgpuAnswer, "steps" | "moved">> {
  const { config, model, expected } = open("llama")
  const before = readAdapter(join(fixture("llama"), "adapter"), config)
  const lora = fromAdapter(before)
  type Pair = Record<"prompt" | "chosen" | "rejected" | "chosen_weights" | "rejected_weights", number[]>
  const pairs = expected.lora.pairs.map(({ chosen_weights, rejected_weights, ...pair }: Pair) => ({
    ...pair,
    chosenWeights: chosen_weights,
    rejectedWeights: rejected_weights,
  }))
  const items = await withReference(model, pairs, 4096)
  const steps: StepLog[] = []
  await train({
    ...{ model, lora, ...preferring({ ...preferenceDefaults, beta: expected.lora.beta }) },
    ...{ batches: { steps: 2, at: () => items }, lr: 1e-3, warmup: 0, onStep: (log: StepLog) => void steps.push(log) },
  })
  const after = await toAdapter(lora, config)
  const [key, { A }] = [...before.tensors][0]!
  const moved = Math.max(...A.data.map((x, i) => Math.abs(x - after.tensors.get(key)!.A.data[i]!)))
  tf.dispose([model.params, lora.params])
  return { steps, moved }
}

async function written(): Promise<number[][]> {
  const { model, expected } = open("llama")
  const rows = expected.greedy.map(({ prompt }: { prompt: number[] }) => ({
    ...{ prompt, seed: 1, temperature: 0, maxTokens: 6 },
  }))
  const answers = await generate(bind(model), rows, { eosIds: [] })
  tf.dispose(model.params)
  return answers.map(({ ids }) => ids)
}

async function main(names: string[]): Promise<void> {
  try {
    const { detail } = await useBackend("webgpu")
    const logitGaps: Record<string, number> = {}
    for (const name of names) logitGaps[name] = await logitGap(name)
    const rest = { answers: await written(), ...(await trained()) }
    console.log(JSON.stringify({ device: detail, logitGaps, ...rest, tensorsLeft: tf.memory().numTensors }))
  } catch (error) {
    if (!(error instanceof BackendError)) throw error
    console.log(JSON.stringify({ reason: error.message }))
  }
}

// Dawn keeps threads alive that would hold the process.
if (require.main === module) main(process.argv.slice(2)).then(() => process.exit(0))
