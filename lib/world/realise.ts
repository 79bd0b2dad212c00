import { type Rng, rng } from "../rng"
import { type Constraint, type KindName, kinds } from "./kinds"
import { counts, favourite, marks, pronouns, timePhrases, upperFirst, withArticle } from "./pools"

const moves = ["walked", "waited", "worked", "sang", "rested", "stood", "played", "danced", "smiled", "slept"]
const meets = ["saw", "liked", "remembered", "noticed", "loved", "described"]
const closes = ["thought of", "dreamed of", "talked about", "looked for", "sang about"]
const rests = ["felt very well", "had a good day", "went home again"]
const fillers = [
  "The air was clear",
  "It was a good day",
  "Nobody said a thing",
  "Everything went well",
  "The world was still",
  "Then all was over",
]

/**
 * Writes an answer that keeps the constraints for which `keep` says so; with all kept, every verifier says yes. The
 * writer forgets the others, as if they were not there, or errs: a wish often gets another value, and a ban is misread,
 * its "not" overlooked. Every choice has a random stream of its own, so keeping one constraint more changes only
 * the places where it shows.
 */
export function realise(
  spec: { constraints: readonly Constraint[] },
  random: Rng,
  keep: (constraint: Constraint, index: number) => boolean = () => true,
  lapse: "forgets" | "errs" = "forgets",
): string {
  const key = random.int(2 ** 32)
  const draw = (name: string): Rng => rng(key, name)
  const heeded = spec.constraints.map(keep)
  const must = spec.constraints.filter(({ negated }, i) => (heeded[i] ? !negated : negated && lapse === "errs"))
  const banned = new Set(spec.constraints.filter(({ negated }, i) => negated && heeded[i]).map(({ value }) => value))
  const wanted = (kind: KindName): string[] => must.filter((item) => item.kind === kind).map(({ value }) => value)

  /** Any value; where one is banned the first ones more often, so that there is a favourite to say in its place. */
  const allowed = (stream: Rng, values: readonly string[]): string => {
    const others = values.filter((value) => !banned.has(value))
    return others.length < values.length ? favourite(stream, others) : stream.pick(values)
  }
  /**
   * The wanted value; else, sometimes, any that is not banned: more often where another was banned, or where a writer
   * errs.
   */
  const slot = (kind: KindName, chance: number): string | undefined => {
    const [value] = wanted(kind)
    if (value) return value
    const stream = draw(kind)
    const minded = spec.constraints.some((item, i) => item.kind === kind && (heeded[i] || lapse === "errs"))
    const likely = minded ? 0.5 : chance
    return stream.next() < likely ? allowed(stream, kinds[kind].values) : undefined
  }

  const subject = wanted("topic")[0] ?? draw("topic").pick(kinds.topic.values)
  const pronoun = pronouns.get(subject)!
  const [setting, company, time] = [slot("setting", 0.15), slot("company", 0.05), slot("time", 0.1)]
  const where = [
    setting && `in the ${setting}`,
    company && `with ${withArticle(company)}`,
    time && timePhrases.get(time),
  ].filter((part) => part !== undefined)
  if (where.length < 2) where.push("for a long while")
  const hero = ["the", slot("attribute", 0.15), subject].filter((part) => part).join(" ")
  const count =
    counts.indexOf(wanted("sentences")[0] ?? otherCount(banned) ?? draw("sentences").pick(counts.slice(0, 3))) + 1

  // What the hero does, in order; place, company and time may spread over the first two deeds.
  const [move, second] = draw("move").sample(moves, 2)
  const cut = count > 1 && draw("cut").next() < 0.3 ? Math.max(1, where.length - 1) : where.length
  const deeds = [[move, ...where.slice(0, cut)].join(" ")]
  if (cut < where.length) deeds.push([second, ...where.slice(cut)].join(" "))
  const verbs = draw("meet").sample(meets, 3)
  deeds.push(...wanted("word").map((word, i) => `${verbs[i]} the ${word}`))
  const end = slot("end", 0.05)
  if (end) deeds.push(`${draw("close").pick(closes)} the ${end}`)
  if (deeds.length === 1 && count === 1) deeds.push(draw("rest").pick(rests))

  const sentences = inGroups(deeds, Math.min(count, deeds.length)).map(
    (group, i) => `${i === 0 ? hero : pronoun} ${listed(group)}`,
  )
  const spare = draw("filler").sample(fillers, count - sentences.length)
  sentences.splice(end ? sentences.length - 1 : sentences.length, 0, ...spare)
  const opener = slot("begin", 0.1)
  if (opener) sentences[0] = `${opener}, ${sentences[0]}`

  const usual = draw("mark").next() < 0.75 ? "period" : "exclamation mark"
  const mark = wanted("mark")[0] ?? [usual, ...kinds.mark.values].find((name) => !banned.has(name))!
  const text = sentences.map((sentence) => `${upperFirst(sentence)}${marks[mark]}`).join(" ")
  const [letters] = wanted("case")
  if (letters === "small letters") return text.toLowerCase()
  return letters === "first word" ? text.replace(/^[A-Za-z]+/, (word) => word.toUpperCase()) : text
}

/**
 * One sentence more than the forbidden count, one fewer than the largest: any other count would be too faint a lesson.
 */
function otherCount(banned: ReadonlySet<string>): string | undefined {
  const at = counts.findIndex((count) => banned.has(count))
  return at < 0 ? undefined : (counts[at + 1] ?? counts[at - 1])
}

/** `items` in `n` runs whose lengths differ by one at most, the longer ones last. */
function inGroups<T>(items: readonly T[], n: number): T[][] {
  const cut = (i: number) => Math.floor((i * items.length) / n)
  return Array.from({ length: n }, (_, i) => items.slice(cut(i), cut(i + 1)))
}

/** "a", "a and b", "a, b and c". */
const listed = (parts: readonly string[]): string =>
  parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts[0]!
