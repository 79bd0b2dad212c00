import { amount, entailsAmount, follows, type Kind, numberWords } from "./kind"

export type ContentKind = "word" | "frequency" | "letter" | "sentences" | "words" | "begin" | "end" | "final question"

/** Words that fit no task in particular. */
const anyWords = `lantern pepper velvet compass feather marble ribbon harvest whisper orchard puzzle anchor saddle
  thunder pocket ladder mirror basket copper meadow button pillow garlic canyon walnut blossom hammer island`
  .trim()
  .split(/\s+/)

const openings = [
  ...["Certainly", "In short", "Well", "To begin with", "Let me tell you", "First of all", "Today", "Imagine this"],
  ...["As far as I know", "Good question", "Here is what I think", "Let us see", "Once again", "Believe me"],
]

const endings = [
  ...["That is all I know", "Have a nice day", "I hope this helps", "The end", "Thank you for reading"],
  ...["Think about it", "And that is that", "Take care", "Now it is your turn", "It is as simple as that"],
  ...["I would do it again", "See for yourself"],
]

const wordsOf = (phrase: string) => phrase.toLowerCase().split(" ")
const claimWords = (phrase: string) => wordsOf(phrase).map((word) => `word ${word}`)

/** "light 3": a word and how often. */
const timesOf = (value: string) => {
  const [what, n] = value.split(" ")
  return { what: what!, n: Number(n) }
}

const moreOften = (a: string, b: string) => timesOf(a).what === timesOf(b).what && timesOf(a).n >= timesOf(b).n

const countOf = (check: "sentences" | "words", text: string, value: string): boolean => {
  const { relation, n } = amount(value)
  const holds = (limit: number, how: "at least" | "less than") =>
    check === "sentences"
      ? follows("length_constraints:number_sentences", { num_sentences: limit, relation: how }, text)
      : follows("length_constraints:number_words", { num_words: limit, relation: how }, text)
  return (relation === "at most" || holds(n, "at least")) && (relation === "at least" || holds(n + 1, "less than"))
}

