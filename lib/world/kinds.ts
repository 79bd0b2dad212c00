import { adjectives, counts, marks, nouns, openers, places, subjects, things, timePhrases, withArticle } from "./pools"

export const kindNames = [
  "topic",
  "sentences",
  "word",
  "begin",
  "end",
  "case",
  "setting",
  "attribute",
  "time",
  "company",
  "mark",
] as const
export type KindName = (typeof kindNames)[number]

/** A family of constraints: its values, its words in an instruction, its question, and its strict check. */
export interface Kind {
  values: readonly string[]
  /** Every wording as a clause that can stand alone or behind "and", without a full stop. */
  clauses(value: string, negated: boolean): readonly string[]
  /** Wording inside the opening ("Write about a sailor in a harbor"), where there is one. Positive only. */
  inline?(value: string): string
  /** The one yes/no question that means this constraint. */
  question(value: string, negated: boolean): string
  /** Whether the text has the property; a negated constraint asks that it has not. */
  holds(value: string, text: string): boolean
  /** How likely a careless writer heeds such a constraint. */
  heed: number
}

/** Words of a text in lower case, punctuation left out. */
const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z]+/g) ?? []
const sentencesOf = (text: string): string[] => text.split(/[.!?]+/).filter((part) => /[a-z]/i.test(part))
const hasPhrase = (text: string, phrase: string): boolean => new RegExp(`\\b${phrase}\\b`, "i").test(text)

const plural = (count: string): string => `${count} ${count === "one" ? "sentence" : "sentences"}`

const caseWords: Readonly<Record<string, { clauses: [string[], string[]]; questions: [string, string] }>> = {
  "small letters": {
    clauses: [
      ["Write only in small letters", "Use small letters only", "Use no capital letters"],
      ["Do not write only in small letters", "Never use small letters only"],
    ],
    questions: ["Is the text only in small letters?", "Is the text not only in small letters?"],
  },
  "first word": {
    clauses: [
      ["Write the first word in capital letters", "The first word must be in capital letters"],
      ["Do not write the first word in capital letters", "The first word must not be in capital letters"],
    ],
    questions: ["Is the first word in capital letters?", "Is the first word not in capital letters?"],
  },
}

