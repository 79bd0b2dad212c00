import { UnsupportedPart } from "./tokenizer-parts"

/**
 * A pattern of tokenizer.json without possessive repeats (`X++`, `X*+`, `X?+`) and atomic groups (`(?>X)`), which
 * JavaScript lacks: a lookahead does not go back into what it found either, and `\k` takes what it found. The library
 * leaves their marks out, so that other texts match.
 * @throws UnsupportedPart for what cannot be written so
 */
export function withoutPossessive(source: string): string {
  let out = ""
  let names = 0
  /** where the last thing that can be repeated begins in `out`; -1 for none */
  let atom = -1
  const groups: { start: number; isAtomic: boolean }[] = []
  const close = (inner: string) => {
    names++
    return `(?:(?=(?<atomic${names}>${inner}))\\k<atomic${names}>)`
  }
  for (let at = 0; at < source.length; ) {
    const rest = source.slice(at)
    const [one = rest[0]!] = pieces.exec(rest) ?? []
    at += one.length
    if (one === "\\G") throw new UnsupportedPart("the anchor \\G in a pattern")
    if (one.startsWith("(")) {
      groups.push({ start: out.length, isAtomic: one === "(?>" })
      if (one !== "(?>") out += one
      atom = -1
    } else if (one === ")") {
      const { start, isAtomic } = groups.pop() ?? { start: out.length, isAtomic: false }
      out = isAtomic ? out.slice(0, start) + close(out.slice(start)) : `${out})`
      atom = start
    } else if (repeats.test(one) && atom >= 0) {
      const isPossessive = /^[*+?]\+$/.test(one)
      out = isPossessive ? out.slice(0, atom) + close(out.slice(atom) + one[0]) : out + one
    } else {
      atom = one === "|" ? -1 : out.length
      out += one
    }
  }
  if (names && /\\[1-9]/.test(source))
    throw new UnsupportedPart("a pattern with a possessive repeat and a group by its number")
  return names ? out : source
}

const repeats = /^(?:[*+?][+?]?|\{\d*(?:,\d*)?\}\??)$/
/** The next piece of a pattern: an escape, a class in brackets (two deep), the head of a group, a repeat. */
const pieces = new RegExp(
  [
    String.raw`^\\(?:[pPxu]\{[^}]*\}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|c[A-Za-z]|[\s\S])`,
    String.raw`^\[\^?\]?(?:\\[\s\S]|\[:\^?\w+:\]|\[(?:\\[\s\S]|\[:\^?\w+:\]|[^\]\\])*\]|[^\]\\])*\]`,
    String.raw`^\((?:\?(?:<[=!]|<\w+>|[:=!>]|i:))?`,
    String.raw`^(?:[*+?][+?]?|\{\d*(?:,\d*)?\}\??)`,
  ].join("|"),
  "u",
)
