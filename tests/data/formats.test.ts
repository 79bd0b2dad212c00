import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { readInstructions, toInstruction } from "../../lib/data/formats"
import { findEdits } from "../../lib/data/released"
import { instructionRow, pairRow } from "../../lib/data/schema"

let folder = ""
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "musc-formats-"))
})
afterAll(() => rm(folder, { recursive: true }))

const place = { file: "some/seeds.jsonl", line: 4 }
const rowsOf = async (name: string, content: string) => {
  const file = join(folder, name)
  await writeFile(file, content)
  const rows = []
  for await (const row of readInstructions(file)) rows.push(row)
  return rows
}

describe("seed records", () => {
  it.each([
    ["a plain line", { instruction: "Do it." }, { instruction: "Do it.", input: null }],
    [
      "Alpaca",
      { instruction: "Sum up.", input: "Text.", output: "x" },
      { instruction: "Sum up.", input: "Text.", output: "x" },
    ],
    [
      "constraints",
      { instruction: "Do it.", constraints: ["Is it done?", "Is it short?"] },
      { constraints: ["Is it done?", "Is it short?"] },
    ],
    [
      "InFoBench's questions",
      { instruction: "Do it.", decomposed_questions: ["Is it done?", "Is it short?"], constraints: null },
      { constraints: ["Is it done?", "Is it short?"] },
    ],
    ["an empty input", { instruction: "Sum up.", input: "" }, { instruction: "Sum up.", input: null }],
    [
      "ShareGPT",
      {
        conversations: [
          { from: "system", value: "s" },
          { from: "human", value: "Do it." },
          { from: "gpt", value: "ok" },
        ],
      },
      { instruction: "Do it.", input: null, system: "s" },
    ],
    [
      "Dolly, whose text is the context",
      { instruction: "Who?", context: "Some text.", response: "x", category: "qa" },
      { instruction: "Who?", input: "Some text." },
    ],
    [
      "Capybara, whose turns hold both sides",
      {
        conversation: [
          { input: "Do it.", output: "ok" },
          { input: "More.", output: "ok" },
        ],
      },
      { instruction: "Do it." },
    ],
    ["LIMA, whose turns are plain texts", { conversations: ["Do it.", "ok"] }, { instruction: "Do it." }],
    ["a context that is no text", { instruction: "Who?", context: [1] }, { instruction: "Who?", input: null }],
    [
      "Self-Instruct, whose texts are in its instances",
      { instruction: "Sum up.", instances: [{ input: "Some text.", output: "x" }, { input: "Another." }] },
      { instruction: "Sum up.", input: "Some text." },
    ],
    [
      "Self-Instruct without a text",
      { instruction: "Say a word.", instances: [{ input: "<noinput>", output: "x" }] },
      { instruction: "Say a word.", input: null },
    ],
    [
      "a transcript as in HH-RLHF",
      { prompt: "\n\nHuman: Do it.\n\nAssistant: ok\n\nHuman: And then?\n\nAssistant:" },
      { instruction: "Do it." },
    ],
    ["LMSYS", { conversation: [{ role: "user", content: "Do it." }] }, { instruction: "Do it." }],
    [
      "Alpaca with earlier turns, of which the first can be understood alone",
      { instruction: "And then?", input: "x", history: [["Do it.", "ok"]], system: "s" },
      { instruction: "Do it.", input: null, system: "s" },
    ],
    ["Alpaca without earlier turns", { instruction: "Do it.", history: [] }, { instruction: "Do it." }],
    [
      "chat messages",
      {
        messages: [
          { role: "user", content: "Do it." },
          { role: "assistant", content: "ok" },
        ],
      },
      { instruction: "Do it." },
    ],
    ["a prompt of text", { prompt: "Do it.", key: 7 }, { instruction: "Do it.", key: 7 }],
    ["a prompt of messages", { prompt: [{ role: "user", content: "Do it." }] }, { instruction: "Do it." }],
    [
      "a chat whose other turns hold null",
      {
        messages: [
          null,
          { role: "system", content: null },
          { role: "user", content: "Do it.", name: null, tool_calls: null },
          { role: "assistant", content: null, tool_calls: [{ id: "c1" }] },
        ],
      },
      { instruction: "Do it." },
    ],
    [
      "ShareGPT turns filled with null",
      { conversations: [{ from: "human", value: "Do it.", role: null, content: null, weight: null }] },
      { instruction: "Do it." },
    ],
    [
      "an empty list of turns beside another that is filled",
      { conversations: [], messages: [{ role: "user", content: "Do it." }] },
      { instruction: "Do it." },
    ],
    [
      "fields that a data set filled with null",
      {
        ...{ instruction: null, input: null, conversations: null, id: null, source: null, failure: null, calls: null },
        ...{ constraints: null, prompt: "Do it.", mine: null },
      },
      { instruction: "Do it.", calls: {}, mine: null },
    ],
    [
      "content in parts",
      {
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "Do " },
              { type: "text", text: "it." },
            ],
          },
        ],
      },
      { instruction: "Do it." },
    ],
  ])("are read from %s", (_, record, expected) => {
    const row = instructionRow.parse(toInstruction(record, place))
    expect(row).toMatchObject({ id: "seeds.jsonl-4", source: "seeds.jsonl:4", ...expected })
    expect(row).not.toHaveProperty("conversations")
    expect(row.failure).toBeUndefined()
  })

  it("keep their id, text or number", () => {
    expect(toInstruction({ id: "q7", instruction: "x" }, place).id).toBe("q7")
    expect(toInstruction({ id: 0, instruction: "x" }, place).id).toBe("0")
  })

  it("without an instruction come out failed, and can be stored", () => {
    for (const record of [
      { conversations: [{ from: "gpt", value: "hi" }] },
      { conversations: [] },
      { instruction: " " },
    ]) {
      const row = instructionRow.parse(toInstruction(record, place))
      expect(row.failure).toEqual({ stage: "source", reason: "no instruction" })
    }
  })

  it("with an image come out failed, with the reason", () => {
    const content = [
      { type: "image_url", image_url: { url: "x" } },
      { type: "text", text: "What is it?" },
    ]
    const row = instructionRow.parse(toInstruction({ messages: [{ role: "user", content }] }, place))
    expect(row.failure).toEqual({ stage: "source", reason: "more than text in the user turn" })
  })

  it("with what another program has put together come out failed, with the reason", () => {
    const reasonOf = (record: object) => instructionRow.parse(toInstruction(record, place)).failure?.reason
    const rendered = "<|im_start|>user\nDo it.<|im_end|>\n<|im_start|>assistant\n"
    expect(reasonOf({ prompt: rendered })).toBe("a rendered chat template instead of an instruction")
    const messages = JSON.stringify([{ role: "user", content: "Do it." }])
    expect(reasonOf({ messages })).toBe("a list of messages as a text instead of an instruction")
    expect(reasonOf({ prompt: 'Explain [{"role": "user"}].' })).toBeUndefined()
  })

  it("of another shape are refused with the fields that they have", () => {
    expect(() => toInstruction({ question: "x", answer: "y" }, place)).toThrow(
      /^some\/seeds\.jsonl, line 4: a record must have instruction, .*, got question, answer; rename the field$/,
    )
    expect(() => toInstruction({ instruction: 3 }, place)).toThrow(/line 4, instruction: expected string, got number;/)
    expect(() => toInstruction([1], place)).toThrow(/a record must be a JSON object, got \[1\]/)
  })
})

