import { blocks } from "./prompt"

/** User message that asks for a new instruction in the manner of the examples (self-instruct). */
export function selfInstructPrompt(demos: readonly string[]): string {
  return blocks(
    "Write one new instruction on another topic, with more than five constraints on the answer. Write only the instruction.",
    ...demos.map((demo) => `Instruction: ${demo}`),
    "Instruction:",
  )
}
