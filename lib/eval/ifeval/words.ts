import { isUpper, pythonPattern, splitBlanks, stripEnd } from "../python"
import { sentences } from "./punkt"

/** A pattern with what takes its place, or a whole step. */
type Rule = readonly [RegExp, string] | ((text: string) => string)

/**
 * Puts the full stop that ends a text (before closing marks and blanks) apart, as `([^.])(\.)([closers]*)\s*$` does.
 * Read from the end: closers may be blanks too, so that the pattern itself would be quadratic in a run of blanks.
 */
function lastStop(text: string, closers: string, gap: string): string {
  const end = stripEnd(text).length
  let stop = end
  while (stop > 0 && closers.includes(text[stop - 1]!)) stop--
  if (stop < 2 || text[stop - 1] !== "." || text[stop - 2] === ".") return text
  // A blank among the closers belongs to them, however far behind: the pattern gives them all that they can take.
  let close = stop
  while (close < text.length && closers.includes(text[close]!)) close++
  return `${text.slice(0, stop - 1)} .${gap}${text.slice(stop, close)} `
}

const quotes: readonly Rule[] = [
  [pythonPattern("([«“‘„]|[`]+)"), " $1 "],
  [/^"/gu, "``"],
  [/``/gu, " `` "],
  [/([ ([{<])("|'{2})/gu, "$1 `` "],
  [pythonPattern(String.raw`(')(?!re|ve|ll|m|t|s|d|n)(\w)\b`, { ignoreCase: true }), "$1 $2"],
]
const marks: readonly Rule[] = [
  (text) => lastStop(text, "])}>\"'»”’ ", " "),
  [pythonPattern(String.raw`([:,])([^\d])`), " $1 $2"],
  [pythonPattern("([:,])$"), " $1 "],
  [/\.{2,}|[;@#$%&]/gu, " $& "],
  (text) => lastStop(text, "])}>\"'", ""),
  [/[?!]/gu, " $& "],
  [/([^'])' /gu, "$1 ' "],
  [/[*\][(){}<>]|--/gu, " $& "],
]
const endings: readonly Rule[] = [
  [/[»”’]|''/gu, " $& "],
  [/"/gu, " '' "],
  [pythonPattern(String.raw`\s+`), " "],
  [/([^' ])('[sS]|'[mM]|'[dD]|') /gu, "$1 $2 "],
  [/([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) /gu, "$1 $2 "],
  ...["(can)(not)", "(d)('ye)", "(gim)(me)", "(gon)(na)", "(got)(ta)", "(lem)(me)", "(more)('n)"].map(
    (pair): Rule => [pythonPattern(String.raw`\b${pair}\b`, { ignoreCase: true }), " $1 $2 "],
  ),
  [pythonPattern(String.raw`\b(wan)(na)(?=\s)`, { ignoreCase: true }), " $1 $2 "],
  [pythonPattern(String.raw` ('t)(is|was)\b`, { ignoreCase: true }), " $1 $2 "],
]

/** Words as NLTK's `word_tokenize` parts them: sentence by sentence by the rules of the Penn Treebank. */
export const words = (text: string): string[] => sentences(text).flatMap(wordsOf)

function wordsOf(sentence: string): string[] {
  const apply = (from: string, rules: readonly Rule[]) =>
    rules.reduce((now, rule) => (typeof rule === "function" ? rule(now) : now.replace(...rule)), from)
  return splitBlanks(apply(` ${apply(apply(sentence, quotes), marks)} `, endings))
}

/** Words wholly in capitals, those with a hyphen counting once. */
export const countCapitalWords = (text: string) =>
  sentences(text)
    .filter((sentence) => /\p{Uppercase}/u.test(sentence))
    .flatMap(wordsOf)
    .filter(isUpper).length
