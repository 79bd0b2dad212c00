import { existsSync } from "node:fs"
import { tf } from "../device/tf"
import { CheckpointError, InputError, MuscError, StoppedError } from "../errors"
import { openSafetensors, writeSafetensors } from "../model/safetensors"
import { type Params, sizeOf } from "../model/transformer"
import { rng } from "../rng"
import { type Learner, stepGradient, trainedParams } from "./gradients"
import { needsDivergence } from "./losses"
import type { ItemOf, Objective } from "./objective"
import {
  type AdamOptions,
  type AdamState,
  adamDefaults,
  adamInit,
  adamStep,
  type ScheduleShape,
  schedule,
} from "./optim"

/** The one training loop: supervised, DPO and token-weighted DPO are calls of it with another objective. */

/** Where items of each step come from. */
export interface Batches<Item> {
  steps: number
  /** items of step `step` in [0, steps); must depend on nothing else */
  at(step: number): readonly Item[]
}

/** What a training loop does: its objective, its batches, its learning rate. */
export interface TrainOptions<O extends Objective = Objective> extends Learner {
  objective: O
  batches: Batches<ItemOf<O>>
  /** peak learning rate */
  lr: number
  shape?: ScheduleShape
  /** share of the steps with a rising learning rate; .1 in the paper */
  warmup?: number
  adam?: Partial<AdamOptions>
  /** most padded tokens in one forward pass */
  tokenBudget?: number
  /** state is written here every `every` steps and at a stop; a run that finds it resumes from there */
  checkpoint?: { file: string; every: number; key: string }
  /** called before each step, which waits for it */
  beforeStep?: (step: number) => Promise<void>
  /** called after each step; the next one waits for it */
  onStep?: (log: StepLog) => void | Promise<void>
  signal?: AbortSignal
}

/** One line of a training log. */
export interface StepLog {
  /** 1 … steps */
  step: number
  steps: number
  loss: number
  lr: number
  /** global norm before clipping */
  gradNorm: number
  /** padded tokens of the step */
  tokens: number
  [name: string]: number
}

/** Items by their place, as an array has them, wherever they are kept. */
export interface Items<Item> {
  readonly length: number
  at(index: number): Item | undefined
}

/** Reshuffles each epoch by the seed and deals out batches; the last one of an epoch may be short. */
export function epochs<Item>(
  items: Items<Item>,
  options: { epochs: number; batchSize: number; seed: number },
): Batches<Item> {
  const perEpoch = Math.ceil(items.length / options.batchSize)
  const places = Array.from({ length: items.length }, (_, i) => i)
  const orders = new Map<number, readonly number[]>()
  return {
    steps: Math.ceil(perEpoch * options.epochs),
    at(step) {
      const epoch = Math.floor(step / perEpoch)
      if (!orders.has(epoch)) {
        orders.clear()
        orders.set(epoch, rng(options.seed, "epoch", epoch).shuffle(places))
      }
      const start = (step % perEpoch) * options.batchSize
      const dealt = orders.get(epoch)!.slice(start, start + options.batchSize)
      return dealt.map((place) => items.at(place)!)
    },
  }
}

/**
 * Trains in place: `lora.params` (or `model.params`) hold the result.
 * @throws StoppedError when `signal` is aborted, after writing the checkpoint; MuscError when the loss is no longer a
 * number; InputError for TDPO of all weights, which leaves no reference model
 */
export async function train<O extends Objective>(options: TrainOptions<O>): Promise<void> {
  const { objective, lora, batches, checkpoint, tokenBudget } = options
  if (!lora && objective.kind === "preference" && needsDivergence(objective.preference.loss)) {
    const rule = "needs the model without its adapter as the reference, got no adapter; train one"
    throw new InputError(`preference loss ${objective.preference.loss}: ${rule}`)
  }
  const params = trainedParams(options)
  const adam = { ...adamDefaults, ...options.adam }
  const rate = schedule(options.shape ?? "cosine", options.warmup ?? 0.1)
  let state = checkpoint && existsSync(checkpoint.file) ? restore(checkpoint, params) : adamInit(params)
  try {
    while (state.step < batches.steps) {
      if (options.signal?.aborted) throw new StoppedError("training stopped")
      const step = state.step
      await options.beforeStep?.(step)
      const items = batches.at(step)
      const { loss, gradient, logs, tokens } = await stepGradient(options, items, { tokenBudget })
      if (!Number.isFinite(loss)) {
        gradient.dispose()
        throw new MuscError(
          `training: the loss must be a number, got ${loss} at step ${step + 1}; lower lr or raise warmup`,
        )
      }
      const lr = options.lr * rate(step, batches.steps)
      const updated = await adamStep(params, gradient, state, lr, adam)
      state = updated.state
      await options.onStep?.({
        step: step + 1,
        steps: batches.steps,
        loss,
        lr,
        gradNorm: updated.gradNorm,
        tokens,
        ...logs,
      })
      if (checkpoint && (state.step % checkpoint.every === 0 || state.step === batches.steps))
        await save(checkpoint, params, state)
      await new Promise((resolve) => setImmediate(resolve))
    }
  } catch (error) {
    if (checkpoint && error instanceof StoppedError) await save(checkpoint, params, state)
    throw error
  } finally {
    tf.dispose([state.m, state.v])
  }
}

type Checkpoint = NonNullable<TrainOptions["checkpoint"]>

/** Of what a checkpoint holds; to be raised when the order inside the optimizer's state changes. */
const layout = "4"

async function save({ file, key }: Checkpoint, params: Params, state: AdamState): Promise<void> {
  const all: Params = { ...params, "adam.m": state.m, "adam.v": state.v }
  const tensors = Object.entries(all).map(([name, tensor]) => ({
    name,
    shape: tensor.shape,
    dtype: "F32" as const,
    data: async () => (await tensor.data()) as Float32Array,
  }))
  await writeSafetensors(file, tensors, { step: `${state.step}`, layout, key }, { hashed: true })
}

/** Reads the state back into `params`. A checkpoint of another run (`key` differs) is refused. */
function restore({ file, key }: Checkpoint, params: Params): AdamState {
  const stored = openSafetensors(file)
  try {
    if (stored.metadata.key !== key || stored.metadata.layout !== layout) {
      throw new CheckpointError(file, [
        "this training state belongs to a run with other settings or another version; delete it to start over",
      ])
    }
    const read = (name: string, shape: number[]) => tf.tensor(stored.read(name), shape, "float32")
    for (const [name, old] of Object.entries(params)) {
      params[name] = read(name, old.shape)
      old.dispose()
    }
    const size = sizeOf(params)
    const m = read("adam.m", [size]) as AdamState["m"]
    const v = read("adam.v", [size]) as AdamState["v"]
    return { step: Number(stored.metadata.step), m, v }
  } finally {
    stored.close()
  }
}
