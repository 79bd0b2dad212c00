import { mean } from "../data/numbers"
import type { AnswerFigures, EvalItem, KindShares } from "../data/results"

/** Words in a row, and how often they must come, for an answer to count as one that repeats itself. */
const RUN = 4
const TIMES = 3

/** Whether the same four words in a row come three times or more. */
export function repeatsItself(answer: string): boolean {
  const words = answer.toLowerCase().match(/[\p{L}\p{N}']+/gu) ?? []
  const counts = new Map<string, number>()
  for (let i = 0; i + RUN <= words.length; i++) {
    const run = words.slice(i, i + RUN).join(" ")
    const count = (counts.get(run) ?? 0) + 1
    if (count === TIMES) return true
    counts.set(run, count)
  }
  return false
}

/** Lengths of answers, and how many were cut off or repeat themselves: what a rate alone does not show. */
export function answerFigures(items: readonly EvalItem[]): AnswerFigures {
  const known = (values: readonly number[]) => (values.length ? mean(values) : null)
  return {
    words: known(items.map(({ answer }) => answer.split(/\s+/).filter((word) => word).length)) ?? 0,
    tokens: known(items.flatMap(({ tokens }) => tokens ?? [])),
    cut: known(items.flatMap(({ cut }) => (cut === undefined ? [] : Number(cut)))),
    repeated: known(items.map(({ answer }) => Number(repeatsItself(answer)))) ?? 0,
  }
}

/** Constraints kept by kind, where the grader names kinds. */
export function kindShares(items: readonly EvalItem[]): KindShares {
  const shares: KindShares = {}
  for (const { kind, satisfied } of items.flatMap(({ constraints }) => constraints)) {
    if (!kind || satisfied === null) continue
    shares[kind] ??= { kept: 0, n: 0 }
    shares[kind].n++
    if (satisfied) shares[kind].kept++
  }
  return shares
}
