import { existsSync } from "node:fs"
import { writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import type { PairWeights } from "../data/schema"
import type { Spool } from "../data/spool"
import type { LocalModel } from "../engine/local"
import { CheckpointError } from "../errors"
import type { Lora } from "../model/lora"
import type { TrainOptions } from "../train/loop"
import type { PairItem } from "../train/objective"
import { type ScoredPair, type WeightingName, weighRequest, weightsOf } from "./weigh"

/**
 * Dynamic weights: the abstract's "dynamic token-level supervision" may mean weights that the base model makes once, or
 * weights that follow the policy. This is the second reading: between epochs the policy scores its pairs again.
 */
export interface Reweigher {
  /** Makes the weights of the epoch that begins with this step, if new ones are due. Called before each step. */
  beforeStep(step: number): Promise<void>
  /** The item with the weights of now. */
  item(item: PairItem, index: number): PairItem
}

interface ReweighOptions extends Pick<TrainOptions, "checkpoint"> {
  /** the pairs, in the order of the items */
  rows: Spool<ScoredPair>
  /** epochs between two weighings */
  every: number
  /** steps of an epoch */
  perEpoch: number
  settings: { seed: number; weighting: WeightingName; firstTokenZero: boolean }
}

/**
 * The file beside a checkpoint that keeps the weights of the epoch under way, which the policy of now would not make
 * again.
 */
export const weightsFile = (checkpoint: string): string => `${checkpoint}.weights.json`

/** Weighs by the policy every so many epochs; the weights of the epoch under way stand beside the checkpoint. */
export function openReweigher(
  local: LocalModel,
  lora: Lora,
  { rows, every, perEpoch, settings, checkpoint }: ReweighOptions,
): Reweigher {
  let weights: readonly PairWeights[] | null = null
  let madeIn = 0
  const file = checkpoint && weightsFile(checkpoint.file)

  async function weighAgain(epoch: number): Promise<PairWeights[]> {
    const engine = local.engine(lora)
    const all: PairWeights[] = []
    try {
      for (let start = 0; start < rows.length; start += engine.concurrency) {
        const some = Array.from(
          { length: Math.min(engine.concurrency, rows.length - start) },
          (_, i) => rows.at(start + i)!,
        )
        const scored = await Promise.all(some.map((row) => engine.score(weighRequest(row))))
        for (const [i, { id, rejected_from }] of some.entries()) {
          const [chosen, rejected] = scored[i]!
          const about = { ...settings, id, rejectedFrom: rejected_from }
          all.push(weightsOf({ chosen: chosen!, rejected: rejected! }, settings.weighting, about))
        }
      }
    } finally {
      engine.dispose()
    }
    if (file) await writeAtomic(file, `${JSON.stringify({ key: checkpoint.key, epoch, weights: all })}\n`)
    return all
  }

  function readWeights(epoch: number): PairWeights[] {
    const stored = file && existsSync(file) ? readJsonFile(file) : {}
    if (stored.key !== checkpoint?.key || stored.epoch !== epoch) {
      const problem = `holds no weights of epoch ${epoch + 1}, in which training stopped`
      throw new CheckpointError(file ?? "checkpoint", [`${problem}; delete the folder to start over`])
    }
    return stored.weights as PairWeights[]
  }

  return {
    async beforeStep(step) {
      const epoch = Math.floor(step / perEpoch)
      const due = epoch - (epoch % every)
      if (due === madeIn) return
      weights = step === due * perEpoch ? await weighAgain(due) : readWeights(due)
      madeIn = due
    },
    item(item, index) {
      const own = weights?.[index]
      if (!own) return item
      const chosenWeights = own.chosen.slice(0, item.chosen.length)
      return { ...item, chosenWeights, rejectedWeights: own.rejected.slice(0, item.rejected.length) }
    },
  }
}
