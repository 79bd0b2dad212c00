import type { Scoring } from "../benchmark"
import { pythonJson } from "../python"

/**
 * "unknown": not a rule of the language. Official scoring counts it as failed in the overall rate, as kept by
 * dimension.
 */
export type RuleVerdict = boolean | "unknown"

/**
 * Decides a rule on the objects that were extracted from a response (none: what the rule is about is absent).
 *
 * A rule is `name:value`, or several of them on lines of their own, of which all must hold. Names with `model_` are
 * about the extracted text as it stands, those with `_each` about every extracted object (empty ones are passed over),
 * all others also hold when they hold without a pair of outer quotes. Before texts are compared ASCII punctuation is
 * mapped to full width and curly quotes to straight ones. Lengths are in code points or in words parted by blanks.
 *
 * Official scoring keeps the published quirks: five `model_` rules map the punctuation of the value but not of the
 * text; `keyword_num_each` keeps the blanks around keywords; `match` maps the text but not the value; an empty entry of
 * a list counts as found everywhere; a text that holds "None" counts as absent for rules without `model_`; such rules
 * with "model" or "each" anywhere in them are unknown; braces inside JSON strings count. Corrected scoring maps both
 * sides, trims and drops empty entries, and tries a text with and without its quotes everywhere (what forbids must then
 * hold for both). The published code looks for the name anywhere in the rule and stops with an error on `keyword` with
 * `forbidden_word` on two lines and on values that it cannot read; here the name is what stands before the colon, all
 * lines count, and a value that cannot be read makes the rule unknown.
 */
export function checkRule(rule: string, objects: readonly string[], scoring: Scoring): RuleVerdict {
  const official = scoring === "official"
  const parts = partsOf(rule)
  const first = parts[0]
  if (!first) return "unknown"
  const model = first.name.startsWith("model_")
  if (official && !model && /model|each/.test(rule)) return "unknown"
  const blanks = official && parts.some(({ name }) => name === "model_keyword_num_each")
  const tests = parts.map(({ name, value }) => {
    const test = testOf(name.replace(/^model_/, "").replace(/_each$/, ""), value, { official, blanks })
    const unmapped = name === "Json" || (official && (blanks || UNMAPPED.has(name)))
    return { forbids: /forbidden|not/.test(name), test: test && ((text: string) => test(unmapped ? text : fold(text))) }
  })
  if (tests.some(({ test }) => !test)) return "unknown"

  const nothing = tests.every(({ forbids }) => forbids)
  const absent = (text: string) => official && !model && (text === "" || text.includes("None"))
  if (objects.every((text) => text === "") && objects.length < 2) return nothing
  if (first.name === "model_number_each") return within(rangeOf(first.value), objects.length)
  if (first.name === "model_starts_with_list_each") {
    const starts = listOf(first.value, true, true)!
    const begins = (text: string, i: number) => text === "" || fold(text).startsWith(fold(starts[i]!))
    return objects.length === starts.length && objects.every(begins)
  }

  const forms = !official || !model ? EITHER : (FORMS[first.name] ?? [asIs])
  return objectsOf(first.name, objects).every((text) => {
    const holds = ({ test }: (typeof tests)[number], form: (text: string) => string) =>
      absent(form(text)) ? nothing : test!(form(text))
    if (official) return forms.some((form) => tests.every((one) => holds(one, form)))
    return tests.every((one) =>
      one.forbids ? forms.every((form) => holds(one, form)) : forms.some((form) => holds(one, form)),
    )
  })
}

const PLAIN = [
  "keyword",
  "forbidden_word",
  "startswith",
  "endswith",
  "not endswith",
  "match",
  "length",
  "length_word",
  "constraint_punc",
  "Json",
]
const MODEL = [
  ...["keyword", "keyword_num", "forbidden_word", "length", "length_word", "startswith", "endswith"],
  ...["not_startswith", "not_endswith", "constraint_punc"],
  ...["keyword_each", "keyword_num_each", "forbidden_word_each", "number_each", "length_each", "length_word_each"],
  ...["startswith_each", "endswith_each", "not_endswith_each", "constraint_punc_each", "starts_with_list_each"],
].map((name) => `model_${name}`)
/** No name is the start of another one with its colon, so the order of alternatives does not matter. */
const PART = new RegExp(`(?:^|\\n)(${[...PLAIN, ...MODEL].join("|")}):`, "g")

/** The lines of a rule; none when it does not start with a known name. A value may hold newlines. */
function partsOf(rule: string): { name: string; value: string }[] {
  const heads = [...rule.matchAll(PART)]
  if (heads[0]?.index !== 0) return []
  return heads.map((head, i) => ({
    name: head[1]!,
    value: rule.slice(head.index + head[0].length, heads[i + 1]?.index).replace(/\n$/, ""),
  }))
}

/** Whether the official code compares the text of this rule without mapping its punctuation. */
const UNMAPPED = new Set(["model_keyword", "model_keyword_num", "model_forbidden_word", "model_constraint_punc"])

const asIs = (text: string) => text
const EITHER = [unquote, asIs]
/** Forms of the text that official `model_` rules try; only as it is where not listed. */
const FORMS: Readonly<Record<string, readonly ((text: string) => string)[]>> = {
  model_length: EITHER,
  model_length_each: EITHER,
  model_length_word: EITHER,
  model_length_word_each: EITHER,
  model_endswith_each: [(text) => unquote(fold(text)), asIs],
  model_constraint_punc_each: [(text) => unquote(fold(text)), asIs],
  model_constraint_punc: [unquote],
}

