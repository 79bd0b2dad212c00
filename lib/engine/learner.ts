import { tf } from "../backend/tf"
import type { Lora } from "../model/lora"
import { bind, release } from "../model/lora"
import type { Bound, Model } from "../model/transformer"
import { bound, type Helpers, type Learner, type Share, shareOf } from "../train/gradients"
import type { Item, PairItem } from "../train/objective"
import { referenceOf } from "../train/pairs"
import { receivedParams, type SentLearner, sentLearner, sentParams } from "./sent"
import type { Session, WorkerPool } from "./workers"

/** A micro-batch; `total` is what all items of its step weigh. */
export interface ShareRequest {
  items: readonly Item[]
  total: number
}

/**
 * The processes of a pool as helpers of a training; `close` after it. Nothing starts before it is asked for something, and
 * none are had without a pool.
 */
export function openHelpers(pool: WorkerPool | null, learner: Learner): (Helpers & { close(): void }) | null {
  if (!pool) return null
  const session: Session = pool.open(async () => ({ kind: "learner", learner: sentLearner(learner) }))
  const parameters = Object.values(learner.model.params).reduce((n, { size }) => n + size, 0)
  const ask = async <T>(work: "share" | "reference", request: ShareRequest) =>
    (await session.run(work, [request]))[0] as T
  return {
    worth: (tokens) => pool.worth(tokens * parameters),
    update: async (params) => session.update(await sentParams(params)),
    share: (items, total) => ask<Share<Float32Array>>("share", { items, total }),
    reference: (items) => ask<Float32Array>("reference", { items, total: 0 }),
    close: () => session.close(),
  }
}

/** A learner in another process than its training. */
export interface LearnerCopy {
  update(values: Float32Array): void
  share(request: ShareRequest): Promise<Share<Float32Array>>
  reference(request: ShareRequest): Promise<Float32Array>
  dispose(): void
}

/** `base` is what an adapter is trained on; null where all weights are trained, which come with each update. */
export function openLearner(sent: SentLearner, base: Model | null): LearnerCopy {
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
      const params = receivedParams(values, shapes)
      if (sent.lora) learner.lora = { ...sent.lora, params } satisfies Lora
      else learner.model.params = params
      ready = bound(learner)
    },
    async share({ items, total }) {
      const { gradient, ...rest } = await shareOf(learner, ready, items, total)
      const values = (await gradient.data()) as Float32Array
      gradient.dispose()
      return { ...rest, gradient: values }
    },
    reference({ items }) {
      frozen ??= bind(base!, { graphs: true })
      return referenceOf(frozen, items as PairItem[])
    },
    dispose() {
      dispose()
      if (frozen) release(frozen)
    },
  }
}
