import { join } from "node:path"
import { type Command, Option } from "commander"
import { useBackend } from "../device/tf"
import { InputError } from "../errors"
import { commit, machine } from "../runs/origin"
import { buildWorldModel, worldBuildDefaults } from "../world/build"
import type { WorldBuildOptions } from "../world/card"
import { corpusExample, type Phase, phases } from "../world/corpus"
import { isSplit, worldInstructions } from "../world/spec"
import { type WorldSize, worldSizes } from "../world/train"
import { commandLine, countOption, naturalOption, stoppable } from "./support"

export function register(program: Command): void {
  const world = program
    .command("world")
    .description("The embedded world: instructions, training corpus, and training of the embedded model.")
    .addHelpText("after", "\nStart with `musc world sample`.")
  world
    .command("sample")
    .description("Print examples of every task that the embedded model is trained on.")
    .option("-n, --number <n>", "examples", countOption, 8)
    .option("--phase <phase>", `${phases.join(", ")}: as named in the model card`, "able")
    .option("--seed <n>", "random seed", naturalOption, 1)
    .action(({ number, phase, seed }: { number: number; phase: string; seed: number }) => {
      const known = phases.find((name) => name === phase)
      if (!known) throw new InputError(`--phase must be one of ${phases.join(", ")}, got ${phase}`)
      for (let i = 0; i < number; i++) console.log(sample(i, seed, known))
    })
  world
    .command("instructions")
    .description("Print instructions as JSONL, each with its constraints in the field `world`.")
    .option("-n, --number <n>", "instructions", countOption, 600)
    .option(
      "--split <split>",
      "train, eval or development; the last two are disjoint and never used for training",
      "train",
    )
    .option("--seed <n>", "random seed", naturalOption, 0)
    .action(({ number, split, seed }: { number: number; split: string; seed: number }) => {
      if (!isSplit(split)) throw new InputError(`--split must be train, eval or development, got ${split}`)
      for (const row of worldInstructions({ n: number, seed, split })) console.log(JSON.stringify(row))
    })
  world
    .command("train")
    .description(
      "Train the embedded model from scratch: tokenizer, eight training phases from copying words to careless answers, " +
        "evaluation, model card. One to two hours on two cores; the same command resumes a stopped training.",
    )
    .addOption(new Option("--size <size>", "which embedded model").choices(Object.keys(worldSizes)).default("world"))
    .option("--out <folder>", "model folder to write (default: data/models/world or world-small)")
    .option("--work <folder>", "checkpoints and the intermediate model (default: runs/world or world-small)")
    .option("--able-steps <n>", "steps of the able phase", naturalOption, worldBuildDefaults.able.steps)
    .option("--careless-steps <n>", "steps of the careless phase", naturalOption, worldBuildDefaults.careless.steps)
    .option("--seed <n>", "random seed", naturalOption, worldBuildDefaults.seed)
    .option("--backend <name>", "tensorflow, webgpu, wasm or cpu")
    .option("--workers <n>", "worker processes; does not change the result (default: one per core)", countOption)
    .addHelpText(
      "after",
      `
Examples:
  musc world train                                     the committed model again, into data/models/world
  musc world train --out /tmp/tiny --work /tmp/work --able-steps 200 --careless-steps 20`,
    )
    .action(train)
}

function sample(i: number, seed: number, phase: Phase): string {
  const { task, prompt, response } = corpusExample(i, { seed, phase })
  return `[${task}]\n${prompt}\n→ ${response}\n`
}

interface TrainFlags {
  size: WorldSize
  out?: string
  work?: string
  ableSteps: number
  carelessSteps: number
  seed: number
  backend?: string
  workers?: number
}

async function train(flags: TrainFlags): Promise<void> {
  const { able, careless } = worldBuildDefaults
  const name = flags.size === "world" ? "world" : `world-${flags.size}`
  const out = flags.out ?? `data/models/${name}`
  const options: WorldBuildOptions = {
    ...worldBuildDefaults,
    size: flags.size,
    able: { ...able, steps: flags.ableSteps },
    careless: { ...careless, steps: flags.carelessSteps },
    seed: flags.seed,
  }
  await stoppable(async (signal, show) => {
    show.note((await useBackend(flags.backend)).reason)
    await buildWorldModel(out, options, {
      work: flags.work ?? `runs/${name}`,
      made: { command: `npx ${commandLine()}`, commit: commit(), machine: machine() },
      workers: flags.workers,
      signal,
      onNote: show.note,
      onStep: (phase, { step, steps, loss }) => {
        show.progress({ stage: phase, unit: "steps", done: step, total: steps, note: `loss ${loss.toFixed(3)}` })
      },
    })
  })
  console.log(`wrote ${join(out, "README.md")} and the model beside it`)
}
