import { basename, join, resolve } from "node:path"
import { z } from "zod"
import { readJsonFile } from "../data/json-file"
import { parseRecord, readJsonl } from "../data/jsonl"
import { InputError } from "../errors"
import { differencesTable, type PairedDifference, pairedDifferences, type Scored } from "../eval/figures"
import { type BenchmarkScores, benchmarkScores } from "./benchmark"
import { benchmarkOf } from "./benchmarks"
import { collect } from "./context"

const itemRow = z.object({
  ...{ id: z.string(), unit: z.string(), result: z.unknown().optional() },
  failure: z.unknown().optional().describe("why the item has no result"),
})

/** Two benchmark results on the items that both have: figures of each, and differences with paired intervals. */
export interface Comparison {
  benchmark: string
  scoring: string
  /** The two folders. */
  names: [a: string, b: string]
  /** Items that both have. */
  items: number
  /** `b` minus `a`. */
  figures: Record<string, PairedDifference>
  notes: string[]
}

/**
 * Paired differences of two result folders of one benchmark over the items that both have.
 * @throws InputError for a folder without results, other benchmarks or scorings, no item in common.
 */
export async function compareFolders(
  a: string,
  b: string,
  samples?: number,
): Promise<{ comparison: Comparison; table: string }> {
  const [left, right] = [await readResults(a), await readResults(b)]
  for (const field of ["benchmark", "scoring"] as const) {
    const [x, y] = [left.scores[field], right.scores[field]]
    if (x !== y) {
      const rule = `both results must have the same ${field}, got ${x} and ${y}`
      throw new InputError(`${rule}; run one of them again with that of the other`, {
        file: join(b, "scores.json"),
        field,
      })
    }
  }
  const { scoring } = left.scores
  const benchmark = benchmarkOf(left.scores.benchmark)
  const options = { ...left.scores.bootstrap, ...(samples && { samples }) }
  const { items, figures } = pairedDifferences(
    (results) => benchmark.figures(results, scoring),
    left.rows,
    right.rows,
    options,
  )
  if (!items)
    throw new InputError(`must share items with ${a}, got none; compare results of the same data`, { file: b })
  const judges = [left, right].map(({ scores }) => scores.judge ?? "none")
  const only = left.rows.length + right.rows.length - 2 * items
  const names = namesOf(a, b)
  const comparison: Comparison = {
    ...{ benchmark: benchmark.name, scoring, names, items, figures },
    notes: [
      only && `${only} items that only one of the two has are left out`,
      judges[0] !== judges[1] && `the judges differ: ${judges.join(" and ")}`,
      JSON.stringify(left.scores.data) !== JSON.stringify(right.scores.data) && "the data files differ",
    ].filter((note) => typeof note === "string"),
  }
  const head = `${benchmark.name}, ${scoring} scoring, ${items} items in common; * the interval leaves out zero`
  const notes = comparison.notes.map((note) => `- ${note}`).join("\n")
  const table = [head, differencesTable(names, figures), ...(notes ? [notes] : [])].join("\n\n")
  return { comparison, table }
}

/** The folders' own names, or the paths where these are alike. */
function namesOf(a: string, b: string): [string, string] {
  const [x, y] = [basename(resolve(a)), basename(resolve(b))]
  return x === y ? [a, b] : [x, y]
}

/** The items of a result folder that have a result. */
export async function readItems(dir: string): Promise<Scored[]> {
  const rows = await collect(readJsonl(join(dir, "items.jsonl"), itemRow))
  return rows.flatMap(({ failure, id, unit, result }) => (failure ? [] : [{ id, unit, result }]))
}

async function readResults(dir: string): Promise<{ scores: BenchmarkScores; rows: Scored[] }> {
  const file = join(dir, "scores.json")
  const scores = parseRecord(benchmarkScores, readJsonFile(file, { missing: "name a folder of musc benchmark" }), {
    file,
  })
  return { scores, rows: await readItems(dir) }
}
