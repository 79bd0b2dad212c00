import type { Scoring } from "../benchmark"

export { isLower, splitBlanks as pieces, strip } from "../python"

export type Language = "en" | "zh"

/**
 * White space, word character and decimal digit as Python's `re` and `str` know them; JavaScript's differ beyond ASCII.
 */
export const SPACE = "\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
export const WORD = "[\\p{L}\\p{N}_]"
/** Characters, not UTF-16 units. */
export const length = (text: string): number => [...text].length

/** ASCII punctuation, Python's `string.punctuation`, as the inside of a character class. */
export const PUNCTUATION = "!-/:-@\\[-`{-~"

/** Letters with a number value, which Python's `str.isnumeric` takes as well: Chinese numerals (Unicode 14). */
export const NUMERALS =
  "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零" +
  "\uf96b\uf973\uf978\uf9b2\uf9d1\uf9d3\uf9fd𠀁𠁤𠃢𠄡𠤪𠦃𠦌𠦜𠫪𠫽𠬙𢎐𢦘𣬛𦉭\u{2f890}"

const ends = {
  official: { en: /[.!?]/, zh: /[。！？]/ },
  corrected: { en: /(?<![.!?])[.!?]+["'”’)*]*(?=\s|$)/, zh: /(?<![。！？])[。！？]+[”’）*]*/ },
}

/**
 * Sentences. Official: the non-empty pieces between . ! ? (en) or 。！？ (zh), so that a blank or newline after the last
 * one counts as a sentence, and decimals and list markers split. Corrected: an end mark must be followed by white space
 * (en), and a piece without letter or digit is none. Abbreviations split in both.
 */
export function sentences(text: string, language: Language, scoring: Scoring): string[] {
  const pieces = text.split(ends[scoring][language])
  return pieces.filter((piece) => (scoring === "official" ? piece : /[\p{L}\p{N}]/u.test(piece)))
}
