import { readRecords } from "../data/json-array"
import { groupBy } from "../data/numbers"
import { withoutEndMarks } from "../data/rendered"
import { InputError } from "../errors"
import { splitThoughts } from "../text/thoughts"
import { type AnswerRow, promptKey, readAnswerRow } from "./answer-row"
import type { BenchmarkItem } from "./benchmark"

/** No model's answer is longer; longer records are refused. */
const MAX_RECORD_BYTES = 4 * 2 ** 20

/** The answers that a file holds for a benchmark. */
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
 * Thoughts of a model that thinks aloud are no part of its answer, nor are end-of-turn tokens behind it.
 * @throws InputError naming file, line and field: what breaks the shapes, the wrong number of turns, an item answered
 * in two ways, a record above 4 MiB, not UTF-8, not JSON (such as NaN), no answer to any item.
 */
export async function readAnswers(file: string, items: readonly BenchmarkItem[]): Promise<Answers> {
  const matching = new Matching(file, items)
  for await (const { value, place } of readRecords(file, { maxBytes: MAX_RECORD_BYTES }))
    matching.add(readAnswerRow(value, place), place.line)
  matching.answerPrompts()
  matching.requireOne()
  return { answers: matching.answers, notes: matching.notes() }
}

/** The turns of an answer, and the line that they stand on. */
interface Found {
  turns: readonly string[]
  line: number
}

/** Rows of answers, matched to the items one by one, with counts of what does not fit. */
class Matching {
  /** without thoughts and end-of-turn tokens */
  readonly answers = new Map<string, readonly string[]>()
  private readonly found = new Map<string, Found>()
  private readonly byId: ReadonlyMap<string, BenchmarkItem>
  private readonly byPrompt: ReadonlyMap<string, readonly BenchmarkItem[]>
  /** Answers that only their prompt tells apart; the items that they go to are known when all are. */
  private readonly forPrompt = new Map<string, Found[]>()
  /** lines */
  private readonly unknown: number[] = []
  private readonly otherId: number[] = []
  private readonly disagreeing: number[] = []
  private unanswered = 0
  private several = 0
  private repeated = 0
  private thinking = 0
  private unfinished = 0
  private marked = 0

  constructor(
    private readonly file: string,
    private readonly items: readonly BenchmarkItem[],
  ) {
    this.byId = new Map(items.map((item) => [item.id, item]))
    this.byPrompt = groupBy(
      items,
      ({ turns }) => promptKey(turns[0]!),
      (item) => item,
    )
  }

  add({ ids, prompts, turns, others }: AnswerRow, line: number): void {
    if (others) this.several++
    const named = ids.flatMap((id) => this.byId.get(id) ?? [])
    const item = named.find(({ turns: [first] }) => !prompts.length || prompts.includes(promptKey(first!)))
    const prompt = prompts.find((one) => this.byPrompt.has(one))
    if (!turns) this.unanswered++
    else if (item) this.put(item, { turns, line })
    else if (prompt !== undefined) {
      const before = this.forPrompt.get(prompt)
      if (before) before.push({ turns, line })
      else this.forPrompt.set(prompt, [{ turns, line }])
      if (ids.length) this.otherId.push(line)
    } else (named.length ? this.disagreeing : this.unknown).push(line)
  }

  private put({ id, turns: { length } }: BenchmarkItem, found: Found): void {
    const { file, answers } = this
    const { turns, line } = found
    const before = this.found.get(id)
    if (before) {
      if (JSON.stringify(before.turns) === JSON.stringify(turns)) {
        this.repeated++
        return
      }
      const rule = `an item must be answered once, got ${id} on line ${before.line} too; remove one`
      throw new InputError(rule, { file, line })
    }
    if (turns.length !== length) {
      const rule = `item ${id} must have ${length} answer${length === 1 ? "" : "s"}, one a turn`
      throw new InputError(`${rule}, got ${turns.length}; correct it`, { file, line, field: "turns" })
    }
    const split = turns.map(splitThoughts)
    if (split.some(({ thoughts }) => thoughts)) this.thinking++
    if (split.some((turn) => turn.unfinished)) this.unfinished++
    this.found.set(id, found)
    const bare = split.map(({ answer }) => withoutEndMarks(answer))
    if (bare.some((text, i) => text !== split[i]!.answer)) this.marked++
    answers.set(id, bare)
  }

  /** Gives the answers that only name a prompt to the items that have it. @throws InputError for one too many */
  answerPrompts(): void {
    for (const [prompt, found] of this.forPrompt) {
      const wanted = this.byPrompt.get(prompt)!
      if (found.length > 1 && found.length !== wanted.length) {
        const rule = `a prompt must be answered once, got the one of line ${found[0]!.line} again; remove one`
        throw new InputError(rule, { file: this.file, line: found[1]!.line, field: "prompt" })
      }
      wanted.forEach((item, i) => {
        this.put(item, found[found.length === 1 ? 0 : i]!)
      })
    }
  }

  /** @throws InputError where no item is answered */
  requireOne(): void {
    if (this.answers.size) return
    const why = [
      this.disagreeing.length && `id and prompt disagree in ${this.disagreeing.length} rows`,
      this.unanswered && `${this.unanswered} answers are null`,
    ].filter(Boolean)
    const wrong = why.length ? ` (${why.join(", ")})` : ""
    const rule = `must answer an item of the benchmark, got none that does${wrong}; compare ids and prompts`
    throw new InputError(rule, { file: this.file })
  }

  /** What does not fit, counted. */
  notes(): string[] {
    const { items, answers, unanswered, disagreeing, otherId, several, repeated, unknown, thinking, unfinished } = this
    const missing = items.filter(({ id }) => !answers.has(id))
    const empty = [...answers.values()].filter((turns) => turns.some((turn) => !turn.trim())).length
    return [
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
      this.marked && `answers that end in an end-of-turn token, which is left out: ${this.marked}`,
      unfinished && `answers that end inside their thoughts, scored as empty: ${unfinished}`,
      empty && `empty answers, scored as they are: ${empty}`,
    ].filter((note) => typeof note === "string")
  }
}

const some = (items: readonly BenchmarkItem[]) =>
  items
    .slice(0, 5)
    .map(({ id }) => id)
    .join(", ") + (items.length > 5 ? ", …" : "")
