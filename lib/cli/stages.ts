import { existsSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import type { Command } from "commander"
import type { RunConfig } from "../config/config"
import { sha256File } from "../data/files"
import { readInstructions } from "../data/formats"
import { parseRecord } from "../data/jsonl"
import { lockFolder } from "../data/lock"
import type { InstructionRow } from "../data/schema"
import type { Scorer } from "../engine/engine"
import { InputError } from "../errors"
import { hasPassed, type Outcome, requireStage, stageOrder } from "../musc/row"
import { type RowStageName, stageNamed, stages } from "../musc/stages"
import { checkServerWeightings } from "../musc/weigh"
import { collect, first, stageKey, tellLosses } from "../runs/context"
import { shown } from "../runs/dry-run"
import { recorder } from "../runs/recorder"
import { openScoring } from "../runs/scoring-server"
import { openWriting } from "../runs/servers"
import { stageOptions, stageSettings } from "../runs/stages"
import { readState, runRows, type StageOutput } from "../runs/store"
import { worldStage } from "../runs/worlds"
import { type Display, highlighted } from "./display"
import { type ServerFlags, withServer, writerOptions } from "./servers"
import {
  countOption,
  openModel,
  readConfig,
  type SettingOptions,
  settingsHelp,
  stoppable,
  withRecipe,
  withSettings,
  withWorkers,
} from "./support"

/** What a stage command says of itself; what it does stands in the table of stages. */
interface StageHelp {
  description: string
  input: string
  output: string
  /** A value of the stage's first setting, for the example. */
  example: string
}

interface Options extends SettingOptions, ServerFlags {
  out: string
  dryRun?: boolean
  force?: boolean
}

const help: Readonly<Record<RowStageName, StageHelp>> = {
  decompose: {
    description: "Decompose instructions into constraints, each a yes/no question.",
    input:
      "seed file: JSONL or a JSON array with `instruction` (and `input`), ShareGPT `conversations`, chat `messages`, TRL `prompt`",
    output: "the rows with `constraints`; constraint 0 is the task itself",
    example: "2",
  },
  corrupt: {
    description: "Corrupt some constraints: drop, negate or replace them.",
    input: "rows of `musc decompose`",
    output: "the rows with `noised_constraints` and `edits`",
    example: "2",
  },
  recombine: {
    description: "Write both constraint lists out as instructions, the clean and the noised one.",
    input: "rows of `musc corrupt`",
    output: "the rows with `clean_instruction` and `noised_instruction`",
    example: "2",
  },
  respond: {
    description:
      "Answer both instructions: the answer to the clean one is chosen, the answer to the noised one rejected.",
    input: "rows of `musc recombine`",
    output: "the rows with `chosen` and `rejected`",
    example: "0.7",
  },
  weigh: {
    description:
      "Score both answers under the clean, the noised and the empty prompt, and compute token weights. Needs the model itself.",
    input: "rows of `musc respond`, or the authors' released rows",
    output: "the rows with `signals` (nats, one a token) and `weights` by weighting",
    example: "uniform,kl",
  },
}

const stageCommand = (name: RowStageName) => ({ register: (program: Command) => register(program, name) })

export const decomposeCommand = stageCommand("decompose")
export const corruptCommand = stageCommand("corrupt")
export const recombineCommand = stageCommand("recombine")
export const respondCommand = stageCommand("respond")
export const weighCommand = stageCommand("weigh")

const SCORES =
  "to tell log-probs in place of a local model, by prompt_logprobs (vLLM) or echo; --model names the folder of its tokenizer"

function register(program: Command, name: RowStageName): void {
  const { description, input, output, example } = help[name]
  const own = program.command(name).description(`${description} The same command resumes after the last finished row.`)
  own
    .argument("<in>", input)
    .requiredOption("-o, --out <file>", "JSONL file to write; a row that fails is kept with its reason")
  withWorkers(withSettings(withRecipe(own))).option("--limit <n>", "only the first rows", countOption)
  withServer(own, stages[name].needs === "text" ? undefined : SCORES)
  own
    .option("--force", "start over if the output was made with other settings")
    .option("--dry-run", "show the first prompts and the number of calls, and stop")
    .addHelpText(
      "after",
      `
In:  ${input}
Out: ${output}

Examples:
  musc ${name} in.jsonl -o out.jsonl
  musc ${name} in.jsonl -o out.jsonl --model models/qwen --set ${stageSettings[name][0]}=${example}
  musc ${name} in.jsonl -o out.jsonl --limit 20 --dry-run
${settingsHelp([...stageSettings[name], "seed"])}`,
    )
    .action((file: string, options: Options) => runCommand(name, file, options))
}

async function runCommand(name: RowStageName, file: string, options: Options): Promise<void> {
  const stage = stageNamed(name)
  const { limit, ...given } = options
  // A server's model takes few-shot prompts, whatever the embedded model takes.
  const config = readConfig({ ...given, model: given.model ?? (options.endpoint ? options.endpointModel : undefined) })
  const settings = stageOptions(config, config.seed)[name]
  const server = options.endpoint ? writerOptions(options) : undefined
  if (server && stage.needs === "signals") checkServerWeightings(config.weightings)
  const rows = await collect(first(limit ?? Number.POSITIVE_INFINITY, readRows(name, file)))
  const world = worldStage(name, config, settings)
  if (options.dryRun)
    return world
      ? console.log(`${name}: ${rows.length} rows, done by the world without a call`)
      : dryRun(name, rows, settings)
  const lock = lockFolder(dirname(options.out), `.${basename(options.out)}.lock.json`)
  try {
    const output = await stoppable(async (signal, show): Promise<StageOutput> => {
      const calls = join(dirname(options.out), `.${basename(options.out)}.calls.jsonl`)
      const scores = server && stage.needs === "signals"
      const opening = { signal, onNote: show.note, onProgress: show.progress }
      const writer = server && !world && !scores ? await openWriting(server, { ...opening, file: calls }) : undefined
      const { engine, identity } = world
        ? noEngine
        : scores
          ? await openScoring(server, given.model, opening)
          : writer
            ? { engine: writer.engine as unknown as Scorer, identity: writer.id }
            : await localEngine(config, { signal, show })
      const input = [await sha256File(file), limit ?? 0]
      const key = world ? world.key(input) : stageKey(name, settings, identity, input)
      const state = readState(options.out)
      if (existsSync(options.out) && state?.key !== key && !options.force) {
        const rule = `must be a new file or one of these settings, got one ${state ? "made otherwise" : "of other origin"}`
        throw new InputError(`${rule}; choose another name, or --force to replace it`, { file: options.out })
      }
      const finished = await runRows<Outcome<InstructionRow>, Outcome<InstructionRow>>({
        ...{ stage: name, file: options.out, key, signal: AbortSignal.any([signal, lock.lost]) },
        rows: () => rows,
        work: async (row) => (!hasPassed(row) ? row : world ? world.work(row) : stage.work(engine, row, settings)),
        chunk: () => engine.concurrency,
        replay: !engine.independent,
        onNote: show.note,
        onRow: (done) => show.progress({ stage: name, unit: "rows", done, total: rows.length }),
      }).finally(() => writer?.close())
      await writer?.finish()
      return finished
    })
    const failures = Object.entries(output.failures).sort(([, a], [, b]) => b - a)
    const failed = failures.reduce((sum, [, n]) => sum + n, 0)
    console.log(`${output.rows - failed} of ${output.rows} rows passed: ${options.out}`)
    for (const [reason, n] of failures) console.log(`  ${n} failed, ${reason}`)
    tellLosses(name, output, (line) => console.error(highlighted(line)))
  } finally {
    lock.release()
  }
}

const stageBefore = (name: RowStageName) => stageOrder[stageOrder.indexOf(name) - 1]!

/** Rows of the stage's kind; failed ones pass through. @throws InputError naming file, line and field. */
async function* readRows(name: RowStageName, file: string): AsyncGenerator<Outcome<InstructionRow>> {
  const { input } = stageNamed(name)
  let record = 0
  for await (const row of readInstructions(file)) {
    record++
    if (row.failure) yield row as Outcome<InstructionRow>
    else {
      requireStage(row, stageBefore(name), file)
      yield parseRecord(input, row, { file: `${file}, record ${record} (input of ${name})` }) as Outcome<InstructionRow>
    }
  }
}

/** For stages that a world does. */
const noEngine = { engine: recorder(), identity: "" }

async function localEngine(
  config: RunConfig,
  { signal, show }: { signal: AbortSignal; show: Display },
): Promise<{ engine: Scorer; identity: string }> {
  const local = await openModel(config, show)
  return { engine: local.engine(null, { signal, onTokens: show.tokens }), identity: local.fingerprint }
}

async function dryRun(name: RowStageName, rows: readonly Outcome<InstructionRow>[], settings: object): Promise<void> {
  const { work } = stageNamed(name)
  const engine = recorder()
  for (const row of rows) if (hasPassed(row)) await work(engine, row, settings)
  const { requests, scored } = engine
  const calls = scored.length ? `${scored.length} pairs to score` : `at most ${requests.length} calls`
  console.log(`${name}: ${rows.length} rows, ${calls}; the first:\n`)
  for (const request of requests.slice(0, 2)) console.log(`${shown(request)}\n`)
  for (const { clean, noised } of scored.slice(0, 1)) {
    for (const prompt of [clean, noised])
      console.log(`--- scored under\n${prompt.map(({ content }) => content).join("\n")}\n`)
  }
}
