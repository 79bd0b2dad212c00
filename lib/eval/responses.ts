import { z } from "zod"
import { parseJson, parseRecord, readLines } from "../data/jsonl"
import { InputError } from "../errors"
import { splitThoughts } from "../text/thoughts"
import type { BenchmarkItem } from "./benchmark"
import { groupBy } from "./figures"

/** No model's answer is longer; longer lines are refused before they reach a pattern. */
const MAX_LINE_BYTES = 4 * 2 ** 20

const name = z
  .union([z.string().min(1), z.int()])
  .transform(String)
  .optional()
const text = z.string().optional()

/** A line of answers made elsewhere, in any of the shapes that the official scripts write. */
const answerLine = z.looseObject({
  ...{ id: name, key: name, question_id: name, main_id: name, idx: name },
  ...{ prompt: text, instruction: text },
  response: text.nullable().describe("null: not answered"),
  ...{ output: text.nullable(), generated: text.nullable() },
  turns: z.array(z.string()).optional().describe("answers to the turns of a conversation"),
  choices: z
    .array(z.looseObject({ turns: z.array(z.string()) }))
    .min(1)
    .optional(),
})

export interface Answers {
  /** Answers by item id, one a turn. */
  answers: ReadonlyMap<string, readonly string[]>
  /** What does not fit, counted: items without an answer, lines for none of the items, empty answers. */
  notes: string[]
}

/**
 * Reads answers from JSONL: `id` (or key, question_id, main_id, idx) or else `prompt` (or instruction), and `response` (or
 * output, generated) or `turns`. A prompt's answer goes to every item with that prompt, unless there are as many answers as
 * such items, which then match in order. Items without an answer are left out of the scores and counted. Thoughts of a model
 * that thinks aloud are no part of its answer.
 * @throws InputError naming file, line and field: neither id nor prompt, no answer field, wrong types, the wrong number of
 * turns, an id answered twice, a line above 4 MiB, not UTF-8, not JSON (such as NaN), no answer to any item.
 */
export async function readAnswers(file: string, items: readonly BenchmarkItem[]): Promise<Answers> {
  const byId = new Map(items.map((item) => [item.id, item]))
  const byPrompt = groupBy(
    items,
    ({ turns }) => turns[0]!,
    (item) => item,
  )
  const answers = new Map<string, readonly string[]>()
  const lines = new Map<string, number>()
  const forPrompt = new Map<string, { turns: readonly string[]; line: number }[]>()
  const unknown: number[] = []
  let unanswered = 0
  let thinking = 0
  let unfinished = 0
  const put = ({ id, turns: { length } }: BenchmarkItem, turns: readonly string[], line: number) => {
    const before = lines.get(id)
    if (before !== undefined) {
      throw new InputError(`an item must be answered once, got ${id} on line ${before} too; remove one`, { file, line })
    }
    if (turns.length !== length) {
      const rule = `item ${id} must have ${length} answer${length === 1 ? "" : "s"}, one a turn`
      throw new InputError(`${rule}, got ${turns.length}; correct it`, { file, line, field: "turns" })
    }
    const split = turns.map(splitThoughts)
    if (split.some(({ thoughts }) => thoughts)) thinking++
    if (split.some((turn) => turn.unfinished)) unfinished++
    lines.set(id, line)
    answers.set(
      id,
      split.map(({ answer }) => answer),
    )
  }
  for await (const { line, text } of readLines(file, { maxLineBytes: MAX_LINE_BYTES })) {
    const row = parseRecord(answerLine, parseJson(text, { file, line }), { file, line })
    const id = row.id ?? row.key ?? row.question_id ?? row.main_id ?? row.idx
    const prompt = row.prompt ?? row.instruction
    const turns = turnsOf(row, { file, line })
    if (id === undefined && prompt === undefined) {
      const rule = "an answer must say what it answers, got neither id nor prompt; add one"
      throw new InputError(rule, { file, line, field: "id" })
    }
    const item = id === undefined ? undefined : byId.get(id)
    if (!turns) unanswered++
    else if (item) put(item, turns, line)
    else if (prompt !== undefined && byPrompt.has(prompt) && id === undefined) {
      forPrompt.set(prompt, [...(forPrompt.get(prompt) ?? []), { turns, line }])
    } else unknown.push(line)
  }
  for (const [prompt, given] of forPrompt) {
    const wanted = byPrompt.get(prompt)!
    if (given.length > 1 && given.length !== wanted.length) {
      const rule = `a prompt must be answered once, got the one of line ${given[0]!.line} again; remove one`
      throw new InputError(rule, { file, line: given[1]!.line, field: "prompt" })
    }
    wanted.forEach((item, i) => {
      const { turns, line } = given[given.length === 1 ? 0 : i]!
      put(item, turns, line)
    })
  }
  if (!answers.size) {
    throw new InputError("must answer an item of the benchmark, got none that does; compare ids and prompts", { file })
  }
  const missing = items.filter(({ id }) => !answers.has(id))
  const empty = [...answers.values()].filter((turns) => turns.some((turn) => !turn.trim())).length
  const notes = [
    missing.length && `without an answer and left out: ${missing.length} of ${items.length} items (${some(missing)})`,
    unanswered && `answers that are null, which counts as none: ${unanswered}`,
    unknown.length && `answers for none of the items: ${unknown.length}, the first on line ${unknown[0]}`,
    thinking && `answers that begin with thoughts, which are left out: ${thinking}`,
    unfinished && `answers that end inside their thoughts, scored as empty: ${unfinished}`,
    empty && `empty answers, scored as they are: ${empty}`,
  ].filter((note) => typeof note === "string")
  return { answers, notes }
}

function turnsOf(
  row: z.output<typeof answerLine>,
  place: { file: string; line: number },
): readonly string[] | undefined {
  const turns = row.turns ?? row.choices?.[0]?.turns
  if (turns) return turns
  const given = [row.response, row.output, row.generated].filter((answer) => answer !== undefined)
  if (!given.length) {
    throw new InputError("an answer must be a text, got none; add it", { ...place, field: "response" })
  }
  return given[0] === null ? undefined : [given[0]!]
}

const some = (items: readonly BenchmarkItem[]) =>
  items
    .slice(0, 5)
    .map(({ id }) => id)
    .join(", ") + (items.length > 5 ? ", …" : "")
