import { createContext, Script } from "node:vm"
import type { Tokenizer } from "@huggingface/tokenizers"
import { isJsonObject, type JsonObject } from "../data/json-file"
import { mendParts, type Parts } from "./tokenizer-mend"

/**
 * Where the tokenizer library in TypeScript differs from the original in Rust, its objects are patched; its version is
 * pinned, and `tests/reference/tokenizers.py` has the ids that must come out.
 */

interface AddedToken {
  id: number
  content: string
  normalized: boolean
  single_word: boolean
  lstrip: boolean
  rstrip: boolean
}
interface Splitter {
  split(text: string): string[]
}
/** The parts of the library that its types keep private. */
interface Inner extends Parts {
  normalizer: ((text: string) => string) | null
  model: { vocab: (string | undefined)[] }
  splitter_unnormalized: Splitter
  splitter_normalized: Splitter
  added_tokens: AddedToken[]
  added_tokens_map: Map<string, AddedToken>
}

/** Mends a tokenizer in place. @throws Error where a part of it is not as expected */
export function repair(tokenizer: Tokenizer, json: JsonObject): void {
  const inner = tokenizer as unknown as Inner
  splitTwice(inner)
  mendParts(json, inner, beginnings(inner))
  spellNormalized(inner)
  const flags = new Map([...inner.added_tokens_map].map(([text, token]) => [text, { ...token }]))
  if (![...flags.values()].some(({ single_word, lstrip, rstrip }) => single_word || lstrip || rstrip)) return
  for (const name of ["splitter_unnormalized", "splitter_normalized"] as const) {
    const splitter = inner[name]
    const split = splitter.split.bind(splitter)
    const own = new Map([...flags].filter(([, token]) => token.normalized === (name === "splitter_normalized")))
    splitter.split = (text) => mended(text, split(text), own, flags)
  }
  // What the library does for these flags comes after the split, and would be done twice.
  for (const token of inner.added_tokens) Object.assign(token, { lstrip: false, rstrip: false })
}

/** Without a normalizer the library looks for all added tokens at once, the original for the normalised ones later. */
function splitTwice(inner: Inner): void {
  if (inner.normalizer !== null) return
  const Splitter = inner.splitter_normalized.constructor as new (words: readonly string[]) => Splitter
  const words = (normalized: boolean) =>
    inner.added_tokens.filter((token) => token.normalized === normalized).map(({ content }) => content)
  inner.splitter_unnormalized = new Splitter(words(false))
  inner.splitter_normalized = new Splitter(words(true))
}

/** In the original, the text of an added token is what the normalizer makes of it where it is marked normalized. */
function spellNormalized({ added_tokens: tokens, added_tokens_map, normalizer, model }: Inner): void {
  if (normalizer === null) return
  for (const token of tokens) {
    const text = token.normalized ? normalizer(token.content) : token.content
    if (text === token.content) continue
    model.vocab[token.id] = text
    added_tokens_map.delete(token.content)
  }
}

/**
 * Says, at the first call after each split for normalised added tokens, whether what is cut now begins a section: it
 * does not where an added token stands before it.
 */
function beginnings(inner: Inner): () => boolean {
  let atStart = false
  const { splitter_normalized: splitter } = inner
  const split = splitter.split.bind(splitter)
  splitter.split = (text) => {
    const sections = split(text)
    atStart = !inner.added_tokens_map.has(sections[0] ?? "")
    return sections
  }
  return () => {
    const begins = atStart
    atStart = false
    return begins
  }
}

const wordBefore = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u
const wordAfter = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u

/** The text without blanks at its end; a pattern would try each run of blanks again from each of its places. */
function withoutEnd(text: string): string {
  let end = text.length
  while (end && /\p{White_Space}/u.test(text[end - 1]!)) end--
  return text.slice(0, end)
}

/**
 * Sections of a text with those added tokens joined to their neighbours that stand inside a word, and blanks stripped.
 */