/** The table of constraints. Constraint 0 of every instruction is its topic. */
export const kinds: Readonly<Record<KindName, Kind>> = {
  topic: {
    values: subjects,
    clauses: (value, negated) => [`${negated ? "Do not write" : "Write"} about ${withArticle(value)}`],
    question: (value, negated) => `Is the text ${negated ? "not " : ""}about ${withArticle(value)}?`,
    holds: (value, text) => wordsOf(text).includes(value),
    heed: 1,
  },
  sentences: {
    values: counts,
    clauses: (value, negated) =>
      negated
        ? [`Do not use exactly ${plural(value)}`, `Never write exactly ${plural(value)}`]
        : [`Use exactly ${plural(value)}`, `Write exactly ${plural(value)}`, `Keep it to ${plural(value)}`],
    inline: (value) => `in ${plural(value)}`,
    question: (value, negated) =>
      negated ? `Does the text avoid having exactly ${plural(value)}?` : `Does the text have exactly ${plural(value)}?`,
    holds: (value, text) => sentencesOf(text).length === counts.indexOf(value) + 1,
    heed: 0.45,
  },
  word: {
    values: nouns,
    clauses: (value, negated) =>
      negated
        ? [`Do not use the word ${value}`, `Avoid the word ${value}`, `Never say ${value}`]
        : [`Use the word ${value}`, `Mention the word ${value}`, `Include the word ${value}`],
    question: (value, negated) => `Does the text ${negated ? "avoid" : "use"} the word ${value}?`,
    holds: (value, text) => wordsOf(text).includes(value),
    heed: 0.5,
  },
  begin: {
    values: openers,
    clauses: (value, negated) =>
      negated
        ? [
            `Do not begin with the word ${value}`,
            `Never start with the word ${value}`,
            `The first word must not be ${value}`,
          ]
        : [`Begin with the word ${value}`, `Start with the word ${value}`, `The first word must be ${value}`],
    question: (value, negated) =>
      negated ? `Does the text avoid beginning with the word ${value}?` : `Does the text begin with the word ${value}?`,
    holds: (value, text) => wordsOf(text)[0] === value.toLowerCase(),
    heed: 0.5,
  },
  end: {
    values: nouns,
    clauses: (value, negated) =>
      negated
        ? [
            `Do not end with the word ${value}`,
            `Never finish with the word ${value}`,
            `The last word must not be ${value}`,
          ]
        : [`End with the word ${value}`, `Finish with the word ${value}`, `The last word must be ${value}`],
    question: (value, negated) =>
      negated ? `Does the text avoid ending with the word ${value}?` : `Does the text end with the word ${value}?`,
    holds: (value, text) => wordsOf(text).at(-1) === value,
    heed: 0.45,
  },
  case: {
    values: Object.keys(caseWords),
    clauses: (value, negated) => caseWords[value]!.clauses[negated ? 1 : 0],
    question: (value, negated) => caseWords[value]!.questions[negated ? 1 : 0],
    holds: (value, text) =>
      value === "small letters"
        ? /[a-z]/.test(text) && !/[A-Z]/.test(text)
        : /^[^A-Za-z]*[A-Z]{2,}(?![A-Za-z])/.test(text),
    heed: 0.35,
  },
  setting: {
    values: places,
    clauses: (value, negated) =>
      negated
        ? [`Do not set it in ${withArticle(value)}`, `Never let it happen in ${withArticle(value)}`]
        : [`Set it in ${withArticle(value)}`, `Let it happen in ${withArticle(value)}`],
    inline: (value) => `in ${withArticle(value)}`,
    question: (value, negated) => `Is the story ${negated ? "not " : ""}set in ${withArticle(value)}?`,
    holds: (value, text) => hasPhrase(text, `in (?:an?|the) ${value}`),
    heed: 0.55,
  },
  attribute: {
    values: adjectives,
    clauses: (value, negated) =>
      negated
        ? [`Do not make the hero ${value}`, `The hero must not be ${value}`]
        : [`Make the hero ${value}`, `The hero must be ${value}`],
    inline: (value) => value,
    question: (value, negated) => `Is the hero ${negated ? "not " : ""}${value}?`,
    holds: (value, text) => wordsOf(text).includes(value),
    heed: 0.55,
  },
  time: {
    values: [...timePhrases.keys()],
    clauses: (value, negated) => {
      const phrase = timePhrases.get(value)!
      return negated
        ? [`Never let it happen ${phrase}`, `It must not happen ${phrase}`]
        : [`Let it happen ${phrase}`, `It must happen ${phrase}`]
    },
    inline: (value) => timePhrases.get(value)!,
    question: (value, negated) => `Does the story ${negated ? "not " : ""}happen ${timePhrases.get(value)}?`,
    holds: (value, text) => hasPhrase(text, timePhrases.get(value)!),
    heed: 0.5,
  },
  company: {
    values: things,
    clauses: (value, negated) =>
      negated
        ? [`Do not give the hero ${withArticle(value)}`, `The hero must not have ${withArticle(value)}`]
        : [`Give the hero ${withArticle(value)}`, `The hero must have ${withArticle(value)}`],
    inline: (value) => `with ${withArticle(value)}`,
    question: (value, negated) => `Is the hero ${negated ? "without" : "with"} ${withArticle(value)}?`,
    holds: (value, text) => hasPhrase(text, `with (?:an?|the) ${value}`),
    heed: 0.45,
  },
  mark: {
    values: Object.keys(marks),
    clauses: (value, negated) =>
      negated
        ? [
            `Do not close every sentence with ${withArticle(value)}`,
            `Never put ${withArticle(value)} after every sentence`,
          ]
        : [`Close every sentence with ${withArticle(value)}`, `Put ${withArticle(value)} after every sentence`],
    question: (value, negated) =>
      `Does the text ${negated ? "avoid closing" : "close"} every sentence with ${withArticle(value)}?`,
    holds: (value, text) => {
      const parts = text.trim().match(/[.!?]+|(?<![^.!?])[^.!?]+$/g) ?? []
      return parts.length > 0 && parts.every((mark) => mark === marks[value])
    },
    heed: 0.4,
  },
}

/** One constraint: a kind, one of its values, and whether the text must not have the property. */
export interface Constraint {
  kind: KindName
  value: string
  negated: boolean
}

export const questionOf = ({ kind, value, negated }: Constraint): string => kinds[kind].question(value, negated)

/** Whether a text keeps a constraint: a strict pure function of the text. */
export const satisfies = ({ kind, value, negated }: Constraint, text: string): boolean =>
  kinds[kind].holds(value, text) !== negated

export const negate = (constraint: Constraint): Constraint => ({ ...constraint, negated: !constraint.negated })

export const sameConstraint = (a: Constraint, b: Constraint): boolean =>
  a.kind === b.kind && a.value === b.value && a.negated === b.negated
