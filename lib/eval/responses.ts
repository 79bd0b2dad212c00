import { readRecords } from "../data/json-array"
import { groupBy } from "../data/numbers"
import { InputError } from "../errors"
import { splitThoughts } from "../text/thoughts"
import { promptKey, readAnswerRow } from "./answer-row"
import type { BenchmarkItem } from "./benchmark"

/** No model's answer is longer; longer records are refused. */
const MAX_RECORD_BYTES = 4 * 2 ** 20

export interface Answers {
  /** Answers by item id, one a turn. */
  answers: ReadonlyMap<string, readonly string[]>
  /** What does not fit, counted: items without an answer, lines for none of the items, empty answers. */
  notes: string[]
}

/**
 * Reads answers from JSONL or a JSON array, in the shapes of readAnswerRow. Where a row names its prompt, the prompt
 * decides: an id that belongs to another prompt (such as a row number) is passed over, and an answer to none of the
 * prompts is left out, both counted. A prompt's answer goes to every item with that prompt, unless there are as many
 * answers as such items, which then match in order. Items without an answer are left out of the scores and counted.
 * Thoughts of a model that thinks aloud are no part of its answer.
 * @throws InputError naming file, line and field: what breaks the shapes, the wrong number of turns, an item answered
 * in two ways, a record above 4 MiB, not UTF-8, not JSON (such as NaN), no answer to any item.
 */
export async function readAnswers(file: string, items: readonly BenchmarkItem[]): Promise<Answers> {
  const byId = new Map(items.map((item) => [item.id, item]))
  const byPrompt = groupBy(
    items,
    ({ turns }) => promptKey(turns[0]!),
    (item) => item,
  )
  const answers = new Map<string, readonly string[]>()
  const lines = new Map<string, number>()
  const turnsById = new Map<string, readonly string[]>()
  const forPrompt = new Map<string, { turns: readonly string[]; line: number }[]>()
  const unknown: number[] = []
  const otherId: number[] = []
  const disagreeing: number[] = []
  let unanswered = 0
  let several = 0
  let repeated = 0
  let thinking = 0
  let unfinished = 0
  const put = ({ id, turns: { length } }: BenchmarkItem, turns: readonly string[], line: number) => {
    const before = lines.get(id)
    if (before !== undefined) {
      if (JSON.stringify(turnsById.get(id)) === JSON.stringify(turns)) {
        repeated++
        return
      }
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
    turnsById.set(id, turns)
    answers.set(
      id,
      split.map(({ answer }) => answer),
    )
  }
  for await (const { value, place } of readRecords(file, { maxBytes: MAX_RECORD_BYTES })) {
    const { line } = place
    const { ids, prompts, turns, others } = readAnswerRow(value, place)
    if (others) several++
    const named = ids.flatMap((id) => byId.get(id) ?? [])
    const item = named.find(({ turns: [first] }) => !prompts.length || prompts.includes(promptKey(first!)))
    const prompt = prompts.find((one) => byPrompt.has(one))
    if (!turns) unanswered++
    else if (item) put(item, turns, line)
    else if (prompt !== undefined) {
      forPrompt.set(prompt, [...(forPrompt.get(prompt) ?? []), { turns, line }])
      if (ids.length) otherId.push(line)
    } else (named.length ? disagreeing : unknown).push(line)
  }
  for (const [prompt, found] of forPrompt) {
    const wanted = byPrompt.get(prompt)!
    if (found.length > 1 && found.length !== wanted.length) {
      const rule = `a prompt must be answered once, got the one of line ${found[0]!.line} again; remove one`
      throw new InputError(rule, { file, line: found[1]!.line, field: "prompt" })
    }
    wanted.forEach((item, i) => {
      const { turns, line } = found[found.length === 1 ? 0 : i]!
      put(item, turns, line)
    })
  }
  if (!answers.size) {
    const why = [
      disagreeing.length && `id and prompt disagree in ${disagreeing.length} rows`,
      unanswered && `${unanswered} answers are null`,
    ].filter(Boolean)
    const wrong = why.length ? ` (${why.join(", ")})` : ""
    const rule = `must answer an item of the benchmark, got none that does${wrong}; compare ids and prompts`
    throw new InputError(rule, { file })
  }
  const missing = items.filter(({ id }) => !answers.has(id))
  const empty = [...answers.values()].filter((turns) => turns.some((turn) => !turn.trim())).length
  const notes = [
    missing.length && `without an answer and left out: ${missing.length} of ${items.length} items (${some(missing)})`,
    unanswered && `answers that are null, which counts as none: ${unanswered}`,
    disagreeing.length &&
      "answers left out since their id belongs to another prompt, and their prompt to no item: " +
        `${disagreeing.length}, the first on line ${disagreeing[0]}`,
    otherId.length &&
      `answers matched by prompt, as their id belongs to another prompt or to none: ${otherId.length}, the first on line ${otherId[0]}`,
    several && `rows with several choices, of which the first counts: ${several}`,
    repeated && `answers that stand there twice, alike: ${repeated}`,
    unknown.length && `answers for none of the items: ${unknown.length}, the first on line ${unknown[0]}`,
    thinking && `answers that begin with thoughts, which are left out: ${thinking}`,
    unfinished && `answers that end inside their thoughts, scored as empty: ${unfinished}`,
    empty && `empty answers, scored as they are: ${empty}`,
  ].filter((note) => typeof note === "string")
  return { answers, notes }
}

const some = (items: readonly BenchmarkItem[]) =>
  items
    .slice(0, 5)
    .map(({ id }) => id)
    .join(", ") + (items.length > 5 ? ", …" : "")
