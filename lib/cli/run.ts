import { existsSync } from "node:fs"
import { basename, join } from "node:path"
import { type Command, InvalidArgumentError, Option } from "commander"
import type { RunConfig } from "../config/config"
import { recipes } from "../config/recipes"
import { InputError } from "../errors"
import { answerRows, pairLines } from "../report/answers"
import type { Rates } from "../runs/cost"
import { planOf } from "../runs/dry-run"
import { withoutSecrets } from "../runs/manifest"
import { aligned, resultsTable } from "../runs/results"
import { type RunOptions, run } from "../runs/run"
import { benchmarkText } from "../runs/run-benchmarks"
import { runStudy, type Study } from "../runs/study"
import { parseTrackers, type TrackerName, trackerNames } from "../trackers/trackers"
import { highlighted } from "./display"
import {
  type JudgeFlags,
  judgeSettingsOf,
  type ServedFlags,
  servedOptions,
  withJudge,
  withServe,
  withServer,
  writerOptions,
} from "./servers"
import {
  columns,
  commandLine,
  countOption,
  readConfig,
  readStudyPlan,
  type SettingOptions,
  settingsHelp,
  stoppable,
  type TorchFlags,
  torchOptions,
  withSettings,
  withTorch,
  withWorkers,
} from "./support"

interface Options extends SettingOptions, TorchFlags, ServedFlags, JudgeFlags {
  instructions?: string
  seeds?: string
  benchmarks?: string[]
  data?: string
  serverSignals?: boolean
  rates?: Rates
  models?: string[]
  out?: string
  cache: boolean
  dryRun?: boolean
  log?: TrackerName[]
}

export function register(program: Command): void {
  const command = program
    .command("run")
    .description(
      "Run a whole experiment: make preference pairs, weigh their tokens, train each method, evaluate it on " +
        "held-out instructions, and write a report. Everything goes into one folder. The same command resumes a stopped run; " +
        "a changed setting repeats only the stages that depend on it.",
    )
    .argument("<recipe>", "name of a recipe, or a .yaml or .json settings file")
  withServer(
    withTorch(withWorkers(withSettings(command))),
    "that writes and judges instead of the model; token signals, training and evaluation stay local",
  )
  withServe(withJudge(command), "for generation, and stop it while scoring and training")
    .option(
      "--server-signals",
      "compute token signals with that server, by prompt_logprobs (vLLM) or echo: it must serve --model; for weightings " +
        "from log-probs (uniform, contrast, pmi, logprob, tis-dpo)",
    )
    .option(
      "--instructions <file>",
      "instructions to start from: a file (ShareGPT, Alpaca, JSONL with `instruction`), world, checkable or self-instruct",
    )
    .addOption(new Option("--seeds <file>", "former name of --instructions").hideHelp())
    .option("--benchmarks <list>", "benchmarks to run on every method (comma-separated)", (text) =>
      text.split(",").map((name) => name.trim()),
    )
    .option(
      "--data <folder>",
      "official benchmark data: a folder with one subfolder per benchmark, or the data of a single one",
    )
    .option(
      "--models <list>",
      "for recipes of several runs: models to run each of them with (comma-separated)",
      (text) => text.split(","),
    )
    .option("--limit <n>", "use at most this many instructions, for training and for evaluation", countOption)
    .option("--repeat <n>", "repeat the run with this many seeds", countOption)
    .option("--out <folder>", "run folder (default: runs/<recipe>)")
    .option("--no-cache", "do not share finished stages with other runs in the same parent folder (.cache)")
    .option(
      "--log <trackers>",
      `also log training and results for ${trackerNames.join(", ")} (comma-separated)`,
      parseTrackers,
    )
    .option("--dry-run", "print settings, first prompts, calls, tokens and estimated hours, then stop")
    .option(
      "--rates <write,read,train>",
      "with --dry-run: tokens/s of your machine when generating, scoring and training",
      ratesOption,
    )
    .addHelpText("after", help)
    .action(planOrRun)
}

async function planOrRun(recipe: string, options: Options): Promise<void> {
  const choices = { ...options, recipe, ...instructionsOf(options), settings: settingsOf(options) }
  const study = readStudyPlan(choices)
  const config = study ? study.variants[0]!.config : readConfig(choices)
  if (!options.dryRun) return start(recipe, config, options, study)
  const list = study?.variants.map(({ name, changes }) => `  ${name}: ${JSON.stringify(changes)}`).join("\n")
  const runs = list ? `${study!.variants.length} runs:\n${list}\n\nthe first of them:\n` : ""
  console.log(runs + (await planOf(config, options.rates)))
}

