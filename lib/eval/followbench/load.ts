import { existsSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { z } from "zod"
import { readRecords } from "../../data/json-array"
import { type Place, parseRecord } from "../../data/jsonl"
import { InputError } from "../../errors"
import type { BenchmarkItem } from "../benchmark"
import { type Category, categories } from "./judge"
import { pythonStrings, ruleOf } from "./rules"
import type { Language } from "./text"

const row = z.looseObject({
  example_id: z.int(),
  category: z.string().describe("the file's, in mixed the kinds added so far"),
  source: z.string(),
  level: z.int().min(0).max(5),
  instruction: z.string(),
  target: z.string(),
})
type Row = z.output<typeof row> & { place: Required<Place> }

/** What scoring an answer needs. */
export interface FollowBenchData {
  language: Language
  category: Category
  source: string
  exampleId: number
  level: number
  target: string
  /** Instructions of levels 0 to `level`, for the judge; empty where a rule decides. */
  path: string[]
}

const fileOf = (category: Category) => `${category}_constraints.json`

/**
 * The items of a folder with the six official files (or with them in `data`, as in the repository), or of one such
 * file. Items are the levels 1 to 5; level 0, the initial instruction, is only read for the judge's sake.
 * @throws InputError naming file, line and field: a file is missing, a record or target breaks the format, a group is
 * there twice or its levels are not in order.
 */
export async function loadFollowBench(path: string): Promise<BenchmarkItem<FollowBenchData>[]> {
  const groups: { category: Category; rows: Row[] }[] = []
  for (const { category, file } of filesAt(path)) {
    for (const rows of await groupsOf(file, category)) groups.push({ category, rows })
  }
  const language = languageOf(groups.flatMap(({ rows }) => rows))
  return groups.flatMap(({ category, rows }) => itemsOf(category, rows, language))
}

function filesAt(path: string): { category: Category; file: string }[] {
  if (!statSync(path, { throwIfNoEntry: false })) {
    throw new InputError("a folder with FollowBench's files must be here, got nothing; check the path", { file: path })
  }
  if (!statSync(path).isDirectory()) {
    const category = categories.find((name) => basename(path) === fileOf(name))
    if (category) return [{ category, file: path }]
    throw new InputError(`the name must be one of ${categories.map(fileOf).join(", ")}; give the file that name`, {
      file: path,
    })
  }
  const folder = existsSync(join(path, "data", fileOf("content"))) ? join(path, "data") : path
  const missing = categories.filter((name) => !existsSync(join(folder, fileOf(name))))
  if (missing.length) {
    const problem = `the folder must hold FollowBench's six files, ${missing.map(fileOf).join(", ")} not found`
    throw new InputError(`${problem}; name the folder of one language, or a single file`, { file: folder })
  }
  return categories.map((category) => ({ category, file: join(folder, fileOf(category)) }))
}

/** The rows of a file by group: levels 0 to 5 in order, 1 to 5 in `example`. */
async function groupsOf(file: string, category: Category): Promise<Row[][]> {
  const groups = new Map<number, Row[]>()
  const first = category === "example" ? 1 : 0
  let open: Row[] = []
  for await (const { value, place } of readRecords(file)) {
    const record: Row = { ...parseRecord(row, value, place), place }
    const wrong = (field: string, problem: string) => new InputError(problem, { ...place, field })
    const { example_id: id, level, instruction, target } = record
    if (open[0]?.example_id !== id) {
      closed(open)
      if (groups.has(id)) throw wrong("example_id", `must be new, got ${id} of an earlier group; remove one of the two`)
      open = []
      groups.set(id, open)
    }
    const expected = first + open.length
    if (level !== expected) {
      throw wrong("level", `must be ${expected} in group ${id}, got ${level}; restore the order of the levels`)
    }
    if (category !== "mixed" && record.category !== category) {
      throw wrong("category", `must be "${category}" in this file, got "${record.category}"; correct one of them`)
    }
    if (level > 0 && !instruction.trim()) throw wrong("instruction", "must hold text above level 0; restore it")
    if (level > 0 && category === "example" && !target.includes("{answer}")) {
      throw wrong("target", "must hold {answer}, the place of the answer in the form; restore it")
    }
    if (level > 0 && record.source === "CONLL2003" && !pythonStrings(target)) {
      throw wrong("target", "must be a Python list of strings; restore it")
    }
    open.push(record)
  }
  closed(open)
  return [...groups.values()]

  function closed(rows: readonly Row[]): void {
    const last = rows.at(-1)
    if (!last || last.level === 5) return
    const problem = `must go on to 5 in group ${last.example_id}, got ${last.level} as the last; restore the missing levels`
    throw new InputError(problem, { ...last.place, field: "level" })
  }
}

/** Chinese when more than half of the instructions hold a Chinese character. */
function languageOf(rows: readonly Row[]): Language {
  return rows.filter(({ instruction }) => /\p{Script=Han}/u.test(instruction)).length * 2 > rows.length ? "zh" : "en"
}

function itemsOf(category: Category, rows: readonly Row[], language: Language): BenchmarkItem<FollowBenchData>[] {
  return rows
    .filter(({ level }) => level > 0)
    .map(({ example_id: exampleId, source, level, instruction, target }) => {
      const judged = !ruleOf(category, source, exampleId, language)
      const path = judged ? rows.filter((other) => other.level <= level).map((other) => other.instruction) : []
      const unit = `${category}/${exampleId}`
      return {
        id: `${unit}/${level}`,
        unit,
        turns: [instruction],
        temperature: 0,
        maxTokens: 2048,
        data: { language, category, source, exampleId, level, target, path },
      }
    })
}
