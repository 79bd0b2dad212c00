import type { z } from "zod"
import { groupBy, mean } from "../data/numbers"
import { instructionRow } from "../data/schema"
import type { Benchmark } from "../eval/benchmark"
import { typeShares } from "../eval/figures"
import { constraintShare, type Verdicts } from "../eval/grader"
import { uniqueRecords } from "../eval/records"
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
      for await (const { record } of uniqueRecords([path], worldRow, "id")) rows.set(record.id, record)
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
    const csr = (some: readonly Verdicts[]) => mean(some.map(constraintShare))
    const isr = (some: readonly Verdicts[]) => mean(some.map((verdicts) => Number(constraintShare(verdicts) === 1)))
    const byCount = groupBy(
      results,
      ({ length }) => length,
      (verdicts) => verdicts,
    )
    const counts = [...byCount].sort(([a], [b]) => a - b)
    return {
      CSR: csr(results),
      ISR: isr(results),
      ...Object.fromEntries(counts.map(([count, some]) => [`ISR of ${count} constraints`, isr(some)])),
      ...typeShares(results.flatMap((verdicts) => verdicts.map(({ kind, satisfied }) => ({ type: kind, satisfied })))),
    }
  },
}
