import { z } from "zod"
import { InputError } from "../errors"
import type { JsonObject } from "./json-file"
import { type Place, parseRecord } from "./jsonl"
import { checkAnswerRole, fromRanking, fromTokenWeighted, fromTrl, type Preference } from "./preferences"
import { endMarkOf, isChatAsText, isRendered } from "./rendered"
import { type Message, type PairWeights, textContent } from "./schema"

/** Preference files of other programs, read as they are. */

/** A pair of a file, with the token weights that the file gives, if any. */
export interface FilePair extends Preference {
  /** `id` of the record, or its number in the file from 1 */
  id: string
  tokenWeights?: PairWeights
}

const turn = z.looseObject({ from: z.string(), value: textContent })
const sharegptRanking = z.looseObject({
  conversations: z.array(turn).min(1),
  chosen: turn,
  rejected: turn,
  system: z.string().nullish(),
})
const roles: Readonly<Record<string, Message["role"]>> = {
  ...{ system: "system", human: "user", user: "user", gpt: "assistant", assistant: "assistant" },
}

/**
 * A ranking record with ShareGPT turns, as LLaMA-Factory reads it: a system message among the turns counts before
 * `system`. @throws InputError with place and field
 */
function fromShareGptRanking(value: unknown, place: Place): Preference {
  const { conversations, chosen, rejected, system } = parseRecord(sharegptRanking, value, place)
  const roleOf = (from: string, field: string) => {
    const role = Object.hasOwn(roles, from) ? roles[from] : undefined
    if (role) return role
    const known = Object.keys(roles).join(", ")
    throw new InputError(`must be one of ${known}, got ${from}; repair it`, { ...place, field })
  }
  const prompt = conversations.map(
    ({ from, value: content }, i): Message => ({ role: roleOf(from, `conversations.${i}.from`), content }),
  )
  for (const [field, { from }] of Object.entries({ chosen, rejected }))
    checkAnswerRole(roleOf(from, `${field}.from`), { ...place, field: `${field}.from` })
  const head: Message[] = system && prompt[0]!.role !== "system" ? [{ role: "system", content: system }] : []
  return { prompt: [...head, ...prompt], chosen: chosen.value, rejected: rejected.value }
}

const forms = [
  { name: "musc rows", fields: ["clean_instruction"] },
  { name: "the authors' token-weighted file", fields: ["source_token_scores", "chosen"] },
  { name: "ShareGPT ranking", fields: ["conversations", "chosen", "rejected"] },
  { name: "Alpaca ranking", fields: ["instruction", "chosen", "rejected"] },
  { name: "TRL preference", fields: ["chosen", "rejected"] },
] as const

/** Records of other trainings, told by their fields, with what they lack. */
const otherForms: readonly { name: string; fields: readonly string[] }[] = [
  { name: "unpaired answers with a label (KTO)", fields: ["completion", "label"] },
  { name: "answers with a label a step (PRM)", fields: ["completions", "labels"] },
  { name: "a prompt with one completion (SFT)", fields: ["prompt", "completion"] },
  { name: "a chat with one answer (SFT)", fields: ["messages"] },
  { name: "a chat with one answer (SFT)", fields: ["conversations"] },
  { name: "an instruction with one answer (SFT)", fields: ["instruction", "output"] },
  { name: "prompts without answers", fields: ["prompt"] },
]

/** Fields of a record that change what the model reads, and that a pair here has no place for. */
const unread: Readonly<Record<string, string>> = {
  ...{ images: "a picture", image: "a picture", videos: "a video", audios: "a sound" },
  ...{ tools: "tools", chat_template_kwargs: "variables of the chat template" },
}

const isEmpty = (value: unknown) =>
  value === null ||
  value === undefined ||
  value === "" ||
  (typeof value === "object" && Object.keys(value).length === 0)

/** Refuses what would be left out in silence. TRL does not read `system` either; LLaMA-Factory's forms do. */
function checkUnread(value: object, form: string, place: Place): void {
  const fields = form === "TRL preference" ? { ...unread, system: "a system message beside the prompt" } : unread
  for (const [field, what] of Object.entries(fields)) {
    if (isEmpty((value as JsonObject)[field])) continue
    const remedy =
      field === "system" ? "put it into prompt as a message of the role system" : "leave the field or the record out"
    throw new InputError(`a pair must hold no more than texts, got ${what}; ${remedy}`, { ...place, field })
  }
}

/** The form of a preference record by its fields; undefined for none that is known. */
export const pairForm = (record: object): (typeof forms)[number]["name"] | undefined =>
  forms.find(({ fields }) => fields.every((field) => field in record))?.name

/**
 * The pair of a record of another program's file: TRL, Alpaca ranking, ShareGPT ranking, or the authors' token-weighted
 * file.
 * @throws InputError with place and field; for a record of none of these
 */
export function toFilePair(value: object, place: Place & { record: number }): FilePair {
  const id = "id" in value && ["string", "number"].includes(typeof value.id) ? `${value.id}` : `${place.record}`
  const form = pairForm(value)
  if (form) checkUnread(value, form, place)
  const pair = pairOf(value, form, place)
  checkBare(pair, place)
  return { id, ...pair }
}

/** Refuses texts that stand for more than themselves: a template would be applied twice, messages taken for words. */
function checkBare({ prompt, chosen, rejected }: Preference, place: Place): void {
  const last = prompt.at(-1)?.content ?? ""
  const wrong = (field: string, problem: string) => {
    throw new InputError(problem, { ...place, field })
  }
  if (isRendered(last))
    wrong("prompt", "a prompt must be bare, got a rendered chat template; give its messages, or the user's text alone")
  if (isChatAsText(last)) wrong("prompt", "messages must be a list, got one as a text; parse it first")
  if (isChatAsText(chosen) && isChatAsText(rejected))
    wrong("chosen", "messages must be a list, got one as a text; parse it first")
  const mark = endMarkOf(chosen)
  if (mark && mark === endMarkOf(rejected))
    wrong("chosen", `an answer must end without its end-of-turn token, got ${mark}; cut it off: the template adds it`)
}

function pairOf(value: object, form: ReturnType<typeof pairForm>, place: Place): Omit<FilePair, "id"> {
  switch (form) {
    case "the authors' token-weighted file": {
      const { weights, promptTokens: _, ...pair } = fromTokenWeighted(value, place)
      return { ...pair, tokenWeights: weights }
    }
    case "ShareGPT ranking":
      return asked(fromShareGptRanking(value, place), place)
    case "Alpaca ranking":
      return fromRanking(value, place)
    case "TRL preference":
      return asked(fromTrl(value, place), place)
    default: {
      const fields = Object.keys(value).slice(0, 8).join(", ") || "no field"
      const other = otherForms.find((one) => one.fields.every((field) => field in value))
      const got = `${other ? other.name : "one"} with ${fields}`
      throw new InputError(
        `must be a preference record (${forms.map(({ name }) => name).join(", ")}), got ${got}; convert the file`,
        place,
      )
    }
  }
}

/** A pair whose prompt ends in the user's turn. An answer that continues another would become a turn of its own. */
function asked(pair: Preference, place: Place): Preference {
  const role = pair.prompt.at(-1)?.role
  if (role === "user") return pair
  const remedy = "give prompts that end in the user's turn"
  throw new InputError(`a prompt must end in a user message, got ${role}; ${remedy}`, { ...place, field: "prompt" })
}