function mended(
  text: string,
  sections: readonly string[],
  flags: ReadonlyMap<string, AddedToken>,
  known: ReadonlyMap<string, unknown>,
): string[] {
  const out: string[] = []
  let plain = ""
  let at = 0
  let stripsNext = false
  const flush = (stripsEnd: boolean) => {
    let pattern = plain
    if (stripsNext) pattern = pattern.replace(/^\p{White_Space}+/u, "")
    if (stripsEnd) pattern = withoutEnd(pattern)
    // As an object, a text that looks like an added token is not found among them.
    if (pattern) out.push(known.has(pattern) ? Object(pattern) : pattern)
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

/** Kinds of parts that take time in proportion to the text, whatever their settings. */
const plain = new Set(
  (
    "BertNormalizer BertPreTokenizer BPEDecoder ByteFallback ByteLevel CTC Digits Fuse Lowercase NFC NFD NFKC NFKD Nmt " +
    "Precompiled Punctuation Strip StripAccents Whitespace WhitespaceSplit"
  ).split(" "),
)

export const qwenPattern = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

/** Patterns that take no longer than a text is: of the embedded models, GPT-2, Llama 3, and Qwen 2 to 3. */
export const soundPatterns: ReadonlySet<string> = new Set([
  String.raw`▁?##[0-9]\.|▁?[A-Za-z]+|[^A-Za-z]`,
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  qwenPattern,
])

const isShort = (value: unknown, most: number) =>
  value === undefined || (typeof value === "string" && value.length <= most)

/**
 * Whether a part of tokenizer.json may take far more time than the text is long: by patterns, by replacements that grow
 * the text, by steps of length 0. What is not known to be harmless may.
 */
export function canHang(part: unknown): boolean {
  if (part === null || part === undefined) return false
  if (!isJsonObject(part)) return true
  const { type, content, pattern, replacement, str_rep, prefix, prepend } = part
  if (type === "Sequence") {
    const parts = part.normalizers ?? part.pretokenizers ?? part.decoders
    return !Array.isArray(parts) || parts.length > 16 || parts.some(canHang)
  }
  if (type === "Metaspace") return !isShort(replacement, 4) || !isShort(str_rep, 4)
  if (type === "Prepend") return !isShort(prepend, 16)
  if (type === "WordPiece") return !isShort(prefix, 16)
  if (type === "Replace" || type === "Split") {
    if (type === "Split" && isJsonObject(pattern) && soundPatterns.has(String(pattern.Regex))) return false
    const from = isJsonObject(pattern) ? pattern.String : undefined
    return typeof from !== "string" || !from || (type === "Replace" && !isShort(content, from.length))
  }
  return typeof type !== "string" || !plain.has(type)
}

/** How many times as long a normalizer may make a text, by replacements that feed one another. */
export function growthOf(part: unknown): number {
  if (!isJsonObject(part)) return 1
  const { type, content, pattern, normalizers } = part
  if (type === "Sequence" && Array.isArray(normalizers)) return normalizers.reduce((n, one) => n * growthOf(one), 1)
  if (type !== "Replace" || typeof content !== "string") return 1
  const from = isJsonObject(pattern) && typeof pattern.String === "string" ? pattern.String.length : 1
  return Math.max(1, content.length / Math.max(1, from))
}

/** Whether a model may take far more time than a text is long: WordPiece takes the square of a word's length, or more. */
export function modelCanHang(model: JsonObject): boolean {
  const { type, max_input_chars_per_word: longest = 100 } = model
  if (type === "WordPiece") return typeof longest !== "number" || !(longest <= 200)
  return type !== undefined && type !== "BPE" && type !== "Unigram" && type !== "WordLevel"
}

/**
 * Most milliseconds for texts of so many characters; a sound tokenizer takes a fifth of that. It is below two
 * seconds except for very long texts, because a signal that came just before has to wait.
 */
export const timeLimit = (characters: number): number => Math.max(1500, Math.ceil(characters / 100))

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
