import { z } from "zod"
import { type Place, parseRecord } from "./jsonl"
import type { Edit, InstructionRow, PairRow } from "./schema"

/**
 * A row of the authors' intermediate files. After scoring it also has `evaluations`; those stay in the row as they are.
 */
const releasedRow = z.looseObject({
  ori_instruction: z.string().min(1),
  instruction: z.string(),
  aspects: z.array(z.string()).min(2),
  input: z.string().nullish(),
  noised_aspects: z.array(z.string()),
  noised_instruction: z.string().optional(),
  responses: z.array(z.string()).optional(),
  noised_responses: z.array(z.string()).optional(),
})

/** True for a record with the fields of the authors' intermediate files. */
export function isReleased(record: Record<string, unknown>): boolean {
  return "ori_instruction" in record && "aspects" in record
}

/**
 * A row of the authors' intermediate files in our fields: `ori_instruction` is our `instruction`, their `instruction`
 * the clean one, aspects are constraints, the first response of each kind the answers. Which constraint was corrupted
 * is not written there: it is found by comparing the two lists. Their text holds the input already, so `input` is put
 * aside as `given_input`. A row in which nothing was corrupted, or with a part missing, comes out failed.
 * @throws InputError with place and field when the record does not have this shape.
 */
export function fromReleased(
  value: unknown,
  place: Place,
  about: { id: string; source: string },
): InstructionRow | PairRow {
  const { ori_instruction, instruction, aspects, input, noised_aspects, ...rest } = parseRecord(
    releasedRow,
    value,
    place,
  )
  const { noised_instruction = "", responses = [], noised_responses = [], ...extra } = rest
  const edits = findEdits(aspects, noised_aspects)
  const [chosen, rejected] = [responses[0] ?? "", noised_responses[0] ?? ""]
  const row = {
    ...extra,
    ...about,
    instruction: ori_instruction,
    input: null,
    given_input: input ?? null,
    calls: {},
    constraints: aspects,
    noised_constraints: noised_aspects,
    edits,
    clean_instruction: instruction,
    noised_instruction,
    chosen,
    rejected,
  }
  const fail = (stage: "corrupt" | "recombine" | "respond", reason: string) => ({ ...row, failure: { stage, reason } })
  if (edits[0]?.index === 0) return fail("corrupt", "constraint 0 was changed")
  if (!edits.length) return fail("corrupt", "no constraint was changed")
  if (!instruction || !noised_instruction) return fail("recombine", "empty instruction")
  if (!chosen || !rejected) return fail("respond", "empty answer")
  return row
}

/** What turned one list into the other: changed in place when the lengths are the same, otherwise left out. */
export function findEdits(constraints: readonly string[], noised: readonly string[]): Edit[] {
  const inPlace = constraints.length === noised.length
  const left = [...noised]
  return constraints.flatMap((before, index): Edit[] => {
    if (inPlace) {
      const after = noised[index]!
      return after === before ? [] : [{ index, kind: "constraint-substitute", before, after }]
    }
    const at = left.indexOf(before)
    if (at < 0) return [{ index, kind: "constraint-dropout", before, after: null }]
    left.splice(at, 1)
    return []
  })
}
