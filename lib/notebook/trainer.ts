import { mkdtempSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import type { WeighedRow } from "../data/schema"
import { tf } from "../device/tf"
import type { LocalModel } from "../engine/local"
import { StoppedError } from "../errors"
import type { Lora } from "../model/lora"
import { type TrainSettings, trainAdapter } from "../musc/train"
import { trainingCurves } from "../plots/curves"
import type { Figure } from "../plots/theme"
import { metricsOf } from "../runs/train-stage"
import type { StepLog } from "../train/loop"
import { liveFigure } from "./figure"
import { interruptible } from "./interrupt"

/**
 * A training that is made in one cell and run in another, with curves that grow. The interrupt button stops it after
 * the current step; `run` again resumes from there, to the same adapter as without the stop.
 */
export class Trainer {
  /** One entry a step done. */
  readonly log: StepLog[] = []
  private trained: Lora | undefined
  private readonly checkpoint = join(mkdtempSync(join(tmpdir(), "musc-trainer-")), "state.safetensors")

  constructor(
    private readonly local: LocalModel,
    private readonly pairs: readonly WeighedRow[],
    readonly settings: TrainSettings,
    /** Name in figures. */
    readonly name = settings.kind === "sft" ? "sft" : settings.weighting === "uniform" ? "coarse" : "musc",
  ) {}

  /** The adapter, once the training is done. @throws StoppedError before */
  get lora(): Lora {
    if (!this.trained) throw new StoppedError(`${this.name}: not trained to the end yet; run it (again)`)
    return this.trained
  }

  /** Loss, rewards, margin and accuracy so far. */
  curves(): Figure {
    return trainingCurves([this.asLog()])
  }

  /** The log as figures of several trainings want it. */
  asLog() {
    return { method: this.name, seed: this.settings.seed, lines: this.log.map(metricsOf) }
  }

  /** Trains, or resumes. @throws StoppedError when interrupted; nothing is lost then */
  async run(): Promise<void> {
    if (this.trained) return
    const figure = await liveFigure()
    const onStep = (step: StepLog) => {
      this.log.push(step)
      figure.update(() => this.curves(), this.line())
    }
    try {
      this.trained = await interruptible((signal) =>
        trainAdapter(this.local, this.pairs, this.settings, {
          checkpoint: { file: this.checkpoint, every: 1e9, key: this.name },
          signal,
          onStep,
        }),
      )
    } catch (error) {
      if (!(error instanceof StoppedError)) throw error
      if (this.log.length) await figure.end(this.curves(), this.line())
      throw new StoppedError(`stopped after ${this.line()}; run the cell again to resume`, { cause: error })
    }
    await rm(dirname(this.checkpoint), { recursive: true, force: true })
    await figure.end(this.curves(), this.line())
  }

  /** Frees the adapter. */
  dispose(): void {
    if (this.trained) tf.dispose(this.trained.params)
    this.trained = undefined
  }

  private line(): string {
    const last = this.log.at(-1)
    return last
      ? `${this.name}: step ${last.step} of ${last.steps}, loss ${last.loss.toFixed(3)}`
      : `${this.name}: no step`
  }
}
