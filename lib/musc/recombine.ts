import { formatConstraints } from "./decompose"
import type { DecomposeDemo } from "./demos"
import { bare, blocks } from "./prompt"

/** User message that asks for one instruction out of a list of constraints; the demos are those of decompose, inverted. */
export function recombinePrompt(
  constraints: readonly string[],
  input: string | null,
  demos: readonly DecomposeDemo[],
): string {
  const example = (demo: { input: string | null; questions: readonly string[] }) =>
    `${demo.input ? `Text: ${demo.input}\n` : ""}Questions:\n${formatConstraints(demo.questions)}`
  return blocks(
    "Write one instruction for which a good answer gets a yes to each question. Write only the instruction, in plain sentences.",
    ...demos.map((demo) => `${example(demo)}\nInstruction: ${demo.instruction}`),
    `${example({ input, questions: constraints })}\nInstruction:`,
  )
}

/** The instruction of a reply, without label or quotes. */
export function parseInstruction(text: string): string {
  return bare(text, "(new )?instruction")
}
