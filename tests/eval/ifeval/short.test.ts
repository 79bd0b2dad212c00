import { readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { checks } from "../../../lib/eval/ifeval/checks"
import { sentences } from "../../../lib/eval/ifeval/punkt"
import { countBullets, countPlaceholders, titles } from "../../../lib/eval/ifeval/spans"
import { words } from "../../../lib/eval/ifeval/words"
import { strip } from "../../../lib/eval/python"

interface Marks {
  text: string
  bullets: number
  placeholders: number
  highlights: number
  title: boolean
  quotation: boolean
  stripped: string
}

/** Written by `tests/reference/ifeval.py short`: NLTK 3.9.2 with all of its English model, and lm-eval 0.4.13. */
const expected = JSON.parse(readFileSync(join(__dirname, "../../fixtures/ifeval/short.json"), "utf8")) as {
  marks: Marks[]
  sentences: [text: string, sentences: number, words: string[]][]
}
const follows = (id: string, text: string, kwargs: Record<string, unknown> = {}) =>
  checks[id]!.follows(text, kwargs, "official")

describe("short texts", () => {
  it("have as many sentences as NLTK says, whatever word follows an ellipsis, an abbreviation or an initial", () => {
    expect(expected.sentences.length).toBeGreaterThan(100)
    const ours = expected.sentences.map(([text]) => [text, sentences(text).length])
    expect(ours).toEqual(expected.sentences.map(([text, count]) => [text, count]))
    expect(sentences("Well... Silence fell.").length).toBe(2)
  })

  it("are parted into the words of NLTK", () => {
    const ours = expected.sentences.map(([text]) => words(text))
    expect(ours).toEqual(expected.sentences.map(([, , parted]) => parted))
  })

  it("have the bullets, placeholders, highlights, titles and quotes that lm-eval finds among marks and blanks", () => {
    const highlights = (text: string) => {
      let n = 0
      while (follows("detectable_format:number_highlighted_sections", text, { num_highlights: n + 1 })) n++
      return n
    }
    const ours = expected.marks.map(({ text }) => ({
      text,
      bullets: countBullets(text, "*") + countBullets(text, "-"),
      placeholders: countPlaceholders(text),
      highlights: highlights(text),
      title: follows("detectable_format:title", text),
      quotation: follows("startend:quotation", text),
      stripped: strip(text),
    }))
    expect(ours).toEqual(expected.marks)
    expect(titles("<<a>> <<b>>")).toEqual(["<<a>> <<b>>"])
  })
})
