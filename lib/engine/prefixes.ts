import type { Message } from "../data/schema"
import type { Prefix } from "../model/cache"
import { readPrefix } from "../model/generate"
import type { Bound } from "../model/transformer"
import { renderChat } from "../text/chat"
import type { Tokenizer } from "../text/tokenizer"

/** Demonstrations shorter than this are read again with each prompt. */
const worthSharing = 32

/**
 * The tokens of a prompt that its demonstrations take, which other prompts begin with too; none where there are none.
 * They depend on the request alone, so that an answer does not depend on which others are made with it.
 */
export function sharedIds(tokenizer: Tokenizer, messages: readonly Message[], prompt: readonly number[]): number[] {
  if (messages.at(-2)?.role !== "assistant") return []
  const earlier = tokenizer.encode(renderChat(tokenizer, messages.slice(0, -1), { addGenerationPrompt: false }))
  const differs = earlier.findIndex((id, i) => id !== prompt[i])
  const length = Math.min(differs < 0 ? earlier.length : differs, prompt.length - 1)
  return length < worthSharing ? [] : earlier.slice(0, length)
}

/** Demonstrations that were read: those in use and the last few, as stages ask one after another, each with its own. */
export class Prefixes {
  private readonly kept = new Map<string, { prefix: Prefix; uses: number }>()

  constructor(
    private readonly bound: Bound,
    private readonly most = 4,
  ) {}

  /** What was read of the tokens of `key`, ids joined by commas, to be released after use; nothing for none. */
  hold(key: string): Prefix | undefined {
    if (!key) return undefined
    const known = this.kept.get(key) ?? { prefix: readPrefix(this.bound, key.split(",").map(Number)), uses: 0 }
    known.uses++
    this.kept.delete(key)
    this.kept.set(key, known)
    this.drop()
    return known.prefix
  }

  release(key: string): void {
    const known = this.kept.get(key)
    if (known) known.uses--
    this.drop()
  }

  dispose(): void {
    for (const { prefix } of this.kept.values()) prefix.dispose()
    this.kept.clear()
  }

  private drop(): void {
    for (const [oldest, { prefix, uses }] of this.kept) {
      if (this.kept.size <= this.most) break
      if (uses) continue
      prefix.dispose()
      this.kept.delete(oldest)
    }
  }
}
