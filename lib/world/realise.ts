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

/** What becomes of a constraint that is not kept. */
type Lapse = "forgets" | "errs"

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
  lapse: Lapse = "forgets",
): string {
  const writer = new Writer(spec.constraints, spec.constraints.map(keep), lapse, random.int(2 ** 32))
  const subject = writer.wanted("topic")[0] ?? writer.draw("topic").pick(kinds.topic.values)
  const hero = ["the", writer.slot("attribute", 0.15), subject].filter((part) => part).join(" ")
  const count = writer.count()
  const end = writer.slot("end", 0.05)
  const deeds = writer.deeds(count, end)
  const sentences = inGroups(deeds, Math.min(count, deeds.length)).map(
    (group, i) => `${i === 0 ? hero : pronouns.get(subject)!} ${listed(group)}`,
  )
  const spare = writer.draw("filler").sample(fillers, count - sentences.length)
  sentences.splice(end ? sentences.length - 1 : sentences.length, 0, ...spare)
  const opener = writer.slot("begin", 0.1)
  if (opener) sentences[0] = `${opener}, ${sentences[0]}`

  const mark = marks[writer.mark()]
  const text = sentences.map((sentence) => `${upperFirst(sentence)}${mark}`).join(" ")
  const [letters] = writer.wanted("case")
  if (letters === "small letters") return text.toLowerCase()
  return letters === "first word" ? text.replace(/^[A-Za-z]+/, (word) => word.toUpperCase()) : text
}

/** Who makes the choices of a text, with the constraints in mind that are heeded. */
class Writer {
  private readonly must: readonly Constraint[]
  private readonly banned: ReadonlySet<string>

  constructor(
    private readonly constraints: readonly Constraint[],
    private readonly heeded: readonly boolean[],
    private readonly lapse: Lapse,
    private readonly key: number,
  ) {
    this.must = constraints.filter(({ negated }, i) => (heeded[i] ? !negated : negated && lapse === "errs"))
    this.banned = new Set(constraints.filter(({ negated }, i) => negated && heeded[i]).map(({ value }) => value))
  }

  draw(name: string): Rng {
    return rng(this.key, name)
  }

  wanted(kind: KindName): string[] {
    return this.must.filter((item) => item.kind === kind).map(({ value }) => value)
  }

  /**
   * The wanted value; else, sometimes, any that is not banned: more often where another was banned, or where a writer
   * errs.
   */
  slot(kind: KindName, chance: number): string | undefined {
    const [value] = this.wanted(kind)
    if (value) return value
    const stream = this.draw(kind)
    const isMinded = (item: Constraint, i: number) => item.kind === kind && (this.heeded[i] || this.lapse === "errs")
    const likely = this.constraints.some(isMinded) ? 0.5 : chance
    return stream.next() < likely ? this.allowed(stream, kinds[kind].values) : undefined
  }

  /** Any value; where one is banned the first ones more often, so that there is a favourite to say in its place. */
  private allowed(stream: Rng, values: readonly string[]): string {
    const others = values.filter((value) => !this.banned.has(value))
    return others.length < values.length ? favourite(stream, others) : stream.pick(values)
  }

  /** Number of sentences. */
  count(): number {
    const [wanted] = this.wanted("sentences")
    return counts.indexOf(wanted ?? otherCount(this.banned) ?? this.draw("sentences").pick(counts.slice(0, 3))) + 1
  }

  /** What the hero does, in order; place, company and time may spread over the first two deeds. */
  deeds(count: number, end: string | undefined): string[] {
    const where = this.circumstances()
    const [move, second] = this.draw("move").sample(moves, 2)
    const cut = count > 1 && this.draw("cut").next() < 0.3 ? Math.max(1, where.length - 1) : where.length
    const deeds = [[move, ...where.slice(0, cut)].join(" ")]
    if (cut < where.length) deeds.push([second, ...where.slice(cut)].join(" "))
    const verbs = this.draw("meet").sample(meets, 3)
    deeds.push(...this.wanted("word").map((word, i) => `${verbs[i]} the ${word}`))
    if (end) deeds.push(`${this.draw("close").pick(closes)} the ${end}`)
    if (deeds.length === 1 && count === 1) deeds.push(this.draw("rest").pick(rests))
    return deeds
  }

  /** Place, company and time. */
  private circumstances(): string[] {
    const [setting, company, time] = [this.slot("setting", 0.15), this.slot("company", 0.05), this.slot("time", 0.1)]
    const where = [
      setting && `in the ${setting}`,
      company && `with ${withArticle(company)}`,
      time && timePhrases.get(time),
    ].filter((part) => part !== undefined)
    return where.length < 2 ? [...where, "for a long while"] : where
  }

  /** Name of the mark that ends the sentences. */
  mark(): string {
    const usual = this.draw("mark").next() < 0.75 ? "period" : "exclamation mark"
    const names = [usual, ...kinds.mark.values]
    return this.wanted("mark")[0] ?? names.find((name) => !this.banned.has(name))!
  }
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
