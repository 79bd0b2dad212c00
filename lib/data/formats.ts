import { basename } from "node:path"
import { z } from "zod"
import { InputError } from "../errors"
import { readRecords } from "./json-array"
import { isJsonObject, show } from "./json-file"
import { type Place, parseRecord } from "./jsonl"
import { fromReleased, isReleased } from "./released"
import { type InstructionRow, instructionRow, type PairRow } from "./schema"

/** ShareGPT (`conversations` of from/value) and chat lists (`messages` or `prompt` of role/content). */
const turn = z
  .looseObject({
    from: z.string().optional(),
    role: z.string().optional(),
    value: z.string().optional(),
    content: z.string().optional(),
  })
  .transform((t) => ({ role: t.from ?? t.role ?? "", text: t.value ?? t.content ?? "" }))
const chat = z.array(turn)

/** Alpaca, InFoBench and our own plain lines: an instruction, and perhaps a text. */
const plain = z.looseObject({ instruction: z.string(), input: z.string().nullish() })

/**
 * The instructions of a seed file, JSON array or JSONL, each record in any of the known shapes: `instruction` and perhaps
 * `input` (plain, Alpaca, InFoBench, our own rows), ShareGPT `conversations` or `messages` (first user turn), `prompt`
 * (text or messages, as in TRL files), released MuSC rows. Fields that we do not know stay in the row. Rows without an id
 * get file name and line; a repeated id gets the line added, because ids address random streams. A record whose
 * instruction is empty comes out as a failed row that reads "(none)".
 * @throws InputError naming file and line for a record of no known shape; see readRecords.
 */
export async function* readInstructions(file: string): AsyncGenerator<InstructionRow> {
  const seen = new Set<string>()
  for await (const { value, place } of readRecords(file)) {
    const row = toInstruction(value, place)
    const id = seen.has(row.id) ? `${row.id}#${place.line}` : row.id
    seen.add(id)
    yield { ...row, id }
  }
}

/** One record of a seed file as a row. A released row with both answers comes out as a whole pair. */
export function toInstruction(value: unknown, place: Required<Place>): InstructionRow | PairRow {
  if (!isJsonObject(value)) throw new InputError(`a record must be a JSON object, got ${show(value)}; repair it`, place)
  const { id: given, ...record } = value
  const source = typeof record.source === "string" ? record.source : `${basename(place.file)}:${place.line}`
  const id = typeof given === "string" || typeof given === "number" ? `${given}` : ""
  const about = { id: id || `${basename(place.file)}-${place.line}`, source }
  if (isReleased(record)) return fromReleased(record, place, about)
  const { instruction, input } = parts(record, place)
  const row = parseRecord(
    instructionRow,
    { ...without(record, CHAT_FIELDS), ...about, instruction: instruction.trim() || "(none)", input: input || null },
    place,
  )
  return instruction.trim() ? row : { ...row, failure: { stage: "source", reason: "no instruction" } }
}

const CHAT_FIELDS = ["conversations", "messages", "prompt"] as const

function parts(record: Record<string, unknown>, place: Place): { instruction: string; input?: string | null } {
  if ("instruction" in record) return parseRecord(plain, record, place)
  const field = CHAT_FIELDS.find((name) => name in record)
  const said = field && record[field]
  if (typeof said === "string") return { instruction: said }
  if (Array.isArray(said)) {
    const turns = parseRecord(chat, said, { ...place })
    return { instruction: turns.find(({ role }) => role === "human" || role === "user")?.text ?? "" }
  }
  throw new InputError(
    `a record must have instruction, conversations, messages or prompt, got ${Object.keys(record).slice(0, 8).join(", ") || "no field"}; rename the field`,
    place,
  )
}

function without(record: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)))
}
