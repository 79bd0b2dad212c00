import { existsSync } from "node:fs"
import { join } from "node:path"
import { tf } from "../device/tf"
import type { ModelDescription } from "../engine/description"
import type { Generator, SignalScorer } from "../engine/engine"
import { type LocalEngine, type LocalModel, type LocalOptions, openLocal } from "../engine/local"
import type { TorchOptions } from "../engine/torch"
import { modelTraits } from "../model/traits"
import { torchFingerprint, torchScorer } from "./torch-score"
import { openAdapter, runTraining, type TrainStage } from "./train-stage"

/** A generator that holds something until it is disposed: weights, a connection. */
export type OpenGenerator = Generator & { dispose(): void }

/**
 * The model of a run, by what it is asked for. Each part may be in this process, a server or a job of its own, so
 * stages never ask for weights.
 */
export interface Engines {
  /** The model's name in results and adapters. */
  readonly name: string
  /** What decides the signals and the trainings: the checkpoint, as a hash. Part of their keys. */
  readonly fingerprint: string
  /** What decides the texts: the same checkpoint, or a server's model. Part of the keys of all that is written. */
  readonly textIdentity: string
  /**
   * Writes instructions, constraints and answers of the pairs, and judges: the model without an adapter, or a server.
   */
  readonly base: Generator
  /** The model without an adapter, as the trained methods are compared with it. */
  readonly untrained: Generator
  /** What decides the answers of `untrained`, and of the same with adapters. */
  readonly answerIdentity: string
  /** Token signals of answers under several prompts, without an adapter. */
  readonly scorer: SignalScorer
  /** Trains, or finds the training done; gives the adapter's folder. See runTraining. */
  train(training: Training): Promise<string>
  /**
   * Writes with the adapter of a folder, or with the checkpoint that training all weights left there. The caller
   * disposes it.
   */
  withAdapter(dir: string): Promise<OpenGenerator>
  /** Frees what the engines hold. */
  dispose(): void
}

/** A training, whoever does it. */
export type Training = Omit<TrainStage, "by">

/** Texts from somewhere else than this process. */
export interface TextEngine {
  base: Generator
  /**
   * The model's name and revision and how it samples; not the address, so that a server that comes back elsewhere goes
   * on.
   */
  identity: string
  /** Writes with a trained adapter; without it, adapters are answered with in process. */
  withAdapter?(dir: string): Promise<OpenGenerator>
  /** Tells of an adapter that will be wanted. */
  addAdapter?(dir: string): void
  /** Frees its GPUs until texts are wanted again: before scoring and training. */
  pause?(): Promise<void>
  dispose?(): void
}

export interface EngineOptions extends LocalOptions {
  /** A server that writes; this process if not given. */
  text?: TextEngine
  /** Python jobs that score and train; this process if not given. */
  torch?: TorchOptions
  /** A server that scores in place of both: log-probs, and no distributions. */
  signals?: { engine: SignalScorer; identity: string }
  onNote?: (line: string) => void
}

/**
 * The engines of a run. `open` loads the weights into this process; it is called when a part that works here is first
 * asked, so a run whose parts all work elsewhere never reads them.
 */
export function openEngines(
  model: ModelDescription,
  open: () => LocalModel,
  { text, torch, signals, ...options }: EngineOptions,
): Engines {
  let local: LocalModel | undefined
  let engine: LocalEngine | undefined
  const weights = () => {
    local ??= open()
    return local
  }
  const here = openedWhenAsked(model, () => {
    engine ??= weights().engine(null, options)
    return engine
  })
  const scorer = signals?.engine ?? (torch ? torchScorer(model, torch) : here)
  return {
    name: model.name,
    get fingerprint() {
      const by = torch ? torchFingerprint(model.fingerprint, torch) : model.fingerprint
      return signals ? `${by} signals of ${signals.identity}` : by
    },
    get textIdentity() {
      return text ? text.identity : model.fingerprint
    },
    base: text?.base ?? here,
    untrained: text?.withAdapter ? text.base : here,
    get answerIdentity() {
      return text?.withAdapter ? text.identity : model.fingerprint
    },
    scorer: signals ? scorer : scoredBehind(async () => text?.pause?.(), scorer),
    async train(training) {
      await text?.pause?.()
      const adapter = await runTraining({
        ...training,
        by: torch ? { model, torch, scorer, beforeJob: text?.pause } : weights(),
      })
      text?.addAdapter?.(adapter)
      return adapter
    },
    async withAdapter(dir) {
      if (existsSync(join(dir, "config.json"))) return whole(dir, options)
      return text?.withAdapter?.(dir) ?? adapted(weights(), dir, options)
    },
    dispose() {
      text?.dispose?.()
      engine?.dispose()
    },
  }
}

/** The model in this process. */
const openedWhenAsked = (model: ModelDescription, engine: () => LocalEngine): Generator & SignalScorer => ({
  name: model.name,
  maxShots: modelTraits(model.dir).shots,
  get concurrency() {
    return engine().concurrency
  },
  get independent() {
    return engine().independent
  },
  generate: (request) => engine().generate(request),
  score: (request) => engine().score(request),
})

/** A scorer that has something done before each of its tasks. */
function scoredBehind(before: () => Promise<void>, scorer: SignalScorer): SignalScorer {
  const { prepare } = scorer
  return {
    get concurrency() {
      return scorer.concurrency
    },
    get independent() {
      return scorer.independent
    },
    async score(request) {
      await before()
      return scorer.score(request)
    },
    ...(prepare && {
      async prepare(requests, options) {
        await before()
        return prepare(requests, options)
      },
    }),
  }
}

function adapted(local: LocalModel, dir: string, options: LocalOptions & Pick<EngineOptions, "onNote">): OpenGenerator {
  const lora = openAdapter(dir, local, options.onNote)
  const engine = local.engine(lora, options)
  return {
    ...engine,
    dispose() {
      engine.dispose()
      tf.dispose(lora.params)
    },
  }
}

/** A checkpoint of its own, in this process. */
function whole(dir: string, options: LocalOptions): OpenGenerator {
  const local = openLocal(dir)
  const engine = local.engine(null, options)
  return {
    ...engine,
    dispose() {
      engine.dispose()
      tf.dispose(local.model.params)
    },
  }
}
