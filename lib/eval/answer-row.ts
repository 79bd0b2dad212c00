import { z } from "zod"
import { type Place, parseRecord } from "../data/jsonl"
import { isThoughtPart } from "../data/schema"
import { InputError } from "../errors"
import { behindThoughts } from "../text/thoughts"

const name = z
  .union([z.string().min(1), z.int()], "must be a text or a whole number")
  .transform(String)
  .nullish()
const text = z.string().nullish()
/** An answer; some programs write a list of samples, of which there must be one. */
const samples = z.array(z.string())
const answerText = z.union([z.string(), samples], "must be a text").nullish()
/** A message's content: a text, or parts of which those with a text count, thoughts aside. */
const part = z.looseObject({ type: z.string().nullish(), text: z.string().nullish() })
const content = z.union([z.string(), z.array(z.union([z.string(), part])).transform(joined)])
const message = z
  .looseObject({ role: z.string().nullish(), content: content.nullish(), reasoning_content: text, reasoning: text })
  .transform(({ role, content, reasoning_content, reasoning }) => ({
    role,
    content: content && (reasoning_content || reasoning) ? behindThoughts(content) : content,
  }))
const choices = z
  .array(z.looseObject({ turns: z.array(z.string()).nullish(), message: message.nullish(), text }))
  .min(1)
const labels = {
  ...{ id: name, key: name, question_id: name, main_id: name, idx: name, custom_id: name },
  ...{ prompt: z.unknown().optional(), prompt_new: text, instruction: text, input: text },
}

/** What a reply of an OpenAI-compatible server holds, where a batch file wraps it: of chats, or of its Responses. */
const output = z.array(z.looseObject({ type: z.string().nullish(), content: content.nullish() }))
const inner = z.looseObject({ choices: choices.nullish(), output: output.nullish() })
const reply = inner.extend({ body: inner.nullish().describe("one with an error has no choices") })

/**
 * A row of answers made elsewhere, in any of the shapes that the official scripts, lm-eval and servers write. Data
 * frames fill with null what a row has not.
 */
const answerRow = z.looseObject({
  ...labels,
  response: z
    .union([z.string(), samples, reply], "must be a text or a server's reply")
    .nullish()
    .describe("null: not answered"),
  ...{ output: answerText, generated: answerText, completion: answerText },
  turns: z.array(z.string()).nullish().describe("answers to the turns of a conversation"),
  messages: z.array(message).nullish().describe("a conversation with its answers"),
  choices: choices.nullish(),
  doc: z.looseObject(labels).nullish().describe("lm-eval: the record that was asked"),
  result: z.looseObject({ message: message.nullish() }).nullish().describe("a batch of Anthropic's server"),
  resps: z.array(z.array(z.unknown())).nullish(),
  filtered_resps: z.array(z.unknown()).nullish(),
})
type Row = z.output<typeof answerRow>

/** What a row says: which item it answers, by id or prompt or both, and the answers to its turns. */
export interface AnswerRow {
  /** The names that the row gives to what it answers, the likeliest first; empty if it has none. */
  ids: string[]
  /** The prompt in the forms that the item may have it in; empty if the row has none. */
  prompts: string[]
  /** Undefined: the row says that there is no answer. */
  turns?: readonly string[]
  /** Further answers of the row, which do not count. */
  others: number
}

/** White space around a prompt, and how its lines end, tell no two prompts apart. */
export const promptKey = (prompt: string) => prompt.replace(/\r\n?/g, "\n").trim()

/**
 * Reads a row. Ids: custom_id, key, question_id, main_id, idx, id (which in a server's batch is its own). Prompts:
 * prompt, prompt_new, instruction (alone and with input), or the user message. Answers: response, output,
 * generated, completion, turns, messages that end in the assistant's, choices with turns, message.content or text; the
 * same inside of a server's batch reply, of OpenAI or Anthropic; `resps` and `doc` of lm-eval's sample logs, whose
 * doc_id is a row number and no id.
 * @throws InputError naming file, line and field: neither id nor prompt, no answer or two, wrong types
 */
