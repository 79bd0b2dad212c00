import { z } from "zod"
import { InputError } from "../errors"
import { type Place, parseRecord } from "./jsonl"
import { type Message, message, type PairWeights } from "./schema"

/** A preference pair in its simplest form: what other programs take and give. */
export interface Preference {
  prompt: readonly Message[]
  chosen: string
  rejected: string
}

const messages = z.array(message)

/** TRL, conversational: the trainer applies the chat template. */
export function toTrl({ prompt, chosen, rejected }: Preference) {
  const answer = (content: string) => [{ role: "assistant" as const, content }]
  return { prompt: [...prompt], chosen: answer(chosen), rejected: answer(rejected) }
}

/**
 * TRL, standard: plain strings, to which the trainer applies no chat template. `render` turns the prompt into text,
 * template included; without it the prompt must be a single turn, whose bare text is taken.
 * @throws InputError for more than one turn and no `render`.
 */
export function toTrlStandard(pair: Preference, render: (prompt: readonly Message[]) => string = onlyTurn) {
  return { prompt: render(pair.prompt), chosen: pair.chosen, rejected: pair.rejected }
}

function onlyTurn(prompt: readonly Message[]): string {
  if (prompt.length === 1) return prompt[0]!.content
  throw new InputError(
    `the standard form holds one turn, got ${prompt.length}; give render, or write the conversational form`,
  )
}

const trlRecord = z.looseObject({
  prompt: z.union([z.string(), messages.min(1)]).optional(),
  chosen: z.union([z.string(), messages.min(1)]),
  rejected: z.union([z.string(), messages.min(1)]),
})

/**
 * A TRL preference record: standard or conversational, prompt given or, as in older files, repeated at the head of both
 * answers. A prompt of one string becomes one user turn.
 * @throws InputError with place and field.
 */
export function fromTrl(value: unknown, place: Place): Preference {
  const record = parseRecord(trlRecord, value, place)
  const { chosen, rejected } = record
  if (typeof chosen !== typeof rejected) {
    throw new InputError(
      "chosen and rejected must both be texts or both be message lists, got one of each; repair it",
      place,
    )
  }
  const prompt = typeof record.prompt === "string" ? userTurn(record.prompt) : (record.prompt ?? [])
  if (typeof chosen === "string" || typeof rejected === "string") {
    if (prompt.length) return { prompt, chosen: `${chosen}`, rejected: `${rejected}` }
    const shared = sharedHead([...`${chosen}`], [...`${rejected}`]).join("")
    if (!shared.trim())
      throw new InputError("prompt must be given, or shared by both answers, got neither; add it", place)
    return {
      prompt: userTurn(shared),
      chosen: `${chosen}`.slice(shared.length),
      rejected: `${rejected}`.slice(shared.length),
    }
  }
  const head = record.prompt === undefined ? sharedHead(chosen, rejected) : []
  const [good, bad] = [chosen.slice(head.length), rejected.slice(head.length)]
  const whole = [...prompt, ...head]
  if (!whole.length || good.length !== 1 || bad.length !== 1) {
    const got = `${whole.length} prompt, ${good.length} chosen and ${bad.length} rejected messages`
    throw new InputError(
      `a pair must be a prompt and one message for each answer, got ${got}; cut the chat down`,
      place,
    )
  }
  return { prompt: whole, chosen: good[0]!.content, rejected: bad[0]!.content }
}

const userTurn = (content: string): Message[] => [{ role: "user", content }]

function sharedHead<T>(a: readonly T[], b: readonly T[]): T[] {
  const end = a.findIndex((item, i) => JSON.stringify(item) !== JSON.stringify(b[i]))
  return a.slice(0, end < 0 ? a.length : end)
}

/**
 * A LLaMA-Factory ranking record (Alpaca fields). The whole user turn goes into `instruction`: the program would join
 * instruction and input by one newline, we join them by two, and prompts should be the same token by token.
 */
export function toRanking({ prompt, chosen, rejected }: Preference) {
  const last = prompt.at(-1)
  const system = prompt[0]?.role === "system" ? { system: prompt[0].content } : {}
  if (last?.role !== "user" || prompt.length > ("system" in system ? 2 : 1)) {
    throw new InputError(
      `a ranking record holds one user turn, got ${prompt.map((m) => m.role).join(", ")}; cut the chat down`,
    )
  }
  return { instruction: last.content, input: "", ...system, chosen, rejected }
}

/** The entry that LLaMA-Factory's `dataset_info.json` needs for a file of ranking records. */
export function datasetInfo(name: string, fileName: string, { system = false } = {}) {
  const columns = { prompt: "instruction", query: "input", ...(system && { system: "system" }) }
  return {
    [name]: { file_name: fileName, ranking: true, columns: { ...columns, chosen: "chosen", rejected: "rejected" } },
  }
}

const scores = z.array(z.number().nonnegative())

/** A record of the token-weighted preference file that the authors' fork of LLaMA-Factory trains on. */
export const tokenWeighted = z.looseObject({
  instruction: z.string(),
  input: z.string().nullish(),
  chosen: z.string(),
  rejected: z.string(),
  source_token_scores: scores.describe("one 0 a prompt token, chat template included"),
  chosen_token_scores: scores.describe("one a response token, end-of-turn included"),
  rejected_token_scores: scores,
})

/** A pair with a weight a response token (end-of-turn included) and the length of its prompt in tokens. */
export interface WeightedPreference extends Preference {
  weights: PairWeights
  promptTokens: number
}

/** A record of the authors' token-weighted preference file. */
export function toTokenWeighted(pair: WeightedPreference) {
  return {
    ...toRanking(pair),
    history: "",
    source_token_scores: new Array<number>(pair.promptTokens).fill(0),
    chosen_token_scores: pair.weights.chosen,
    rejected_token_scores: pair.weights.rejected,
  }
}

/** @throws InputError with place and field when the record is not one of the authors' token-weighted preference file. */
export function fromTokenWeighted(value: unknown, place: Place): WeightedPreference {
  const record = parseRecord(tokenWeighted, value, place)
  return {
    prompt: userTurn([record.instruction, record.input].filter(Boolean).join("\n")),
    chosen: record.chosen,
    rejected: record.rejected,
    weights: { chosen: record.chosen_token_scores, rejected: record.rejected_token_scores },
    promptTokens: record.source_token_scores.length,
  }
}

/** Pieces of a JSON array with a record a line, for writeAtomic. */
export function* jsonArray(records: Iterable<unknown>): Generator<string> {
  let before = "[\n"
  for (const record of records) {
    yield before + JSON.stringify(record)
    before = ",\n"
  }
  yield before === "[\n" ? "[]\n" : "\n]\n"
}
