import type { Verdicts } from "../eval/grader"
import { blocks, fields } from "../musc/prompt"

/** One point each. */
const statements = [
  "It does what the instruction is about.",
  "It keeps at least one further requirement.",
  "It keeps at least half of all requirements.",
  "It misses at most one requirement.",
  "It keeps every requirement.",
]

/**
 * User message that asks for a score of 0 to 5 points that add up (the additive judge of Self-Reward; our own words).
 */
export function pointsPrompt(instruction: string, answer: string): string {
  return blocks(
    `Read the instruction and the answer. The answer gets one point for each of these statements that is true:\n${statements
      .map((statement, i) => `${i + 1}. ${statement}`)
      .join("\n")}`,
    "Say in a sentence what the answer keeps and what it misses, then write the sum of its points on a line of its own, " +
      "as Score: and a number from 0 to 5.",
    fields({ Instruction: instruction }),
    fields({ Answer: answer }),
  )
}

/**
 * The points of a reply: the number behind the last "Score:", else a last line that is nothing but a number; undefined
 * for none, or one outside 0 to 5. (The released code takes an unread score for 5.)
 */
export function parsePoints(text: string): number | undefined {
  const plain = text.replace(/[*_`[\]]/g, "").trim()
  const sum = "(?:\\d+(?:\\.\\d+)?\\s*\\+\\s*)+\\d+(?:\\.\\d+)?\\s*=\\s*" // "1 + 1 + 0 = 2"
  const number = "(\\d+(?:\\.\\d+)?)(?:\\s*(?:/|out of)\\s*5)?(?:\\s*points?)?"
  const label =
    "(?<!\\b(?:max(?:imum)?|highest|best|possible|perfect|full) )\\b(?:score|points|total)\\s*(?:is|:|=)\\s*"
  const range = "\\s*(?:[/+]|[–-]\\s*\\d|out of|(?:or|to|→) *\\d)|[\\d.]*\\d" // "2/3", "2 to 3": no one score
  const labelled = [...plain.matchAll(new RegExp(`${label}(?:${sum})?${number}(?!${range})`, "gi"))]
  const match = labelled.at(-1) ?? new RegExp(`^(?:${sum})?${number}\\.?$`, "i").exec(plain.split("\n").at(-1)!.trim())
  const points = Number(match?.[1] ?? Number.NaN)
  return points >= 0 && points <= 5 ? points : undefined
}

/**
 * The same points counted from verdicts on single constraints, for models that judge one at a time; the first
 * constraint is the task itself. Verdicts that could not be read are left out; null when none could.
 */
export function pointsOf(verdicts: Verdicts): number | null {
  const known = verdicts.filter(({ satisfied }) => satisfied !== null)
  if (!known.length) return null
  const satisfiedCount = known.filter(({ satisfied }) => satisfied).length
  const [task, ...further] = verdicts
  const missed = known.length - satisfiedCount
  return [
    task?.satisfied === true,
    further.some(({ satisfied }) => satisfied),
    2 * satisfiedCount >= known.length,
    missed <= 1,
    missed === 0,
  ].filter(Boolean).length
}
