import { existsSync } from "node:fs"
import { dirname, join } from "node:path"
import { z } from "zod"
import { parseRecord, readLines } from "../data/jsonl"
import { mean } from "../data/numbers"
import { InputError } from "../errors"
import { rng } from "../rng"
import type { Benchmark, BenchmarkItem, JudgeReply, JudgeRequest, Scoring } from "./benchmark"
import { type GamedRow, lengthControlledRate } from "./length-controlled"
import { fileIn, uniqueRecords } from "./records"

/** A record of the official outputs of the baseline, which hold the instructions as well. */
const alpacaRecord = z.object({
  dataset: z.string().default("unknown"),
  instruction: z.string().min(1),
  output: z.string().describe("the baseline's answer"),
  generator: z.string().default("unknown"),
})

export type AlpacaData = z.output<typeof alpacaRecord> & {
  /** Stored comparisons of the gamed baselines on this instruction; null without the file. */
  gamed: GamedRow[] | null
}

export interface AlpacaResult {
  /** From 1 (baseline) to 2 (model); null where the judge's reply could not be read. */
  preference: number | null
  /** Whether the text of the reply decided, as there were no log-probs. */
  byText?: boolean
  /** Code points of the model's answer, and of the baseline's. */
  length: number
  baselineLength: number
  gamed: GamedRow[] | null
}

/** Looked for in a data folder, in this order. */
const OUTPUTS = ["alpaca_eval_gpt4_baseline.json", "model_outputs.json"]
const GAMED = "df_gamed.csv"

const lengthOf = (text: string) => [...text].length

/** Whether the model's answer is shown first, as m. Seeded by the instruction, so that a second run asks the same. */
export function modelFirst(instruction: string): boolean {
  return rng(0, "alpaca-eval", instruction).next() < 0.5
}

/**
 * Asks which of two answers is better: one token at temperature 1 with the five most likely ones. Structure and labels
 * are those of the official judge (weighted_alpaca_eval_gpt4_turbo), the wording is ours, so figures are near to the
 * leaderboard's but not comparable to the last digit; nor is the random order the official one.
 */
export function alpacaRequest({ instruction, output }: AlpacaData, response: string): JudgeRequest {
  const [m, M] = modelFirst(instruction) ? [response, output] : [output, response]
  const system =
    "You compare answers of language models to the same instruction, and pick the one that people would find better. " +
    "Your choices make up a ranking of the models."
  const content = `Two language models, known as m and M, were given the same instruction. \
Decide which of them answered it better from a human reader's point of view: how good the answer is, \
and how well it fits what was asked. The order in which the answers are shown means nothing.

# Instruction

<instruction>
${instruction}
</instruction>

# Answers

<answer model="m">
${m}
</answer>

<answer model="M">
${M}
</answer>

# Your decision

Reply with the name of the model that gave the better answer and nothing else, no quotes, spaces or line breaks: m or M.`
  return {
    messages: [
      { role: "system", content: system },
      { role: "user", content },
    ],
    temperature: 1,
    maxTokens: 1,
    topLogprobs: 5,
  }
}

/**
 * P(m) / (P(m) + P(M)) from the first token's log-probs; a label that is not among them has probability 0. Undefined
 * when neither is, or when the server gives no log-probs. Official: the tokens must be exactly m and M; corrected:
 * blanks and quotes around them, as other tokenizers have them, do not count, and the variants of a label are added up;
 * where there are no log-probs at all, a reply that is one of the labels and nothing else decides with 1 or 0.
 */
