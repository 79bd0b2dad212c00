import type { JsonObject } from "../data/json-file"
import { literally, type Part, plain } from "./tokenizer-parts"

/** Tokens to pieces of text. */
export type Decode = (tokens: readonly string[]) => string[]

/** How the original does these decoders, by type; null leaves the library's own way, which is the same. */
export const decoders: Readonly<Record<string, (config: JsonObject, part: Part) => Decode | null>> = {
  ...{ Sequence: plain, Fuse: plain, Strip: plain, BPEDecoder: plain },
  Replace: literally,
  ByteLevel: byteLevel,
  ByteFallback: () => bytesJoined,
  Metaspace: metaspace,
  WordPiece: wordPiece,
}

/**
 * The letters of a token stand for bytes where all of them do, else for themselves. Added tokens are no exception: the
 * letters of `für` are all names of bytes, and those make no text.
 */
function byteLevel(_: JsonObject, part: Part): Decode {
  const bytesByLetter = part.byte_decoder as Readonly<Record<string, number | string | undefined>>
  return (tokens) => {
    const bytes = tokens.flatMap((token) => {
      const own = Array.from(token, (letter) => bytesByLetter[letter])
      return own.includes(undefined) ? [...utf8.encode(token)] : own.map(Number)
    })
    return [lossyUtf8.decode(Uint8Array.from(bytes))]
  }
}

/** The first token loses all its blanks, not one; a scheme that puts none before a text loses none. */
function metaspace({ replacement = "\u2581", prepend_scheme: scheme, add_prefix_space: adds }: JsonObject): Decode {
  const keeps = scheme === "never" || (scheme === undefined && adds === false)
  return (tokens) => tokens.map((token, i) => token.replaceAll(`${replacement}`, i || keeps ? " " : ""))
}

function wordPiece({ prefix = "##", cleanup = true }: JsonObject): Decode {
  const joiner = `${prefix}`
  return (tokens) =>
    tokens.map((token, i) => {
      const piece = !i ? token : token.startsWith(joiner) ? token.slice(joiner.length) : ` ${token}`
      return cleanup ? tidied.reduce((text, [from, to]) => text.replaceAll(from, to), piece) : piece
    })
}

const tidied: readonly (readonly [string, string])[] = [
  ...([" .", " ?", " !", " ,"] as const).map((mark) => [mark, mark.trim()] as const),
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" do not", " don't"],
  ...([" 's", " 've", " 're"] as const).map((end) => [end, end.trim()] as const),
]

const utf8 = new TextEncoder()
const lossyUtf8 = new TextDecoder("utf-8", { ignoreBOM: true })
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Bytes in a row become their text, or a mark for each of them where they are none. */
function bytesJoined(tokens: readonly string[]): string[] {
  const out: string[] = []
  let bytes: number[] = []
  const flush = () => {
    if (!bytes.length) return
    try {
      out.push(strictUtf8.decode(Uint8Array.from(bytes)))
    } catch {
      out.push(...bytes.map(() => "\ufffd"))
    }
    bytes = []
  }
  for (const token of tokens) {
    const hex = /^<0x([\da-fA-F]{2})>$/.exec(token)?.[1]
    if (hex !== undefined) {
      bytes.push(Number.parseInt(hex, 16))
      continue
    }
    flush()
    out.push(token)
  }
  flush()
  return out
}
