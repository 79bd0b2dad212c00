import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beforeAll, describe, expect, it } from "vitest"
import { checks } from "../../../lib/eval/ifeval/checks"
import { gradeIfeval, ifeval, looseVariants } from "../../../lib/eval/ifeval/ifeval"
import { detectLanguage, loadLanguages } from "../../../lib/eval/ifeval/language"
import { sentences } from "../../../lib/eval/ifeval/punkt"
import { words } from "../../../lib/eval/ifeval/words"
import { foldI, isPythonJson, isUpper, pythonPattern, strip } from "../../../lib/eval/python"

const fixture = join(__dirname, "../../fixtures/ifeval/cases.json")
type Case = [id: string, kwargs: Record<string, unknown>, text: string, verdict: boolean]

function write(...rows: unknown[]) {
  const file = join(mkdtempSync(join(tmpdir(), "ifeval-")), "input_data.jsonl")
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
  return file
}
const row = (key: number, ids: string[], kwargs: unknown[]) => ({
  key,
  prompt: `prompt ${key}`,
  instruction_id_list: ids,
  kwargs,
})

beforeAll(loadLanguages)

describe("checks", () => {
  it("agree with lm-eval on a sample of made-up texts", () => {
    const cases = JSON.parse(readFileSync(fixture, "utf8")) as Case[]
    expect(cases.length).toBeGreaterThan(300)
    expect(new Set(cases.map(([id]) => id)).size).toBe(25)
    const disagree = ([id, kwargs, text, verdict]: Case) =>
      verdict !== (strip(text) !== "" && checks[id]!.follows(text, kwargs, "official"))
    const detector = ([id]: Case) => id === "language:response_language" || id.startsWith("change_case:english")
    expect(cases.filter((one) => !detector(one)).filter(disagree)).toEqual([])
    // another detector than langdetect: scraps of text may come out otherwise
    const detected = cases.filter(detector)
    expect(detected.filter(disagree).length / detected.length).toBeLessThan(0.05)
  })

  it("count the character asked for when corrected, and give the verdict of most letters when official", () => {
    const follows = (text: string, scoring: "official" | "corrected") =>
      checks["keywords:letter_frequency"]!.follows(
        text,
        { letter: "#", let_frequency: 2, let_relation: "at least" },
        scoring,
      )
    expect(follows("#a #b", "corrected")).toBe(true)
    expect(follows("#a #b", "official")).toBe(false) // no letter stands there twice
    // 14 of 26 letters stand twice, then 13: a draw fails
    expect(follows("abcdefghijklmn abcdefghijklmn", "official")).toBe(true)
    expect(follows("abcdefghijklm abcdefghijklm", "official")).toBe(false)
  })

  it("pass text without a detectable language when official and fail it when corrected", () => {
    for (const [text, official] of [
      ["12 + 3 = 15", true],
      ["Guten Morgen, wie geht es Ihnen heute?", false],
    ] as const) {
      const follows = (scoring: "official" | "corrected") =>
        checks["language:response_language"]!.follows(text, { language: "hi" }, scoring)
      expect([follows("official"), follows("corrected")]).toEqual([official, false])
    }
  })

  it("take rules and negative numbers for bullets when official only", () => {
    const follows = (scoring: "official" | "corrected") =>
      checks["detectable_format:number_bullet_lists"]!.follows("* one\n---\n-5\n- two", { num_bullets: 2 }, scoring)
    expect([follows("official"), follows("corrected")]).toEqual([false, true])
  })

  it("count words of Hindi by code points of Python's word class when official", () => {
    // नमस्ते: न म स, the mark ्, त, the mark े; the runs of letters are नमस and त
    const follows = (num_words: number, scoring: "official" | "corrected") =>
      checks["length_constraints:number_words"]!.follows("नमस्ते", { num_words, relation: "at least" }, scoring)
    expect([follows(2, "official"), follows(3, "official")]).toEqual([true, false])
    expect([follows(1, "corrected"), follows(2, "corrected")]).toEqual([true, false])
  })
})

describe("sentences", () => {
  // What NLTK 3.9.2 gives for the same texts.
  it.each([
    ["Dr. Smith lives in Washington, D.C. He left at 5 p.m. yesterday.", 2],
    ["It was e.g. a dog. Etc. and so on.", 4],
    ["Well... maybe. 1. The first. 2. apples", 4],
    ["(One.) Two! Three?! Four", 4],
    ["J. K. Rowling wrote it. No. 5 is alive.", 3],
    ["He said “Go.” Then he went.", 1],
  ])("of %j are as many as Punkt finds", (text, count) => {
    expect(sentences(text)).toHaveLength(count)
  })

  it("end at curly quotes if asked to", () => {
    expect(sentences("He said “Go.” Then he went.", { curly: true })).toEqual(["He said “Go.”", "Then he went."])
  })

  it("are parted into words by the rules of the Penn Treebank", () => {
    expect(words("I CAN'T, CANNOT go (WELL-KNOWN).")).toEqual("I CA N'T , CAN NOT go ( WELL-KNOWN ) .".split(" "))
  })
})

