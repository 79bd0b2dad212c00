import { blocks, fields } from "../musc/prompt"

/**
 * User message that asks whether an answer satisfies one constraint, the question, which stands alone. The question comes
 * before the answer, so that the answer is read with it in mind, and the evidence before the verdict: a verdict alone is one
 * token, which small models guess.
 */
export function judgePrompt(question: string, input: string | null, answer: string): string {
  return blocks(
    "Judge the answer by the question. Quote what decides it in the answer, or write nothing, then write yes or no on a line of its own.",
    fields({ Question: question }),
    fields({ Input: input }),
    fields({ Answer: answer }),
  )
}

/** The verdict in the last line, else at the beginning: yes true, no false; undefined when neither is there. */
export function parseVerdict(text: string): boolean | undefined {
  const words = (line: string) =>
    line
      .toLowerCase()
      .replace(/[^a-z]+/g, " ")
      .trim()
  const label = "(?:(?:the )?(?:final )?(?:answer|verdict|judg(?:e)?ment)(?: is)? )?"
  const last = new RegExp(`^${label}(yes|no)$`).exec(words(text.trim().split("\n").at(-1)!))
  const verdict = (last ?? new RegExp(`^${label}(yes|no)\\b`).exec(words(text)))?.[1]
  return verdict === undefined ? undefined : verdict === "yes"
}
