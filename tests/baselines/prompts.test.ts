import { describe, expect, it } from "vitest"
import { judgeMessages, judgePrompt, parseVerdict } from "../../lib/baselines/judge"
import { parseRevision, revisePrompt } from "../../lib/baselines/revise"

describe("judge", () => {
  it("shows the question, then the answer", () => {
    expect(judgePrompt("Is it done?", null, "Done.")).toMatch(
      /on a line of its own\.\n\nQuestion: Is it done\?\n\nAnswer: Done\.$/,
    )
  })

  it("shows the instruction and its text before the question, where they are given", () => {
    const prompt = judgePrompt("Is it a summary of the message?", "Milk is out.", "No milk.", "Sum up the message.")
    expect(prompt).toMatch(
      /on a line of its own\.\n\nInstruction: Sum up the message\.\n\nText: Milk is out\.\n\nQuestion: Is it a summary of the message\?\n\nAnswer: No milk\.$/,
    )
    const [first] = judgeMessages("Is it done?", null, "Done.", 1, "Do it.")
    expect(first!.content).toMatch(/Instruction: Write a short letter[\s\S]*Question: Is the answer a letter/)
  })

  it("shows demonstrations as earlier turns, each with a verdict that can be read", () => {
    const bare = judgeMessages("Is it done?", null, "Done.", 0)
    expect(bare).toEqual([{ role: "user", content: judgePrompt("Is it done?", null, "Done.") }])
    const shown = judgeMessages("Is it done?", null, "Done.", 4)
    expect(shown.slice(-1)).toEqual(bare)
    expect(shown.map(({ role }) => role).join(" ")).toBe(`${"user assistant ".repeat(4)}user`)
    const verdicts = shown.filter(({ role }) => role === "assistant").map(({ content }) => parseVerdict(content))
    expect(verdicts).toEqual([true, false, false, true])
    // what they quote stands in their answers
    shown.forEach(({ role, content }, i) => {
      if (role === "assistant")
        for (const [, quoted] of content.matchAll(/"([^"]+)"/g)) expect(shown[i - 1]!.content).toContain(quoted)
    })
  })

  it.each([
    ["yes", true],
    [" **No**, because it is long.", false],
    ["Answer: YES.", true],
    ["The answer is no", false],
    ["The poem has nine lines.\nno", false],
    ["Verdict:\n\n[[yes]]", true],
    ['"No one came," she said.\nYes, it does.', true],
    ['"Yes, I will," he said.\nNo, since nobody asks.', false],
    ['"No rain"\nThat is enough.', undefined],
    ["> No rain\n\nYes - it is there", true],
    ["$\\boxed{\\text{No}}$", false],
    ["No.\nThe last line is missing.", false],
    ["Nobody knows.", undefined],
    ["Yesterday it was.", undefined],
    ["It is hard to say yes or no here.", undefined],
    ["", undefined],
    ["No faults found.", undefined],
    ["No adjectives are left.\nyes", true],
    ["Answer: no comma is missing", undefined],
    ["Yes and no.", undefined],
    ["YES/NO", undefined],
    ["Yes or no?\nNo.", false],
    ["It is long.\nNo, the third is missing.", false],
    ["no because it is long", false],
  ])("reads %j as %s", (text, verdict) => {
    expect(parseVerdict(text)).toBe(verdict)
  })

  it.each([
    ["Yes, because it is lo", true],
    ["No.\nThe third li", false],
    ["no", undefined], // thing
    ['"no rain"\nno', undefined],
    ["The first line rhymes.\nNo", undefined], // te that …
  ])("of a reply that was cut off reads %j as %s", (text, verdict) => {
    expect(parseVerdict(text, true)).toBe(verdict)
  })
})

describe("revision", () => {
  it("shows the failed constraints, the instruction and the answer", () => {
    expect(revisePrompt("Do it.", "Done.", ["Is it red?", "Is it new?"])).toMatch(
      /Instruction: Do it\.\n\nAnswer: Done\.\n\nQuestions:\n##1\. Is it red\?\n##2\. Is it new\?$/,
    )
  })

  it("loses its label and nothing else", () => {
    expect(parseRevision("Revised answer: Red.\n\nAnd new.")).toBe("Red.\n\nAnd new.")
    expect(parseRevision("Answers are red.")).toBe("Answers are red.")
  })
})
