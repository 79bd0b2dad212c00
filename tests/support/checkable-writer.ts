import { type Constraint, satisfies } from "../../lib/checkable/kinds"

/** Plain sentences; those with a banned word are passed over. */
const plain = [
  "The old man went to the village and came back with a very small bag",
  "She said that nothing of this had been seen before",
  "They all agreed that this was the best way to do it",
  "Most people would have done the same thing without any doubt",
  "Nobody had thought about it until the next day",
]

/**
 * An answer that keeps all constraints, found by trying lengths; undefined where there is none. It shows that the
 * constraints of an instruction can be kept together. Knows nothing of how the checks are written but calls them.
 */
export function writeAnswer(constraints: readonly Constraint[]): string | undefined {
  const banned = constraints.filter(({ negated, kind }) => kind === "word" && negated).map(({ value }) => value)
  const usable = plain.filter((line) => !banned.some((word) => new RegExp(`\\b${word}\\b`, "i").test(line)))
  for (let sentences = 0; sentences <= 6; sentences++) {
    for (let words = 0; words <= 60; words += 4) {
      const text = compose(constraints, usable, sentences, words)
      if (constraints.every((item) => satisfies(item, text))) return text
    }
  }
  return undefined
}

function compose(
  constraints: readonly Constraint[],
  usable: readonly string[],
  sentences: number,
  words: number,
): string {
  const wanted = constraints.filter(({ negated }) => !negated)
  const value = (kind: Constraint["kind"]) => wanted.find((item) => item.kind === kind)?.value
  const times = (kind: "frequency" | "letter") =>
    wanted
      .filter((item) => item.kind === kind)
      .flatMap((item) => {
        const [what, n] = item.value.split(" ")
        return Array<string>(Number(n)).fill(kind === "letter" ? `so${what}` : what!)
      })
  const mark = (name: string) => wanted.some((item) => item.kind === "punctuation" && item.value === name)
  const many = (kind: Constraint["kind"], piece: string) => Array<string>(Number(value(kind) ?? 0)).fill(piece)
  const pieces = [
    ...(value("begin") ? [value("begin")!] : []),
    ...(value("title") ? ["<<so it is>>"] : []),
    ...wanted.filter(({ kind }) => kind === "word").map((item) => item.value),
    ...times("frequency"),
    ...times("letter"),
    ...many("placeholders", "[name]"),
    ...many("highlights", "*this*"),
    ...many("capital words", "SO"),
    ...(mark("commas") ? ["so,so"] : []),
    ...(mark("question marks") ? ["so?so"] : []),
    ...(mark("exclamation marks") ? ["so!so"] : []),
    ...(mark("digits") ? ["7"] : []),
    ...(mark("parentheses") ? ["(so)"] : []),
  ]
  const filler = usable.join(" ").toLowerCase().split(" ").slice(0, words)
  const first = `${[...pieces, ...filler].join(" ") || "So it is"}.`
  const rest = Array.from({ length: sentences }, (_, i) => `${usable[i % usable.length]}.`)
  const body = [first, ...rest].join(" ")
  const list = (head: (i: number) => string, n: number) =>
    `${first}\n${Array.from({ length: n }, (_, i) => `${head(i)}${rest[i] ?? "So it is."}`).join("\n")}`
  const laid = value("bullets")
    ? list(() => "* ", Number(value("bullets")))
    : value("numbered list")
      ? list((i) => `${i + 1}. `, Number(value("numbered list")))
      : value("headed parts")
        ? list((i) => `Part ${i + 1}\n`, Number(value("headed parts")))
        : value("divided parts")
          ? [body, ...Array.from({ length: Number(value("divided parts")) - 1 }, () => "So it is.")].join("\n***\n")
          : body
  const several = constraints.some(({ kind, negated }) => kind === "single line" && negated)
    ? `${laid}\nSo it is.`
    : laid
  const last = value("postscript") ? `${value("postscript")} so` : value("end") ? `${value("end")}.` : ""
  const closed = last ? `${several} ${last}` : value("final question") ? `${several.replace(/\.$/, "")}?` : several
  const quoted = value("quotation") ? `"${closed}"` : value("JSON") ? JSON.stringify({ text: closed }) : closed
  const letters = value("case")
  return letters === "capital" ? quoted.toUpperCase() : letters === "small" ? quoted.toLowerCase() : quoted
}
