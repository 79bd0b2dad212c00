import type { Scoring } from "../benchmark"
import { formatRule, type Rule } from "./format-rules"
import { isLower, type Language, length, NUMERALS, PUNCTUATION, pieces, SPACE, sentences, strip, WORD } from "./text"

/**
 * The rule that checks the answers of a group, or undefined where a judge must. Rules are those of the official code,
 * by `source` (content, situation, mixed), `example_id` (format) or for all (example). Under `corrected`, white space
 * around an answer is dropped first, and each quirk marked below is fixed.
 */
export function ruleOf(category: string, source: string, exampleId: number, language: Language): Rule | undefined {
  const rule =
    category === "example"
      ? template
      : category === "format"
        ? formatRule(exampleId, language)
        : Object.hasOwn(bySource, source)
          ? bySource[source]
          : undefined
  if (!rule) return undefined
  return (answer, context) => rule(context.scoring === "corrected" ? strip(answer) : answer, context)
}

/** The strings of a Python list literal; undefined for any other text. */
export function pythonStrings(literal: string): string[] | undefined {
  const string = `'(?:[^'\\\\\\n]|\\\\.)*'|"(?:[^"\\\\\\n]|\\\\.)*"`
  if (!new RegExp(`^\\[\\s*(?:(?:${string})\\s*(?:,\\s*(?!$)|(?=\\])))*\\]$`).test(literal)) return undefined
  return [...literal.matchAll(new RegExp(string, "g"))].map(([found]) => found.slice(1, -1).replace(/\\(.)/g, "$1"))
}

const same: Rule = (answer, { target }) => answer === target

/** The last match of a pattern is the target. */
const lastIs =
  (pattern: RegExp | Record<Language, RegExp>): Rule =>
  (answer, { target, language }) => {
    const matches = answer.match(pattern instanceof RegExp ? pattern : pattern[language])
    return matches?.at(-1) === target
  }

/**
 * Every line is one of the target's. Corrected: and `level` different ones are there, as asked; officially one is
 * enough.
 */
const events: Rule = (answer, { target, level, scoring }) => {
  const lines = answer.split("\n")
  const allowed = target.split("\n")
  if (scoring === "official") return lines.every((line) => allowed.includes(line))
  const said = new Set(lines.map(strip).filter((line) => line))
  return said.size === level && [...said].every((line) => allowed.map(strip).includes(line))
}

/**
 * The answer has the form of the template, with anything but a newline for `{answer}`: the form is checked, never the
 * answer itself.
 */
const template: Rule = (answer, { target }) => {
  const parts = target.replace("{instruction}\n", "").replaceAll("{{", "{").replaceAll("}}", "}").split("{answer}")
  const escaped = parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"))
  return new RegExp(`^(?:${escaped.join("[^\\n]*")})$`, "u").test(answer)
}

interface Answer {
  text: string
  sentences: string[]
  /** Words (en; officially what stands between blanks) or characters (zh). */
  size: number
}

/** What the five summaries of `mixed` ask, where the languages differ. */
interface Summary {
  has(text: string, word: string): boolean
  size(text: string): number
  /** Below or up to a limit. */
  within(size: number, limit: number, scoring: Scoring): boolean
  marks: Record<Scoring, RegExp>
  cast: readonly [string, string, string]
  lavish: string
  perfect: RegExp
  place: string
  continuous: RegExp
  operation: string
  stuff: string
  procrastinating: RegExp
  plain: Record<Scoring, (text: string) => boolean>
  bus: string
  inside: Record<Scoring, (text: string) => boolean>
  we: string
  activations: string
}

const bounded = (pattern: string) => new RegExp(`(?<!${WORD})${pattern}(?!${WORD})`, "u")

/** Corrected, for both languages: the official sets lack marks such as ’ or ！. */
const anyMark = new RegExp(`[${PUNCTUATION}\\p{P}]`, "gu")

