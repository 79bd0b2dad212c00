import type { Scoring } from "../benchmark"

/** A verdict, "unknown" for a rule that is not of the language, null where the judge's reply could not be read. */
export type Verdict = boolean | "unknown" | null

export interface ComplexbenchResult {
  id: string
  /** Instructions of one selection group share it; null for those without. */
  group: string | null
  category: string
  task: string
  /** Of the whole instruction, with repetition. */
  compositions: string[]
  questions: {
    dimensions: string[]
    compositions: string[]
    /** Rule or judge alone. */
    own: Verdict
    /** False also where a question that this one depends on is answered with no. */
    final: Verdict
  }[]
}

const TYPES: Readonly<Record<string, readonly string[]>> = {
  Lexical: ["Word Matching", "Keywords"],
  Structure: [
    ...[
      "JSON Format",
      "Markdown Format",
      "Bullets Format",
      "Length",
      "Start with",
      "End with",
      "Punctuation",
      "Template",
    ],
  ],
  Semantic: ["Language Style", "Personalization", "Topic", "Sentiment"],
  Utility: ["Helpfulness", "Target Language", "Supportiveness", "Consistency", "Factuality"],
}
const typeOf = (dimension: string) => Object.keys(TYPES).find((type) => TYPES[type]!.includes(dimension)) ?? "Others"

/**
 * DRFR (questions answered with yes, pooled) over all, by category and its prefix, task, sorted composition list,
 * constraint type, constraint dimension and composition of the question; then the coherence test over selection groups,
 * for one Selection question in the first member (single) and more (multiple): origin is the share of members with all
 * questions kept, coherent the share of groups with all members kept, drop = (origin - coherent) / origin.
 *
 * Official: an unknown rule counts as no in the first five and as yes in the last three and in the coherence test, and
 * instructions without a group make up one, tested if the first of them has a Selection question.
 * Corrected: questions without a verdict, unknown rules among them, are left out, and groups with one are not tested.
 */
export function complexbenchFigures(results: readonly ComplexbenchResult[], scoring: Scoring): Record<string, number> {
  const official = scoring === "official"
  const rates = new Map<string, [kept: number, all: number]>([["DRFR", [0, 0]]])
  const count = (name: string, kept: boolean) => {
    const rate = rates.get(name) ?? [0, 0]
    rates.set(name, [rate[0] + Number(kept), rate[1] + 1])
  }
  for (const { category, task, compositions, questions } of results) {
    const counted = official ? questions : questions.filter(({ final }) => typeof final === "boolean")
    for (const { final, dimensions, compositions: own } of counted) {
      const satisfied = final === true
      count("DRFR", satisfied)
      count(`category: ${category}`, satisfied)
      count(`category group: ${category.split("_")[0]}`, satisfied)
      count(`task: ${task}`, satisfied)
      count(`composition: ${[...compositions].sort().join("_") || "none"}`, satisfied)
      const lenient = satisfied || final === "unknown"
      for (const dimension of dimensions) {
        count(`type: ${typeOf(dimension)}`, lenient)
        count(`dimension: ${dimension}`, lenient)
      }
      for (const composition of own) count(`question composition: ${composition}`, lenient)
    }
  }
  const kinds = [
    "DRFR",
    "category group",
    "category",
    "task",
    "composition",
    "type",
    "dimension",
    "question composition",
  ]
  const order = (name: string) => kinds.indexOf(name.split(":")[0]!)
  const sorted = [...rates].sort(([a], [b]) => order(a) - order(b) || (a < b ? -1 : 1))
  return {
    ...Object.fromEntries(sorted.map(([name, [kept, all]]) => [name, kept / all])),
    ...coherence(results, official),
  }
}

/** A group that was drawn twice in a resample counts twice: its copies stand under one name but are one group each. */
function coherence(results: readonly ComplexbenchResult[], official: boolean): Record<string, number> {
  const groups = new Map<string | null, ComplexbenchResult[]>()
  for (const result of results) {
    if (result.group === null && !official) continue
    const group = groups.get(result.group)
    if (group) group.push(result)
    else groups.set(result.group, [result])
  }
  const out: Record<string, number> = {}
  const tested = [...groups.values()].filter(
    (group) => official || group.every(({ questions }) => questions.every(({ final }) => typeof final === "boolean")),
  )
  const selections = ([first]: ComplexbenchResult[]) =>
    first!.questions.filter(({ compositions }) => compositions.includes("Selection")).length
  for (const name of ["single", "multiple"]) {
    const sums = { members: 0, membersKept: 0, groups: 0, groupsKept: 0 }
    for (const group of tested) {
      const depth = selections(group)
      if (!depth || (name === "single") !== (depth === 1)) continue
      const satisfied = group.filter(({ questions }) => questions.every(({ final }) => final !== false)).length
      const copies = group.length / new Set(group.map(({ id }) => id)).size
      sums.members += group.length
      sums.membersKept += satisfied
      sums.groups += copies
      sums.groupsKept += satisfied === group.length ? copies : 0
    }
    const origin = sums.membersKept / sums.members
    const coherent = sums.groupsKept / sums.groups
    out[`${name} origin`] = origin
    out[`${name} coherent`] = coherent
    out[`${name} drop`] = (origin - coherent) / origin
  }
  return out
}