export function shareOfM({ text, first = [] }: JudgeReply, scoring: Scoring): number | undefined {
  const name = (token: string) => (scoring === "official" ? token : token.replace(/^[\s▁Ġ"'`]+|[\s"'`]+$/g, ""))
  const probability = (label: string) =>
    first.filter(({ token }) => name(token) === label).reduce((sum, { logprob }) => sum + Math.exp(logprob), 0)
  const [m, M] = [probability("m"), probability("M")]
  if (m + M > 0) return m / (m + M)
  const said = /^[\s"'`]*([mM])[\s"'`.]*$/.exec(text)?.[1]
  return scoring === "corrected" && !first.length && said ? Number(said === "m") : undefined
}

async function load(path: string): Promise<BenchmarkItem<AlpacaData>[]> {
  const file = fileIn(path, ...OUTPUTS)
  const gamedFile = join(dirname(file), GAMED)
  const gamed = existsSync(gamedFile) ? await readGamed(gamedFile) : undefined
  const items: BenchmarkItem<AlpacaData>[] = []
  for await (const { record } of uniqueRecords([file], alpacaRecord, "instruction")) {
    const id = `${items.length}`
    const rows = gamed?.get(items.length) ?? null
    if (gamed && !rows) {
      const problem = `must have rows for instruction ${id} (from 0), got none; use the file that belongs to these instructions`
      throw new InputError(problem, { file: gamedFile, field: "index" })
    }
    const data = { ...record, gamed: rows }
    items.push({ id, unit: id, turns: [record.instruction], temperature: 0.7, maxTokens: 4096, data })
  }
  return items
}

const cell = z.string().transform((text) => (/^(nan)?$/i.test(text) ? null : Number(text)))
const gamedRecord = z.object({
  index: cell.pipe(z.int().min(0)).describe("position of the instruction"),
  preference: cell.pipe(z.number().min(0).max(1).nullable()),
  std_delta_len: cell.pipe(z.number()).describe("length difference in standard deviations"),
  instruction_difficulty: cell.pipe(z.number()),
})

/** The rows of df_gamed.csv by position of the instruction: comparisons of the concise and the verbose baseline. */
async function readGamed(file: string): Promise<Map<number, GamedRow[]>> {
  const rows = new Map<number, GamedRow[]>()
  let header: string[] | undefined
  for await (const { line, text } of readLines(file)) {
    const cells = text.split(",").map((value) => value.trim().replace(/^"(.*)"$/, "$1"))
    header ??= cells
    if (cells.length !== header.length) {
      throw new InputError(`must have ${header.length} cells, got ${cells.length}; repair the row`, { file, line })
    }
    if (header === cells) continue
    const record = Object.fromEntries(header.map((name, i) => [name, cells[i]]))
    const row = parseRecord(gamedRecord, record, { file, line })
    const own = rows.get(row.index) ?? []
    rows.set(row.index, own)
    own.push({
      preference: row.preference,
      lengthDifference: row.std_delta_len,
      difficulty: row.instruction_difficulty,
    })
  }
  return rows
}

function score(data: AlpacaData, response: string, replies: readonly JudgeReply[], scoring: Scoring): AlpacaResult {
  const reply = (scoring === "official" ? replies[0] : replies.at(-1)) ?? { text: "" }
  const m = shareOfM(reply, scoring)
  const byText = m !== undefined && !reply.first?.length && response !== data.output
  const share = m === undefined || modelFirst(data.instruction) ? m : 1 - m
  return {
    preference: response === data.output ? 1.5 : share === undefined ? null : 1 + share,
    length: lengthOf(response),
    baselineLength: lengthOf(data.output),
    gamed: data.gamed,
    ...(byText && { byText }),
  }
}

/**
 * Win rate (mean preference for the model), discrete win rate (preferences above 1.5, draws half), the
 * length-controlled rate where all results have their gamed rows, and the mean length of answers, cut to an integer
 * officially.
 *
 * Only the gamed rows of the instructions available are fitted, which for all 805 is the official set; with fewer, the
 * official code still takes them all. Resampling an instruction takes its gamed rows with it.
 */
function figures(results: readonly AlpacaResult[], scoring: Scoring): Record<string, number> {
  const preferences = results.map(({ preference }) => preference).filter((value) => value !== null)
  const length = mean(results.map((result) => result.length))
  return {
    "win rate": mean(preferences) - 1,
    "discrete win rate": mean(preferences.map((value) => (value > 1.5 ? 1 : value === 1.5 ? 0.5 : 0))),
    ...(lengthControllable(results) && { "length-controlled win rate": controlledRate(results) }),
    "average length (characters)": scoring === "official" ? Math.trunc(length) : length,
  }
}

const lengthControllable = (results: readonly AlpacaResult[]) => results.every(({ gamed }) => gamed)

/** The gamed rows go in the order of the file: one of each instruction, then the next of each. */
function controlledRate(results: readonly AlpacaResult[]): number {
  const rounds = Math.max(...results.map(({ gamed }) => gamed!.length))
  const gamed = Array.from({ length: rounds }, (_, i) => results.flatMap(({ gamed }) => gamed![i] ?? [])).flat()
  const own = results.map(({ preference, length, baselineLength, gamed }) => ({
    preference: preference === null ? null : preference - 1,
    lengthDifference: baselineLength - length,
    difficulty: gamed![0]!.difficulty,
  }))
  return lengthControlledRate(own, gamed)
}

function notes(results: readonly AlpacaResult[]): string[] {
  const unread = results.filter(({ preference }) => preference === null).length
  const why =
    "neither m nor M among the first tokens, or a server that gives no log-probs (a judge that thinks needs room: --judge-thinking-tokens)"
  const byText = results.filter((result) => result.byText).length
  return [
    ...(byText ? [`${byText} comparisons are decided by the reply's text, as the server gives no log-probs`] : []),
    ...(unread ? [`${unread} of ${results.length} comparisons have no preference and are left out: ${why}`] : []),
    ...(lengthControllable(results)
      ? []
      : [`no length-controlled win rate: it needs ${GAMED} beside the baseline's outputs`]),
    "the judge prompt is worded otherwise than the official one",
  ]
}

/**
 * AlpacaEval 2 (Dubois et al., 2024): answers compared with those of GPT-4 Turbo (1106). Answers are drawn at
 * temperature .7 with up to 4096 tokens, as the official settings of open models have it. The length-controlled rate
 * takes the difficulty of an instruction from df_gamed.csv, as the official code does; instruction_difficulty.csv
 * repeats it.
 */
export const alpacaEval: Benchmark<AlpacaData, JudgeReply[], AlpacaResult> = {
  name: "alpaca-eval",
  about: "AlpacaEval 2: win rate against GPT-4 Turbo on 805 instructions (judged by log-probs)",
  source: {
    home: "https://github.com/tatsu-lab/alpaca_eval",
    files: [
      {
        name: "model_outputs.json",
        url: "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/main/results/gpt4_1106_preview/model_outputs.json",
        sha256: "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4",
      },
      { name: GAMED, url: `https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/main/${GAMED}` },
    ],
    licence: "CC BY-NC 4.0",
  },
  judged: true,
  load,
  collect: async ({ data }, [response = ""], judge) => {
    if (response === data.output) return null
    const readable = (reply: JudgeReply) => shareOfM(reply, "corrected") !== undefined
    return [...(await judge(alpacaRequest(data, response), readable)).replies]
  },
  score: ({ data }, [response = ""], collected, scoring) => score(data, response, collected ?? [], scoring),
  figures,
  notes,
}