const summary: Record<Language, Summary> = {
  en: {
    has: (text, word) => bounded(word).test(text),
    size: (text) => pieces(text).length,
    within: (size, limit) => size < limit,
    marks: { official: new RegExp(`[${PUNCTUATION}]`, "gu"), corrected: anyMark },
    cast: ["Potter", "actor", "films"],
    lavish: "lavish",
    perfect: new RegExp(`(?<!${WORD})(?:has|have)[${SPACE}]+${WORD}`, "u"),
    place: "Newton Stewart",
    continuous: bounded(`(?:am|is|are)[${SPACE}]+${WORD}+ing`),
    operation: "operation",
    stuff: "stuff",
    procrastinating: /procrast/i,
    plain: { official: isLower, corrected: isLower },
    bus: "bus",
    inside: { official: (text) => bounded("in").test(text), corrected: (text) => bounded("in").test(text) },
    we: "We",
    activations: "activations",
  },
  zh: {
    has: (text, word) => text.includes(word),
    size: length,
    // The instructions say 不超过, at most, where the official code wants less.
    within: (size, limit, scoring) => (scoring === "official" ? size < limit : size <= limit),
    marks: { official: new RegExp(`[${PUNCTUATION}，。：’“”]`, "gu"), corrected: anyMark },
    cast: ["波特", "演员", "电影"],
    lavish: "奢侈",
    perfect: /了/,
    place: "牛顿斯图尔特",
    continuous: /在/,
    operation: "操作",
    stuff: "琐碎的",
    procrastinating: /拖沓的/,
    // The instruction bans Arabic numerals; the official code takes Chinese ones for such.
    plain: {
      official: (text) => !new RegExp(`[\\p{N}${NUMERALS}]`, "u").test(text),
      corrected: (text) => !/\p{Nd}/u.test(text),
    },
    bus: "公交车",
    // The instruction bans 在; the official code wants it.
    inside: { official: (text) => text.includes("在"), corrected: (text) => !text.includes("在") },
    we: "我们",
    activations: "激活",
  },
}

type Condition = (answer: Answer, words: Summary, scoring: Scoring) => boolean

const sentenceCount =
  (n: number): Condition =>
  ({ sentences }) =>
    sentences.length === n
const shorter =
  (limit: number): Condition =>
  ({ size }, words, scoring) =>
    words.within(size, limit, scoring)
const markCount = ({ text }: Answer, words: Summary, scoring: Scoring) => text.match(words.marks[scoring])?.length ?? 0

/** One condition a level; all up to the level must hold. */
const summaries: Record<string, Condition[]> = {
  cnn_dailymail: [
    sentenceCount(3),
    ({ sentences }, words, scoring) => sentences.every((one) => words.within(words.size(one), 15, scoring)),
    ({ sentences }, words) => words.cast.every((name, index) => words.has(sentences[index] ?? "", name)),
    ({ sentences }, words) => !words.has(sentences[1] ?? "", words.lavish),
    ({ sentences }, words) => words.perfect.test(sentences[2] ?? ""),
  ],
  xsum: [
    sentenceCount(1),
    shorter(20),
    ({ text }, words) => !words.has(text, words.place),
    ({ text }, words) => words.continuous.test(text),
    ({ text }, words) => words.has(text, words.operation),
  ],
  samsum: [
    sentenceCount(1),
    shorter(15),
    ({ text }, words) => words.has(text, words.stuff),
    ({ text }, words) => !words.procrastinating.test(text),
    (answer, words, scoring) => markCount(answer, words, scoring) === 1,
  ],
  gigaword: [
    ({ size }) => size === 8,
    (answer, words, scoring) => markCount(answer, words, scoring) === 0,
    ({ text }, words, scoring) => words.plain[scoring](text),
    ({ text }, words) => !words.has(text, words.bus),
    ({ text }, words, scoring) => words.inside[scoring](text),
  ],
  arxiv: [
    sentenceCount(1),
    ({ size }) => size <= 20,
    ({ text }, words) => text.startsWith(words.we),
    ({ text }, words) => words.has(text, words.activations),
    ({ text }, words) => !words.has(text, "transformer"),
  ],
}

const cumulative =
  (conditions: readonly Condition[]): Rule =>
  (text, { language, level, scoring }) => {
    const words = summary[language]
    const size = scoring === "official" && language === "en" ? text.split(" ").length : words.size(text)
    const answer = { text, size, sentences: sentences(text, language, scoring) }
    return conditions.slice(0, level).every((holds) => holds(answer, words, scoring))
  }

const bySource: Record<string, Rule> = {
  E2E: same,
  text_editing: same,
  CONLL2003: (answer, { target }) => !!pythonStrings(target)?.includes(answer),
  WIKIEVENTS: events,
  BBH_logical: lastIs(/\([A-Z]\)/g),
  BBH_time: lastIs(/\p{Nd}{2}\/\p{Nd}{2}\/\p{Nd}{4}/gu),
  gsm_8k: lastIs({ en: /\$\p{Nd}+/gu, zh: /\p{Nd}+美元/gu }),
  self_made_space: (answer, { target }) => answer.includes(target),
  ...Object.fromEntries(Object.entries(summaries).map(([name, conditions]) => [name, cumulative(conditions)])),
}
