import type { DecomposeDemo } from "./demos"
import { blocks, fields } from "./prompt"

/** User message that asks for the constraints of an instruction. */
export function decomposePrompt(
  row: { instruction: string; input: string | null },
  demos: readonly DecomposeDemo[],
): string {
  const example = (demo: { instruction: string; input: string | null }) =>
    fields({ Instruction: demo.instruction, Text: demo.input })
  return blocks(
    "Split the instruction into its constraints. Write each as a yes/no question about the answer, one a line, starting with ##1. for the task itself.",
    ...demos.map((demo) => `${example(demo)}\nQuestions:\n${formatConstraints(demo.questions)}`),
    `${example(row)}\nQuestions:`,
  )
}

/** Lines of the form `##1. question`. */
export function formatConstraints(questions: readonly string[]): string {
  return questions.map((question, i) => `##${i + 1}. ${question}`).join("\n")
}

/**
 * The questions of a reply. Reads `##1. question`, on lines of their own or run together, and otherwise plain numbered
 * lines; anything around them is passed over, repeats (but for case and spaces) are dropped.
 */
export function parseConstraints(text: string): string[] {
  const marked = text.split(/##\s*\d+\s*[.):]/).slice(1)
  const found = marked.length ? marked : [...text.matchAll(/^\s*\d+\s*[.):](.*)$/gm)].map((match) => match[1]!)
  const seen = new Set<string>()
  return found
    .map((part) => part.trim().split("\n")[0]!.replaceAll("**", "").replace(/\s+/g, " ").trim())
    .filter((question) => question && !seen.has(question.toLowerCase()) && seen.add(question.toLowerCase()))
}