/**
 * What a rule looks at: the first object, or with `_each` all that are not empty; the last of several need not end so.
 */
function objectsOf(name: string, objects: readonly string[]): readonly string[] {
  if (!name.endsWith("_each")) return objects.slice(0, 1)
  const some = name === "model_endswith_each" && objects.length > 1 ? objects.slice(0, -1) : objects
  return some.filter((text) => text !== "")
}

/** The test of one text, undefined when the value cannot be read. */
function testOf(
  name: string,
  value: string,
  { official, blanks }: { official: boolean; blanks: boolean },
): ((text: string) => boolean) | undefined {
  const list = listOf(value, !blanks, official)
  const words = list?.map(fold)
  const range = rangeOf(value)
  const wanted = fold(value)
  const ends = (text: string) => ["", "。", "？"].some((mark) => text.endsWith(wanted + mark))
  switch (name) {
    case "keyword":
      return words && ((text) => words.every((word) => text.includes(word)))
    case "forbidden_word":
      return words && ((text) => !words.some((word) => text.includes(word)))
    case "keyword_num": {
      const [least, most, ...keys] = words ?? []
      if (!/^\s*\d+\s*$/.test(least ?? "") || !/^\s*\d+\s*$/.test(most ?? "")) return undefined
      return (text) => within([Number(least), Number(most)], keys.filter((key) => text.includes(key)).length)
    }
    case "startswith":
      return (text) => text.startsWith(wanted)
    case "not_startswith":
      return (text) => !text.startsWith(wanted)
    case "endswith":
      return ends
    case "not endswith":
    case "not_endswith":
      return (text) => !ends(text)
    case "match": {
      const exact = official ? value : wanted
      return (text) => text === exact || text === `${exact}。`
    }
    case "length":
      return range && ((text) => within(range, [...text].length))
    case "length_word":
      return range && ((text) => within(range, text.split(/\s+/).filter(Boolean).length))
    case "constraint_punc":
      return words && ((text) => [...PUNCTUATION].every((mark) => !text.includes(mark) || words.includes(mark)))
    case "Json": {
      const keys = /^\[.*\]$/s.test(value)
        ? [...value.matchAll(/(["'])(.*?)\1/gs)].map((match) => match[2]!)
        : undefined
      return keys && ((text) => isObjectOf(text, keys.filter(Boolean), official))
    }
    case "number":
      return range && (() => true)
    case "starts_with_list":
      return list && (() => true)
    default:
      return undefined
  }
}

const within = (range: readonly [number, number] | undefined, n: number) => !!range && n >= range[0] && n <= range[1]

/** `[a,b]`, both ends included. */
function rangeOf(value: string): [number, number] | undefined {
  const match = /^\[\s*(\d+)\s*,\s*(\d+)\s*,?\s*\]$/.exec(value)
  return match ? [Number(match[1]), Number(match[2])] : undefined
}

/** `[a,b,...]`: entries without quotes, parted by ASCII commas. */
function listOf(value: string, trim: boolean, keepEmpty: boolean): string[] | undefined {
  if (!/^\[.*\]$/.test(value)) return undefined
  const entries = value.replace(/^[[\]]+|[[\]]+$/g, "").split(",")
  const trimmed = trim ? entries.map((entry) => entry.trim()) : entries
  return keepEmpty ? trimmed : trimmed.filter(Boolean)
}

const ASCII = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
const PUNCTUATION = "！\"＃＄％＆'（）＊+，-。/：；<=>？@[＼]＾_`{|}~"
const WIDE = new Map([...ASCII].map((mark, i) => [mark, [...PUNCTUATION][i]!]))

/** ASCII punctuation as Chinese texts have it (some of it stays as it is), curly double quotes straight. */
function fold(text: string): string {
  return text.replace(/[!-/:-@[-`{-~]/g, (mark) => WIDE.get(mark)!).replace(/[“”]/g, '"')
}

/** Without leading newlines and one pair of outer double quotes or back-ticks, where there is one. */
function unquote(text: string): string {
  const rest = text.replace(/^\n+/, "")
  const [first = "", last = ""] = [rest[0], rest.at(-1)]
  return '"“`'.includes(first) && '"”`'.includes(last) && first ? rest.slice(1, -1) : rest
}

/**
 * Whether the first balanced {...} is a JSON object (as Python reads it, NaN included) with exactly these keys, or with
 * any when there are none.
 */
function isObjectOf(text: string, keys: readonly string[], official: boolean): boolean {
  const value = pythonJson(firstObject(text, official))?.value
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false
  const own = Object.keys(value)
  return !keys.length || (own.length === keys.length && keys.every((key) => own.includes(key)))
}

/** The first balanced {...}; official scoring also counts the braces inside strings and those that close nothing. */
function firstObject(text: string, official: boolean): string {
  let [depth, start, inString] = [0, 0, false]
  for (let i = 0; i < text.length; i++) {
    const mark = text[i]
    if (!official && depth && mark === '"') inString = !inString
    else if (inString && mark === "\\") i++
    else if (mark === "{" && !inString) {
      if (depth++ === 0) start = i
    } else if (mark === "}" && !inString && (official || depth)) {
      if (--depth === 0) return text.slice(start, i + 1)
    }
  }
  return ""
}
