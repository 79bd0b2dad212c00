import { z } from "zod"
import { InputError } from "../errors"
import { type Place, parseRecord } from "./jsonl"
import { type Message, message, type PairWeights, textContent } from "./schema"
import { transcript } from "./transcript"

/** A preference pair in its simplest form: what other programs take and give. */
export interface Preference {
  prompt: readonly Message[]
  chosen: string
  rejected: string
}

const messages = z.array(message.extend({ content: textContent }))

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

/** Fields that hold the prompt in some data sets; TRL does not read them, and would take it from the answers. */
const otherPrompts = [
  ...(["question", "query", "input", "context", "problem", "post", "article", "text", "user"] as const),
  ...(["messages", "conversation", "history", "dialog", "dialogue"] as const),
]

const texts = z.union([z.string(), messages.min(1)])
const trlRecord = z.looseObject({ prompt: texts.nullish(), chosen: texts, rejected: texts })

/**
 * A TRL preference record, read as TRL 1.16 reads it (`maybe_extract_prompt`): standard or conversational; the prompt
 * is given, or is what both answers begin with. That is so too where the prompt is a text and the answers are chats, as
 * in UltraFeedback, whose chats repeat it. Turns that both answers share behind a prompt belong to the prompt, which
 * gives the same tokens. Content may be a list of text parts.
 *
 * Three things differ. A prompt of one string becomes one user turn, as this library always applies the chat template,
 * and a transcript as in HH-RLHF its turns. A prompt of another name is refused, where TRL would look for one in the
 * answers. And where a text prompt is repeated by neither chat, or a chat prompt goes with answers of text, TRL loses
 * the prompt; here it is kept.
 * @throws InputError with place and field.
 */
export function fromTrl(value: unknown, place: Place): Preference {
  const record = parseRecord(trlRecord, value, place)
  const { prompt: promptValue } = record
  const prompt =
    typeof promptValue === "string"
      ? (transcript(promptValue) ?? (promptValue ? userTurn(promptValue) : []))
      : (promptValue ?? [])
  let { chosen, rejected } = record
  if (!prompt.length && typeof chosen === "string" && typeof rejected === "string") {
    const [good, bad] = [transcript(chosen), transcript(rejected)]
    if (good && bad) [chosen, rejected] = [good, bad]
  }
  if (typeof chosen === "string" && typeof rejected === "string") {
    if (prompt.length) return { prompt, chosen, rejected }
    if (promptValue === "" && chosen === record.chosen)
      throw new InputError("prompt must be given, got an empty text; leave the record out", {
        ...place,
        field: "prompt",
      })
    const other = otherPrompts.find((field) => record[field])
    if (other)
      throw new InputError(`prompt must be given, got ${other} instead; rename that field`, { ...place, field: other })
    const shared = sharedText([...chosen], [...rejected])
    if (!shared.trim())
      throw new InputError("prompt must be given, or shared by both answers, got neither; add it", place)
    return { prompt: userTurn(shared), chosen: chosen.slice(shared.length), rejected: rejected.slice(shared.length) }
  }
  if (typeof chosen === "string" || typeof rejected === "string") {
    throw new InputError(
      "chosen and rejected must both be texts or both be message lists, got one of each; repair it",
      place,
    )
  }
  const head = chosen.slice(0, sharedLength(chosen, rejected))
  const whole = typeof promptValue === "string" && head.length ? head : [...prompt, ...head]
  const [good, bad] = [chosen.slice(head.length), rejected.slice(head.length)]
  if (!whole.length || good.length !== 1 || bad.length !== 1) {
    const got = `${whole.length} prompt, ${good.length} chosen and ${bad.length} rejected messages`
    throw new InputError(
      `a pair must be a prompt and one message for each answer, got ${got}; cut the chat down`,
      place,
    )
  }
  checkAnswerRole(good[0]!.role, { ...place, field: "chosen" })
  checkAnswerRole(bad[0]!.role, { ...place, field: "rejected" })
  return { prompt: whole, chosen: good[0]!.content, rejected: bad[0]!.content }
}

/** @throws InputError for an answer that is another's turn */
export function checkAnswerRole(role: Message["role"], place: Place & { field: string }): void {
  if (role !== "assistant") throw new InputError(`an answer must be the assistant's, got ${role}; repair it`, place)
}

const userTurn = (content: string): Message[] => [{ role: "user", content }]

/** How many items two lists begin with alike. Of the shorter list at least one stays, as in TRL: it is the answer. */
function sharedLength<T>(a: readonly T[], b: readonly T[]): number {
  const most = Math.min(a.length, b.length) - 1
  const end = a.slice(0, most).findIndex((item, i) => JSON.stringify(item) !== JSON.stringify(b[i]))
  return Math.max(0, end < 0 ? most : end)
}

/** What two texts begin with alike; a space before the difference goes with the answers. */
function sharedText(a: readonly string[], b: readonly string[]): string {
  const end = sharedLength(a, b)
  const differ = a[end] !== b[end]
  return a.slice(0, differ && a[end - 1] === " " ? end - 1 : end).join("")
}

/**
 * A LLaMA-Factory ranking record (Alpaca fields). The whole user turn goes into `instruction`: the program would join
 * instruction and input by one newline, we join them by two, and prompts should be the same token by token. Earlier
 * turns go into `history`, a list of [question, answer].
 * @throws InputError for a prompt that is not an optional system message and then user and assistant in turns, user
 * last.
 */
