import { describe, expect, it } from "vitest"
import { scripted } from "../../lib/engine/scripted"
import { negatePrompt, parseQuestion, substitutePrompt } from "../../lib/musc/corrupt"
import { decompose, decomposePrompt, formatConstraints, parseConstraints, parseText } from "../../lib/musc/decompose"
import { decomposeDemos, negateDemos, substituteDemos } from "../../lib/musc/demos"
import { parseInstruction, recombinePrompt } from "../../lib/musc/recombine"
import { respondMessages } from "../../lib/musc/respond"

describe("prompts", () => {
  const row = { instruction: "Count to three in French.", input: null }

  it("end with the row itself", () => {
    expect(decomposePrompt(row)).toMatch(/\n\nInstruction: Count to three in French\.\nQuestions:$/)
    expect(recombinePrompt(["Is it French?"], null)).toMatch(/\n\nQuestions:\n##1\. Is it French\?\nInstruction:$/)
    expect(negatePrompt("Is it red?")).toMatch(/opposite.*\n\nQuestion: Is it red\?\nNew question:$/)
    expect(substitutePrompt("Is it red?")).toMatch(/\n\nQuestion: Is it red\?\nNew question:$/)
  })

  it("put the text behind the instruction, or into it when it is to be found", () => {
    const [demo] = decomposeDemos
    expect(decomposePrompt(demo!)).toContain(`Instruction: ${demo!.instruction}\nText: ${demo!.input}\nQuestions:`)
    expect(decomposePrompt(demo!, true)).toContain(`${demo!.instruction}\n\n${demo!.input}\nQuestions:`)
    expect(recombinePrompt(["Q?"], "some text")).toContain("\n\nText: some text\nQuestions:\n##1. Q?\n")
  })

  it("show examples as earlier turns, in the form in which the row is asked for", async () => {
    const engine = scripted(() => "##1. Is it a count?\n##2. Is it French?\nText: none")
    await decompose(engine, { id: "a", source: "test", calls: {}, ...row }, { shots: 2, findText: true })
    const [first, second] = decomposeDemos
    expect(engine.requests[0]!.messages).toEqual([
      { role: "user", content: decomposePrompt(first!, true) },
      { role: "assistant", content: `${formatConstraints(first!.questions)}\nText: ${first!.input}` },
      { role: "user", content: decomposePrompt(second!, true) },
      { role: "assistant", content: `${formatConstraints(second!.questions)}\nText: none` },
      { role: "user", content: decomposePrompt(row, true) },
    ])
  })

  it("have the examples that the method asks for", () => {
    expect(decomposeDemos.map((demo) => demo.input !== null)).toEqual([true, false, true, false, true])
    for (const demo of decomposeDemos) expect(demo.questions.length).toBeGreaterThan(2)
    for (const demo of [...negateDemos, ...substituteDemos]) expect(demo.changed).not.toBe(demo.question)
  })

  it("put the text after the instruction when an answer is asked for", () => {
    expect(respondMessages("Sum up.", "A text.")).toEqual([{ role: "user", content: "Sum up.\n\nA text." }])
    expect(respondMessages("Sum up.", null)).toEqual([{ role: "user", content: "Sum up." }])
  })
})

describe("parsers", () => {
  it("read back what the formatter wrote", () => {
    for (const { questions } of decomposeDemos)
      expect(parseConstraints(formatConstraints(questions))).toEqual(questions)
  })

  it.each([
    ["talk around the list", "Sure!\n##1. A?\n##2. B?\n\nAnything else?", ["A?", "B?"]],
    ["a list on one line", "##1. A? ##2. B?", ["A?", "B?"]],
    ["plain numbers", "1. A?\n2) B?", ["A?", "B?"]],
    ["bold marks and odd spaces", "## 1: **A   b?**\n##2. B?", ["A b?", "B?"]],
    ["repeats", "##1. A?\n##2. a?\n##3. B?", ["A?", "B?"]],
    ["empty lines", "##1. \n##2. B?", ["B?"]],
    ["no list", "I cannot do that.", []],
  ])("read constraints with %s", (_, text, expected) => {
    expect(parseConstraints(text)).toEqual(expected)
  })

  it.each([
    ["Is it blue?", "Is it blue?"],
    ["  New question: Is it blue?\n\nI changed the colour.", "Is it blue?"],
    ["**New Question:** Is it blue?", "Is it blue?"],
    ['"Is it blue?"', "Is it blue?"],
    ["##2. Is it blue?", "Is it blue?"],
    ["\n \n", ""],
  ])("read the changed question of %j", (text, expected) => {
    expect(parseQuestion(text)).toBe(expected)
  })

  it.each([
    ['Instruction: "Write a poem."', "Write a poem."],
    ["```\nWrite a poem.\n```", "Write a poem."],
    ['"Yes" and "no" are words.', '"Yes" and "no" are words.'],
    ["Write.\nThen stop.", "Write.\nThen stop."],
  ])("read the instruction of %j", (text, expected) => {
    expect(parseInstruction(text)).toBe(expected)
  })

  it("take a text only as it stands in the instruction", () => {
    const instruction = "Translate this:\nThe cat\nsleeps."
    expect(parseText("##1. A?\nText: The cat\nsleeps.", instruction)).toBe("The cat\nsleeps.")
    expect(parseText("##1. A?\nText: A dog.", instruction)).toBeNull()
    expect(parseText("##1. A?\nText: none", instruction)).toBeNull()
    expect(parseText("##1. A?", instruction)).toBeNull()
  })
})
