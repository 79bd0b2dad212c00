import { z } from "zod"
import { type Place, parseRecord } from "../../data/jsonl"
import { InputError } from "../../errors"
import type { Benchmark, BenchmarkItem, Scoring } from "../benchmark"
import { typeShares } from "../figures"
import { strip } from "../python"
import { fileIn, uniqueRecords } from "../records"
import { checks } from "./checks"
import { loadLanguages } from "./language"

const DATA = "input_data.jsonl"

const record = z.object({
  key: z.int(),
  prompt: z.string().min(1),
  instruction_id_list: z.array(z.string()).min(1),
  kwargs: z.array(z.record(z.string(), z.unknown())),
})

export interface IfevalInstruction {
  id: string
  kwargs: Record<string, unknown>
}

/** A prompt with its instructions in order; an id may stand twice. */
export interface IfevalPrompt {
  key: number
  prompt: string
  instructions: readonly IfevalInstruction[]
}

/** An instruction each, in the order of the prompt. */
export type IfevalResult = readonly { id: string; strict: boolean; loose: boolean }[]

/**
 * The response as it is, then what may stand around an answer taken away: the first line, the last, both, and in all
 * four the asterisks.
 */
export function looseVariants(response: string): string[] {
  const lines = response.split("\n")
  const cut = [lines.slice(1), lines.slice(0, -1), lines.slice(1, -1)].map((rest) => strip(rest.join("\n")))
  return [response, ...cut].flatMap((text) => [text, text.replaceAll("*", "")])
}

/**
 * Whether each instruction is followed: strictly by the response itself, loosely by any of its variants, chosen for
 * every instruction by itself. A blank response follows none. Needs loadLanguages.
 */
export function gradeIfeval({ instructions }: IfevalPrompt, response: string, scoring: Scoring): IfevalResult {
  const variants = [...new Set(looseVariants(response))].filter(strip)
  return instructions.map(({ id, kwargs }) => {
    const follows = (text: string) => checks[id]!.follows(text, kwargs, scoring)
    const strict = strip(response) !== "" && follows(response)
    return { id, strict, loose: strict || variants.some(follows) }
  })
}

/** Shares of prompts with all instructions followed and of instructions, strict and loose; strict by instruction. */
function figures(results: readonly IfevalResult[]): Record<string, number> {
  const sums = { promptStrict: 0, promptLoose: 0, strict: 0, loose: 0, all: 0 }
  for (const result of results) {
    sums.promptStrict += Number(result.every(({ strict }) => strict))
    sums.promptLoose += Number(result.every(({ loose }) => loose))
    for (const { strict, loose } of result) {
      sums.strict += Number(strict)
      sums.loose += Number(loose)
      sums.all++
    }
  }
  const types = results.flatMap((result) => result.map(({ id, strict }) => ({ type: id, satisfied: strict })))
  return {
    "prompt strict": sums.promptStrict / results.length,
    "inst strict": sums.strict / sums.all,
    "prompt loose": sums.promptLoose / results.length,
    "inst loose": sums.loose / sums.all,
    ...typeShares(types),
  }
}

const differing =
  "as lm-eval 0.4.13, but for the language of a text, found by another detector, and the letter of keys 1122 and 1129, " +
  "which that draws by chance"

/**
 * The arguments without those that are null, which some copies of the data pad with, checked against the instruction.
 */
function instruction(id: string, kwargs: Record<string, unknown>, index: number, place: Place): IfevalInstruction {
  const known = checks[id]
  if (!known) {
    const problem = `must be one of the 25 instructions, got ${JSON.stringify(id)}; correct the record or remove it`
    throw new InputError(problem, { ...place, field: `instruction_id_list.${index}` })
  }
  const parameters = Object.fromEntries(Object.entries(kwargs).filter(([, value]) => value !== null))
  const shape = z.object({ kwargs: z.record(z.string(), known.arguments) })
  return { id, kwargs: parseRecord(shape, { kwargs: { [index]: parameters } }, place).kwargs[index]! }
}

async function load(path: string): Promise<BenchmarkItem<IfevalPrompt>[]> {
  await loadLanguages()
  const items: BenchmarkItem<IfevalPrompt>[] = []
  for await (const { record: row, place } of uniqueRecords([fileIn(path, DATA)], record, "key")) {
    const { key, prompt, instruction_id_list: ids, kwargs } = row
    if (ids.length !== kwargs.length) {
      const problem = `must have an entry for each of the ${ids.length} instructions, got ${kwargs.length}; correct the record`
      throw new InputError(problem, { ...place, field: "kwargs" })
    }
    const instructions = ids.map((id, i) => instruction(id, kwargs[i]!, i, place))
    const id = `${key}`
    items.push({ id, unit: id, turns: [prompt], temperature: 0, maxTokens: 1280, data: { key, prompt, instructions } })
  }
  return items
}

/**
 * IFEval (Zhou et al., 2023): prompts with instructions that rules can check. Answers are greedy, at most 1280 tokens,
 * as in lm-eval. The single figure of the Open LLM Leaderboard is the mean of "prompt strict" and "inst strict".
 *
 * Official verdicts are those of lm-eval 0.4.13 with NLTK 3.9 on every check that needs no language
 * (`tests/reference/ifeval.py` compares them verdict by verdict). The language of a text comes from another detector,
 * as that of lm-eval draws random numbers without a seed and so differs from itself; on scraps and mixed languages the
 * two may differ. So does the letter that lm-eval draws by chance instead of `#` and `!` in keys 1122 and 1129.
 */
export const ifeval: Benchmark<IfevalPrompt, null, IfevalResult> = {
  name: "ifeval",
  about: "IFEval: 541 prompts with 834 instructions checked by rules, strict and loose",
  source: {
    home: "https://github.com/google-research/google-research/tree/master/instruction_following_eval",
    files: [
      {
        name: DATA,
        url: "https://raw.githubusercontent.com/google-research/google-research/master/instruction_following_eval/data/input_data.jsonl",
        sha256: "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
      },
    ],
    licence: "Apache-2.0",
  },
  judged: false,
  load,
  collect: async () => null,
  score: ({ data }, [response = ""], _collected, scoring) => gradeIfeval(data, response, scoring),
  figures,
  notes: (_results, scoring) => (scoring === "official" ? [differing] : []),
}