export function toRanking({ prompt, chosen, rejected }: Preference) {
  const system = prompt[0]?.role === "system" ? prompt[0].content : undefined
  // The reader takes an empty text for none, and many templates then write a system message of their own.
  if (system === "")
    throw new InputError("a ranking record cannot hold an empty system message; give it a text, or leave it out")
  const turns = prompt.slice(system === undefined ? 0 : 1)
  if (turns.length % 2 === 0 || turns.some(({ role }, i) => role !== (i % 2 ? "assistant" : "user"))) {
    throw new InputError(
      "a ranking record must hold user and assistant in turns, the user's last, got " +
        `${prompt.map((m) => m.role).join(", ") || "no message"}; cut the chat down`,
    )
  }
  const history = turns.flatMap(({ content }, i): [string, string][] =>
    i % 2 ? [[turns[i - 1]!.content, content]] : [],
  )
  return {
    instruction: turns.at(-1)!.content,
    input: "",
    ...(system !== undefined && { system }),
    ...(history.length && { history }),
    chosen,
    rejected,
  }
}

const history = z.union([z.array(z.tuple([z.string(), z.string()])), z.literal("")]).nullish()
const rankingFields = {
  instruction: z.string(),
  input: z.string().nullish(),
  system: z.string().nullish(),
  history: history.describe("earlier turns, [question, answer] each; the authors write an empty text for none"),
}

/** A record of a LLaMA-Factory ranking file (Alpaca fields). */
const ranking = z.looseObject({ ...rankingFields, chosen: z.string(), rejected: z.string() })

/**
 * The prompt of an Alpaca record as LLaMA-Factory puts it together: system, history, instruction and input, a line
 * each.
 */
function rankingPrompt({
  instruction,
  input,
  system,
  history,
}: z.output<z.ZodObject<typeof rankingFields>>): Message[] {
  return [
    ...(system ? [{ role: "system" as const, content: system }] : []),
    ...(history || []).flatMap(([question, answer]): Message[] => [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ]),
    { role: "user", content: [instruction, input].filter(Boolean).join("\n") },
  ]
}

/** The inverse of `toRanking`. @throws InputError with place and field */
export function fromRanking(value: unknown, place: Place): Preference {
  const record = parseRecord(ranking, value, place)
  return { prompt: rankingPrompt(record), chosen: record.chosen, rejected: record.rejected }
}

/** The entry that LLaMA-Factory's `dataset_info.json` needs for a file of ranking records. */
export function datasetInfo(name: string, fileName: string, { system = false, history = false } = {}) {
  const optional = { ...(system && { system: "system" }), ...(history && { history: "history" }) }
  const columns = { prompt: "instruction", query: "input", ...optional }
  return {
    [name]: { file_name: fileName, ranking: true, columns: { ...columns, chosen: "chosen", rejected: "rejected" } },
  }
}

const scores = z.array(z.number().nonnegative())

/** A record of the token-weighted preference file that the authors' fork of LLaMA-Factory trains on. */
const tokenWeighted = z.looseObject({
  ...rankingFields,
  chosen: z.string(),
  rejected: z.string(),
  source_token_scores: scores.min(1).describe("one a prompt token, chat template included; the last one is read"),
  chosen_token_scores: scores.min(1).describe("one a response token, end-of-turn included; the last one is not read"),
  rejected_token_scores: scores.min(1),
})

/** A pair with a weight a response token (end-of-turn included) and the length of its prompt in tokens. */
export interface WeightedPreference extends Preference {
  weights: PairWeights
  promptTokens: number
}

/**
 * A record of the authors' token-weighted preference file. Their program reads score j for token j + 1: the scorer
 * rolls by one, the collator drops the last score, the trainer the first label. So each weight stands one place earlier
 * than its token, that of the first response token in the prompt's last place, and the last place of an answer is not
 * read. Both answers share the prompt, so weights of their first tokens that differ cannot be written: those tokens
 * then weigh 0, as in all of the authors' files (`sharesFirstWeight` tells).
 * @throws InputError for a prompt that the file cannot hold (see toRanking) or weights that are missing
 */
export function toTokenWeighted(pair: WeightedPreference) {
  const { weights, promptTokens } = pair
  if (promptTokens < 1 || !weights.chosen.length || !weights.rejected.length) {
    const got = `${promptTokens}, ${weights.chosen.length} and ${weights.rejected.length}`
    throw new InputError(`prompt and answers must have a token each, got ${got}; leave the pair out`)
  }
  const first = sharesFirstWeight(weights) ? weights.chosen[0]! : 0
  const shifted = ([, ...rest]: readonly number[]) => [...rest, 0]
  return {
    ...{ history: "" as const, ...toRanking(pair) },
    source_token_scores: [...new Array<number>(promptTokens - 1).fill(0), first],
    chosen_token_scores: shifted(weights.chosen),
    rejected_token_scores: shifted(weights.rejected),
  }
}

/** Whether the first tokens of both answers weigh alike: only then does a token-weighted file keep their weight. */
export const sharesFirstWeight = ({ chosen, rejected }: PairWeights): boolean => chosen[0] === rejected[0]

/**
 * The pair that a record of the authors' token-weighted file is to their trainer; see toTokenWeighted for the places of
 * its weights. System message and history belong to the prompt.
 * @throws InputError with place and field when the record is not one of that file.
 */
export function fromTokenWeighted(value: unknown, place: Place): WeightedPreference {
  const record = parseRecord(tokenWeighted, value, place)
  const first = record.source_token_scores.at(-1)!
  const read = (scores: readonly number[]) => [first, ...scores.slice(0, -1)]
  return {
    prompt: rankingPrompt(record),
    chosen: record.chosen,
    rejected: record.rejected,
    weights: { chosen: read(record.chosen_token_scores), rejected: read(record.rejected_token_scores) },
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
