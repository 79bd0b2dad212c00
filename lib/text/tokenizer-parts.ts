import { isJsonObject, type JsonObject, show } from "../data/json-file"

/**
 * Parts of tokenizer.json that the library in TypeScript runs otherwise than the original in Rust are given the
 * original's behaviour here; those that stay different are refused by name. `tests/reference/tokenizers.py` has the ids
 * that must come out.
 */

/** A part of the library, which its types keep private. */
export type Part = Record<string, unknown>

const blank = "\\p{White_Space}"
const word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}"
const mark = "\\p{P}!-\\/:-@\\[-`{-~"

/** GPT-2's pattern with the blanks of Unicode: JavaScript's `\\s` has U+FEFF and lacks U+0085. */
const gpt2 = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${blank}\\p{L}\\p{N}]+|${blank}+(?!\\P{White_Space})|${blank}+`,
  "gu",
)

type Cut = (parts: readonly Piece[]) => string[]
/** What becomes of the matches of a pattern, by the name that tokenizer.json has for it. */
const cuts: Readonly<Record<string, Cut>> = {
  Isolated: (parts) => parts.map(({ piece }) => piece),
  Removed: (parts) => parts.flatMap(({ piece, isMatch }) => (isMatch ? [] : [piece])),
  MergedWithPrevious: (parts) => joined(parts, (before, one) => one.isMatch && !before.isMatch),
  MergedWithNext: (parts) =>
    joined([...parts].reverse(), (before, one) => one.isMatch && !before.isMatch, true).reverse(),
  Contiguous: (parts) => joined(parts, (before, one) => one.isMatch === before.isMatch),
}

interface Piece {
  piece: string
  isMatch: boolean
}

/** A text as matches of a pattern and what lies between them; `invert` takes one for the other. */
function pieces(text: string, pattern: RegExp, invert = false): Piece[] {
  const found: Piece[] = []
  let done = 0
  for (const { index, 0: match } of text.matchAll(pattern)) {
    found.push({ piece: text.slice(done, index), isMatch: invert }, { piece: match, isMatch: !invert })
    done = index + match.length
  }
  found.push({ piece: text.slice(done), isMatch: invert })
  return found.filter(({ piece }) => piece)
}

/** Pieces, some of them joined to the one before; `backwards` for pieces in reverse order. */
function joined(all: readonly Piece[], joins: (before: Piece, one: Piece) => boolean, backwards = false): string[] {
  const out: string[] = []
  all.forEach((one, i) => {
    if (!i || !joins(all[i - 1]!, one)) out.push(one.piece)
    else out.push(backwards ? one.piece + out.pop()! : out.pop()! + one.piece)
  })
  return out
}

const matches = (pattern: RegExp) => (text: string) => text.match(pattern) ?? []
const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
/** Letter by letter, without the rule of JavaScript for a sigma at the end of a word. */
const lowerCase = (text: string) => Array.from(text, (letter) => letter.toLowerCase()).join("")

/** How the original does these pre-tokenizers, by type; the pattern of Split is the library's own. */
export const preTokenizers: Readonly<
  Record<string, (config: JsonObject, part: Part, begins: () => boolean) => ((text: string) => string[]) | null>
> = {
  ByteLevel: (_, part) => {
    part.pattern = gpt2
    return null
  },
  Metaspace: metaspace,
  Split: ({ pattern, behavior, invert }, part) => {
    const { String: literal } = pattern as { String?: string }
    const cut = cutOf(behavior)
    const regex = literal === undefined ? (part.pattern as RegExp) : new RegExp(escaped(literal), "gu")
    return (text) => cut(pieces(text, regex, invert === true))
  },
  Punctuation: ({ behavior = "Isolated" }) => {
    const cut = cutOf(behavior)
    return (text) => cut(pieces(text, new RegExp(`[${mark}]`, "gu")))
  },
  Digits:
    ({ individual_digits }) =>
    (text) =>
      cuts[individual_digits ? "Isolated" : "Contiguous"]!(pieces(text, /\p{N}/gu)),
  Whitespace: () => matches(new RegExp(`[${word}]+|[^${word}${blank}]+`, "gu")),
  WhitespaceSplit: () => matches(new RegExp(`[^${blank}]+`, "gu")),
  BertPreTokenizer: () => matches(new RegExp(`[^${blank}${mark}]+|[${mark}]`, "gu")),
  Sequence: () => null,
}

function cutOf(behavior: unknown): Cut {
  const name = typeof behavior === "string" ? behavior : ""
  if (!Object.hasOwn(cuts, name)) throw new UnsupportedPart(`a split with the behaviour ${show(behavior)}`)
  return cuts[name]!
}

/**
 * The library's blanks for words, cut before each of them where the original does. The scheme "first" is for what
 * begins the text, not for what follows an added token.
 */
function metaspace({ split, replacement = "\u2581" }: JsonObject, part: Part, begins: () => boolean) {
  if (typeof replacement !== "string") return null
  part.str_rep = replacement
  const whole = part.pre_tokenize_text as (text: string, options?: { section_index?: number }) => string[]
  const own = whole.bind(part)
  return (text: string, options?: { section_index?: number }) => {
    const words = own(text, { section_index: begins() ? options?.section_index : 1 })
    if (split === false) return words
    return words.flatMap((one) => cuts.MergedWithNext!(pieces(one, new RegExp(escaped(replacement), "gu"))))
  }
}

export const plain = () => null
/** The text that replaces another has no placeholders such as `$1` in the original. */
export function literally(config: JsonObject, part: Part): null {
  part.config = { ...config, content: `${config.content ?? ""}`.replaceAll("$", "$$$$") }
  return null
}
export const normalizers: Readonly<
  Record<string, (config: JsonObject, part: Part) => ((text: string) => string) | null>
> = {
  ...{ Sequence: plain, NFC: plain, NFD: plain, NFKC: plain, NFKD: plain, StripAccents: plain },
  Replace: literally,
  Lowercase: () => lowerCase,
  // An empty text stays empty.
  Prepend:
    ({ prepend }) =>
    (text) =>
      text && `${prepend}${text}`,
  Strip:
    ({ strip_left, strip_right }) =>
    (text) => {
      const rest = strip_left ? text.replace(/^\p{White_Space}+/u, "") : text
      return strip_right ? rest.replace(/\p{White_Space}+$/u, "") : rest
    },
}

/** A part of a tokenizer that would give other ids here than in the original. */
export class UnsupportedPart extends Error {}

/** @throws UnsupportedPart for a pattern that the library would pass over */
export function checkPattern({ type, pattern }: JsonObject): void {
  if (type !== "Split" && type !== "Replace") return
  const { String: text, Regex: regex } = isJsonObject(pattern) ? pattern : {}
  if (typeof text !== "string" && typeof regex !== "string")
    throw new UnsupportedPart(`a ${type} whose pattern is neither a text nor an expression: ${show(pattern)}`)
}