describe("seed files", () => {
  it("may be a JSON array or JSONL", async () => {
    const array = await rowsOf("a.json", '[\n{"instruction": "A"},\n{"instruction": "B"}\n]')
    expect(array.map((row) => [row.id, row.instruction])).toEqual([
      ["a.json-2", "A"],
      ["a.json-3", "B"],
    ])
    const lines = await rowsOf(
      "b.jsonl",
      '{"instruction": "A"}\n{"conversations": [{"from": "human", "value": "B"}]}\n',
    )
    expect(lines.map((row) => [row.id, row.instruction])).toEqual([
      ["b.jsonl-1", "A"],
      ["b.jsonl-2", "B"],
    ])
  })

  it("have ids of their own even where the file repeats one", async () => {
    const rows = await rowsOf("c.jsonl", '{"id":"x","instruction":"A"}\n{"id":"x","instruction":"B"}\n')
    expect(rows.map((row) => row.id)).toEqual(["x", "x#2"])
    const taken = ["x#3", "x", "x", "x"].map((id) => JSON.stringify({ id, instruction: "A" })).join("\n")
    expect((await rowsOf("d.jsonl", taken)).map((row) => row.id)).toEqual(["x#3", "x", "x#4", "x#5"])
  })

  it("of a data frame may hold NaN where nothing is", async () => {
    const rows = await rowsOf("e.jsonl", '\uFEFF{"instruction":"A","input":NaN,"score":NaN}\r\n')
    expect(rows).toMatchObject([{ instruction: "A", input: null }])
  })
})

describe("released rows", () => {
  const released = {
    ori_instruction: "orig",
    instruction: "clean",
    aspects: ["a?", "b?", "c?"],
    input: "text",
    noised_aspects: ["a?", "c?"],
    noised_instruction: "noised",
    responses: ["good", "good 2"],
    noised_responses: ["bad"],
    evaluations: { entropy: [1] },
  }

  it("become whole pairs, with the edit found and the scores kept", () => {
    expect(pairRow.parse(toInstruction(released, place))).toMatchObject({
      id: "seeds.jsonl-4",
      instruction: "orig",
      input: null,
      given_input: "text",
      constraints: ["a?", "b?", "c?"],
      noised_constraints: ["a?", "c?"],
      edits: [{ index: 1, kind: "constraint-dropout", before: "b?", after: null }],
      clean_instruction: "clean",
      noised_instruction: "noised",
      chosen: "good",
      rejected: "bad",
      evaluations: { entropy: [1] },
    })
  })

  it.each([
    [{ noised_aspects: released.aspects }, "corrupt", "no constraint was changed"],
    [{ noised_aspects: ["b?", "c?"] }, "corrupt", "constraint 0 was changed"],
    [{ noised_instruction: undefined }, "recombine", "empty instruction"],
    [{ responses: [] }, "respond", "empty answer"],
  ])("with %j come out failed", (change, stage, reason) => {
    expect(toInstruction({ ...released, ...change }, place).failure).toEqual({ stage, reason })
  })

  it("tell changed from dropped constraints by the length of the lists", () => {
    expect(findEdits(["a", "b", "b"], ["a", "b"])).toEqual([
      { index: 2, kind: "constraint-dropout", before: "b", after: null },
    ])
    expect(findEdits(["a", "b"], ["a", "B"])).toEqual([
      { index: 1, kind: "constraint-substitute", before: "b", after: "B" },
    ])
  })
})
