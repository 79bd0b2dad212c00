import type { Tensor1D } from "@tensorflow/tfjs-core"
import { tf } from "../device/tf"
import type { Lora } from "../model/lora"
import { bind, release } from "../model/lora"
import { type Bound, type Model, sizeOf } from "../model/transformer"
import { bound, type Helpers, type Learner, type Share, shareOf, trainedParams } from "../train/gradients"
import type { Item, PairItem } from "../train/objective"
import { referenceOf } from "../train/pairs"
import { receivedParams, type SentLearner, sentLearner } from "./sent"
import { Shelf, type ShelfPlace } from "./shelf"
import type { Session, WorkerPool } from "./workers"

/** A micro-batch; `total` is what all items of its step weigh, `slot` where its gradient may be put. */
export interface ShareRequest {
  items: readonly Item[]
  total: number
  slot: number
}

/** A vector, or null where it is on the shelf. */
type Sent = Float32Array | null

/**
 * The processes of a pool as helpers of a training; `close` after it. Nothing starts before it is asked for something, and
 * none are had without a pool.
 */
export function openHelpers(pool: WorkerPool | null, learner: Learner): (Helpers & { close(): void }) | null {
  if (!pool) return null
  const parameters = sizeOf(learner.model.params)
  const shelf = Shelf.make(sizeOf(trainedParams(learner)))
  const place = shelf?.place ?? null
  const session: Session = pool.open(async () => ({ kind: "learner", learner: sentLearner(learner), shelf: place }))
  const ask = async <T>(work: "share" | "reference", request: ShareRequest) =>
    (await session.run(work, [request]))[0] as T
  let slot = 0
  return {
    worth: (tokens) => pool.worth(tokens * parameters),
    async update(vector) {
      slot = 0
      await session.update(await given(shelf, slot++, vector))
    },
    async share(items, total) {
      const request = { items, total, slot: slot++ }
      const { gradient, ...rest } = await ask<Share<Sent>>("share", request)
      return { ...rest, gradient: received(shelf, request.slot, gradient) }
    },
    reference: (items) => ask<Float32Array>("reference", { items, total: 0, slot: 0 }),
    close() {
      session.close()
      shelf?.close()
    },
  }
}

/** Puts a vector on the shelf, or gives its values where there is none or no room. */
async function given(shelf: Shelf | null, slot: number, vector: Tensor1D): Promise<Sent> {
  return shelf && (await shelf.put(slot, vector)) ? null : ((await vector.data()) as Float32Array)
}

const received = (shelf: Shelf | null, slot: number, values: Sent): Tensor1D =>
  values ? tf.tensor1d(values) : shelf!.take(slot)

/** A learner in another process than its training. */
export interface LearnerCopy {
  update(values: Sent): void
  share(request: ShareRequest): Promise<Share<Sent>>
  reference(request: ShareRequest): Promise<Float32Array>
  dispose(): void
}

/** `base` is what an adapter is trained on; null where all weights are trained, which come with each update. */
export function openLearner(sent: SentLearner, place: ShelfPlace | null, base: Model | null): LearnerCopy {
  const shelf = place ? Shelf.open(place) : null
  const { config, shapes, lora: _, ...how } = sent
  const learner: Learner = { model: sent.lora ? base! : { config, params: {} }, ...how }
  let ready: Bound | null = null
  let frozen: Bound | null = null
  const dispose = () => {
    if (ready) release(ready)
    ready = null
    tf.dispose(learner.lora?.params ?? (sent.lora ? {} : learner.model.params))
  }
  return {
    update(values) {
      dispose()
      const vector = received(shelf, 0, values)
      const params = receivedParams(vector, shapes)
      vector.dispose()
      if (sent.lora) learner.lora = { ...sent.lora, params } satisfies Lora
      else learner.model.params = params
      ready = bound(learner)
    },
    async share({ items, total, slot }) {
      const { gradient, ...rest } = await shareOf(learner, ready, [items], total)
      const values = await given(shelf, slot, gradient)
      gradient.dispose()
      return { ...rest, gradient: values }
    },
    reference({ items }) {
      frozen ??= bind(base!, { graphs: true })
      return referenceOf(frozen, [items as PairItem[]])
    },
    dispose() {
      dispose()
      if (frozen) release(frozen)
      shelf?.close()
    },
  }
}