/** Constraints on words, length, beginning and end. */
export const contentKinds: Readonly<Record<ContentKind, Kind>> = {
  word: {
    family: "word",
    share: 10,
    negated: 0.45,
    values: ({ words }) => [...words, ...words, ...anyWords.slice(0, 2 * words.length)],
    ask: (value, negated) =>
      negated
        ? [`Do not use the word "${value}"`, `Avoid the word "${value}"`, `The word "${value}" must not appear`]
        : [`Use the word "${value}"`, `Include the word "${value}" in your answer`, `The word "${value}" must appear`],
    question: (value, negated) => `Does the answer ${negated ? "avoid" : "use"} the word "${value}"?`,
    label: (_, negated) => (negated ? "avoid a word" : "use a word"),
    holds: (value, text) => follows("keywords:existence", { keywords: [String.raw`\b${value}\b`] }, text),
    lacks: (value, text) => follows("keywords:forbidden_words", { forbidden_words: [value] }, text),
    claims: (value) => [`word ${value}`],
  },
  frequency: {
    family: "word",
    share: 4,
    negated: 0,
    values: ({ words }) => words.flatMap((word) => [`${word} 2`, `${word} 3`]),
    ask: (value, negated) => {
      const { what, n } = timesOf(value)
      const times = n === 2 ? "twice" : `${numberWords[n]} times`
      return negated
        ? [`Use the word "${what}" less often than ${times}`, `The word "${what}" must appear fewer than ${n} times`]
        : [`Use the word "${what}" at least ${times}`, `The word "${what}" must appear ${n} or more times`]
    },
    question: (value, negated) => {
      const { what, n } = timesOf(value)
      return `Does the answer use the word "${what}" ${negated ? "fewer than" : "at least"} ${n} times?`
    },
    label: (_, negated) => (negated ? "a word seldom" : "a word several times"),
    holds: (value, text) => {
      const { what, n } = timesOf(value)
      const kwargs = { keyword: String.raw`\b${what}\b`, frequency: n, relation: "at least" }
      return follows("keywords:frequency", kwargs, text)
    },
    entails: moreOften,
    claims: (value) => [`word ${timesOf(value).what}`],
  },
  letter: {
    family: "word",
    share: 2,
    negated: 0,
    values: () => ["q", "x", "z", "j", "v", "k"].flatMap((letter) => [`${letter} 2`, `${letter} 4`]),
    ask: (value, negated) => {
      const { what, n } = timesOf(value)
      return negated
        ? [`Use the letter ${what} fewer than ${n} times`, `The letter ${what} must appear fewer than ${n} times`]
        : [`Use the letter ${what} at least ${n} times`, `The letter ${what} must appear ${n} or more times`]
    },
    question: (value, negated) => {
      const { what, n } = timesOf(value)
      return `Does the letter ${what} appear ${negated ? "fewer than" : "at least"} ${n} times?`
    },
    label: (_, negated) => (negated ? "a letter seldom" : "a letter several times"),
    holds: (value, text) => {
      const { what, n } = timesOf(value)
      const kwargs = { letter: what, let_frequency: n, let_relation: "at least" }
      return follows("keywords:letter_frequency", kwargs, text)
    },
    entails: moreOften,
    claims: (value) => [`letter ${timesOf(value).what}`],
  },
  sentences: {
    family: "length",
    share: 6,
    negated: 0,
    values: () => ["at least 3", "at least 4", "at least 5", "at most 2", "at most 3", "exactly 2", "exactly 3"],
    ask: (value, negated) => {
      const { relation, n } = amount(value)
      const few = numberWords[n]
      if (relation === "exactly")
        return negated
          ? [`Do not write exactly ${few} sentences`, `The answer must not have exactly ${few} sentences`]
          : [`Write exactly ${few} sentences`, `The answer must have exactly ${few} sentences`]
      const least = relation === "at least" ? !negated : negated
      const limit = numberWords[negated ? (least ? n + 1 : n - 1) : n]
      return least
        ? [`Write at least ${limit} sentences`, `The answer must have ${limit} or more sentences`]
        : [`Write at most ${limit} sentences`, `Keep the answer to at most ${limit} sentences`]
    },
    question: (value, negated) => `Does the answer ${negated ? "not have" : "have"} ${value} sentences?`,
    label: (value, negated) => `${negated ? "not " : ""}${value.replace(/ \d+/, "")} n sentences`,
    holds: (value, text) => countOf("sentences", text, value),
    entails: entailsAmount,
    claims: () => ["length", "units"],
  },
  words: {
    family: "length",
    share: 6,
    negated: 0,
    values: () => ["at most 30", "at most 40", "at most 50", "at most 60", "at least 30", "at least 40", "at least 50"],
    ask: (value, negated) => {
      const { relation, n } = amount(value)
      return (relation === "at least" ? !negated : negated)
        ? [
            `Use ${relation === "at least" ? `at least ${n}` : `more than ${n}`} words`,
            `Write ${value.replace(/at most/, "more than")} words`,
          ]
        : [
            `Use ${relation === "at most" ? `at most ${n}` : `fewer than ${n}`} words`,
            `Stay ${relation === "at most" ? "at or below" : "below"} ${n} words`,
          ]
    },
    question: (value, negated) => `Does the answer ${negated ? "not have" : "have"} ${value} words?`,
    label: (value, negated) => `${negated ? "not " : ""}${value.replace(/ \d+/, "")} n words`,
    holds: (value, text) => countOf("words", text, value),
    entails: entailsAmount,
    claims: () => ["length"],
  },
  begin: {
    family: "start",
    share: 5,
    negated: 0,
    values: () => openings,
    ask: (value, negated) =>
      negated
        ? [`Do not begin with "${value}"`, `The answer must not start with "${value}"`]
        : [`Begin with "${value}"`, `Start your answer with "${value}"`, `The answer must start with "${value}"`],
    question: (value, negated) => `Does the answer ${negated ? "not begin" : "begin"} with "${value}"?`,
    label: (_, negated) => (negated ? "not begin with" : "begin with"),
    holds: (value, text) => follows("combination:repeat_prompt", { prompt_to_repeat: value }, text),
    claims: (value) => ["start", ...claimWords(value)],
  },
  end: {
    family: "end",
    share: 4,
    negated: 0,
    values: () => endings,
    ask: (value, negated) =>
      negated
        ? [`Do not end with "${value}."`, `The answer must not finish with "${value}."`]
        : [`End with "${value}."`, `Finish your answer with "${value}."`, `The last words must be "${value}."`],
    question: (value, negated) => `Does the answer ${negated ? "not end" : "end"} with "${value}."?`,
    label: (_, negated) => (negated ? "not end with" : "end with"),
    holds: (value, text) => follows("startend:end_checker", { end_phrase: `${value}.` }, text),
    claims: (value) => ["end", ...claimWords(value)],
  },
  "final question": {
    family: "end",
    share: 2,
    negated: 0,
    values: () => ["?"],
    ask: (_, negated) =>
      negated
        ? ["Do not end with a question", "The last sentence must not be a question"]
        : ["End with a question", "The last sentence must be a question"],
    question: (_, negated) => `Does the answer ${negated ? "not end" : "end"} with a question?`,
    label: (_, negated) => (negated ? "no final question" : "final question"),
    holds: (_, text) => text.trim().endsWith("?"),
    claims: () => ["end", "question marks"],
  },
}
