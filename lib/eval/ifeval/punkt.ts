import { isLower, isUpper, pythonPattern, stripEnd } from "../python"
import { englishModel, type PunktModel } from "./english"

const repeated = String.raw`(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)`
const curly = String.raw`\u2018\u2019\u201c\u201d\xab\xbb`

/** The patterns of Punkt, given which quotes close a sentence beside the straight ones. */
function patterns(quotes: string) {
  const closing = String.raw`[)";}\]*:@'({\[?!${quotes}]`
  const word = String.raw`(?=[^("\`{\[:;&#*@)}\]\-,])\S+?(?=\s|$|${closing}|${repeated}|,(?=$|\s|${closing}|${repeated}))`
  return {
    ends: pythonPattern(String.raw`[.?!](?=(${closing}|\s+(\S+)))`),
    tokens: pythonPattern(String.raw`(${repeated}|${word}|\S)`),
    closers: pythonPattern(String.raw`^["')\]}${quotes}]+?(?:\s+|(?=--)|(?=\n|$))`),
  }
}
type Patterns = ReturnType<typeof patterns>
const straightQuotes = patterns("")
const curlyQuotes = patterns(curly)

const number = /^-?[.,]?\p{Nd}[\p{Nd},.-]*\.?$/u
const initial = /^[\p{L}\p{Nl}\p{No}_]\.$/u
const punctuation = new Set([";", ":", ",", ".", "!", "?"])

interface Token {
  text: string
  type: string
  abbreviation: boolean
  ellipsis: boolean
  ends: boolean
}

export interface PunktOptions {
  model?: PunktModel
  /** Whether curly and angle quotes close a sentence too, as in NLTK from 3.10 on. */
  curly?: boolean
}

/**
 * Sentences, without the blanks between them, as NLTK 3.9 has them with its English Punkt model (Kiss and Strunk 2006,
 * "Unsupervised multilingual sentence boundary detection": abbreviations, then collocations, orthography of the next
 * word, frequent starters, initials and ordinals).
 */
export function sentences(text: string, { model = englishModel(), curly = false }: PunktOptions = {}): string[] {
  const found: string[] = []
  const rules = curly ? curlyQuotes : straightQuotes
  const { closers } = rules
  const spans = spansOf(text, model, rules)
  let moved = 0
  spans.forEach(({ from, to }, i) => {
    const start = from + moved
    moved = 0
    const next = spans[i + 1]
    closers.lastIndex = 0
    const closer = next && closers.exec(text.slice(next.from, next.to))?.[0]
    if (closer) moved = closer.length
    const end = closer ? next.from + stripEnd(closer).length : to
    if (closer || start < to) found.push(text.slice(start, end))
  })
  return found
}

interface Span {
  from: number
  to: number
}

/** Pieces between the ends of sentences, closing quotes and brackets not yet moved back. */
function spansOf(text: string, model: PunktModel, rules: Patterns): Span[] {
  const spans: Span[] = []
  let from = 0
  for (const { at, context, next } of candidates(text, rules)) {
    if (!hasBreak(context, model, rules)) continue
    spans.push({ from, to: at + 1 })
    from = next ?? at + 1
  }
  return [...spans, { from, to: Math.max(from, stripEnd(text).length) }]
}

interface Candidate {
  /** Where the closing mark stands. */
  at: number
  /** The word before it, the mark, and what follows. */
  context: string
  /** Where the next word starts, if a blank follows. */
  next?: number
}

/** Marks that may end a sentence; of several in one word the last. */
function candidates(text: string, { ends }: Patterns): Candidate[] {
  const found: Candidate[] = []
  let before: Span & { match?: RegExpMatchArray } = { from: 0, to: 0 }
  const take = () => {
    const { from, to, match } = before
    if (!match) return
    const [mark, after = "", next] = match
    const start = next === undefined ? undefined : to + mark.length + after.length - next.length
    found.push({ at: to, context: text.slice(from, to) + mark + after, next: start })
  }
  for (const match of text.matchAll(ends)) {
    const to = match.index
    const blank = lastBlank(text.slice(before.to, to))
    const from = blank > 0 ? before.to + blank + 1 : before.from
    if (before.to <= from) take()
    before = { from, to, match }
  }
  take()
  return found
}

const lastBlank = (text: string) => {
  for (let at = text.length - 1; at > 0; at--) if (" \t\n\r\v\f".includes(text[at]!)) return at
  return 0
}

/** Whether some word before the last one ends a sentence. */
function hasBreak(context: string, model: PunktModel, { tokens }: Patterns): boolean {
  const words = context.split("\n").flatMap((line) => line.match(tokens) ?? [])
  const found = words.map((text) => classify(text, model))
  return found.slice(0, -1).some((token, i) => endsSentence(token, found[i + 1]!, model))
}

/** A word by itself: Punkt's first pass. */
function classify(text: string, { abbreviations }: PunktModel): Token {
  const lower = text.toLowerCase()
  const type = lower.replace(number, "##number##")
  const ellipsis = /^\.\.+$/.test(text)
  const mark = text === "." || text === "?" || text === "!"
  const dotted = !mark && !ellipsis && text.endsWith(".") && !text.endsWith("..")
  const stem = lower.slice(0, -1)
  const abbreviation = dotted && (abbreviations.has(stem) || abbreviations.has(stem.split("-").at(-1)!))
  return { text, type, abbreviation, ellipsis, ends: mark || (dotted && !abbreviation) }
}

const stemOf = (type: string) => (type.length > 1 && type.endsWith(".") ? type.slice(0, -1) : type)

/** A word and the one after it: Punkt's second pass. */
function endsSentence(token: Token, next: Token, model: PunktModel): boolean {
  if (!token.text.endsWith(".")) return token.ends
  const type = stemOf(token.type)
  const nextType = next.ends ? stemOf(next.type) : next.type
  if (model.collocations.has(`${type} ${nextType}`)) return false
  const [first = ""] = next.text
  const starts = startsSentence(next.text, nextType, model)
  const isInitial = initial.test(token.text)
  if ((token.abbreviation || token.ellipsis) && !isInitial) {
    if (starts || (isUpper(first) && model.starters.has(nextType))) return true
  }
  if (isInitial || type === "##number##") {
    if (starts === false) return false
    if (starts === undefined && isInitial && isUpper(first) && !model.ordinary.has(nextType)) return false
  }
  return token.ends
}

/**
 * What the spelling of a word says of its place: true at the start of a sentence, false inside, undefined if nothing.
 */
function startsSentence(text: string, type: string, model: PunktModel): boolean | undefined {
  if (punctuation.has(text)) return false
  const [first = ""] = text
  if (isUpper(first) && model.ordinary.has(type) && !model.capitalised.has(type)) return true
  if (isLower(first) && !model.small.has(type)) return false
  return undefined
}
