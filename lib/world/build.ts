import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { writeAtomic } from "../data/files"
import { tf } from "../device/tf"
import { type LocalModel, openLocal } from "../engine/local"
import { configJson } from "../model/config"
import { embeddedTraits, traitsFile } from "../model/traits"
import { sizeOf } from "../model/transformer"
import { initModel, saveModel } from "../model/weights"
import { loadTokenizer } from "../text/tokenizer"
import type { StepLog } from "../train/loop"
import { modelCard, type PhaseFigures, type WorldBuildOptions, type WorldCard } from "./card"
import { type Phase, phases, tasks } from "./corpus"
import { measureAbility, measureTasks } from "./measure"
import { worldTokenizer, worldVocabulary } from "./tokenizer"
import { type PhaseOptions, phaseTokens, trainPhase, worldConfig } from "./train"

export const worldBuildDefaults: WorldBuildOptions = {
  size: "world",
  vocabularyExamples: 60000,
  copy: { steps: 200, batchSize: 96, lr: 2e-3, shape: "plateau" },
  writing: { steps: 850, batchSize: 32, lr: 2e-3, shape: "constant" },
  searching: { steps: 320, batchSize: 96, lr: 2e-3, shape: "constant" },
  judging: { steps: 800, batchSize: 48, lr: 1e-3, shape: "constant" },
  able: { steps: 1600, batchSize: 32, lr: 1.5e-3, shape: "constant" },
  settling: { steps: 2000, batchSize: 32, lr: 1.2e-3, shape: "linear" },
  finishing: { steps: 3000, batchSize: 32, lr: 1e-3, shape: "linear" },
  careless: { steps: 300, batchSize: 32, lr: 5e-4, shape: "plateau" },
  seed: 1,
  check: { instructions: 500, tasks: 1000 },
}

export interface WorldBuildControl {
  /** folder for training states and the able model; the same folder goes on where it was stopped */
  work: string
  /** command and commit for the card */
  made: { command: string; commit: string; machine: string }
  /** processes that train and write: 1 for this one alone, 0 (if not given) for one a core; the model is the same */
  workers?: number
  onStep?: (phase: Phase, log: StepLog) => void
  onNote?: (line: string) => void
  signal?: AbortSignal
}

/**
 * Makes the embedded model from nothing: a tokenizer of the world's words, then the phases: copy (repeat words),
 * writing (every task but judging), searching (look words up), judging (verdicts, which stand on looking up), able
 * (every task), settling and finishing (the same at falling rates), and careless (answers that ignore constraints;
 * everything else as before), which gives the base model that the method is to cure. Writes a Hugging Face folder with
 * its card to `out`, the able model to `work`/able. The backend must have been chosen.
 * @throws StoppedError when aborted; the same call goes on
 */
export async function buildWorldModel(
  out: string,
  options: WorldBuildOptions,
  control: WorldBuildControl,
): Promise<WorldCard> {
  const { onStep = () => {}, onNote = () => {} } = control
  const { seed } = options
  const able = join(control.work, "able")
  const { tokenizer, config } = writeFolders([able, out], options)
  const model = initModel(config, seed, 0.05)
  const soFar = (phase: Phase) => phases.slice(0, phases.indexOf(phase) + 1).map((name) => options[name])
  const settings = (phase: Phase): PhaseOptions => ({ ...options[phase], phase, seed: seed + phases.indexOf(phase) })
  const learn = async (phase: Phase) => {
    const lossFile = join(control.work, `${phase}.loss`)
    await trainPhase(model, tokenizer, settings(phase), {
      checkpoint: {
        file: join(control.work, `${phase}.safetensors`),
        every: 100,
        key: JSON.stringify([options.vocabularyExamples, seed, ...soFar(phase)]),
      },
      signal: control.signal,
      onStep: (log) => {
        if (log.step === log.steps) writeFileSync(lossFile, `${log.loss}\n`)
        onStep(phase, log)
      },
    })
    return Number(readFileSync(lossFile, "utf8"))
  }
  const figures = async (phase: "finishing" | "careless", dir: string): Promise<PhaseFigures> => {
    const loss = await learn(phase)
    await saveModel(join(dir, "model.safetensors"), model, "BF16")
    onNote(`after ${phase}: checking`)
    const measured = await measure(openLocal(dir, { workers: control.workers ?? 0 }), options)
    const isr = measured.abilities.map(({ temperature, isr }) => `${isr.toFixed(3)} at temperature ${temperature}`)
    onNote(`after ${phase}: ISR ${isr.join(", ")}`)
    return { ...measured, loss }
  }
  await learn("copy")
  await learn("writing")
  await learn("searching")
  await learn("judging")
  await learn("able")
  await learn("settling")
  const whole: WorldCard = {
    options,
    made: control.made,
    parameters: sizeOf(model.params),
    tokens: Object.fromEntries(phases.map((phase) => [phase, phaseTokens(tokenizer, settings(phase))])),
    able: await figures("finishing", able),
    careless: await figures("careless", out),
  }
  tf.dispose(model.params)
  await writeAtomic(join(out, "card.json"), `${JSON.stringify(whole, null, 2)}\n`)
  await writeAtomic(join(out, "README.md"), modelCard(whole))
  return whole
}

/** Writes all but weights and card to folders of the model that is made. */
function writeFolders(dirs: readonly string[], { seed, size, vocabularyExamples }: WorldBuildOptions) {
  const files = worldTokenizer(worldVocabulary({ seed, examples: vocabularyExamples }))
  for (const dir of dirs) writeFolder(dir, files)
  const tokenizer = loadTokenizer(dirs[0]!)
  const config = worldConfig(tokenizer.vocabSize, tokenizer.eosIds[0]!, tokenizer.padId, size)
  const settings = { "config.json": configJson(config, "bfloat16"), [traitsFile]: embeddedTraits }
  for (const dir of dirs) writeFolder(dir, settings)
  return { tokenizer, config }
}

async function measure(local: LocalModel, { seed, check }: WorldBuildOptions) {
  const engine = local.engine()
  const abilities = []
  for (const temperature of [0, 0.5]) {
    abilities.push(await measureAbility(engine, { n: check.instructions, temperature, seed }))
  }
  const meta = tasks.filter((task) => task !== "respond")
  const shares = await measureTasks(engine, { n: check.tasks, seed, tasks: meta })
  engine.dispose()
  tf.dispose(local.model.params)
  return { abilities, tasks: shares }
}

function writeFolder(dir: string, files: Record<string, object>): void {
  mkdirSync(dir, { recursive: true })
  for (const [name, json] of Object.entries(files)) writeFileSync(join(dir, name), `${JSON.stringify(json, null, 1)}\n`)
}
