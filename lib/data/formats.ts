import { basename } from "node:path"
import { z } from "zod"
import { InputError } from "../errors"
import { readRecords } from "./json-array"
import { isJsonObject } from "./json-file"
import { objectOf, type Place, parseRecord } from "./jsonl"
import { fromReleased, isReleased } from "./released"
import { isChatAsText, isRendered } from "./rendered"
import { type InstructionRow, instructionRow, type PairRow, textContent, weighedRow } from "./schema"
import { transcript } from "./transcript"

/**
 * ShareGPT (`conversations` of from/value) and chat lists (`messages` or `prompt` of role/content). Data sets fill
 * fields that a turn does not have with null; a turn of null, or without content, such as a call of a tool, says
 * nothing.
 */
const turn = z
  .looseObject({
    from: z.string().nullish(),
    role: z.string().nullish(),
    value: z.unknown().optional(),
    content: z.unknown().optional(),
    input: z.unknown().optional(),
  })
  .nullable()
  .transform((t) => {
    // Capybara has both sides of a turn in one: `input` and `output`.
    const isBoth = t?.from === undefined && t?.role === undefined && typeof t?.input === "string"
    return isBoth
      ? { role: "user", content: t.input }
      : { role: t?.from ?? t?.role ?? "", content: t?.value ?? t?.content }
  })
/** Plain texts alternate between user and assistant, as in LIMA. */
const chat = z.union([
  z.array(turn),
  z
    .array(z.string())
    .transform((texts) => texts.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }))),
])

const CHAT_FIELDS = ["conversations", "messages", "conversation", "prompt"] as const

/**
 * Alpaca, InFoBench and our own plain lines: an instruction, and perhaps a text, which Dolly has in `context` and
 * Self-Instruct in the first of `instances`.
 */
const plain = z.looseObject({
  instruction: z.string(),
  input: z.string().nullish(),
  context: z.string().nullish().catch(null),
  instances: z
    .array(z.looseObject({ input: z.string().nullish() }))
    .nullish()
    .catch(null),
  history: z
    .array(z.tuple([z.string(), z.unknown()]).rest(z.unknown()))
    .or(z.literal(""))
    .nullish(),
})

/**
 * The instructions of a seed file, JSON array or JSONL, each record in any of the known shapes: `instruction` and
 * perhaps `input` (plain, Alpaca, InFoBench, our own rows; also Dolly and Self-Instruct), ShareGPT `conversations` or
 * `messages` (first user turn; also Capybara and LIMA), `prompt` (text, transcript or messages, as in TRL files),
 * released MuSC rows. Of a record with earlier turns the first one is taken: later ones cannot be understood alone. A
 * system message is kept as `system`, but no stage reads it. `constraints`, or `decomposed_questions` as in InFoBench,
 * are yes/no questions of which the first is the task itself. Fields that we do not know stay in the row. Rows without
 * an id get file name and line; a repeated id gets the line added, because ids address random streams. A record whose
 * instruction is empty, or holds an image, a rendered chat template or messages as a text, comes out as a failed row
 * that reads "(none)".
 * @throws InputError naming file and line for a record of no known shape; see readRecords.
 */
export async function* readInstructions(file: string): AsyncGenerator<InstructionRow> {
  const ids = new Set<string>()
  for await (const { value, place } of readRecords(file)) {
    const row = toInstruction(value, place)
    let { id } = row
    for (let n = place.line; ids.has(id); n++) id = `${row.id}#${n}`
    ids.add(id)
    yield { ...row, id }
  }
}

/** One record of a seed file as a row. A released row with both answers comes out as a whole pair. */
export function toInstruction(value: unknown, place: Required<Place>): InstructionRow | PairRow {
  const { id: ownId, ...record } = withoutNulls(objectOf(value, place))
  const source = typeof record.source === "string" ? record.source : `${basename(place.file)}:${place.line}`
  const id = typeof ownId === "string" || typeof ownId === "number" ? `${ownId}` : ""
  const about = { id: id || `${basename(place.file)}-${place.line}`, source }
  if (isReleased(record)) return fromReleased(record, place, about)
  const { input, system, ...found } = parts(record, place)
  const instead = isRendered(found.instruction)
    ? "a rendered chat template instead of an instruction"
    : isChatAsText(found.instruction)
      ? "a list of messages as a text instead of an instruction"
      : undefined
  const { instruction, reason } = instead
    ? { instruction: "", reason: instead }
    : { instruction: found.instruction, reason: found.reason ?? "no instruction" }
  const { constraints, decomposed_questions } = record
  const brought = constraints ?? decomposed_questions
  const row = parseRecord(
    instructionRow,
    {
      ...without(record, [...CHAT_FIELDS, "constraints"]),
      ...about,
      ...(system && { system }),
      ...((brought ?? null) !== null && { constraints: brought }),
      instruction: instruction.trim() || "(none)",
      input: input || null,
    },
    place,
  )
  return instruction.trim() ? row : { ...row, failure: { stage: "source", reason } }
}

function parts(
  record: Record<string, unknown>,
  place: Place,
): { instruction: string; input?: string | null; system?: string; reason?: string } {
  if ("instruction" in record) {
    const { instruction, input, context, instances, history } = parseRecord(plain, record, place)
    const first = (history || [])[0]?.[0]
    const text = input || context || instances?.[0]?.input
    return first === undefined ? { instruction, input: text === "<noinput>" ? null : text } : { instruction: first }
  }
  const present = CHAT_FIELDS.filter((name) => name in record)
  const field = present.find((name) => (record[name] as { length?: number }).length !== 0) ?? present[0]
  const said = field && record[field]
  if (typeof said === "string") return { instruction: transcript(said)?.[0]?.content || said }
  if (Array.isArray(said)) {
    const turns = parseRecord(chat, said, { ...place })
    const question = turns.find(({ role, content }) => (role === "human" || role === "user") && hasContent(content))
    const text = textContent.safeParse(question?.content ?? "")
    if (!text.success) return { instruction: "", reason: "more than text in the user turn" }
    const { data: system } = textContent.safeParse(turns.find(({ role }) => role === "system")?.content)
    return { instruction: text.data, system }
  }
  const got = Object.keys(record).slice(0, 8).join(", ") || "no field"
  const rule = "a record must have instruction, conversations, messages or prompt"
  throw new InputError(`${rule}, got ${got}; rename the field`, place)
}

const hasContent = (content: unknown) => content !== null && content !== undefined && content !== ""

/** Fields that mean the same when they are null as when they are absent: those of our rows and of seed records. */
const NULL_IS_ABSENT: ReadonlySet<string> = new Set([
  ...Object.keys(weighedRow.shape),
  ...CHAT_FIELDS,
  ...["ori_instruction", "aspects", "noised_aspects", "responses", "noised_responses"],
])

/** A record without the nulls that data sets fill absent fields with; fields that we do not know stay as they are. */
function withoutNulls(record: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(record).filter(([name, value]) => value !== null || !NULL_IS_ABSENT.has(name))
  const { calls, ...rest } = Object.fromEntries(entries)
  if (!isJsonObject(calls)) return { ...rest, ...(calls !== undefined && { calls }) }
  return { ...rest, calls: Object.fromEntries(Object.entries(calls).filter(([, of]) => of !== null)) }
}

function without(record: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)))
}
