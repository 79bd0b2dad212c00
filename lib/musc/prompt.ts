import type { Message } from "../data/schema"
import type { Generator } from "../engine/engine"
import { InputError } from "../errors"

/** Helpers shared by the prompts of all stages: blocks of text in, one clean text out. */

/** What a demonstration asks for, and the reply to it. */
export type Demonstration = readonly [asked: string, reply: string]

/**
 * Demonstrations as earlier turns of the conversation. Chat models see replies where their own will stand; base models
 * continue with the dialogue, and its next turn ends their reply.
 */
export function fewShot(demos: readonly Demonstration[], prompt: string): Message[] {
  const earlier = demos.flatMap(([content, reply]): Message[] => [
    { role: "user", content },
    { role: "assistant", content: reply },
  ])
  return [...earlier, { role: "user", content: prompt }]
}

/**
 * Examples that a prompt shows: those asked for, else the usual number, or fewer where the model takes fewer.
 * @throws InputError where more are asked for than the model takes
 */
export function shotsFor({ name, maxShots }: Generator, wanted: number | undefined, usual: number): number {
  if (maxShots === undefined) return wanted ?? usual
  if (wanted !== undefined && wanted > maxShots)
    throw new InputError(`must be at most ${maxShots} for the model ${name}, got ${wanted}; leave it out`, {
      field: "shots",
    })
  return wanted ?? Math.min(usual, maxShots)
}

/** Joins the parts that exist with an empty line between them. */
export function blocks(...parts: readonly (string | null | undefined | false)[]): string {
  return parts.filter((part) => part).join("\n\n")
}

/** `Label: value` lines, without those whose value is null or empty. */
export function fields(values: Readonly<Record<string, string | null>>): string {
  return Object.entries(values)
    .filter(([, value]) => value)
    .map(([label, value]) => `${label}: ${value}`)
    .join("\n")
}

/** A model's reply without a leading label such as "New question:", a code fence or quotes around the whole. */
export function bare(text: string, label: string): string {
  let out = text.trim()
  const fence = /^```[a-z]*\n([\s\S]*)\n```$/i.exec(out)
  if (fence) out = fence[1]!.trim()
  const head = new RegExp(`^[*#\\s]*${label}\\s*:[*\\s]*`, "i").exec(out)
  if (head) out = out.slice(head[0].length).trim()
  const quoted = /^(["'“‘])([\s\S]*)(["'”’])$/.exec(out)
  if (quoted && !/["“”]/.test(quoted[2]!)) out = quoted[2]!.trim()
  return out
}
