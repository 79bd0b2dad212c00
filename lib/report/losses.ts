import type { StageName } from "../data/schema"
import type { StageCount } from "../musc/run-stage"
import { HELD_OUT } from "../musc/source"

/** Rows that a stage lost, why, and the remedy; shown while it runs and in the report. */

/** Share of lost rows above which a stage is warned of. */
const MOST_LOST = 0.5

/** What cures a reason, by stage and reason; the first that fits. */
const remedies: readonly (readonly [RegExp, string])[] = [
  [/^source: near-duplicate/, "use seeds that differ more, or raise nearDuplicate"],
  [/^source: /, "look at the seed file: each row must hold an instruction"],
  [/^(\w+): .*cut off at the token limit/, "raise $1MaxTokens"],
  [/^decompose: .* in the seed file/, "give each row two questions or more, of which the first is the task, or none"],
  [
    /^decompose: fewer than 2 constraints/,
    "look at the raw replies (field calls of the rows); a small model needs few-shot examples (shots=5); " +
      'one trained without them needs none (shots=0, or `{ "shots": 0 }` in musc.json of its folder); ' +
      "instructions need 2 constraints or more",
  ],
  [/^corrupt: .*(unchanged|empty)/, "raise corruptAttempts or corruptTemperature, or set drop=1 negate=0 substitute=0"],
  [/^recombine: clean equals noised/, "raise noiseRatio, or use a stronger model, as this one misses the change"],
  [/^recombine: /, "look at the raw replies (field calls of the rows); lower recombineTemperature, or set shots=2"],
  [/^verify: /, "use more instructions, raise noiseRatio, or set keepPairs=all"],
  [/^respond: identical answers/, "raise respondTemperature"],
  [/^respond: empty answer/, "check the model's chat template and end-of-turn token (npx musc chat --model M)"],
]

/** What cures a reason for which rows fail at a stage. */
function remedyOf(stage: string, reason: string): string {
  for (const [pattern, remedy] of remedies) {
    const match = pattern.exec(`${stage}: ${reason}`)
    if (match) return remedy.replace("$1", match[1] ?? "")
  }
  return "look at the raw replies (field calls of the rows)"
}

/** Rows that reached a stage and what happened to them, from the failures of its output ("stage: reason"). */
export function stageCountOf(stage: StageName, rows: number, failures: Readonly<Record<string, number>>): StageCount {
  const own = Object.entries(failures).filter(([name]) => name.startsWith(`${stage}: `))
  const sum = (list: readonly (readonly [string, number])[]) => list.reduce((total, [, n]) => total + n, 0)
  const reached = rows - (sum(Object.entries(failures)) - sum(own))
  const reasons = Object.fromEntries(own.map(([name, n]) => [name.slice(stage.length + 2), n]))
  return { stage, rows: reached, passed: reached - sum(own), reasons }
}

/**
 * A warning about a stage that lost more than half of its rows, with reason and remedy; rows that are held out are no
 * loss.
 */
export function lossWarning({ stage, rows, passed, reasons }: StageCount): string | undefined {
  const reached = rows - (reasons[HELD_OUT] ?? 0)
  const lost = reached - passed
  if (lost <= MOST_LOST * reached) return undefined
  const [reason, n] = Object.entries(reasons)
    .filter(([name]) => name !== HELD_OUT)
    .sort(([, a], [, b]) => b - a)[0]!
  const most = n === lost ? reason : `${reason} (${n} of ${lost})`
  const remedy = remedyOf(stage, reason)
  return `${stage}: ${lost} of ${reached} rows failed; most frequent reason: ${most}; remedy: ${remedy}`
}
