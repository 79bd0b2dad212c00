import { blocks, fields } from "../musc/prompt"

/** User message that asks whether an answer satisfies one constraint, the question. */
export function judgePrompt(instruction: string, answer: string, question: string): string {
  return blocks(
    "Read the instruction and the answer, then judge the answer by the question. Reply with yes or no only.",
    fields({ Instruction: instruction }),
    fields({ Answer: answer }),
    fields({ Question: question }),
  )
}

/** yes: true, no: false, undefined when the reply neither begins with yes or no nor ends in a line that is one of them. */
export function parseVerdict(text: string): boolean | undefined {
  const words = (line: string) =>
    line
      .toLowerCase()
      .replace(/[^a-z]+/g, " ")
      .trim()
  const first = /^(?:(?:the )?(?:final )?(?:answer|verdict|judg(?:e)?ment)(?: is)? )?(yes|no)\b/.exec(words(text))?.[1]
  const verdict = first ?? words(text.trim().split("\n").at(-1)!)
  return verdict === "yes" ? true : verdict === "no" ? false : undefined
}
