import { basename, dirname } from "node:path"
import type { Command } from "commander"
import { sha256File } from "../data/files"
import { lockFolder } from "../data/lock"
import { hasPassed } from "../musc/row"
import { type RowStageName, stageNamed, stages } from "../musc/stages"
import { stageKey, tellLosses } from "../runs/context"
import { shown } from "../runs/dry-run"
import { recorder } from "../runs/recorder"
import { runStageFile, type StageInput, stageInput } from "../runs/stage-file"
import { stageOptions, stageSettings } from "../runs/stages"
import type { StageOutput } from "../runs/store"
import { worldStage } from "../runs/worlds"
import { highlighted } from "./display"
import { withServe, withServer } from "./servers"
import { openStageEngine, type StageFlags } from "./stage-engine"
import {
  countOption,
  readConfig,
  type SettingOptions,
  settingsHelp,
  stoppable,
  withRecipe,
  withSettings,
  withTorch,
  withWorkers,
} from "./support"

/** What a stage command says of itself; what it does stands in the table of stages. */
interface StageHelp {
  description: string
  input: string
  output: string
  /** A setting of the stage, for the example. */
  example: string
}

interface Options extends SettingOptions, StageFlags {
  dryRun?: boolean
  force?: boolean
}

const help: Readonly<Record<RowStageName, StageHelp>> = {
  decompose: {
    description: "Decompose instructions into constraints, each a yes/no question.",
    input:
      "seed file: JSONL or a JSON array with `instruction` (and `input`), ShareGPT `conversations`, chat `messages`, TRL `prompt`",
    output: "the rows with `constraints`; constraint 0 is the task itself",
    example: "shots=2",
  },
  corrupt: {
    description: "Corrupt some constraints: drop, negate or replace them.",
    input: "rows of `musc decompose`",
    output: "the rows with `noised_constraints` and `edits`",
    example: "noiseRatio=0.5",
  },
  recombine: {
    description: "Write both constraint lists, clean and noised, as instructions.",
    input: "rows of `musc corrupt`",
    output: "the rows with `clean_instruction` and `noised_instruction`",
    example: "shots=2",
  },
  respond: {
    description:
      "Answer both instructions. The answer to the clean one is chosen, the answer to the noised one is rejected.",
    input: "rows of `musc recombine`",
    output: "the rows with `chosen` and `rejected`",
    example: "respondTemperature=0.7",
  },
  weigh: {
    description:
      "Score both answers under the clean, the noised and the empty prompt, and compute token weights. " +
      "Needs a local model, or a server with log-probs.",
    input: "rows of `musc respond`, or the authors' released rows",
    output: "the rows with `signals` (nats, one per token) and `weights` by weighting",
    example: "weightings=uniform,kl",
  },
}

const stageCommand = (name: RowStageName) => ({ register: (program: Command) => register(program, name) })

export const decomposeCommand = stageCommand("decompose")
export const corruptCommand = stageCommand("corrupt")
export const recombineCommand = stageCommand("recombine")
export const respondCommand = stageCommand("respond")
export const weighCommand = stageCommand("weigh")

const SCORES =
  "that returns log-probs instead of a local model, by prompt_logprobs (vLLM) or echo; --model then names the tokenizer folder"

function register(program: Command, name: RowStageName): void {
  const { description, input, output, example } = help[name]
  const own = program.command(name).description(`${description} The same command resumes a stopped run.`)
  own
    .argument("<in>", input)
    .requiredOption("-o, --out <file>", "JSONL file to write; failed rows are kept with their reason")
  withWorkers(withSettings(withRecipe(own))).option("--limit <n>", "only the first rows", countOption)
  const writes = stages[name].needs === "text"
  withServer(own, writes ? undefined : SCORES)
  withServe(own, writes ? "for generation" : "for log-probs")
  if (!writes) withTorch(own)
  own
    .option("--force", "start over if the output was made with other settings")
    .option("--dry-run", "print the first prompts and the number of calls, then stop")
    .addHelpText(
      "after",
      `
In:  ${input}
Out: ${output}

Examples:
  musc ${name} in.jsonl -o out.jsonl
  musc ${name} in.jsonl -o out.jsonl --model models/qwen --set ${example}
  musc ${name} in.jsonl -o out.jsonl --limit 20 --dry-run
${settingsHelp([...stageSettings[name], "seed"])}`,
    )
    .action((file: string, options: Options) => runCommand(name, file, options))
}

async function runCommand(name: RowStageName, file: string, options: Options): Promise<void> {
  const { limit, out, force, ...flags } = options
  // A server's model takes few-shot prompts, whatever the embedded model takes.
  const config = readConfig({ ...flags, model: flags.model ?? (options.endpoint ? options.endpointModel : undefined) })
  const settings = stageOptions(config, config.seed)[name]
  const input = await stageInput(name, file, limit)
  const world = worldStage(name, config, settings)
  if (options.dryRun)
    return world
      ? console.log(`${name}: ${input.count} rows, done by rules without any call`)
      : dryRun(name, input, settings)
  const lock = lockFolder(dirname(out), `.${basename(out)}.lock.json`)
  try {
    const output = await stoppable(async (signal, show): Promise<StageOutput> => {
      const by = world ? undefined : await openStageEngine(name, config, { ...flags, out }, { input, signal, show })
      const from = [await sha256File(file), limit ?? 0]
      const finished = await runStageFile({
        ...{ name, input, out, settings, world, force, signal: AbortSignal.any([signal, lock.lost]) },
        key: world ? world.key(from) : stageKey(name, settings, by!.identity, from),
        engine: by?.engine ?? recorder(),
        onNote: show.note,
        onRow: (done) => show.progress({ stage: name, unit: "rows", done, total: input.count }),
      }).finally(() => by?.close())
      await by?.finish()
      return finished
    })
    const failures = Object.entries(output.failures).sort(([, a], [, b]) => b - a)
    const failed = failures.reduce((sum, [, n]) => sum + n, 0)
    console.log(`${output.rows - failed} of ${output.rows} rows passed: ${out}`)
    for (const [reason, n] of failures) console.log(`  ${n} failed, ${reason}`)
    tellLosses(name, output, (line) => console.error(highlighted(line)))
  } finally {
    lock.release()
  }
}

/** Prompts that a dry run shows. */
const SHOWN = 2

async function dryRun(name: RowStageName, { count, rows }: StageInput, settings: object): Promise<void> {
  const { work } = stageNamed(name)
  const shownFirst = recorder()
  let [calls, pairs] = [0, 0]
  for await (const row of rows()) {
    if (!hasPassed(row)) continue
    const engine = recorder()
    await work(engine, row, settings)
    calls += engine.requests.length
    pairs += engine.scored.length
    if (shownFirst.requests.length < SHOWN) shownFirst.requests.push(...engine.requests)
    if (!shownFirst.scored.length) shownFirst.scored.push(...engine.scored)
  }
  console.log(`${name}: ${count} rows, ${pairs ? `${pairs} pairs to score` : `at most ${calls} calls`}; the first:\n`)
  for (const request of shownFirst.requests.slice(0, SHOWN)) console.log(`${shown(request)}\n`)
  for (const { clean, noised } of shownFirst.scored.slice(0, 1)) {
    for (const prompt of [clean, noised])
      console.log(`--- scored under\n${prompt.map(({ content }) => content).join("\n")}\n`)
  }
}
