import { describe, expect, it } from "vitest"
import {
  datasetInfo,
  fromRanking,
  fromTokenWeighted,
  fromTrl,
  jsonArray,
  sharesFirstWeight,
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
      prompt: [user("The sky is")],
      chosen: " blue.",
      rejected: " green.",
    })
  })

  // Expected values are what TRL 1.16's maybe_extract_prompt gives, a prompt of text as one user turn.
  const say = (...contents: string[]): Message[] =>
    contents.map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }))
  const answer = (content: string): Message[] => [{ role: "assistant", content }]
  it.each([
    [
      "a prompt of text before chats that repeat it",
      { prompt: "Name a colour.", chosen: say("Name a colour.", "Blue"), rejected: say("Name a colour.", "Dog") },
      { prompt: say("Name a colour."), chosen: "Blue", rejected: "Dog" },
    ],
    [
      "a prompt of text that is only the first turn of the chats",
      { prompt: "Hi", chosen: say("Hi", "Hello", "More", "a"), rejected: say("Hi", "Hello", "More", "b") },
      { prompt: say("Hi", "Hello", "More"), chosen: "a", rejected: "b" },
    ],
    [
      "a chat prompt that the answers repeat, which is there twice",
      { prompt: say("Hi"), chosen: say("Hi", "a"), rejected: say("Hi", "b") },
      { prompt: [...say("Hi"), ...say("Hi")], chosen: "a", rejected: "b" },
    ],
    [
      "texts that differ behind a space",
      { chosen: "Q: name a colour. A: Blue", rejected: "Q: name a colour. A: Dog" },
      { prompt: say("Q: name a colour. A:"), chosen: " Blue", rejected: " Dog" },
    ],
    [
      "a text that begins the other one",
      { chosen: "Q: a. A: Blue", rejected: "Q: a. A: Blue whale" },
      { prompt: say("Q: a. A: Blu"), chosen: "e", rejected: "e whale" },
    ],
    [
      "texts that are alike",
      { chosen: "Q: 😀", rejected: "Q: 😀" },
      { prompt: say("Q: "), chosen: "😀", rejected: "😀" },
    ],
    ["an empty answer", { prompt: "a", chosen: "", rejected: "z" }, { prompt: say("a"), chosen: "", rejected: "z" }],
    [
      "content in parts",
      {
        prompt: [
          {
            role: "user",
            content: [
              { type: "text", text: "a" },
              { type: "text", text: "b" },
            ],
          },
        ],
        chosen: [{ role: "assistant", content: [{ type: "text", text: "x" }] }],
        rejected: answer("z"),
      },
      { prompt: say("ab"), chosen: "x", rejected: "z" },
    ],
    ["alike answers", { prompt: "a", chosen: "z", rejected: "z" }, { prompt: say("a"), chosen: "z", rejected: "z" }],
    [
      "alike chats",
      { chosen: say("a", "z"), rejected: say("a", "z") },
      { prompt: say("a"), chosen: "z", rejected: "z" },
    ],
    [
      "a prompt of null",
      { prompt: null, chosen: say("a", "x"), rejected: say("a", "z") },
      { prompt: say("a"), chosen: "x", rejected: "z" },
    ],
    [
      "chats of answers alone",
      { prompt: "a", chosen: answer("x"), rejected: answer("z") },
      { prompt: say("a"), chosen: "x", rejected: "z" },
    ],
    [
      "transcripts as in HH-RLHF",
      {
        chosen: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\nd\n\nAssistant: I say yes",
        rejected: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c?\nd\n\nAssistant: I say no",
      },
      { prompt: say("a", "b", "c?\nd"), chosen: "I say yes", rejected: "I say no" },
    ],
    [
      "a prompt that is a transcript",
      { prompt: "\n\nHuman: a\n\nAssistant:", chosen: " x", rejected: " y" },
      { prompt: say("a"), chosen: " x", rejected: " y" },
    ],
    [
      "texts about humans",
      { prompt: "Human: a word?", chosen: "x", rejected: "y" },
      { prompt: say("Human: a word?"), chosen: "x", rejected: "y" },
    ],
  ])("are read with %s", (_, record, expected) => {
    expect(fromTrl(record, place)).toEqual(expected)
  })

  it("with an image are refused by name", () => {
    const prompt = [
      {
        role: "user",
        content: [
          { type: "image", url: "x" },
          { type: "text", text: "a" },
        ],
      },
    ]
    expect(() => fromTrl({ prompt, chosen: "x", rejected: "y" }, place)).toThrow(/list with image, text/)
  })

  it.each([
    [{ prompt: "p", chosen: "x" }, /line 2, rejected: /],
    [{ prompt: "p", chosen: "x", rejected: [user("y")] }, /both be texts or both be message lists/],
    // TRL takes "The " for the prompt of these two.
    [{ question: "q?", chosen: "The x", rejected: "The y" }, /line 2, question: prompt must be given, got question/],
    [{ input: "q?", chosen: "The x", rejected: "The y" }, /line 2, input: .*rename that field/],
    [
      { chosen: "\n\nHuman: a\n\nAssistant: b", rejected: "\n\nHuman: a\n\nAssistant: c\n\nHuman: d\n\nAssistant: e" },
      /1 prompt, 1 chosen and 3 rejected messages/,
    ],
    [
      {
        prompt: "p",
        chosen: [{ role: "assistant", content: [{ type: "reasoning", text: "hm" }] }],
        rejected: answer("y"),
      },
      /a list with reasoning/,
    ],
    [{ chosen: "x", rejected: "y" }, /prompt must be given, or shared by both answers/],
    [{ prompt: "", chosen: "ax", rejected: "ay" }, /line 2, prompt: .*got an empty text; leave the record out/],
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
    expect(() => toRanking({ ...pair, prompt: [user("a"), user("b")] })).toThrow(/in turns, .* got user, user/)
  })

  it("are read back, system message and earlier turns included", () => {
    const turns = (...contents: string[]) =>
      contents.map((content, i): Message => ({ role: i % 2 ? "assistant" : "user", content }))
    for (const prompt of [turns("Hi"), [system, ...turns("Hi")], turns("q1", "a1", "q2", "a2", "and now?")])
      expect(fromRanking(toRanking({ ...pair, prompt }), place)).toEqual({ ...pair, prompt })
    expect(toRanking({ ...pair, prompt: [system, ...turns("q1", "a1", "q2")] })).toMatchObject({
      instruction: "q2",
      system: "Be brief.",
      history: [["q1", "a1"]],
    })
    // as LLaMA-Factory's Alpaca converter does it: "\n".join of what is not empty
    const joined = { instruction: "Sum up.", input: "Text.", chosen: "a", rejected: "b", system: null, history: null }
    expect(fromRanking(joined, place).prompt).toEqual([user("Sum up.\nText.")])
    expect(() => fromRanking({ ...joined, history: [["q"]] }, place)).toThrow(/line 2, history/)
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
    expect(datasetInfo("m", "m.json", { history: true }).m!.columns).toHaveProperty("history", "history")
  })

  it("are JSON arrays with a record a line", () => {
    const text = [...jsonArray([{ a: 1 }, { a: 2 }])].join("")
    expect(text).toBe('[\n{"a":1},\n{"a":2}\n]\n')
    expect([...jsonArray([])].join("")).toBe("[]\n")
  })
})