export function readAnswerRow(value: unknown, place: Place): AnswerRow {
  const row = parseRecord(answerRow, value, place)
  const of = row.doc ?? row
  const ids = [of.custom_id, of.key, of.question_id, of.main_id, of.idx, of.id].filter((id) => typeof id === "string")
  const asked = z.array(message).safeParse(of.prompt).data ?? row.messages
  const questions = asked?.filter(({ role }) => role === "user").map(({ content }) => content) ?? []
  // What stands before the question may be examples, unless the answers to all turns are here.
  const isWhole = asked === row.messages && answersIn(row.messages ?? [])
  const { prompt, prompt_new, instruction, input } = of
  const prompts = [
    prompt,
    questions[0],
    isWhole ? undefined : questions.at(-1),
    prompt_new,
    instruction,
    instruction && input ? `${instruction}\n\n${input}` : undefined,
  ]
    .filter((one): one is string => typeof one === "string" && one !== "")
    .map(promptKey)
  if (!ids.length && !prompts.length) {
    const fields = Object.keys(row).slice(0, 8).join(", ") || "no field"
    const rule = `an answer must say what it answers, got neither id nor prompt, but ${fields}; add one`
    throw new InputError(rule, { ...place, field: "id" })
  }
  const others = Math.max(0, (choicesOf(row)?.length ?? 1) - 1)
  return { ids, prompts, turns: turnsOf(row, place), others }
}

/** What wraps an answer in a file of a server's replies. */
const wrappedOf = ({ response }: Row) =>
  typeof response === "object" && !Array.isArray(response) ? response : undefined

const choicesOf = (row: Row) => row.choices ?? wrappedOf(row)?.choices ?? wrappedOf(row)?.body?.choices

function turnsOf(row: Row, place: Place): readonly string[] | undefined {
  if (row.turns) return row.turns
  const wrapped = wrappedOf(row)
  const choice = choicesOf(row)?.[0]
  if (choice?.turns) return choice.turns
  const one = (field: "response" | "output" | "generated" | "completion") => {
    const value = row[field]
    return Array.isArray(value) ? onlyOf(value, { ...place, field }) : typeof value === "object" ? null : value
  }
  const plain = wrapped ? undefined : one("response")
  const fields = { response: plain, output: one("output"), generated: one("generated"), completion: one("completion") }
  const said = answersIn(row.messages ?? [])
  checkOne({ ...fields, messages: said?.at(-1) }, place)
  if (said) return said
  const kept = row.filtered_resps?.[0] ?? row.resps?.[0]
  const logged = Array.isArray(kept) ? onlyOf(kept, { ...place, field: "resps" }) : kept
  const spoken = (wrapped?.output ?? wrapped?.body?.output)?.filter(({ type }) => type === "message")
  const parts = spoken?.length ? spoken.map((one) => one.content ?? "").join("") : undefined
  const replies = [choice?.message?.content, choice?.text, parts, row.result?.message?.content]
  const candidates = [...Object.values(fields), ...replies, logged]
  const answer = candidates.find((one) => one !== undefined && one !== null)
  if (typeof answer === "string") return [answer]
  if (answer === undefined && (candidates.includes(null) || choice || wrapped || row.result)) return undefined
  const other = Object.keys(row).filter((name) => !Object.hasOwn(labels, name) && name !== "doc")
  const got = other.length
    ? `none, but ${other.slice(0, 8).join(", ")}; rename the field with the answer`
    : "none; add it"
  throw new InputError(`an answer must be a text, got ${got}`, { ...place, field: "response" })
}

/** The one sample of a list. @throws InputError for several: which one is meant? */
function onlyOf<Sample>(list: readonly Sample[], place: Place & { field: string }): Sample {
  if (list.length === 1) return list[0]!
  throw new InputError(
    `an answer must be given once, got ${list.length}; keep one, or name the field turns where they are turns`,
    place,
  )
}

/**
 * The assistant's turns of a conversation that ends in one; undefined for others: their turns of the assistant are
 * history, or examples, and the answer stands elsewhere.
 */
function answersIn(messages: NonNullable<Row["messages"]>): string[] | undefined {
  const turns = messages.filter(({ role }) => role)
  const said = turns.filter(({ role }) => role === "assistant").map((one) => one.content)
  const isWhole = said.length && turns.at(-1)!.role === "assistant"
  return isWhole && said.every((one) => typeof one === "string") ? (said as string[]) : undefined
}

/** @throws InputError for a row that holds two answers, such as a reference beside the model's: which one is meant? */
function checkOne(fields: Record<string, string | null | undefined>, place: Place): void {
  const given = Object.entries(fields).filter(([, answer]) => typeof answer === "string")
  const other = given.find(([, answer]) => answer !== given[0]![1])
  if (!other) return
  const got = `another in ${other[0]} than in ${given[0]![0]}`
  throw new InputError(`an answer must be given once, got ${got}; remove one`, { ...place, field: other[0] })
}

function joined(parts: readonly (string | z.output<typeof part>)[]): string {
  const texts = parts.map((one) => (typeof one === "string" ? one : isThoughtPart(one) ? "" : (one.text ?? "")))
  return texts.join("")
}
