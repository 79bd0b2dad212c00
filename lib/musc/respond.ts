import type { Message } from "../data/schema"
import { blocks } from "./prompt"

/** The chat that asks for an answer: one user turn, the instruction and then the text that it is about. */
export function respondMessages(instruction: string, input: string | null): Message[] {
  return [{ role: "user", content: blocks(instruction, input) }]
}
