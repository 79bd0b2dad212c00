import { createContext, Script } from "node:vm"
import type { Tokenizer } from "@huggingface/tokenizers"
import { isJsonObject } from "../data/json-file"

/**
 * Where the tokenizer library in TypeScript differs from the original in Rust, its objects are mended; its version is
 * pinned, and `tests/reference/tokenizers.py` has the ids that must come out.
 */

interface AddedToken {
  single_word: boolean
  lstrip: boolean
  rstrip: boolean
}
interface Splitter {
  split(text: string): string[]
}
/** The parts of the library that its types keep private. */
interface Inner {
  pre_tokenizer: unknown
  decoder: unknown
  splitter_unnormalized: Splitter
  splitter_normalized: Splitter
  added_tokens: AddedToken[]
  added_tokens_map: Map<string, AddedToken>
}

/** GPT-2's pattern with the blanks of Unicode: JavaScript's `\s` has U+FEFF and lacks U+0085. */
const gpt2 =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu

/** Mends a tokenizer in place. @throws Error where a part of it is not as expected */
export function repair(tokenizer: Tokenizer): void {
  const inner = tokenizer as unknown as Inner
  for (const part of partsOf(inner.pre_tokenizer)) {
    if ("use_regex" in part && "pattern" in part) part.pattern = gpt2
    const config = part.config
    if (isJsonObject(config) && config.type === "Digits" && "pattern" in part)
      part.pattern = config.individual_digits ? /[^\p{N}]+|\p{N}/gu : /[^\p{N}]+|\p{N}+/gu
  }
  // A byte-order mark is text like any other.
  for (const part of partsOf(inner.decoder))
    if ("text_decoder" in part) part.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  const flags = new Map([...inner.added_tokens_map].map(([text, token]) => [text, { ...token }]))
  if (![...flags.values()].some(({ single_word, lstrip, rstrip }) => single_word || lstrip || rstrip)) return
  for (const name of ["splitter_unnormalized", "splitter_normalized"] as const) {
    const splitter = inner[name]
    const split = splitter.split.bind(splitter)
    splitter.split = (text) => mended(text, split(text), flags)
  }
  // What the library does for these flags comes after the split, and would be done twice.
  for (const token of inner.added_tokens) Object.assign(token, { lstrip: false, rstrip: false })
}

type Part = Record<string, unknown>
function partsOf(root: unknown): Part[] {
  if ((typeof root !== "object" && typeof root !== "function") || root === null) return []
  const part = root as Part
  const inner = [part.tokenizers, part.decoders].flatMap((list) => (Array.isArray(list) ? list : []))
  return [part, ...inner.flatMap(partsOf)]
}

const wordBefore = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u
const wordAfter = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u

/** Sections of a text with those added tokens joined to their neighbours that stand inside a word, and blanks stripped. */
function mended(text: string, sections: readonly string[], flags: ReadonlyMap<string, AddedToken>): string[] {
  const out: string[] = []
  let plain = ""
  let at = 0
  let stripsNext = false
  const flush = (stripsEnd: boolean) => {
    let kept = plain
    if (stripsNext) kept = kept.replace(/^\p{White_Space}+/u, "")
    if (stripsEnd) kept = kept.replace(/\p{White_Space}+$/u, "")
    if (flags.has(kept)) throw new Error(`an added token ${JSON.stringify(kept)} between others and inside a word`)
    if (kept) out.push(kept)
    plain = ""
  }
  for (const section of sections) {
    const token = flags.get(section)
    const end = at + section.length
    const inWord = wordBefore.test(text.slice(Math.max(0, at - 2), at)) || wordAfter.test(text.slice(end, end + 2))
    if (!token || (token.single_word && inWord)) plain += section
    else {
      flush(token.lstrip)
      out.push(section)
      stripsNext = token.rstrip
    }
    at = end
  }
  flush(false)
  return out
}

/** Whether a part of tokenizer.json can be made to run for ever: by patterns, or by replacements that grow the text. */
export function canHang(part: unknown): boolean {
  if (Array.isArray(part)) return part.some(canHang)
  if (!isJsonObject(part)) return false
  const grows = part.type === "Replace" && typeof part.content === "string" && part.content.length > 1
  return grows || Object.entries(part).some(([key, value]) => key === "Regex" || canHang(value))
}

/** Most milliseconds for a text of so many characters: short enough that Ctrl-C is soon heard. */
export const timeLimit = (characters: number): number => 1500 + Math.ceil(characters / 50)

let work: () => void = () => {}
const context = createContext({ run: () => work() })
const script = new Script("run()")

/**
 * Runs work that may never end; only this way of calling can be interrupted within a regular expression.
 * @throws Error with code ERR_SCRIPT_EXECUTION_TIMEOUT after `milliseconds`
 */
export function withinTime<T>(milliseconds: number, job: () => T): T {
  const results: T[] = []
  work = () => {
    results.push(job())
  }
  try {
    script.runInContext(context, { timeout: milliseconds })
  } finally {
    work = () => {}
  }
  return results[0]!
}
