import { describe, expect, it } from "vitest"
import { jsonOf } from "../lib/engine/server-problem"
import { readReply, wordsOf } from "../lib/engine/server-reply"
import { verdicts } from "../lib/eval/followbench/judge"
import { parseConstraints } from "../lib/musc/decompose"
import { wordDiff } from "../lib/plots/diff"
import { splitThoughts } from "../lib/text/thoughts"
import { satisfies } from "../lib/world/kinds"

// A server may send 8 MiB. Each of these made a pattern look from every place to the end: 10 minutes and more for 1 MiB.
const read = (content: string) => readReply({ choices: [{ message: { content } }] })
const refused = (text: string) => {
  expect(() => jsonOf({ status: 200, headers: {}, text })).toThrow("must be JSON")
}
const cases: [string, string, (text: string) => unknown, unknown?][] = [
  ["a reply of end-of-turn tokens", "</s>", (text) => read(`fine ${text}`).text, "fine "],
  ["a reply of blanks and end-of-turn tokens", " <|end|>", (text) => read(`fine${text}x`).text.length],
  ["blocks of thoughts", "<think></think>", (text) => splitThoughts(`${text}fine`).answer, "fine"],
  [
    "blocks of thoughts that speak of their end",
    "<think></think>\n</think>\n",
    (text) => splitThoughts(text).unfinished,
  ],
  [
    "a list of constraints of empty lines",
    "\n",
    (text) => parseConstraints(`${text}1. Is it short?`),
    ["Is it short?"],
  ],
  ["a list of constraints of carriage returns", "\r", (text) => parseConstraints(text), []],
  ["a list of verdicts of brackets", "[", (text) => verdicts(text, 2, "en"), undefined],
  ["an error of angle brackets", "<", (text) => wordsOf({ error: text }).length],
  ["no JSON but angle brackets", "<", refused],
  ["two answers of blanks", " ", (text) => wordDiff(`a${text}b`, `c${text}d`).length],
  [
    "an answer without a full stop",
    "a",
    (text) => satisfies({ kind: "mark", value: "period", negated: false }, `.${text}.`),
  ],
]

describe("a long text", () => {
  it.each(cases)("takes time in proportion to its length: %s", (_, unit, work, expected) => {
    const text = unit.repeat(2 ** 20 / unit.length)
    const start = process.cpuUsage()
    const found = work(text)
    const { user, system } = process.cpuUsage(start)
    expect((user + system) / 1000).toBeLessThan(8000)
    if (expected !== undefined) expect(found).toEqual(expected)
  })
})
