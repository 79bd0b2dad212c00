import { expect, test } from "vitest"
import { allConstraints } from "../../lib/world/inverse"
import { type KindName, kindNames, kinds, questionOf, satisfies } from "../../lib/world/kinds"

/** Per kind: a value, texts that have the property, texts that have not. */
const cases: [KindName, string, string[], string[]][] = [
  ["topic", "sailor", ["The sailor slept.", "THE SAILOR SLEPT."], ["", "The sailors slept.", "The tailor slept."]],
  [
    "sentences",
    "two",
    ["A b. C d.", "A b! C d?", "A b... C d.", "A b. C d"],
    ["", "A b.", "A b. C d. E f.", "A b, c d.", "A b. ."],
  ],
  ["sentences", "one", ["The sailor slept.", "The sailor slept"], ["", "...", "A b. C d."]],
  ["word", "storm", ["He saw the storm.", "Storm!", "on a storm-lit sea"], ["", "He saw the storms.", "brainstorm"]],
  ["begin", "Quietly", ["Quietly, he slept.", "QUIETLY he slept.", '"quietly" he said'], ["", "He slept Quietly."]],
  [
    "end",
    "lantern",
    ["He saw the lantern.", "He saw the Lantern!!", "lantern"],
    ["", "The lantern fell.", "He saw lanterns."],
  ],
  ["case", "small letters", ["the sailor slept.", "on monday, 3 men."], ["", "...", "The sailor slept.", "the Sailor"]],
  [
    "case",
    "first word",
    ["THE sailor slept.", "QUIETLY, he slept.", '"THE sailor"', "THE SAILOR"],
    ["", "The sailor slept.", "A sailor slept.", "the SAILOR", "THe sailor"],
  ],
  [
    "setting",
    "harbor",
    ["He slept in the harbor.", "In a harbor, he slept.", "IN THE HARBOR"],
    ["", "He left the harbor.", "in the old harbor", "in the harbors", "within the harbor"],
  ],
  [
    "attribute",
    "brave",
    ["The brave sailor slept.", "He was Brave."],
    ["", "Bravely, he slept.", "the bravest sailor"],
  ],
  ["time", "dawn", ["He slept at dawn.", "At dawn, he slept."], ["", "He saw the dawn.", "at dawns"]],
  ["time", "storm", ["He slept during the storm."], ["He saw the storm."]],
  ["time", "Monday", ["on Monday", "on monday"], ["Monday"]],
  ["company", "apple", ["He slept with an apple.", "with the apple"], ["", "He saw an apple.", "without an apple"]],
  ["mark", "exclamation mark", ["A b!", "A b! C d! "], ["", "A b.", "A b! C d.", "A b! C d", "A b!!", "A b?!"]],
  ["mark", "period", ["A b. C d."], ["A b... C d.", "A b! C d."]],
]

test.each(cases)("%s %s holds for exactly the texts that have the property", (kind, value, good, bad) => {
  for (const text of good) expect([text, kinds[kind].holds(value, text)]).toEqual([text, true])
  for (const text of bad) expect([text, kinds[kind].holds(value, text)]).toEqual([text, false])
})

test("the cases above cover every kind", () => {
  expect(new Set(cases.map(([kind]) => kind))).toEqual(new Set(kindNames))
})

test("a ban is kept by exactly the texts that break the wish", () => {
  for (const [kind, value, good, bad] of cases) {
    for (const text of [...good, ...bad]) {
      expect(satisfies({ kind, value, negated: true }, text)).toBe(!satisfies({ kind, value, negated: false }, text))
    }
  }
})

test("no two constraints share a question, and no two share a clause", () => {
  const questions = allConstraints.map(questionOf)
  expect(new Set(questions).size).toBe(questions.length)
  const clauses = allConstraints.flatMap(({ kind, value, negated }) => kinds[kind].clauses(value, negated))
  expect(new Set(clauses).size).toBe(clauses.length)
})

test("every constraint but the topic can be worded in at least two ways, both as a wish and as a ban", () => {
  for (const { kind, value, negated } of allConstraints.filter((item) => item.kind !== "topic")) {
    expect(kinds[kind].clauses(value, negated).length).toBeGreaterThanOrEqual(2)
  }
})