describe("Python's text rules", () => {
  it("hold for blanks, letters and lines", () => {
    expect(strip("\x1c\u3000a\ufeff\x85")).toBe("a\ufeff")
    expect("é1_² -".match(pythonPattern(String.raw`\w+`))).toEqual(["é1_²"])
    expect("a\u2028b\nc".match(pythonPattern("^.+$", { multiline: true }))).toEqual(["a\u2028b", "c"])
    expect([isUpper("A1 Ⅷ"), isUpper("A ª"), isUpper("ǅ"), isUpper("1")]).toEqual([true, false, false, false])
    expect("İıK".match(pythonPattern("i|k", { ignoreCase: true }))).toEqual(["K"])
    expect(foldI("İıK").match(pythonPattern("i|k", { ignoreCase: true }))).toEqual(["i", "i", "K"])
  })

  it("hold for JSON", () => {
    for (const text of ["NaN", "[-Infinity, 1e5]", '"NaN"', "{}", "1".repeat(4300)])
      expect(isPythonJson(text)).toBe(true)
    for (const text of ["nan", "-NaN", "01", "1NaN", "{NaN: 1}", "'a'", "[1,]", "", '"a\nb"', "1".repeat(4301)])
      expect(isPythonJson(text)).toBe(false)
  })
})

describe("language detection", () => {
  it("passes over links and needs a letter", () => {
    expect(detectLanguage("https://example.org/a 12 🙂 me@site.org")).toBeUndefined()
    expect(
      detectLanguage("dies ist ein kurzer deutscher satz https://example.org/the/english/words/of/this/link"),
    ).toBe("de")
  })
})

describe("ifeval", () => {
  it("scores eight variants loosely, each instruction by itself", () => {
    expect(looseVariants("a*\nb\nc ")).toEqual(["a*\nb\nc ", "a\nb\nc ", "b\nc", "b\nc", "a*\nb", "a\nb", "b", "b"])
    const instructions = [
      { id: "punctuation:no_comma", kwargs: {} }, // holds once the first line is gone
      { id: "startend:end_checker", kwargs: { end_phrase: "The end." } }, // holds once the last line is gone
    ]
    const data = { key: 1, prompt: "p", instructions }
    expect(gradeIfeval(data, "Sure, here:\nA tale. The end.\nBye!", "official")).toEqual([
      { id: "punctuation:no_comma", strict: false, loose: true },
      { id: "startend:end_checker", strict: false, loose: true },
    ])
    expect(gradeIfeval(data, " \n", "official").some(({ strict, loose }) => strict || loose)).toBe(false)
  })

  it("keeps repeated instructions apart and gives prompt and instruction shares", async () => {
    const quoted = "startend:quotation"
    const file = write(
      row(1, [quoted, "punctuation:no_comma", quoted], [{}, {}, {}]),
      row(2, [quoted], [{ pad: null }]),
    )
    const items = await ifeval.load(file)
    expect(items.map(({ id, turns }) => [id, ...turns])).toEqual([
      ["1", "prompt 1"],
      ["2", "prompt 2"],
    ])
    const results = ["no quotes", '"quotes"'].map((text, i) => ifeval.score(items[i]!, [text], null, "official"))
    // prompt 1: quotation no, comma yes, quotation no; prompt 2: yes
    expect(ifeval.figures(results, "official")).toEqual({
      "prompt strict": 1 / 2,
      "inst strict": 2 / 4,
      "prompt loose": 1 / 2,
      "inst loose": 2 / 4,
      "type: punctuation:no_comma": 1,
      "type: startend:quotation": 1 / 3,
    })
  })

  it.each([
    [
      "an unknown instruction",
      [row(1, ["keywords:colour"], [{}])],
      /line 1, instruction_id_list\.0: .*keywords:colour/,
    ],
    [
      "a missing argument",
      [row(1, ["keywords:frequency"], [{ keyword: "a", relation: "at least" }])],
      /line 1, kwargs\.0\.frequency/,
    ],
    [
      "a wrong relation",
      [row(1, ["length_constraints:number_words"], [{ num_words: 3, relation: "at most" }])],
      /kwargs\.0\.relation/,
    ],
    [
      "a key that stands twice",
      [row(4, ["punctuation:no_comma"], [{}]), row(4, ["punctuation:no_comma"], [{}])],
      /line 2, key: must be unique, got 4/,
    ],
    ["too few arguments", [row(1, ["punctuation:no_comma"], [])], /line 1, kwargs: must have an entry/],
  ])("names file, line and field of %s", async (_, rows, message) => {
    const file = write(...rows)
    await expect(ifeval.load(file)).rejects.toThrow(message)
    await expect(ifeval.load(file)).rejects.toThrow(file)
  })
})

describe("long responses", () => {
  it("take every check time in proportion to their length, whatever they are made of", () => {
    // Runs of 200,000 marks that patterns would try from each mark to the end: 2e10 steps and minutes for each of them.
    const text = [" ", "\n", "<", "[", "a", '\\"', '"', "-", "\u00a0."]
      .map((part) => `${part.repeat(200_000)}x`)
      .join("\n")
    const examples = JSON.parse(readFileSync(fixture, "utf8")) as Case[]
    for (const [id, check] of Object.entries(checks)) {
      const kwargs = examples.find(([own]) => own === id)![1]
      for (const scoring of ["official", "corrected"] as const) {
        const start = performance.now()
        check.follows(`"${text}.`, kwargs, scoring)
        expect(performance.now() - start, id).toBeLessThan(20_000)
      }
    }
  }, 300_000)
})
