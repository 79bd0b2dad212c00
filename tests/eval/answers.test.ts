import { describe, expect, it } from "vitest"
import type { EvalItem } from "../../lib/data/results"
import { answerFigures, kindShares, repeatsItself } from "../../lib/eval/answers"

const item = (answer: string, more: Partial<EvalItem> = {}): EvalItem => ({
  ...{ id: "a", seed: 0, method: "base", temperature: 0, instruction: "x", answer, constraints: [] },
  ...more,
})

describe("figures of answers", () => {
  it("call an answer one that repeats itself when the same four words come three times, whatever their case", () => {
    expect(repeatsItself("It is so good. It is so good, and it IS SO good!")).toBe(true)
    expect(repeatsItself("It is so good. It is so good.")).toBe(false)
    expect(repeatsItself("a b c a b c a b c")).toBe(false) // a b c a twice only
    expect(repeatsItself("")).toBe(false)
  })

  it("are means over answers: words, tokens, cut and repeated", () => {
    const items = [item("one two three", { tokens: 4, cut: false }), item("one", { tokens: 2, cut: true })]
    expect(answerFigures(items)).toEqual({ words: 2, tokens: 3, cut: 0.5, repeated: 0 })
  })

  it("know neither tokens nor cuts of answers that do not say", () => {
    expect(answerFigures([item("one two")])).toEqual({ words: 2, tokens: null, cut: null, repeated: 0 })
  })

  it("count constraints by kind, without those that no kind or no verdict is known of", () => {
    const constraints = [
      { question: "q", kind: "title", satisfied: true },
      { question: "r", kind: "title", satisfied: false },
      { question: "s", kind: "", satisfied: true },
      { question: "t", kind: "word", satisfied: null },
    ]
    expect(kindShares([item("x", { constraints })])).toEqual({ title: { kept: 1, n: 2 } })
  })
})
