import type { Message } from "./schema"

/** What a marker opens. */
const speakers: Readonly<Record<string, Message["role"]>> = { Human: "user", Assistant: "assistant" }

/**
 * The turns of a transcript (`\n\nHuman: …\n\nAssistant: …`, as in HH-RLHF), null for other texts. A last turn of the
 * assistant that holds nothing yet is left out.
 */
export function transcript(text: string): Message[] | null {
  if (!/^\s*Human:/.test(text)) return null
  const [, ...parts] = `\n\n${text.trimStart()}`.split(/\n\n(Human|Assistant):/)
  const turns = parts.flatMap((speaker, i): Message[] =>
    i % 2 ? [] : [{ role: speakers[speaker]!, content: parts[i + 1]!.trim() }],
  )
  if (turns.at(-1)!.role !== "assistant") return null
  return turns.at(-1)!.content ? turns : turns.slice(0, -1)
}
