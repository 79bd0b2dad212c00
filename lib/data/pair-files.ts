import { z } from "zod"
import { InputError } from "../errors"
import { isJsonObject, type JsonObject, show } from "./json-file"
import { type Place, parseRecord } from "./jsonl"
import { fromRanking, fromTokenWeighted, fromTrl, type Preference } from "./preferences"
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

/** A ranking record with ShareGPT turns, as LLaMA-Factory reads it. @throws InputError with place and field */
export function fromShareGptRanking(value: unknown, place: Place): Preference {
  const { conversations, chosen, rejected, system } = parseRecord(sharegptRanking, value, place)
  const prompt = conversations.map(({ from, value: content }, i): Message => {
    const role = roles[from]
    if (!role) {
      const known = Object.keys(roles).join(", ")
      throw new InputError(`conversations.${i}.from must be one of ${known}, got ${from}; repair it`, place)
    }
    return { role, content }
  })
  const head: Message[] = system ? [{ role: "system", content: system }] : []
  return { prompt: [...head, ...prompt], chosen: chosen.value, rejected: rejected.value }
}

const forms = [
  { name: "musc rows", fields: ["clean_instruction"] },
  { name: "the authors' token-weighted file", fields: ["source_token_scores", "chosen"] },
  { name: "ShareGPT ranking", fields: ["conversations", "chosen", "rejected"] },
  { name: "Alpaca ranking", fields: ["instruction", "chosen", "rejected"] },
  { name: "TRL preference", fields: ["chosen", "rejected"] },
] as const

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
  switch (pairForm(value)) {
    case "the authors' token-weighted file": {
      const { weights, promptTokens: _, ...pair } = fromTokenWeighted(value, place)
      return { id, ...pair, tokenWeights: weights }
    }
    case "ShareGPT ranking":
      return { id, ...fromShareGptRanking(value, place) }
    case "Alpaca ranking":
      return { id, ...fromRanking(value, place) }
    case "TRL preference":
      return { id, ...fromTrl(value, place) }
    default: {
      const got = Object.keys(value).slice(0, 8).join(", ") || "no field"
      throw new InputError(
        `must be a preference record (${forms.map(({ name }) => name).join(", ")}), got one with ${got}; convert the file`,
        place,
      )
    }
  }
}

export function objectOf(value: unknown, place: Place): JsonObject {
  if (isJsonObject(value)) return value
  throw new InputError(`a record must be a JSON object, got ${show(value)}; repair it`, place)
}