/** What `--instructions` (formerly `--seeds`) names. @throws InputError for both */
function instructionsOf({ instructions, seeds }: Options): { instructionsFrom?: string } {
  if (instructions !== undefined && seeds !== undefined) {
    throw new InputError("is the old name of --instructions, got both; leave it out", { field: "--seeds" })
  }
  if (seeds !== undefined) console.error("note: --seeds is now called --instructions (a seed is a random seed)")
  const from = instructions ?? seeds
  return from === undefined ? {} : { instructionsFrom: from }
}

/**
 * Settings that the options of this command name. One judge serves all that is judged by a server: the final
 * evaluation, the benchmarks, and what makes pairs where a method asks for it.
 */
const settingsOf = ({ judge, judgeModel, benchmarks, data }: Options): Partial<RunConfig> => ({
  ...(judge && { evalJudgeEndpoint: judge, judgeEndpoint: judge }),
  ...(judgeModel !== undefined && { evalJudgeModel: judgeModel, judgeModel }),
  ...(benchmarks && { benchmarks }),
  ...(data !== undefined && { benchmarkData: data }),
})

function ratesOption(text: string): Rates {
  const [write, read, train, ...more] = text.split(",").map(Number)
  if (write! > 0 && read! > 0 && train! > 0 && !more.length) return { write: write!, read: read!, train: train! }
  throw new InvalidArgumentError(`must be three numbers above 0, such as 1500,10000,3000, got ${text}`)
}

async function start(recipe: string, config: RunConfig, flags: Options, study?: Study): Promise<void> {
  const { out, cache } = flags
  const torch = torchOptions(flags)
  const dir = out ?? join("runs", basename(recipe).replace(/\.\w+$/, ""))
  const warnings: string[] = []
  const results = await stoppable((signal, show) => {
    const options: RunOptions = {
      dir,
      signal,
      torch,
      log: flags.log,
      command: withoutSecrets(commandLine().split(" ")),
      ...(!cache && { cache: null }),
      ...(flags.endpoint && { server: writerOptions(flags) }),
      ...(flags.serve !== undefined && { serve: servedOptions(flags, join(dir, "server.log"), show.progress) }),
      serverSignals: flags.serverSignals,
      judge: judgeSettingsOf(flags),
      onProgress: show.progress,
      onTokens: show.tokens,
      onNote(line) {
        if (line.startsWith("WARNING")) warnings.push(line)
        show.note(line)
      },
    }
    return study ? runStudy(study, options) : run(config, options)
  })
  if (Object.keys(results.methods).length) console.log(`\n${resultsTable(results)}\n`)
  const answers = answerRows(results)
  if (answers.length) console.log(`${aligned(answers)}\n`)
  if (results.benchmarks?.length) console.log(`${benchmarkText(results)}\n`)
  for (const note of [...(results.notes ?? []), ...pairLines(results)]) console.log(note)
  for (const warning of new Set(warnings)) console.error(highlighted(warning)) // again, where it is not scrolled away
  const report = join(dir, "report.html")
  if (existsSync(report)) console.log(`report: ${report}`)
}

const help = `
Recipes:
${columns(Object.entries(recipes).map(([name, { summary }]) => [name, summary]))}

Examples:
  musc run smoke                                   the whole method, minutes on a laptop
  musc run smoke --limit 50 --out runs/try         a first look
  musc run smoke --set lr=1e-3                     same pairs: only training and evaluation run again
  musc run smoke --log tensorboard                 then: tensorboard --logdir runs/smoke/tensorboard
  musc run smoke --log wandb                       offline, by wandb's Python client; then: wandb sync runs/smoke/wandb/offline-run-*
  musc run paper --model models/qwen --instructions chats.json --dry-run
  musc run paper --model M --benchmarks ifeval,followbench --data benchmarks --judge http://127.0.0.1:8000/v1 --judge-model J
  musc run ablation-noise --repeat 1               several runs with different noise, compared in one table
  musc run paper --model my-model --endpoint http://127.0.0.1:8000/v1 --endpoint-model M --concurrency 64
  musc run mine.yaml                               your own settings, one "key: value" per line. They change the recipe
                                                   named by "recipe: smoke" (or another); without one, they change smoke
                                                   for the embedded model and the defaults for other models

The run folder holds config.json, results.json (.csv, .md), manifest.json (versions, model, sha256 of every file) and report.html.
For each seed it holds every stage's rows (JSONL), train/<method>/ (metrics.jsonl, adapter/ for PEFT) and evaluate/<method>-T<t>.jsonl.
A recipe of several runs makes one such folder for each.
${settingsHelp()}`
