import { atLeast, follows, type Kind, numberWords } from "./kind"

export type FormKind =
  | "case"
  | "capital words"
  | "punctuation"
  | "bullets"
  | "numbered list"
  | "divided parts"
  | "headed parts"
  | "single line"
  | "JSON"
  | "title"
  | "postscript"
  | "quotation"
  | "placeholders"
  | "highlights"

const numbers =
  (...list: number[]) =>
  () =>
    list.map(String)
const some = (value: string) => numberWords[Number(value)]!

/** Marks that a text may hold or lack, and what shows them. */
const marks: Readonly<Record<string, { one: string; shown: RegExp }>> = {
  commas: { one: "comma", shown: /,/ },
  "question marks": { one: "question mark", shown: /\?/ },
  "exclamation marks": { one: "exclamation mark", shown: /!/ },
  digits: { one: "digit", shown: /\p{Nd}/u },
  parentheses: { one: "pair of parentheses", shown: /\([^()]*\)/ },
}

const numberedOf = (text: string) => (text.match(/^[ \t]*\d+[.)][ \t]+\S/gm) ?? []).length

/** Constraints on letters, marks, layout and additions. */
export const formKinds: Readonly<Record<FormKind, Kind>> = {
  case: {
    family: "case",
    share: 4,
    negated: 0,
    values: () => ["small", "capital"],
    ask: (value, negated) =>
      negated
        ? [`Do not write everything in ${value} letters`, `The answer must not be only in ${value} letters`]
        : [`Write everything in ${value} letters`, `Use only ${value} letters`],
    question: (value, negated) => `Is the answer ${negated ? "not " : ""}entirely in ${value} letters?`,
    label: (value, negated) => `${negated ? "not " : ""}only ${value} letters`,
    holds: (value, text) =>
      follows(value === "small" ? "change_case:english_lowercase" : "change_case:english_capital", {}, text),
    claims: () => ["case"],
  },
  "capital words": {
    family: "case",
    share: 2,
    negated: 0,
    values: numbers(1, 2, 3),
    ask: (value, negated) => {
      const what = `${some(value)} ${value === "1" ? "word" : "words"} entirely in capital letters`
      return negated
        ? [`Write fewer than ${what}`, `There must be fewer than ${what}`]
        : [`Write at least ${what}`, `At least ${some(value)} of the words must be entirely in capital letters`]
    },
    question: (value, negated) =>
      `${value === "1" ? "Is" : "Are"} ${negated ? "fewer than" : "at least"} ${some(value)} of the words entirely in capital letters?`,
    label: (_, negated) => (negated ? "few words in capitals" : "n words in capitals"),
    holds: (value, text) =>
      follows(
        "change_case:capital_word_frequency",
        { capital_frequency: Number(value), capital_relation: "at least" },
        text,
      ),
    entails: atLeast,
    claims: () => ["case"],
  },
  punctuation: {
    family: "punctuation",
    share: 7,
    negated: 0.65,
    values: () => Object.keys(marks),
    ask: (value, negated) =>
      negated
        ? [`Do not use any ${value}`, `Write without ${value}`, `There must be no ${value} in the answer`]
        : [`Use at least one ${marks[value]!.one}`, `There must be at least one ${marks[value]!.one} in the answer`],
    question: (value, negated) =>
      `Does the answer ${negated ? `have no ${value}` : `have at least one ${marks[value]!.one}`}?`,
    label: (value, negated) => `${negated ? "no" : "some"} ${value}`,
    holds: (value, text) => marks[value]!.shown.test(text),
    lacks: (value, text) =>
      value === "commas"
        ? follows("punctuation:no_comma", {}, text)
        : !(value === "parentheses" ? /[()]/ : marks[value]!.shown).test(text),
    claims: (value) => [value],
  },
  bullets: {
    family: "layout",
    share: 4,
    negated: 0,
    values: numbers(2, 3, 4),
    ask: (value, negated) =>
      negated
        ? ["Do not use bullet points", "The answer must have no bullet points"]
        : [
            `Write exactly ${some(value)} bullet points, each behind a "*"`,
            `Use ${some(value)} bullet points, no more and no fewer, such as "* This is a point"`,
          ],
    question: (value, negated) =>
      negated ? "Is the answer free of bullet points?" : `Does the answer have exactly ${some(value)} bullet points?`,
    label: (_, negated) => (negated ? "no bullets" : "n bullets"),
    holds: (value, text) => follows("detectable_format:number_bullet_lists", { num_bullets: Number(value) }, text),
    lacks: (_, text) => !/^[ \t]*[*-][ \t]+\S/m.test(text),
    claims: () => ["layout", "units"],
  },
  "numbered list": {
    family: "layout",
    share: 2,
    negated: 0,
    values: numbers(2, 3, 4),
    ask: (value, negated) =>
      negated
        ? ["Do not number anything", "The answer must have no numbered list"]
        : [
            `Write a numbered list of exactly ${some(value)} items`,
            `Answer in a numbered list with ${some(value)} items`,
          ],
    question: (value, negated) =>
      negated ? "Is the answer free of numbered lists?" : `Does the answer number exactly ${some(value)} items?`,
    label: (_, negated) => (negated ? "no numbered list" : "list of n items"),
    holds: (value, text) => numberedOf(text) === Number(value),
    lacks: (_, text) => numberedOf(text) === 0,
    claims: () => ["layout", "units", "digits"],
  },
  "divided parts": {
    family: "layout",
    share: 2,
    negated: 0,
    values: numbers(2, 3),
    ask: (value, negated) =>
      negated
        ? [
            `Do not divide the answer into ${some(value)} parts by ***`,
            `The answer must not have ${some(value)} parts with *** between them`,
          ]
        : [
            `Write ${some(value)} paragraphs and put *** between them`,
            `Divide the answer into ${some(value)} paragraphs by ***`,
          ],
    question: (value, negated) =>
      `Does the answer ${negated ? "not have" : "have"} ${some(value)} paragraphs with *** between them?`,
    label: (_, negated) => (negated ? "not n parts by ***" : "n parts by ***"),
    holds: (value, text) => follows("length_constraints:number_paragraphs", { num_paragraphs: Number(value) }, text),
    claims: () => ["layout", "units"],
  },
  "headed parts": {
    family: "layout",
    share: 2,
    negated: 0,
    values: numbers(2, 3),
    ask: (value, negated) =>
      negated
        ? [
            `Write fewer than ${some(value)} parts that are headed Part 1 and so on`,
            `Do not head ${some(value)} parts with Part 1 and so on`,
          ]
        : [
            `Write ${some(value)} parts and head them Part 1, Part 2 and so on`,
            `The answer must have ${some(value)} parts, headed Part 1, Part 2 and so on`,
          ],
    question: (value, negated) =>
      `Does the answer have ${negated ? "fewer than" : "at least"} ${some(value)} parts headed Part 1, Part 2 and so on?`,
    label: (_, negated) => (negated ? "few headed parts" : "n headed parts"),
    holds: (value, text) =>
      follows("detectable_format:multiple_sections", { section_spliter: "Part", num_sections: Number(value) }, text),
    entails: atLeast,
    claims: () => ["layout", "units", "case", "digits"],
  },
  "single line": {
    family: "layout",
    share: 2,
    negated: 0,
    values: () => ["1"],
    ask: (_, negated) =>
      negated
        ? ["Write more than one paragraph", "Start a new line at least once"]
        : ["Write a single paragraph", "Write everything in one paragraph without a line break"],
    question: (_, negated) =>
      `Does the answer have ${negated ? "more than one paragraph or line" : "a single paragraph and no line break"}?`,
    label: (_, negated) => (negated ? "several lines" : "single paragraph"),
    holds: (_, text) => !text.trim().includes("\n"),
    claims: () => ["layout"],
  },
  JSON: {
    family: "layout",
    share: 1,
    negated: 0,
    values: () => ["object"],
    ask: (_, negated) =>
      negated
        ? ["Do not answer in JSON", "The answer must not be JSON"]
        : ["Write the whole answer in JSON", "The whole answer must be valid JSON"],
    question: (_, negated) => `Is the whole answer ${negated ? "not " : ""}valid JSON?`,
    label: (_, negated) => (negated ? "no JSON" : "JSON"),
    holds: (_, text) => follows("detectable_format:json_format", {}, text),
    claims: () => ["layout", "units", "start", "end", "title", "commas", "highlights", "length", "case"],
  },
  title: {
    family: "addition",
    share: 3,
    negated: 0,
    values: () => ["<<>>"],
    ask: (_, negated) =>
      negated
        ? ["Do not give the answer a title in double angle brackets", "There must be no title such as <<title>>"]
        : [
            "Give the answer a title in double angle brackets, such as <<my title>>",
            "Add a title and write it as <<title>>",
          ],
    question: (_, negated) => `Does the answer have ${negated ? "no title" : "a title"} in double angle brackets?`,
    label: (_, negated) => (negated ? "no <<title>>" : "<<title>>"),
    holds: (_, text) => follows("detectable_format:title", {}, text),
    claims: () => ["title"],
  },
  postscript: {
    family: "addition",
    share: 3,
    negated: 0,
    values: () => ["P.S.", "P.P.S"],
    ask: (value, negated) =>
      negated
        ? [`Do not add a postscript with ${value}`, `There must be no postscript that starts with ${value}`]
        : [
            `Add a postscript that starts with ${value}`,
            `After your answer, write a postscript that begins with ${value}`,
          ],
    question: (value, negated) => `Does the answer have ${negated ? "no" : "a"} postscript that starts with ${value}?`,
    label: (_, negated) => (negated ? "no postscript" : "postscript"),
    holds: (value, text) => follows("detectable_content:postscript", { postscript_marker: value }, text),
    claims: () => ["end"],
  },
  quotation: {
    family: "addition",
    share: 2,
    negated: 0,
    values: () => ['"'],
    ask: (_, negated) =>
      negated
        ? ["Do not put the answer in quotation marks", "The answer must not be wrapped in double quotation marks"]
        : ["Put the whole answer in double quotation marks", "Wrap the whole answer in double quotation marks"],
    question: (_, negated) => `Is the whole answer ${negated ? "not " : ""}in double quotation marks?`,
    label: (_, negated) => (negated ? "not in quotation marks" : "in quotation marks"),
    holds: (_, text) => follows("startend:quotation", {}, text),
    claims: () => ["start", "end", "layout"],
  },
  placeholders: {
    family: "addition",
    share: 3,
    negated: 0,
    values: numbers(1, 2),
    ask: (value, negated) => {
      const what = `${some(value)} ${value === "1" ? "placeholder" : "placeholders"} in square brackets, such as [name]`
      return negated
        ? [`Use fewer than ${what}`, `There must be fewer than ${what}`]
        : [`Use at least ${what}`, `Leave at least ${what}`]
    },
    question: (value, negated) =>
      `Does the answer have ${negated ? "fewer than" : "at least"} ${some(value)} ` +
      `${value === "1" ? "placeholder" : "placeholders"} in square brackets?`,
    label: (_, negated) => (negated ? "few [placeholders]" : "n [placeholders]"),
    holds: (value, text) =>
      follows("detectable_content:number_placeholders", { num_placeholders: Number(value) }, text),
    entails: atLeast,
    claims: () => ["placeholders"],
  },
  highlights: {
    family: "addition",
    share: 3,
    negated: 0,
    values: numbers(1, 2, 3),
    ask: (value, negated) => {
      const what = `${some(value)} ${value === "1" ? "phrase" : "phrases"} with asterisks, like *this*`
      return negated
        ? [`Highlight fewer than ${what}`, `There must be fewer than ${some(value)} phrases highlighted like *this*`]
        : [`Highlight at least ${what}`, `Mark at least ${what}`]
    },
    question: (value, negated) =>
      `Does the answer highlight ${negated ? "fewer than" : "at least"} ${some(value)} ` +
      `${value === "1" ? "phrase" : "phrases"} with asterisks?`,
    label: (_, negated) => (negated ? "few *highlights*" : "n *highlights*"),
    holds: (value, text) =>
      follows("detectable_format:number_highlighted_sections", { num_highlights: Number(value) }, text),
    entails: atLeast,
    claims: () => ["highlights"],
  },
}
