import { tf } from "../device/tf"
import type { Generator, SignalScorer } from "../engine/engine"
import type { LocalModel, LocalOptions } from "../engine/local"
import { openAdapter, runTraining, type TrainStage } from "./train-stage"

/** A generator that holds something until it is disposed: weights, a connection. */
export type OpenGenerator = Generator & { dispose(): void }

/**
 * The model of a run, by what it is asked for. Each part may be in this process, a server or a job of its own, so stages
 * never ask for weights.
 */
export interface Engines {
  /** The model's name in results and adapters. */
  readonly name: string
  /** What decides what the model says, as a hash or by name and revision: part of every key. */
  readonly fingerprint: string
  /** Writes and judges, without an adapter. */
  readonly base: Generator
  /** Token signals of answers under several prompts, without an adapter. */
  readonly scorer: SignalScorer
  /** Trains, or finds the training done; gives the adapter's folder. See runTraining. */
  train(training: Training): Promise<string>
  /** Writes with the adapter of a folder. The caller disposes it. */
  withAdapter(dir: string): Promise<OpenGenerator>
  /** Frees what the engines hold. */
  dispose(): void
}

/** A training, whoever does it. */
export type Training = Omit<TrainStage, "local">

/** All of it in this process (and its workers). `local` itself stays open. */
export function localEngines(local: LocalModel, options: LocalOptions): Engines {
  const base = local.engine(null, options)
  return {
    name: local.name,
    get fingerprint() {
      return local.fingerprint
    },
    base,
    scorer: base,
    train: (training) => runTraining({ ...training, local }),
    async withAdapter(dir) {
      const lora = openAdapter(dir, local)
      const engine = local.engine(lora, options)
      return {
        ...engine,
        dispose() {
          engine.dispose()
          tf.dispose(lora.params)
        },
      }
    },
    dispose: () => base.dispose(),
  }
}
