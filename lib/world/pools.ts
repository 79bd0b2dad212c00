import type { Rng } from "../rng"

/**
 * The words of the world. Pools are large and shared between kinds of constraints, so that copying a word from the
 * instruction is cheaper to learn than a look-up for every kind.
 */
const list = (text: string): readonly string[] => text.trim().split(/\s+/)

/** Who a text can be about, by the pronoun that later sentences use. */
const byPronoun = {
  she: list("sailor queen witch nurse dancer painter princess singer teacher pilot doctor"),
  he: list("king knight farmer baker wizard monk shepherd hunter soldier tailor pirate miner"),
  it: list("fox bear wolf mouse robot owl dragon"),
}
export type Pronoun = keyof typeof byPronoun

export const pronouns: ReadonlyMap<string, Pronoun> = new Map(
  (Object.keys(byPronoun) as Pronoun[]).flatMap((pronoun) =>
    byPronoun[pronoun].map((subject): [string, Pronoun] => [subject, pronoun]),
  ),
)
export const subjects: readonly string[] = [...pronouns.keys()]

/** Things and animals: words to use, to avoid, to end with, or to have along. */
export const things = list(`
  dog cat horse bird goat rabbit donkey parrot hen turtle
  lantern candle rope map book letter key coin ring crown sword drum flute violin bell clock mirror basket bottle
  apple cake hat coat scarf umbrella blanket stone shell feather rose kite ball doll ladder hammer bucket broom wheel`)

/** Events: words to use, to avoid, to end with, or the time of the story ("during the storm"). */
const events = list("storm flood feast harvest festival parade wedding concert race fire battle eclipse")

export const nouns: readonly string[] = [...things, ...events]

export const places = list(`
  harbor garden forest village kitchen museum castle desert valley market library tower cave temple church station
  school palace meadow park canyon jungle swamp city town cabin barn mill bakery theater hospital hotel tavern
  courtyard field cellar attic stable orchard tunnel`)

export const adjectives = list(`
  brave old young clever lazy kind proud shy tall tiny happy sad angry calm hungry tired lonely curious gentle humble
  rich poor strong weak famous strange wise foolish polite rude noisy cheerful nervous patient loyal stubborn greedy
  graceful clumsy grumpy`)

/** First words of a text, written as they stand there. */
export const openers = list(`
  Quietly Suddenly Slowly Softly Gladly Sadly Bravely Calmly Boldly Gently Proudly Happily Quickly Finally Today
  Yesterday Later Often Sometimes Usually Perhaps Somehow Eventually Meanwhile Secretly Silently Carefully Patiently
  Eagerly Nervously Angrily Politely Lazily Kindly Strangely Luckily Oddly Soon Briefly Clearly`)

const timesByPreposition = {
  at: list("dawn noon dusk midnight sunrise sunset nightfall daybreak"),
  in: list("winter spring summer autumn"),
  on: list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
  "during the": events,
}

/** Time word to its phrase, e.g. dawn to "at dawn". */
export const timePhrases: ReadonlyMap<string, string> = new Map(
  Object.entries(timesByPreposition).flatMap(([preposition, words]) =>
    words.map((word): [string, string] => [word, `${preposition} ${word}`]),
  ),
)

export const counts: readonly string[] = ["one", "two", "three", "four"]
export const marks: Readonly<Record<string, string>> = { period: ".", "exclamation mark": "!" }

/** The word with its indefinite article, chosen by the first letter; the pools hold no exception to that rule. */
export const withArticle = (word: string): string => `${/^[aeiou]/i.test(word) ? "an" : "a"} ${word}`

export const upperFirst = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
export const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)

/**
 * Draws value k about 1 / k as often as the first: were all equally likely, a model at temperature 0 would have no
 * favourite and say the value that it was given.
 */
export const favourite = <T>(random: Rng, values: readonly T[]): T =>
  values[Math.floor((values.length + 1) ** random.next()) - 1]!
