import { blocks, fields } from "../musc/prompt"

/**
 * User message that asks whether an answer satisfies one constraint, the question. The finding comes before the verdict: a
 * verdict alone is one token, which small models guess.
 */
export function judgePrompt(instruction: string, answer: string, question: string): string {
  return blocks(
    "Read the instruction and the answer, then judge the answer by the question. Name what the answer has in that respect, then write yes or no on a line of its own.",
    fields({ Instruction: instruction }),
    fields({ Answer: answer }),
    fields({ Question: question }),
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
