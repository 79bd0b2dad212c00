import { formatConstraints } from "../musc/decompose"
import { bare, blocks, fields } from "../musc/prompt"

/** User message that asks for a better answer, given the constraints that the first one fails (Self-Correct). */
export function revisePrompt(instruction: string, answer: string, failed: readonly string[]): string {
  return blocks(
    "The answer to the instruction gets a no to each question below. Rewrite it so that each gets a yes. Write only the new answer.",
    fields({ Instruction: instruction }),
    fields({ Answer: answer }),
    `Questions:\n${formatConstraints(failed)}`,
  )
}

/** The revised answer of a reply, without label or quotes. */
export function parseRevision(text: string): string {
  return bare(text, "(new |revised |improved )?answer")
}
