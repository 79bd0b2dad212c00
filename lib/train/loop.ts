import { existsSync } from "node:fs"
import type { Scalar, Tensor } from "@tensorflow/tfjs"
import { tf } from "../backend/tf"
import { CheckpointError, MuscError, StoppedError } from "../errors"
import { microBatches } from "../model/batch"
import { bind, type Lora } from "../model/lora"
import { openSafetensors, writeSafetensors } from "../model/safetensors"
import type { Bound, Model, Params } from "../model/transformer"
import { rng } from "../rng"
import {
  type AdamOptions,
  type AdamState,
  adamDefaults,
  adamInit,
  adamStep,
  type ScheduleShape,
  schedule,
} from "./optim"

/**
 * The one training loop: supervised, DPO and token-weighted DPO are calls of it with another loss.
 */

/** What a loss gives for a micro-batch: its share of the step's loss, and sums to log. */
export interface LossResult {
  /** differentiable; shares of all micro-batches add up to the loss of the step */
  loss: Scalar
  /** named scalars or vectors whose elements are added up over the step */
  logs?: Record<string, Tensor>
}

/** Where items of each step come from. */
export interface Batches<Item> {
  steps: number
  /** items of step `step` in [0, steps); must depend on nothing else */
  at(step: number): readonly Item[]
}

export interface TrainOptions<Item> {
  model: Model
  /** trained if given; else all weights of the model are */
  lora?: Lora
  batches: Batches<Item>
  /** padded tokens that an item costs, for grouping */
  tokensOf(item: Item): number
  /** loss of some items of a step; `step` holds all of them, for the division */
  loss(bound: Bound, items: readonly Item[], step: readonly Item[]): LossResult
  /** peak learning rate */
  lr: number
  shape?: ScheduleShape
  /** share of the steps with rising learning rate; .1 in the paper */
  warmup?: number
  adam?: Partial<AdamOptions>
  /** most padded tokens in one forward pass */
  tokenBudget?: number
  /** compute each layer again in the backward pass instead of keeping its activations: a third more work, less memory */
  gradientCheckpointing?: boolean
  /** state is written here every `every` steps and at a stop; a run that finds it goes on from there */
  checkpoint?: { file: string; every: number; key: string }
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

/** Shuffles anew each epoch by the seed and deals out batches; the last one of an epoch may be short. */
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
 * @throws StoppedError when `signal` is aborted, after writing the checkpoint; MuscError when the loss is no longer a number
 */
export async function train<Item>(options: TrainOptions<Item>): Promise<void> {
  const { model, lora, batches, checkpoint } = options
  const params = lora ? lora.params : model.params
  const adam = { ...adamDefaults, ...options.adam }
  const rate = schedule(options.shape ?? "cosine", options.warmup ?? 0.1)
  let state = checkpoint && existsSync(checkpoint.file) ? restore(checkpoint, params) : adamInit(params)
  try {
    while (state.step < batches.steps) {
      if (options.signal?.aborted) throw new StoppedError("training stopped")
      const step = state.step
      const items = batches.at(step)
      const { loss, grads, logs, tokens } = await stepGradients(options, items)
      if (!Number.isFinite(loss)) {
        tf.dispose(grads)
        throw new MuscError(
          `training: the loss must be a number, got ${loss} at step ${step + 1}; lower lr or raise warmup`,
        )
      }
      const lr = options.lr * rate(step, batches.steps)
      const updated = await adamStep(params, grads, state, lr, adam)
      tf.dispose(grads)
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

/** Loss and gradients of one step, summed over its micro-batches, by parameter name. The caller disposes `grads`. */
export async function stepGradients<Item>(
  options: Pick<TrainOptions<Item>, "model" | "lora" | "tokensOf" | "loss" | "tokenBudget" | "gradientCheckpointing">,
  items: readonly Item[],
) {
  const params = options.lora ? options.lora.params : options.model.params
  const names = Object.keys(params)
  const recompute = options.gradientCheckpointing
  const logs: Record<string, number> = {}
  let loss = 0
  let tokens = 0
  let sum: Tensor[] | null = null
  for (const micro of microBatches(items, options.tokensOf, options.tokenBudget ?? 4096)) {
    tokens += micro.length * Math.max(...micro.map(options.tokensOf))
    const previous: Tensor[] | null = sum
    let logged: string[] = []
    const [values, ...grads]: Tensor[] = tf.tidy((): Tensor[] => {
      // Effective LoRA matrices stay off the tape; with all weights trained there are none and everything is on it.
      const bound = options.lora ? bind(options.model, { lora: options.lora, recompute }) : null
      const kept: Record<string, Tensor> = {}
      const taped: { value: Tensor; grads: Tensor[] } = tf.engine().gradients(
        (): Scalar => {
          const result = options.loss(bound ?? bind(options.model, { trainAll: true, recompute }), micro, items)
          for (const [name, tensor] of Object.entries(result.logs ?? {})) kept[name] = tf.keep(tf.sum(tensor))
          return result.loss
        },
        names.map((name) => params[name]!),
      )
      logged = Object.keys(kept)
      const values = tf.stack([taped.value, ...Object.values(kept)])
      tf.dispose(kept)
      return [values, ...taped.grads.map((g, i) => (previous ? tf.add(g, previous[i]!) : g))]
    })
    sum = grads
    tf.dispose(previous ?? [])
    // One read a micro-batch: on a GPU each waits for all that was sent.
    const [share, ...sums] = await values!.data()
    values!.dispose()
    loss += share!
    logged.forEach((name, i) => {
      logs[name] = (logs[name] ?? 0) + sums[i]!
    })
  }
  const grads = Object.fromEntries(names.map((name, i) => [name, sum![i]!]))
  return { loss, grads, logs, tokens }
}

type Checkpoint = NonNullable<TrainOptions<unknown>["checkpoint"]>

/** Of what a checkpoint holds; to be raised when the order inside the optimizer's state changes. */
const layout = "2"

async function save({ file, key }: Checkpoint, params: Params, state: AdamState): Promise<void> {
  const all: Params = { ...params, "adam.m": state.m, "adam.v": state.v }
  const tensors = Object.entries(all).map(([name, tensor]) => ({
    name,
    shape: tensor.shape,
    dtype: "F32" as const,
    data: async () => (await tensor.data()) as Float32Array,
  }))
  await writeSafetensors(file, tensors, { step: `${state.step}`, layout, key })
}

/** Reads the state back into `params`. A checkpoint of another run (`key` differs) is refused. */
function restore({ file, key }: Checkpoint, params: Params): AdamState {
  const held = openSafetensors(file)
  try {
    if (held.metadata.key !== key || held.metadata.layout !== layout) {
      throw new CheckpointError(file, [
        "this training state belongs to a run with other settings or another version; delete it to start anew",
      ])
    }
    const read = (name: string, shape: number[]) => tf.tensor(held.read(name), shape, "float32")
    for (const [name, old] of Object.entries(params)) {
      params[name] = read(name, old.shape)
      old.dispose()
    }
    const size = Object.values(params).reduce((n, p) => n + p.size, 0)
    const m = read("adam.m", [size]) as AdamState["m"]
    const v = read("adam.v", [size]) as AdamState["v"]
    return { step: Number(held.metadata.step), m, v }
  } finally {
    held.close()
  }
}
