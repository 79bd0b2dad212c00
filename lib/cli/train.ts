import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import type { Command } from "commander"
import { methodNames } from "../config/config"
import { sha256File } from "../data/files"
import { readRecords } from "../data/json-array"
import { objectOf, parseRecord } from "../data/jsonl"
import { isLockFile, lockFolder } from "../data/lock"
import { toFilePair } from "../data/pair-files"
import { type InstructionRow, instructionRow, weighedRow } from "../data/schema"
import type { LocalModel } from "../engine/local"
import { InputError } from "../errors"
import { describePlan } from "../model/executor"
import { type Outcome, requireStage } from "../musc/row"
import { type TrainRow, toTrainRow, trainVersion } from "../musc/train"
import { stepProgress } from "../runs/context"
import { checkMethods, stageSettings, trainSettings } from "../runs/stages"
import { keyOf } from "../runs/store"
import { torchScorer } from "../runs/torch-score"
import { metricsOf, runTraining, trainingKey } from "../runs/train-stage"
import { openTrackers, parseTrackers, type TrackerName, trackerNames } from "../trackers/trackers"
import {
  openDescription,
  openModel,
  readConfig,
  type SettingOptions,
  settingsHelp,
  stoppable,
  type TorchFlags,
  torchOptions,
  withRecipe,
  withSettings,
  withTorch,
  withWorkers,
} from "./support"

interface Options extends SettingOptions, TorchFlags {
  out: string
  method: string
  log?: TrackerName[]
  force?: boolean
}

export function register(program: Command): void {
  const command = program
    .command("train")
    .description(
      "Train a LoRA adapter on weighted pairs. The same command resumes a stopped training from its last checkpoint; the adapter is the " +
        "same as without the stop.",
    )
    .argument(
      "<pairs>",
      "rows of `musc weigh`, or a preference file of another program: TRL, Alpaca or ShareGPT ranking (LLaMA-Factory), or " +
        "the token-weighted file of the paper's authors with its weights",
    )
    .requiredOption("-o, --out <folder>", "folder for adapter/ (PEFT) and metrics.jsonl (one line per step)")
    .option(
      "--method <name>",
      "musc, coarse (uniform weights: plain DPO), sft (on chosen answers), musc-<weighting>",
      "musc",
    )
  withTorch(withWorkers(withSettings(withRecipe(command))))
    .option("--log <trackers>", `also log the metrics for ${trackerNames.join(", ")} (comma-separated)`, parseTrackers)
    .option("--force", "start over if the folder holds a training with other settings")
    .addHelpText(
      "after",
      `
Examples:
  musc train weighed.jsonl -o adapters/musc
  musc train weighed.jsonl -o adapters/kl --set weighting=kl --set lr=5e-4
  musc train weighed.jsonl -o adapters/sft --method sft
  musc train ultrafeedback.json -o adapters/dpo --method coarse
  musc train weighed.jsonl -o models/mine --set trained=all     all weights: models/mine/model is a plain checkpoint
  musc chat --adapter adapters/musc/adapter
${settingsHelp([...stageSettings.train, "seed"])}`,
    )
    .action(trainCommand)
}

async function trainCommand(file: string, options: Options): Promise<void> {
  const { out, method: name, force, log, ...flags } = options
  const torch = torchOptions(options)
  const config = readConfig(flags)
  const method = methodNames.find((known) => known === name)
  const settings = method && trainSettings(config, method, config.seed)
  if (!settings) {
    const known = methodNames.filter((one) => one !== "base").join(", ")
    throw new InputError(`must be one of ${known}, got ${name}; choose one`, { field: "--method" })
  }
  checkMethods({ ...config, methods: [method] })
  for await (const _ of readPairs(file)) break // reports a bad file before a folder is created
  const lock = lockFolder(out)
  try {
    const adapter = await stoppable(async (signal, show) => {
      const model = torch ? await openDescription(config, show, signal) : null
      const by = model
        ? { model, torch: torch!, scorer: torchScorer(model, torch!) }
        : await openModel(config, show, signal)
      const { fingerprint } = model ?? (by as LocalModel)
      const key = keyOf(
        "train",
        trainVersion,
        settings,
        fingerprint,
        await sha256File(file),
        ...(torch ? [torch.dtype] : []),
      )
      const existingKey = trainingKey(out)
      const foreign = existsSync(out) && readdirSync(out).some((entry) => !isLockFile(entry))
      if (foreign && existingKey !== key && !force) {
        const got = existingKey ? "a training with other settings" : "other files"
        const rule = `must be empty or hold this training, got a folder with ${got}`
        throw new InputError(`${rule}; choose another folder, or --force to replace the training in it`, { file: out })
      }
      const tracked = log && (await openTrackers(out, config, log)).training(name, join(out, "metrics.jsonl"))
      const progress = stepProgress(name, { onProgress: show.progress, onNote: show.note })
      const trained = await runTraining({
        ...{ dir: out, key, by, settings, signal: AbortSignal.any([signal, lock.lost]) },
        pairs: () => readPairs(file),
        checkpointEvery: config.checkpointEvery,
        onNote: show.note,
        onPlan: (plan) => show.note(`plan for training: ${describePlan(plan)}`),
        async onStep(line) {
          progress(line)
          await tracked?.step(metricsOf(line))
        },
      })
      await tracked?.finish()
      return trained
    })
    console.log(`${settings.trained ? "model" : "adapter"}: ${adapter}\nmetrics: ${join(out, "metrics.jsonl")}`)
  } finally {
    lock.release()
  }
}

/** Our own weighed rows, or the pairs of another program's file. */
async function* readPairs(file: string): AsyncGenerator<Outcome<TrainRow & Pick<InstructionRow, "id">>> {
  const own = weighedRow.or(instructionRow.required({ failure: true }))
  let record = 0
  for await (const { value, place } of readRecords(file)) {
    record++
    const row = objectOf(value, place)
    const ours = ["clean_instruction", "failure", "constraints"].some((field) => field in row)
    if (ours && !row.failure) requireStage(row, "weigh", file)
    yield (ours ? parseRecord(own, row, place) : toTrainRow(toFilePair(row, { ...place, record }))) as Outcome<
      TrainRow & InstructionRow
    >
  }
}
