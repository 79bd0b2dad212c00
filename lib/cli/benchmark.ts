import { basename, extname, join } from "node:path"
import { type Command, Option } from "commander"
import { InputError } from "../errors"
import type { Benchmark, Scoring } from "../eval/benchmark"
import { judgeDefaults } from "../eval/judge"
import { readAnswers } from "../eval/responses"
import { type AnswerSource, runBenchmark } from "../runs/benchmark"
import { benchmarkPlan, firstItems, withMaxTokens } from "../runs/benchmark-plan"
import { benchmarkOf, benchmarks, checkData, download, sourceText } from "../runs/benchmarks"
import { type EngineOptions, openEngines, type Totals } from "./engines"
import { withJudge, withServer } from "./servers"
import { adapterName, columns, countOption, naturalOption, stoppable } from "./support"

interface Options extends EngineOptions {
  data?: string
  download?: string
  scoring: Scoring
  limit?: number
  out?: string
  dryRun?: boolean
  json?: boolean
  samples: number
  maxTokens?: number
}

export function register(program: Command): void {
  const command = program
    .command("benchmark")
    .description(
      "Score a model, or answers from elsewhere, on a benchmark, with 95 % bootstrap intervals. The " +
        "same command resumes a stopped run and repeats no finished call. Items whose request the server rejects are left out and counted.",
    )
    .argument("<name>", benchmarks.map(({ name }) => name).join(", "))
    .option("--data <path>", "file or folder of the benchmark's official data")
    .option("--download <folder>", "download the official data into a folder, verify its SHA-256, and stop")
    .option(
      "--responses <file>",
      "answers from elsewhere, as JSONL or a JSON array: id or prompt, and response, output, choices, … " +
        "(official files, lm-eval's sample logs)",
    )
    .option("--model <folder>", "model folder or embedded model that answers")
    .option("--adapter <folder>", "PEFT adapter for the answers")
    .option("--backend <name>", "TensorFlow.js backend (default: the fastest that runs)")
    .option(
      "--math <kind>",
      "matmul precision of the native backend: f32 (default) or bf16 (faster with AMX or AVX512_BF16, less exact)",
    )
    .option("--workers <n>", "worker processes of a local model (default: one per core if memory allows)", countOption)
    .option("--judge-self", "let the answering model (without adapter) or endpoint judge too")
    .addOption(
      new Option("--scoring <kind>", "official reproduces the published scorer's quirks, corrected fixes them")
        .choices(["official", "corrected"])
        .default("official"),
    )
    .option("--limit <n>", "use at most this many items, in whole groups", countOption)
    .option("--max-tokens <n>", "maximum tokens of an answer (default: as the benchmark says)", countOption)
    .option("--out <folder>", "result folder (default: runs/eval/<name>/<model or responses>)")
    .option("--dry-run", "print the first prompts and the numbers of calls and tokens, then stop")
    .option("--json", "print the scores as JSON")
    .option("--tries <n>", "attempts per question while the reply cannot be parsed", countOption, judgeDefaults.tries)
    .option("--samples <n>", "bootstrap resamples", countOption, 1000)
    .option("--seed <n>", "seed of sampling and bootstrap", naturalOption, 1)
  withJudge(withServer(command, "that answers")).addHelpText("after", help).action(evalCommand)
}

const help = `
Benchmarks:
${columns(benchmarks.map(({ name, about }) => [name, about]))}

Examples:
  musc benchmark world --model world
  musc benchmark cfbench                    says where the official data comes from
  musc benchmark infobench --data InfoBench.json --responses answers.jsonl --judge http://127.0.0.1:8000/v1 --judge-model M
  musc benchmark infobench --data InfoBench.json --model my-model --adapter my-adapter --judge-self --dry-run

In the result folder: answers.jsonl, collected.jsonl (what the judge said), items.jsonl (one item's result per line),
scores.json, table.md; judge.calls.jsonl and answers.calls.jsonl keep every finished call of a server.
\`musc compare A B\` compares two result folders. API keys are read from the environment and sent only to the server.`

