import { isJsonObject, type JsonObject, show } from "../data/json-file"
import { type Part, UnsupportedPart } from "./tokenizer-parts"

/** Models of tokenizer.json that come out as in the original. */
const types = ["BPE", "WordPiece", "Unigram"]

/** @throws UnsupportedPart naming what the original does otherwise than can be done here */
export function checkModel(model: JsonObject): void {
  const { type = "BPE", dropout, continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = model
  if (!types.includes(`${type}`)) throw new UnsupportedPart(`a model of the type ${show(type)}`)
  if (dropout) throw new UnsupportedPart(`a model with dropout ${show(dropout)}, which draws its ids by chance`)
  if (type === "BPE" && prefix) throw new UnsupportedPart(`a BPE model with the prefix ${show(prefix)}`)
  if (type === "BPE" && suffix) throw new UnsupportedPart(`a BPE model with the suffix ${show(suffix)}`)
  if (type === "BPE" && model.byte_fallback === true && !bytes.every((token) => Object.hasOwn(vocabOf(model), token)))
    throw new UnsupportedPart("byte_fallback but no token for some of the bytes")
}

const vocabOf = ({ vocab }: JsonObject): object => (isJsonObject(vocab) ? vocab : {})

/** Tokens of the bytes, for models that spell unknown letters with them. */
const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`)

const utf8 = new TextEncoder()

/**
 * Encodes word by word as the original does. Unknown letters become one token where they follow one another within a
 * word, not across words; without a token for them they are left out before letters are merged. A word that is spelled
 * like an added token is a word.
 */
export function mendModel(json: JsonObject, part: Part, added: readonly { content: string }[]): void {
  const { type = "BPE", vocab, byte_fallback: spells, fuse_unk: fuses } = json
  const known = new Map(part.tokens_to_ids as Map<string, number>)
  const own = Array.isArray(vocab) ? new Set(vocab.map((entry) => (Array.isArray(entry) ? entry[0] : entry))) : null
  const isOwn = (text: string) => (own ? own.has(text) : Object.hasOwn(vocab as object, text))
  for (const { content } of added) if (!isOwn(content)) known.delete(content)
  const unknown = part.unk_token as string | null | undefined
  // The library looks words up among added tokens too.
  const view = Object.create(part, { tokens_to_ids: { value: known } }) as object
  const encode = (part.encode as (words: readonly string[]) => string[]).bind(view)
  const drops = type === "BPE" && spells !== true && (unknown === null || unknown === undefined)
  const joins = type === "Unigram" || (type === "BPE" && fuses === true)
  part.fuse_unk = false
  const spelled = (piece: string): string[] => {
    if (known.has(piece)) return [piece]
    const byBytes = spells === true ? Array.from(utf8.encode(piece), (byte) => bytes[byte]!) : []
    if (byBytes.length && byBytes.every((token) => known.has(token))) return byBytes
    if (typeof unknown === "string" && known.has(unknown)) return [unknown]
    throw new UnsupportedPart(`no token for ${show(piece)}, by unk_token ${show(unknown)}`)
  }
  part.encode = (words: readonly string[]) =>
    words.flatMap((word) => {
      const letters = drops && !known.has(word) ? Array.from(word, (c) => (known.has(c) ? c : "")).join("") : word
      const pieces = encode([letters]).flatMap(spelled)
      return joins ? pieces.filter((piece, i) => piece !== unknown || piece !== pieces[i - 1]) : pieces
    })
}
