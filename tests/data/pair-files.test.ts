import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { readRecords } from "../../lib/data/json-array"
import { objectOf } from "../../lib/data/jsonl"
import { type FilePair, toFilePair } from "../../lib/data/pair-files"

const pairsOf = (records: readonly object[]): Promise<FilePair[]> => pairsIn(JSON.stringify(records))
const pairsIn = async (text: string): Promise<FilePair[]> => {
  const file = join(mkdtempSync(join(tmpdir(), "musc-pairs-")), "pairs.json")
  writeFileSync(file, text)
  const pairs: FilePair[] = []
  for await (const { value, place } of readRecords(file))
    pairs.push(toFilePair(objectOf(value, place), { ...place, record: pairs.length + 1 }))
  return pairs
}
const user = (content: string) => ({ role: "user", content })
const assistant = (content: string) => ({ role: "assistant", content })

describe("a preference file of another program", () => {
  it("of TRL gives prompt and both answers", async () => {
    const [pair] = await pairsOf([{ prompt: [user("q")], chosen: [assistant("a")], rejected: [assistant("b")] }])
    expect(pair).toEqual({ id: "1", prompt: [user("q")], chosen: "a", rejected: "b" })
  })

  it("of Alpaca ranking joins instruction and input by a newline, as LLaMA-Factory does", async () => {
    const [pair] = await pairsOf([{ id: 7, instruction: "i", input: "t", chosen: "a", rejected: "b" }])
    expect(pair).toEqual({ id: "7", prompt: [user("i\nt")], chosen: "a", rejected: "b" })
  })

  it("of ShareGPT ranking keeps system message and earlier turns", async () => {
    const conversations = [
      { from: "human", value: "q" },
      { from: "gpt", value: "w" },
      { from: "human", value: "r" },
    ]
    const answers = { chosen: { from: "gpt", value: "a" }, rejected: { from: "gpt", value: "b" } }
    const [pair] = await pairsOf([{ system: "s", conversations, ...answers }])
    const prompt = [{ role: "system", content: "s" }, user("q"), assistant("w"), user("r")]
    expect(pair).toEqual({ id: "1", prompt, chosen: "a", rejected: "b" })
  })

  it("of the authors brings its token weights, each at its token", async () => {
    // Score j is read for token j + 1; the first token's stands in the prompt's last place.
    const scores = { source_token_scores: [0, 0.5], chosen_token_scores: [1, 2, 0], rejected_token_scores: [3, 0] }
    const [pair] = await pairsOf([{ instruction: "i", input: "", chosen: "a", rejected: "b", ...scores }])
    expect(pair!.tokenWeights).toEqual({ chosen: [0.5, 1, 2], rejected: [0.5, 3] })
  })

  it("of an unknown form is refused with file, record and the forms that are known", async () => {
    await expect(pairsOf([{ question: "q", answer: "a" }])).rejects.toThrow(
      /pairs\.json.*must be a preference record \(.*TRL preference\), got one with question, answer; convert the file/s,
    )
  })

  it.each([
    ["unpaired answers with a label (KTO)", { prompt: "p", completion: "c", label: true }],
    ["answers with a label a step (PRM)", { prompt: "p", completions: ["a"], labels: [true] }],
    ["a prompt with one completion (SFT)", { prompt: [user("p")], completion: [assistant("c")] }],
    ["a chat with one answer (SFT)", { messages: [user("p"), assistant("c")] }],
    ["an instruction with one answer (SFT)", { instruction: "i", input: "", output: "o" }],
    ["prompts without answers", { prompt: "p" }],
  ])("for another training is refused by name: %s", async (name, record) => {
    await expect(pairsOf([record])).rejects.toThrow(`, got ${name} with ${Object.keys(record).join(", ")};`)
  })

  it.each([
    ["images", { images: ["a.png"] }],
    ["tools", { tools: [{ type: "function" }] }],
    ["chat_template_kwargs", { chat_template_kwargs: { enable_thinking: false } }],
    ["system", { system: "Be brief." }],
  ])("with %s beside the texts is refused, as it would be left out", async (field, more) => {
    const pair = { prompt: [user("q")], chosen: [assistant("a")], rejected: [assistant("b")] }
    await expect(pairsOf([{ ...pair, ...more }])).rejects.toThrow(new RegExp(`, ${field}: a pair must hold no more`))
    expect(
      await pairsOf([
        { ...pair, [field]: null },
        { ...pair, [field]: [] },
      ]),
    ).toHaveLength(2)
  })

  it("reads figures that are NaN, as data frames write them", async () => {
    const text = '\uFEFF{"prompt":"p","chosen":"NaN","rejected":"b","score":NaN,"system":NaN}\r\n'
    expect(await pairsIn(text)).toEqual([{ id: "1", prompt: [user("p")], chosen: "NaN", rejected: "b" }])
  })

  it("with an unknown speaker is refused with its place", async () => {
    const answers = { chosen: { from: "gpt", value: "a" }, rejected: { from: "gpt", value: "b" } }
    await expect(pairsOf([{ conversations: [{ from: "tool", value: "q" }], ...answers }])).rejects.toThrow(
      /conversations\.0\.from: must be one of .*, got tool/,
    )
    const conversations = [{ from: "human", value: "q" }]
    await expect(pairsOf([{ conversations, ...answers, rejected: { from: "human", value: "b" } }])).rejects.toThrow(
      /rejected\.from: an answer must be the assistant's, got user/,
    )
  })

  it("with a system message among ShareGPT turns and beside them has that among them, as in LLaMA-Factory", async () => {
    const conversations = [
      { from: "system", value: "s" },
      { from: "human", value: "q" },
    ]
    const answers = { chosen: { from: "gpt", value: "a" }, rejected: { from: "gpt", value: "b" } }
    const [pair] = await pairsOf([{ system: "t", conversations, ...answers }])
    expect(pair!.prompt).toEqual([{ role: "system", content: "s" }, user("q")])
  })

  it.each([
    ["assistant", { prompt: [user("q"), assistant("It")], chosen: [assistant("a")], rejected: [assistant("b")] }],
    ["system", { prompt: [{ role: "system", content: "s" }], chosen: [assistant("a")], rejected: [assistant("b")] }],
    [
      "assistant",
      {
        conversations: [{ from: "gpt", value: "It" }],
        chosen: { from: "gpt", value: "a" },
        rejected: { from: "gpt", value: "b" },
      },
    ],
  ])("whose prompt ends in a message of the %s is refused: there is nothing to answer", async (role, record) => {
    await expect(pairsOf([record])).rejects.toThrow(`prompt: a prompt must end in a user message, got ${role};`)
  })

  it.each<[string, object]>([
    ["prompt: a prompt must be bare", { prompt: "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n" }],
    ["prompt: a prompt must be bare", { prompt: [user("<s>[INST] q [/INST]")] }],
    ["prompt: a prompt must be bare", { prompt: "Below is an instruction.\n\n### Instruction:\nq\n\n### Response:\n" }],
    ["prompt: messages must be a list", { prompt: JSON.stringify([user("q")]) }],
    [
      "chosen: messages must be a list",
      { prompt: "q", chosen: JSON.stringify([assistant("a")]), rejected: "[{'role': 'assistant', 'content': 'b'}]" },
    ],
    ["chosen: an answer must end without its end-of-turn token", { prompt: "q", chosen: "a</s>", rejected: "b</s>\n" }],
  ])("with texts that stand for more than themselves is refused: %s", async (message, record) => {
    await expect(pairsOf([{ chosen: "a", rejected: "b", ...record }])).rejects.toThrow(message)
  })

  it("may speak of templates and tokens", async () => {
    const prompt = "<|im_start|>user\nWhat is this?"
    const [pair] = await pairsOf([{ prompt, chosen: "<|im_end|> ends a turn.", rejected: "It is </s>" }])
    expect(pair).toMatchObject({ prompt: [user(prompt)], chosen: "<|im_end|> ends a turn.", rejected: "It is </s>" })
  })

  it("whose answers are turns of the user is refused", async () => {
    const record = { prompt: [user("q")], chosen: [user("a")], rejected: [assistant("b")] }
    await expect(pairsOf([record])).rejects.toThrow(/chosen: an answer must be the assistant's, got user/)
  })
})
