import { describe, expect, it } from "vitest"
import {
  datasetInfo,
  fromTokenWeighted,
  fromTrl,
  jsonArray,
  toRanking,
  toTokenWeighted,
  toTrl,
  toTrlStandard,
} from "../../lib/data/preferences"
import type { Message } from "../../lib/data/schema"

const place = { file: "pairs.jsonl", line: 2 }
const user = (content: string): Message => ({ role: "user", content })
const pair = { prompt: [user("Sum up.\n\nText.")], chosen: "good", rejected: "bad" }
const system: Message = { role: "system", content: "Be brief." }

describe("TRL files", () => {
  it("are written and read back in both forms", () => {
    expect(toTrl(pair)).toEqual({
      prompt: [{ role: "user", content: "Sum up.\n\nText." }],
      chosen: [{ role: "assistant", content: "good" }],
      rejected: [{ role: "assistant", content: "bad" }],
    })
    expect(toTrlStandard(pair)).toEqual({ prompt: "Sum up.\n\nText.", chosen: "good", rejected: "bad" })
    expect(fromTrl(toTrl(pair), place)).toEqual(pair)
    expect(fromTrl(toTrlStandard(pair), place)).toEqual(pair)
    expect(fromTrl(toTrl({ ...pair, prompt: [system, user("Hi")] }), place).prompt).toEqual([system, user("Hi")])
  })

  it("hold a rendered prompt where more than one turn must become text", () => {
    const long = { ...pair, prompt: [system, user("Hi")] }
    expect(() => toTrlStandard(long)).toThrow(/holds one turn, got 2; give render/)
    expect(toTrlStandard(long, (turns) => turns.map((turn) => turn.content).join("|")).prompt).toBe("Be brief.|Hi")
  })

  it("may repeat the prompt at the head of both answers", () => {
    const say = (content: string): Message[] => [user("Hi"), { role: "assistant", content }]
    expect(fromTrl({ chosen: say("a"), rejected: say("b") }, place)).toEqual({
      prompt: [user("Hi")],
      chosen: "a",
      rejected: "b",
    })
    expect(fromTrl({ chosen: "The sky is blue.", rejected: "The sky is green." }, place)).toEqual({
      prompt: [user("The sky is ")],
      chosen: "blue.",
      rejected: "green.",
    })
  })

  it.each([
    [{ prompt: "p", chosen: "x" }, /line 2, rejected: /],
    [{ prompt: "p", chosen: "x", rejected: [user("y")] }, /both be texts or both be message lists/],
    [{ chosen: "x", rejected: "y" }, /prompt must be given, or shared by both answers/],
    [
      { prompt: [user("p")], chosen: [user("a"), user("b")], rejected: [user("c")] },
      /2 chosen and 1 rejected messages/,
    ],
  ])("are refused for %j", (record, message) => {
    expect(() => fromTrl(record, place)).toThrow(message)
  })
})

describe("LLaMA-Factory files", () => {
  it("hold the whole user turn as instruction, so that prompts are the same token by token", () => {
    expect(toRanking(pair)).toEqual({ instruction: "Sum up.\n\nText.", input: "", chosen: "good", rejected: "bad" })
    expect(toRanking({ ...pair, prompt: [system, user("Hi")] })).toMatchObject({
      instruction: "Hi",
      system: "Be brief.",
    })
    expect(() => toRanking({ ...pair, prompt: [user("a"), user("b")] })).toThrow(/one user turn, got user, user/)
  })

  it("have an entry that names the columns", () => {
    expect(datasetInfo("musc", "musc.json")).toEqual({
      musc: {
        file_name: "musc.json",
        ranking: true,
        columns: { prompt: "instruction", query: "input", chosen: "chosen", rejected: "rejected" },
      },
    })
    expect(datasetInfo("m", "m.json", { system: true }).m!.columns).toHaveProperty("system", "system")
  })

  it("are JSON arrays with a record a line", () => {
    const text = [...jsonArray([{ a: 1 }, { a: 2 }])].join("")
    expect(text).toBe('[\n{"a":1},\n{"a":2}\n]\n')
    expect([...jsonArray([])].join("")).toBe("[]\n")
  })
})

describe("the authors' token-weighted file", () => {
  const weighted = { ...pair, weights: { chosen: [0.5, 1.5, 1], rejected: [1, 2] }, promptTokens: 4 }

  it("has a score for each token, 0 for those of the prompt, and is read back", () => {
    expect(toTokenWeighted(weighted)).toEqual({
      instruction: "Sum up.\n\nText.",
      input: "",
      chosen: "good",
      rejected: "bad",
      history: "",
      source_token_scores: [0, 0, 0, 0],
      chosen_token_scores: [0.5, 1.5, 1],
      rejected_token_scores: [1, 2],
    })
    expect(fromTokenWeighted(toTokenWeighted(weighted), place)).toEqual(weighted)
  })

  it("joins instruction and input by one newline, as the program that reads it", () => {
    const record = { ...toTokenWeighted(weighted), instruction: "Sum up.", input: "Text." }
    expect(fromTokenWeighted(record, place).prompt).toEqual([user("Sum up.\nText.")])
  })

  it("is refused with a negative score", () => {
    const record = { ...toTokenWeighted(weighted), chosen_token_scores: [1, -1] }
    expect(() => fromTokenWeighted(record, place)).toThrow(/line 2, chosen_token_scores\.1: /)
  })
})