async function evalCommand(name: string, options: Options): Promise<void> {
  const benchmark = benchmarkOf(name)
  if (options.download) {
    console.log((await download(benchmark, options.download)).join("\n"))
    return
  }
  if (!options.data && benchmark.source.files.length) {
    const rule = "must name the benchmark's official data, got nothing; download it as follows, or fetch it yourself"
    throw new InputError(`${rule}:\n${sourceText(benchmark)}`, { field: "--data" })
  }
  const { warnings, data } = options.data ? await checkData(benchmark, options.data) : { warnings: [], data: {} }
  const all = await benchmark.load(options.data ?? "")
  const items = withMaxTokens(options.limit ? firstItems(all, options.limit) : all, options.maxTokens)
  const answers = options.responses ? await readAnswers(options.responses, items) : undefined
  const notes = [...warnings, ...limitNotes(options), ...(answers?.notes ?? [])]
  if (options.dryRun) {
    console.log([await benchmarkPlan(benchmark, items, answers?.answers), ...notes].join("\n"))
    return
  }
  checkEngines(benchmark, options)
  const subject = subjectOf(options)
  const dir = options.out ?? join("runs", "eval", benchmark.name, subject.replace(/[^\w.-]+/g, "-"))
  await stoppable(async (signal, show) => {
    for (const note of notes) show.note(note)
    const engines = await openEngines(options, dir, { signal, show, judged: benchmark.judged })
    try {
      const source: AnswerSource = answers ?? { ...engines.answers!, seed: options.seed }
      const { scoring, samples, seed } = options
      const { scores, table } = await runBenchmark({
        ...{ benchmark, items, dir, subject, source, judge: engines.judge, scoring, notes, data, signal },
        bootstrap: { samples, seed },
        onProgress: show.progress,
      })
      show.end()
      const totals = engines.totals()
      if (options.json) console.log(JSON.stringify({ ...scores, out: dir, calls: totals }, null, 2))
      else console.log([table, ...Object.entries(totals).map(totalsLine), `results: ${dir}`].join("\n"))
    } finally {
      await engines.close()
    }
  })
}

const limitNotes = ({ maxTokens, responses }: Options) =>
  maxTokens && !responses ? [`answers have at most ${maxTokens} tokens, by --max-tokens`] : []

/** @throws InputError for options that do not say who answers and who judges. */
function checkEngines({ name, judged }: Benchmark, options: Options): void {
  const { responses, model, endpoint, endpointModel, adapter, judge, judgeModel, judgeSelf, maxTokens } = options
  const wrong = (problem: string, field: string) => new InputError(problem, { field })
  const engines = [model, endpoint].filter(Boolean).length
  if (responses && maxTokens) {
    throw wrong("limits generated answers, got --responses; leave it out", "--max-tokens")
  }
  if (engines > 1) throw wrong("one of --model and --endpoint may be given, got both; leave one out", "--endpoint")
  if (!responses && !engines) {
    throw wrong("answers must come from --responses, --model or --endpoint, got none; add one", "--responses")
  }
  if (responses && engines && !judgeSelf) {
    throw wrong("answers must come from one place, got --responses too; leave it out, or --judge-self", "--responses")
  }
  if (endpoint && !endpointModel)
    throw wrong("must name the model of --endpoint, got nothing; add it", "--endpoint-model")
  if (adapter && !model) throw wrong("needs --model, got none; add it", "--adapter")
  if (judge && !judgeModel) throw wrong("must name the model of --judge, got nothing; add it", "--judge-model")
  if (judge && judgeSelf) throw wrong("one judge may be given, got --judge too; leave one out", "--judge-self")
  if (judgeSelf && !engines) throw wrong("needs --model or --endpoint to judge, got neither; add one", "--judge-self")
  if (judged && !judge && !judgeSelf) {
    throw wrong(`${name} needs a judge, got none; add --judge URL --judge-model M, or --judge-self`, "--judge")
  }
}

/** What is measured, as results call it. */
function subjectOf({ responses, endpointModel, adapter, model }: Options): string {
  if (responses) return basename(responses, extname(responses))
  if (adapter) return adapterName(adapter)
  return endpointModel ?? basename(model!)
}

function totalsLine([role, totals]: [string, Totals]): string {
  const count = (value = 0) => value.toLocaleString("en")
  // A model in process counts no prompt tokens.
  const read = totals.promptTokens ? `${count(totals.promptTokens)} prompt tokens, ` : ""
  const { calls, cached, tokens, retries, again, unparsed } = totals
  const parts = [
    `${count(calls)} calls, ${count(cached)} from cache`,
    `${read}${count(tokens)} reply tokens`,
    `${count(retries)} retries`,
    ...(again === undefined
      ? []
      : [`${count(again)} repeated because unreadable, ${count(unparsed)} still unreadable`]),
  ]
  return `${role}: ${parts.join("; ")}`
}
