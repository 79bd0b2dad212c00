import type { Scoring } from "../benchmark"
import { type Language, length, pieces, SPACE, sentences, strip, WORD } from "./text"

/** What a rule is told besides the answer. */
export interface RuleContext {
  language: Language
  level: number
  target: string
  scoring: Scoring
}

/** Whether an answer satisfies its instruction. */
export type Rule = (answer: string, context: RuleContext) => boolean

/**
 * The rule of format group 22 (both languages) or 30 (English; the Chinese one is judged); undefined for all others.
 */
export function formatRule(exampleId: number, language: "en" | "zh"): Rule | undefined {
  const choose = (official: Rule, corrected: Rule): Rule => {
    return (answer, context) => (context.scoring === "official" ? official : corrected)(answer, context)
  }
  if (exampleId === 22) return choose(table, correctedTable)
  if (exampleId === 30 && language === "en") return choose(speech, correctedSpeech)
  return undefined
}

const words = (text: string, { language }: RuleContext) => (language === "en" ? pieces(text).length : length(text))
const marker = new RegExp(`^[${SPACE}]*\\p{Nd}+\\.`, "u")
const said = { en: "Those are suggestions", zh: "这些是建议" }

/**
 * 22, officially: exactly three paragraphs (four at level 5); at most two sentences in each of the first three; every
 * sentence longer than 20 words (zh: characters); paragraphs start with "1." and so on; the answer ends with the
 * phrase. The stop of "1." ends a sentence of one word, so no English answer passes levels 4 and 5, and the CSL ends at
 * 3.
 */
const table: Rule = (answer, context) => {
  const { language, level, scoring } = context
  const paragraphs = answer.split("\n\n")
  const conditions = [
    () => paragraphs.length === (level === 5 ? 4 : 3),
    () => paragraphs.slice(0, 3).every((one) => sentences(one, language, scoring).length < 3),
    () => sentences(answer, language, scoring).every((one) => words(one, context) > 20),
    () => paragraphs.every((one) => !strip(one) || marker.test(one)),
    () => answer.endsWith(said[language]),
  ]
  return conditions.slice(0, level).every((holds) => holds())
}

/**
 * 22, corrected: three paragraphs at every level; markers ("1." or "1)") and, at level 5, the closing phrase, which may
 * end with a stop and stand apart, are taken off before anything is counted. The Chinese levels 2 and 3 allow three
 * sentences.
 */
const correctedTable: Rule = (answer, context) => {
  const { language, level, scoring } = context
  const phrase = new RegExp(`${said[language]}['"’”]?[.!。！]?['"’”]?$`, "i")
  const body = level === 5 ? answer.replace(phrase, "") : answer
  const paragraphs = body.split(/\n\s*\n/).filter((one) => /[\p{L}\p{N}]/u.test(one))
  const parts = paragraphs.map((one) => sentences(one.replace(/^\s*\d+[.)、．]/, ""), language, scoring))
  const most = language === "zh" && level < 4 ? 3 : 2
  const conditions = [
    () => paragraphs.length === 3,
    () => parts.every((part) => part.length <= most),
    () => parts.flat().every((one) => words(strip(one), context) > 20),
    () => paragraphs.every((one) => /^\s*\d+[.)、．]/.test(one)),
    () => phrase.test(answer),
  ]
  return conditions.slice(0, level).every((holds) => holds())
}

const speechSentence = new RegExp(`(?<!${WORD}\\.${WORD}[^\\n])(?<![A-Z][a-z]\\.)(?<=[.?])[${SPACE}]`, "u")

/**
 * 30, officially: "**"; exactly five times "**", a digit and a later colon on the same line; fewer than two stops
 * within a sentence that holds "1." to "5."; every sentence of 10 to 15 words; no word ends with "-ly", hyphen
 * included, so that the last one never fails. The stop of "1." counts, so a point passes from level 3 on only if it
 * ends without a stop. The order is not that of the instructions, which ask for the keyword last.
 */
const speech: Rule = (answer, { level }) => {
  const parts = answer.split(speechSentence)
  const counts = parts.map((one) => pieces(one).length)
  const conditions = [
    () => answer.includes("**"),
    () => answer.match(/\*\*\p{Nd}[^\n]+?:/gu)?.length === 5,
    () => parts.filter((one) => /[1-5]\./.test(one)).every((one) => one.split(".").length < 3),
    () => counts.every((count) => count >= 10 && count <= 15),
    () => !parts.some((one) => pieces(one).some((word) => word.endsWith("-ly"))),
  ]
  return conditions.slice(0, level).every((holds) => holds())
}

/**
 * 30, corrected, in the order of the instructions: "**"; at most one sentence in each point (a line with "**"); every
 * sentence of 10 to 15 words; no word spelt with -ly at its end; exactly five points, each a keyword between "**" and
 * then the detail. List markers and asterisks are no words.
 */
const correctedSpeech: Rule = (answer, { level, language, scoring }) => {
  const plain = (line: string) => line.replaceAll("*", "").replace(/^\s*(?:[-•#]+\s*)?(?:\d+[.)]\s*)?/, "")
  const split = (line: string) => sentences(plain(line), language, scoring)
  const lines = answer.split("\n")
  const points = lines.filter((line) => line.includes("**"))
  const conditions = [
    () => points.length > 0,
    () => points.every((line) => split(line).length < 2),
    () => lines.flatMap(split).every((one) => pieces(one).length >= 10 && pieces(one).length <= 15),
    () => !/\p{L}ly(?![\p{L}\p{N}_])/iu.test(answer),
    () => points.length === 5 && points.every((line) => /\*\*[^*]*\p{L}[^*]*\*\*[^*]*\p{L}/u.test(line)),
  ]
  return conditions.slice(0, level).every((holds) => holds())
}
