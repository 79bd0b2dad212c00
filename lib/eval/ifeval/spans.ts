import { isBlank } from "../python"

/**
 * Marked places of a text, found as the patterns of the official scorer find them, but in one pass: as patterns they
 * would be tried from every mark to the end of the text, or from every line start over all blank lines that follow.
 */

/**
 * Bullets: matches of `^\s*\*[^*].*$` for a star and of `^\s*-.*$` for a dash, with `^` and `$` at every line. The
 * blanks may be line breaks, and so may be the character behind a star, whose bullet then takes the next line with it.
 */
export function countBullets(text: string, mark: "*" | "-"): number {
  let count = 0
  for (let line = 0; line >= 0 && line <= text.length; ) {
    let at = line
    while (at < text.length && isBlank(text.charCodeAt(at))) at++
    const behind = mark === "*" ? 1 : 0 // characters that must follow the mark
    if (text[at] === mark && at + behind < text.length && !(behind && text[at + 1] === "*")) {
      count++
      at = endOfLine(text, at + 1 + behind)
    } else at++ // a line that starts here has been looked at
    line = nextLine(text, at)
  }
  return count
}

/** Where the first line that starts at `from` or behind it starts; -1 for none. */
function nextLine(text: string, from: number): number {
  if (from > 0 && text[from - 1] === "\n") return from
  const end = text.indexOf("\n", from)
  return end < 0 ? -1 : end + 1
}

const endOfLine = (text: string, from: number) => {
  const end = text.indexOf("\n", from)
  return end < 0 ? text.length : end
}

/** Matches of `\[.*?\]`: brackets within a line, each closed by the first that can. */
export function countPlaceholders(text: string): number {
  let count = 0
  for (const line of text.split("\n")) {
    for (let open = line.indexOf("["); open >= 0; count++) {
      const close = line.indexOf("]", open + 1)
      if (close < 0) break
      open = line.indexOf("[", close + 1)
    }
  }
  return count
}

/** Matches of `<<[^\n]+>>`: in each line from the first `<<` to the last `>>`, with something between. */
export function titles(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    const [open, close] = [line.indexOf("<<"), line.lastIndexOf(">>")]
    return open >= 0 && close > open + 2 ? [line.slice(open, close + 2)] : []
  })
}
