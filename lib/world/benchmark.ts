import type { z } from "zod"
import { readJsonl } from "../data/jsonl"
import { instructionRow } from "../data/schema"
import { InputError } from "../errors"
import type { Benchmark } from "../eval/benchmark"
import { constraintShare, type Verdicts } from "../eval/grader"
import { respondMessages } from "../musc/respond"
import { gradeAnswer, type WorldSpec, worldInstructions, worldSpec } from "./spec"

const worldRow = instructionRow.extend({ world: worldSpec })

/** The held-out instructions that runs of the embedded model are evaluated on. */
const heldOut = { n: 500, seed: 0, split: "eval", constraints: [3, 5] } as const

/** The embedded world's held-out instructions, graded exactly; official and corrected scoring are the same. */
export const world: Benchmark<WorldSpec, null, Verdicts> = {
  name: "world",
  about: "500 held-out instructions of the embedded world, graded exactly: CSR, ISR; needs no data",
  source: { home: "made by musc itself", files: [], licence: "Apache-2.0" },
  judged: false,

  /** An empty path gives the held-out set; a file, rows of instructions with their `world`. */
  async load(path) {
    const rows = new Map<string, z.output<typeof worldRow>>()
    if (!path) for (const row of worldInstructions(heldOut)) rows.set(row.id, row)
    else {
      for await (const row of readJsonl(path, worldRow)) {
        if (rows.has(row.id)) {
          throw new InputError(`must be unique, got ${row.id} twice; remove one`, { file: path, field: "id" })
        }
        rows.set(row.id, row)
      }
    }
    return [...rows.values()].map(({ id, instruction, input, world }) => ({
      id,
      unit: id,
      turns: [respondMessages(instruction, input)[0]!.content],
      temperature: 0,
      maxTokens: 160,
      data: world,
    }))
  },

  collect: async () => null,

  score: ({ data }, [answer = ""]) =>
    gradeAnswer(data, answer.trim()).map(({ question, kind, satisfied }) => ({ question, kind, satisfied })),

  figures(results) {
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    const csr = (some: readonly Verdicts[]) => mean(some.map(constraintShare))
    const isr = (some: readonly Verdicts[]) => mean(some.map((verdicts) => Number(constraintShare(verdicts) === 1)))
    const byCount = group(results, ({ length }) => length)
    const byKind = group(results.flat(), ({ kind }) => kind)
    return {
      CSR: csr(results),
      ISR: isr(results),
      ...named(byCount, (count) => `ISR of ${count} constraints`, isr),
      ...named(
        byKind,
        (kind) => `type: ${kind}`,
        (verdicts) => constraintShare(verdicts),
      ),
    }
  },
}

function group<T, Key>(values: readonly T[], keyOf: (value: T) => Key): Map<Key, T[]> {
  const groups = new Map<Key, T[]>()
  for (const value of values) {
    const own = groups.get(keyOf(value))
    if (own) own.push(value)
    else groups.set(keyOf(value), [value])
  }
  return groups
}

/** Figures of the groups in the order of their keys. */
function named<Key, T>(
  groups: ReadonlyMap<Key, T[]>,
  name: (key: Key) => string,
  figure: (values: T[]) => number,
): Record<string, number> {
  const sorted = [...groups].sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(sorted.map(([key, values]) => [name(key), figure(values)]))
}
