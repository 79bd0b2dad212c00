import type { EditDemo } from "./demos"
import { bare, blocks, fields } from "./prompt"

/** User message that asks for the opposite of a constraint. */
export function negatePrompt(question: string, demos: readonly EditDemo[]): string {
  return editPrompt(
    "Change the question so that it asks for the opposite. Write only the new question.",
    question,
    demos,
  )
}

/** User message that asks for another constraint of the same kind in place of this one. */
export function substitutePrompt(question: string, demos: readonly EditDemo[]): string {
  return editPrompt(
    "Change the question so that it asks for something else of the same kind. Write only the new question.",
    question,
    demos,
  )
}

function editPrompt(task: string, question: string, demos: readonly EditDemo[]): string {
  return blocks(
    task,
    ...demos.map((demo) => fields({ Question: demo.question, "New question": demo.changed })),
    `${fields({ Question: question })}\nNew question:`,
  )
}

/** The changed question of a reply: its first line, without label, number or quotes; empty when there is none. */
export function parseQuestion(text: string): string {
  const line = bare(text, "new question").split("\n")[0]!
  return bare(line.replace(/^(##\s*)?\d+\s*[.):]\s*/, "").replaceAll("**", ""), "(new )?question").replace(/\s+/g, " ")
}
