import { existsSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import type { Command } from "commander"
import { verdictVersion } from "../baselines/judge"
import type { RunConfig } from "../config/config"
import { sha256File } from "../data/files"
import { readInstructions } from "../data/formats"
import { lockFolder } from "../data/lock"
import type { EvalItem } from "../data/results"
import type { InstructionRow } from "../data/schema"
import type { OpenAIOptions } from "../engine/openai"
import { InputError } from "../errors"
import { evaluate, evaluateVersion } from "../musc/evaluate"
import { collect } from "../runs/context"
import { checksKey, graderOf, judgeOptions } from "../runs/graders"
import { resultsOf, resultsTable } from "../runs/results"
import { judgedBy } from "../runs/run-judge"
import { openWriting } from "../runs/servers"
import { stageSettings, worldHoldout } from "../runs/stages"
import { keyOf, readOutput, readState, runRows } from "../runs/store"
import { openAdapter } from "../runs/train-stage"
import type { Display } from "./display"
import { type JudgeFlags, judgeServerOptions, type ServerFlags, withJudge, withServer, writerOptions } from "./servers"
import {
  adapterName,
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

interface Options extends SettingOptions, ServerFlags, JudgeFlags {
  out: string
  adapter?: string
  name?: string
  force?: boolean
}

export function register(program: Command): void {
  const command = program
    .command("evaluate")
    .description(
      "Answer instructions with a model and grade each answer, constraint by constraint. Exact checks grade the embedded world. " +
        "For other instructions a judge (--judge) answers yes or no, or without one the model itself; unreadable verdicts are " +
        "counted and left out.",
    )
    .argument(
      "[instructions]",
      "rows of `musc decompose` (default: the held-out instructions of the world, or of instructionsFrom=checkable)",
    )
    .requiredOption("-o, --out <file>", "JSONL file of graded answers")
    .option("--adapter <folder>", "PEFT adapter for the answers; without --judge the model without it judges")
    .option("--name <name>", "method name in the output (default: base, or the adapter's folder)")
  withJudge(withServer(withWorkers(withSettings(withRecipe(command))), "to answer, and to judge without --judge"))
    .option("--limit <n>", "only the first instructions", countOption)
    .option("--force", "start over if the output was made with other settings")
    .addHelpText(
      "after",
      `
Examples:
  musc evaluate -o base.jsonl
  musc evaluate -o musc.jsonl --adapter adapters/musc/adapter --set evalTemperatures=0
  musc evaluate questions.jsonl -o graded.jsonl --endpoint http://127.0.0.1:8000/v1 --endpoint-model M
  musc evaluate questions.jsonl -o graded.jsonl --adapter adapters/musc/adapter --judge http://127.0.0.1:8000/v1 --judge-model J
  musc decompose mine.jsonl -o questions.jsonl && musc evaluate questions.jsonl -o graded.jsonl

Out, one line per answer: id, seed, method, temperature, instruction, answer, constraints [{question, kind, satisfied}].
CSR is the share of its constraints that an answer keeps, on average; ISR the share of answers that keep all; with 95 %
bootstrap intervals.
${settingsHelp([...stageSettings.evaluate, "seed"])}`,
    )
    .action(evaluateCommand)
}

async function evaluateCommand(file: string | undefined, options: Options): Promise<void> {
  const { out, adapter, force: _, limit, ...flags } = options
  const config = readConfig({ ...flags, limit })
  const rows = file ? await gradable(file, limit) : worldHoldout(config)
  const server = options.endpoint ? writerOptions(options) : undefined
  if (server && adapter) {
    const rule = "needs a local model, got --endpoint too; serve the adapter and name it with --endpoint-model"
    throw new InputError(rule, { field: "--adapter" })
  }
  if (options.judgeModel !== undefined && !options.judge)
    throw new InputError("names the model of --judge, got no --judge; add it", { field: "--judge-model" })
  const judgeServer = options.judge ? judgeServerOptions(options) : undefined
  const method = options.name ?? server?.model ?? (adapter ? adapterName(adapter) : "base")
  const lock = lockFolder(dirname(out), `.${basename(out)}.lock.json`)
  try {
    const { output, judge } = await stoppable((signal, show) =>
      gradedAnswers(
        { file, rows, method, config, options, server, judgeServer },
        AbortSignal.any([signal, lock.lost]),
        show,
      ),
    )
    const items = await collect(readOutput<EvalItem>(output))
    printResults(items, { method, config, serverModel: server?.model, judge })
    console.log(`answers: ${out}`)
  } finally {
    lock.release()
  }
}

interface Evaluation {
  /** File of the rows; without one they are the world's. */
  file: string | undefined
  rows: readonly InstructionRow[]
  method: string
  config: RunConfig
  options: Options
  server?: OpenAIOptions
  judgeServer?: OpenAIOptions
}

/** Answers and grades all rows at all temperatures, or finds it done. */
async function gradedAnswers(
  { file, rows, method, config, options, server, judgeServer }: Evaluation,
  signal: AbortSignal,
  show: Display,
) {
  const { out, adapter, force } = options
  const opening = (kind: string) => ({
    ...{ file: join(dirname(out), `.${basename(out)}.${kind}.jsonl`), signal, onNote: show.note },
  })
  const writer = server && (await openWriting(server, opening("calls")))
  const judge = judgeServer && (await openWriting(judgeServer, { ...opening("judge.calls"), role: "judge" }))
  const { base, engine, id, weights } = writer
    ? { base: writer.engine, engine: writer.engine, id: writer.id, weights: "server" }
    : await localEngines(config, adapter, { signal, show })
  const work = config.evalTemperatures.flatMap((temperature) => rows.map((row) => ({ row, temperature })))
  const { seed, evalMaxTokens: maxTokens } = config
  const identity = [[seed, maxTokens, judgeOptions(config)], method, id, weights, work, ...(judge ? [judge.id] : [])]
  const versions = [...checksKey(), ...(file ? [verdictVersion] : [])]
  const key = keyOf("evaluate", evaluateVersion, ...identity, ...versions)
  if (existsSync(out) && readState(out)?.key !== key && !force) {
    const rule = "must be a new file or one of this evaluation, got one made with other settings"
    throw new InputError(`${rule}; choose another name, or --force to replace it`, { file: out })
  }
  const grade = graderOf(judge?.engine ?? base, judgeOptions(config))
  const output = await runRows({
    ...{ stage: "evaluate", file: out, key, signal },
    rows: () => work,
    work: ({ row, temperature }) => evaluate(engine, row, grade, { method, seed, temperature, maxTokens }),
    chunk: () => engine.concurrency,
    replay: () => !engine.independent,
    onNote: show.note,
    onRow: (done) => show.progress({ stage: method, unit: "rows", done, total: work.length }),
  }).finally(() => Promise.all([writer?.close(), judge?.close()]))
  await writer?.finish()
  await judge?.finish()
  return { output, judge }
}

function printResults(
  items: EvalItem[],
  {
    method,
    config,
    serverModel,
    judge,
  }: { method: string; config: RunConfig; serverModel?: string; judge?: { id: string } },
): void {
  const graded = config.evalTemperatures.map((temperature) => ({
    method,
    temperature,
    items: items.filter((item) => item.temperature === temperature),
  }))
  const judging = {
    ...{ name: basename(config.model), base: { name: serverModel ?? "" } },
    ...{ textIdentity: serverModel ? "server" : "", answerIdentity: "" },
  }
  const results = resultsOf(graded, [], { samples: config.bootstrapSamples, seed: config.seed })
  console.log(resultsTable({ ...results, judged_by: judgedBy(items, judging, judge) }))
  for (const [problem, n] of problemsOf(items)) console.log(`${n} without an answer, ${problem}`)
}

/** The engines of a model in this process: without the adapter, which judges, and with it, which answers. */
async function localEngines(
  config: RunConfig,
  adapter: string | undefined,
  { signal, show }: { signal: AbortSignal; show: Display },
) {
  const local = await openModel(config, show, signal)
  const weights = adapter ? await sha256File(`${adapter}/adapter_model.safetensors`) : "base"
  const base = local.engine(null, { signal, onTokens: show.tokens })
  const lora = adapter ? openAdapter(adapter, local, show.note) : null
  const engine = lora ? local.engine(lora, { signal, onTokens: show.tokens }) : base
  return { base, engine, id: local.fingerprint, weights }
}

/** Why answers are missing, with their number. */
function problemsOf(items: readonly EvalItem[]): [string, number][] {
  const counts = new Map<string, number>()
  for (const { problem } of items) if (problem) counts.set(problem, (counts.get(problem) ?? 0) + 1)
  return [...counts]
}

/** Rows that can be graded: with constraints, or of the embedded world. */
async function gradable(file: string, limit = Number.POSITIVE_INFINITY): Promise<InstructionRow[]> {
  const rows: InstructionRow[] = []
  for await (const row of readInstructions(file)) {
    if (row.failure) continue
    if (!row.world && !row.constraints) {
      throw new InputError("must hold constraints to grade, got none; run `musc decompose` on the file first", {
        file: `${file}, row ${row.id}`,
        field: "constraints",
      })
    }
    rows.push(row)
    if (rows.length >= limit) break
  }
  return rows
}