describe("the authors' token-weighted file", () => {
  const weighted = { ...pair, weights: { chosen: [0.5, 1.5, 1], rejected: [0.5, 2] }, promptTokens: 4 }

  it("has a score for each token, each one place before the token that it weighs", () => {
    expect(toTokenWeighted(weighted)).toEqual({
      instruction: "Sum up.\n\nText.",
      input: "",
      chosen: "good",
      rejected: "bad",
      history: "",
      source_token_scores: [0, 0, 0, 0.5],
      chosen_token_scores: [1.5, 1, 0],
      rejected_token_scores: [2, 0],
    })
    expect(fromTokenWeighted(toTokenWeighted(weighted), place)).toEqual(weighted)
  })

  /** The fork's way: prompt and response in a row, the last score dropped (collator), the first label too (trainer). */
  function weightsInFork(source: readonly number[], response: readonly number[], log: readonly number[]) {
    const scores = [...source, ...response].slice(0, -1)
    const labels = [...source.map(() => null), ...log].slice(1)
    return labels.flatMap((label, j) => (label === null ? [] : [scores[j]! * label]))
  }

  it("gives the authors' trainer the weighted log-probs that ours has, and is read as it reads it", () => {
    const record = toTokenWeighted(weighted)
    const [logChosen, logRejected] = [
      [-1, -2, -4],
      [-8, -16],
    ]
    const sides = [
      [record.chosen_token_scores, logChosen, weighted.weights.chosen],
      [record.rejected_token_scores, logRejected, weighted.weights.rejected],
    ] as const
    for (const [scores, log, weights] of sides)
      expect(weightsInFork(record.source_token_scores, scores, log)).toEqual(weights.map((w, t) => w * log[t]!))
    const theirs = { ...record, source_token_scores: [0, 0, 0, 0], chosen_token_scores: [0.7, 1.1, 0.609] }
    expect(fromTokenWeighted(theirs, place).weights.chosen).toEqual([0, 0.7, 1.1])
    expect(weightsInFork(theirs.source_token_scores, theirs.chosen_token_scores, logChosen)).toEqual(
      [0, 0.7, 1.1].map((w, t) => w * logChosen[t]!),
    )
  })

  it("cannot hold first tokens that weigh differently: they weigh 0, as in the authors' files", () => {
    const weights = { chosen: [0.5, 1.5, 1], rejected: [1, 2] }
    expect(sharesFirstWeight(weights)).toBe(false)
    const record = toTokenWeighted({ ...weighted, weights })
    expect(record.source_token_scores).toEqual([0, 0, 0, 0])
    expect(fromTokenWeighted(record, place).weights).toEqual({ chosen: [0, 1.5, 1], rejected: [0, 2] })
    expect(() => toTokenWeighted({ ...weighted, weights: { chosen: [], rejected: [1] } })).toThrow(/a token each/)
  })

  it("keeps system message and earlier turns, which belong to the prompt", () => {
    const scores = { source_token_scores: [0, 0, 0], chosen_token_scores: [1, 1], rejected_token_scores: [1, 1] }
    const record = { instruction: "Hi", input: "", system: "Be brief.", chosen: "a", rejected: "b", history: "" }
    expect(fromTokenWeighted({ ...record, ...scores }, place).prompt).toEqual([system, user("Hi")])
    const asked = { ...record, system: undefined, history: [["q1", "a1"]], ...scores }
    const prompt = [user("q1"), { role: "assistant" as const, content: "a1" }, user("Hi")]
    expect(fromTokenWeighted(asked, place).prompt).toEqual(prompt)
    const long = { ...weighted, prompt: [system, ...prompt] }
    expect(fromTokenWeighted(toTokenWeighted(long), place)).toEqual(long)
  })

  it("cannot hold an empty system message, as its reader has none then", () => {
    const empty = { role: "system" as const, content: "" }
    expect(() => toTokenWeighted({ ...weighted, prompt: [empty, user("Hi")] })).toThrow(/cannot hold an empty system/)
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
