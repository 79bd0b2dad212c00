import type { CorruptedRow, DecomposedRow, Edit, EditKind, InstructionRow, RecombinedRow } from "../data/schema"
import { type Rng, rng } from "../rng"
import { applyEdits, type CorruptOptions, corruptDefaults, planEdits } from "./corrupt"
import { failed, type Outcome, sameWords } from "./row"

/**
 * A world that knows the constraints of its own instructions, and so can decompose, corrupt and recombine them
 * again without a model. `Item` is one constraint as the world keeps it; item 0 is the task itself.
 */
export interface ExactWorld<Item> {
  name: string
  /** to be raised when a change makes the world write something else */
  version: number
  /** the constraints of a row; undefined for a row of other origin */
  itemsOf(row: InstructionRow): Item[] | undefined
  question(item: Item): string
  negate(item: Item): Item
  /** another constraint of its kind that goes with the others; undefined where there is none */
  substitute(item: Item, items: readonly Item[], random: Rng): Item | undefined
  /** the row's instruction with each item replaced, kept as it is (undefined) or left out (null) */
  reword(row: InstructionRow, changes: ReadonlyMap<number, Item | null>): string
}

const UNKNOWN = "the world does not know this instruction"

/** Stage 1 by the world: the questions of the row's own constraints. */
export function exactDecompose<Item>(world: ExactWorld<Item>, row: InstructionRow): Outcome<DecomposedRow> {
  const items = world.itemsOf(row)
  if (!items) return failed(row, "decompose", UNKNOWN)
  return { ...row, constraints: items.map(world.question), decomposed_by: "world", failure: undefined }
}

/** Stage 2 by the world: edits as `corrupt` plans them, each done as it should be. */
export function exactCorrupt<Item>(
  world: ExactWorld<Item>,
  row: DecomposedRow,
  options: Partial<CorruptOptions> = {},
): Outcome<CorruptedRow> {
  const settings = { ...corruptDefaults, ...options }
  const items = world.itemsOf(row)
  if (!items) return failed(row, "corrupt", UNKNOWN)
  const edits: Edit[] = []
  for (const plan of planEdits(row, settings)) {
    const changed = changedItem(world, items, plan, rng(settings.seed, "exact", row.id, plan.index))
    if (changed === undefined) return failed(row, "corrupt", `${plan.kind}: nothing fits in its place`)
    const after = changed && world.question(changed)
    edits.push({ ...plan, before: row.constraints[plan.index]!, after })
  }
  const noised = applyEdits(row.constraints, edits)
  return { ...row, noised_constraints: noised, edits, failure: undefined }
}

/**
 * Stage 3 by the world: the instruction as it was, and worded alike but for what the edits (of the same seed) changed.
 */
export function exactRecombine<Item>(
  world: ExactWorld<Item>,
  row: CorruptedRow,
  { seed }: { seed: number },
): Outcome<RecombinedRow> {
  const items = world.itemsOf(row)
  if (!items) return failed(row, "recombine", UNKNOWN)
  const changes = new Map<number, Item | null>()
  for (const { index, kind } of row.edits) {
    const changed = changedItem(world, items, { index, kind }, rng(seed, "exact", row.id, index))
    changes.set(index, changed ?? null)
  }
  const clean = world.reword(row, new Map())
  const noised = world.reword(row, changes)
  if (sameWords(clean, noised)) return failed(row, "recombine", "clean equals noised")
  return { ...row, clean_instruction: clean, noised_instruction: noised, failure: undefined }
}

/** An item after its edit: null where it is dropped, undefined where nothing can take its place. */
function changedItem<Item>(
  world: ExactWorld<Item>,
  items: readonly Item[],
  { index, kind }: { index: number; kind: EditKind },
  random: Rng,
): Item | null | undefined {
  const item = items[index]!
  if (kind === "constraint-dropout") return null
  return kind === "constraint-negate" ? world.negate(item) : world.substitute(item, items, random)
}
