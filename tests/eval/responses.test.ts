import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { readAnswers } from "../../lib/eval/responses"

const dir = mkdtempSync(join(tmpdir(), "musc-answers-"))
afterAll(() => rmSync(dir, { recursive: true }))
const item = (id: string, ...turns: string[]) => ({ id, unit: id, turns, temperature: 0, maxTokens: 8, data: null })
const items = [item("1", "one?"), item("2", "two?"), item("3", "two?"), item("4", "first?", "second?")]
const file = join(dir, "answers.jsonl")
const read = async (...lines: (object | string | Buffer)[]) => {
  writeFileSync(file, Buffer.concat(lines.map((line) => Buffer.concat([toBuffer(line), Buffer.from("\n")]))))
  const { answers, notes } = await readAnswers(file, items)
  return { answers: Object.fromEntries(answers), notes }
}
const toBuffer = (line: object | string | Buffer) =>
  Buffer.isBuffer(line) ? line : Buffer.from(typeof line === "string" ? line : JSON.stringify(line))
const missing = (...ids: string[]) => `without an answer and left out: ${ids.length} of 4 items (${ids.join(", ")})`

it("answers in a table are refused with the way to write them", async () => {
  const table = join(dir, "answers.csv")
  writeFileSync(table, "id,response\n1,a\n")
  await expect(readAnswers(table, items)).rejects.toThrow(/answers\.csv, line 1: must be JSON.*write it as JSON lines/)
})

describe("answers made elsewhere", () => {
  it("are found by id in any of its names, as text or number, and by prompt", async () => {
    const { answers, notes } = await read(
      { key: 1, response: "a" },
      { prompt: "two?", output: "b" },
      { question_id: 4, choices: [{ turns: ["c", "d"] }] },
    )
    expect(answers).toEqual({ 1: ["a"], 2: ["b"], 3: ["b"], 4: ["c", "d"] })
    expect(notes).toEqual([])
  })

  it("are read from a list of one, and of several choices the first counts, which is said", async () => {
    const [one, two] = [{ turns: ["c", "d"] }, { turns: ["e", "f"] }]
    const { answers, notes } = await read(
      { key: 1, response: ["a"] },
      { prompt: "two?", output: ["b"] },
      { question_id: 4, choices: [one, two] },
    )
    expect(answers).toEqual({ 1: ["a"], 2: ["b"], 3: ["b"], 4: ["c", "d"] })
    expect(notes).toEqual(["rows with several choices, of which the first counts: 1"])
  })

  it("are scored without an end-of-turn token behind them, which is said", async () => {
    const { answers, notes } = await read({ key: 1, response: "a<|im_end|>\n" }, { prompt: "two?", response: "b" })
    expect(answers).toEqual({ 1: ["a"], 2: ["b"], 3: ["b"] })
    expect(notes).toContain("answers that end in an end-of-turn token, which is left out: 1")
  })

  it("match in order where a prompt stands as often in the benchmark", async () => {
    const { answers } = await read({ prompt: "two?", response: "x" }, { prompt: "two?", response: "y" })
    expect(answers).toEqual({ 2: ["x"], 3: ["y"] })
  })

  it("that are missing, null, empty or for unknown prompts are counted", async () => {
    const { answers, notes } = await read(
      { id: "1", response: "" },
      { id: "2", response: null },
      { prompt: "what?", response: "x" },
      { id: "9", response: "x" },
    )
    expect(answers).toEqual({ 1: [""] })
    expect(notes).toEqual([
      missing("2", "3", "4"),
      "answers that are null, which counts as none: 1",
      "answers for none of the items: 2, the first on line 3",
      "empty answers, scored as they are: 1",
    ])
  })

  it("are read in the shapes of official files, servers' batches and lm-eval's sample logs", async () => {
    const shapes: [string, object | string, string][] = [
      [
        "AlpacaEval, an array",
        JSON.stringify([{ dataset: "x", instruction: "one?", output: "a", generator: "mine" }]),
        "a",
      ],
      ["an array over several lines", JSON.stringify([{ prompt: "one?", response: "a" }], null, 1), "a"],
      ["FollowBench", { prompt_new: "one?", choices: [{ message: { role: "assistant", content: "a" } }] }, "a"],
      ["ComplexBench", { main_id: 1, model: "m", instruction: "one?", generated: "a" }, "a"],
      [
        "a server's reply",
        { id: "1", choices: [{ index: 0, message: { content: [{ type: "text", text: "a" }, "b"] } }] },
        "ab",
      ],
      [
        "a server's reply with thoughts of its own",
        { id: 1, choices: [{ message: { content: "\n\na", reasoning_content: "hm" } }] },
        "a",
      ],
      ["a completion", { key: 1, choices: [{ text: "a" }] }, "a"],
      [
        "a batch",
        { custom_id: "1", response: { status_code: 200, body: { choices: [{ message: { content: "a" } }] } } },
        "a",
      ],
      [
        "a batch whose lines have ids of the server's own",
        {
          ...{ id: "batch_req_2", custom_id: "1", error: null },
          response: { request_id: "r", body: { id: "chatcmpl-1", choices: [{ message: { content: "a" } }] } },
        },
        "a",
      ],
      [
        "a batch of Responses, whose thoughts are items of their own",
        {
          custom_id: "1",
          response: {
            body: {
              output: [
                { type: "reasoning", content: [{ type: "reasoning_text", text: "hm" }] },
                { type: "message", role: "assistant", content: [{ type: "output_text", text: "a" }] },
              ],
            },
          },
        },
        "a",
      ],
      [
        "a batch of Anthropic's server, whose thoughts are parts",
        {
          custom_id: "1",
          result: {
            type: "succeeded",
            message: {
              role: "assistant",
              content: [
                { type: "thinking", thinking: "hm" },
                { type: "text", text: "a" },
              ],
            },
          },
        },
        "a",
      ],
      [
        "parts with thoughts as text",
        {
          id: 1,
          choices: [
            {
              message: {
                content: [
                  { type: "reasoning", text: "hm" },
                  { type: "text", text: "a" },
                ],
              },
            },
          ],
        },
        "a",
      ],
      [
        "a chat up to the question, with an example before it and the answer beside",
        {
          id: 1,
          messages: ["example?", "not this", "one?"].map((content, i) => ({
            ...{ role: i % 2 ? "assistant" : "user", content },
          })),
          response: "a",
        },
        "a",
      ],
      ["a row number beside the key", { id: 3, key: 1, prompt: "one?", response: "a" }, "a"],
      ["a byte-order mark", '\uFEFF{"id":1,"response":"a"}\r', "a"],
      ["NaN among the figures of a log", '{"doc":{"key":1,"prompt":"one?"},"resps":[["a"]],"acc":NaN}', "a"],
      [
        "a chat",
        {
          messages: [
            { role: "system", content: "s" },
            { role: "user", content: "one?" },
            { role: "assistant", content: "a" },
          ],
        },
        "a",
      ],
      [
        "lm-eval, whose doc_id is a row number",
        {
          doc_id: 0,
          doc: { key: 1, prompt: "one?" },
          target: "",
          arguments: {},
          resps: [["a "]],
          filtered_resps: ["a"],
          filter: "none",
        },
        "a",
      ],
      ["blanks and line ends around the prompt", { prompt: "one?\r\n", response: "a" }, "a"],
    ]
    for (const [name, shape, answer] of shapes) expect((await read(shape)).answers, name).toEqual({ 1: [answer] })
    const chat = {
      messages: ["first?", "c", "second?", "d"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content })),
    }
    expect((await read(chat)).answers).toEqual({ 4: ["c", "d"] })
  })

  it("that a server or a data frame has not got count as null", async () => {
    const { answers, notes } = await read(
      { id: "1", response: "a" },
      { custom_id: "2", response: { status_code: 400, body: { error: { message: "no" } } } },
      { custom_id: "3", response: null, error: { message: "expired" } },
      { custom_id: "3", result: { type: "errored", error: { type: "overloaded_error" } } },
      '{"id":"4","response":NaN}',
    )
    expect(answers).toEqual({ 1: ["a"] })
    expect(notes).toContain("answers that are null, which counts as none: 4")
    await expect(read('{"id":"1","response":NaN}')).rejects.toThrow("got none that does (1 answers are null)")
  })

  it("are read beside fields that a data frame filled with null", async () => {
    const nulls = { response: null, turns: null, messages: null, choices: null, doc: null, resps: null, prompt: null }
    const { answers } = await read(
      { ...nulls, id: 1, output: "a" },
      { ...nulls, messages: [{ role: "user", content: "two?" }, { role: "assistant", content: "b" }, { role: null }] },
      { ...nulls, id: 4, choices: [{ turns: null, message: null, text: null }, {}], turns: ["c", "d"] },
    )
    expect(answers).toEqual({ 1: ["a"], 2: ["b"], 3: ["b"], 4: ["c", "d"] })
  })

  it("are found by a prompt of messages", async () => {
    const { answers } = await read({ prompt: [{ role: "user", content: "one?" }], completion: "a" })
    expect(answers).toEqual({ 1: ["a"] })
  })

  it("find an item whose input is part of its prompt", async () => {
    const some = [item("a", "Translate.\n\nHello")]
    writeFileSync(file, JSON.stringify({ id: "a", instruction: "Translate.", input: "Hello", output: "Hallo" }))
    expect(Object.fromEntries((await readAnswers(file, some)).answers)).toEqual({ a: ["Hallo"] })
  })

  it("are never scored against another prompt: where id and prompt disagree the prompt decides, else they are left out", async () => {
    const { answers, notes } = await read(
      { id: 3, prompt: "one?", response: "a" }, // row 3 of a file of its own
      { id: 1, prompt: "made up", response: "b" },
      { id: 77, prompt: "two?", response: "c" },
      { id: 99, prompt: "made up too", response: "d" },
    )
    expect(answers).toEqual({ 1: ["a"], 2: ["c"], 3: ["c"] })
    expect(notes.slice(1)).toEqual([
      "answers left out since their id belongs to another prompt, and their prompt to no item: 1, the first on line 2",
      "answers matched by prompt, as their id belongs to another prompt or to none: 2, the first on line 1",
      "answers for none of the items: 1, the first on line 4",
    ])
    const refused = read({ id: 1, prompt: "made up", response: "b" })
    await expect(refused).rejects.toThrow("got none that does (id and prompt disagree in 1 rows)")
  })

  it("may stand there twice when they are alike, as in logs of several filters", async () => {
    const log = { doc: { key: 1, prompt: "one?" }, filtered_resps: ["a"] }
    const { answers, notes } = await read(log, { ...log, filter: "other" })
    expect(answers).toEqual({ 1: ["a"] })
    expect(notes).toContain("answers that stand there twice, alike: 1")
  })

  it("that differ within a row are refused: one may be a reference", async () => {
    await expect(read({ id: "1", output: "a reference", response: "a" })).rejects.toThrow(
      /line 1, output: an answer must be given once, got another in output than in response; remove one/,
    )
    const messages = [
      { role: "user", content: "one?" },
      { role: "assistant", content: "a" },
    ]
    await expect(read({ messages, generated: "b" })).rejects.toThrow(
      /line 1, messages: .*in messages than in generated/,
    )
    expect((await read({ messages, generated: "a" })).answers).toEqual({ 1: ["a"] })
  })

  it("are scored without the thoughts of a model that thinks aloud", async () => {
    const { answers, notes } = await read({ id: "1", response: "<think>\nwith, commas\n</think>\n\nhello there" })
    expect(answers).toEqual({ 1: ["hello there"] })
    expect(notes).toContain("answers that begin with thoughts, which are left out: 1")
  })

  const problems: [string, (object | string | Buffer)[], RegExp][] = [
    [
      "an id twice",
      [
        { id: "1", response: "a" },
        { key: 1, response: "b" },
      ],
      /line 2: .*answered once, got 1 on line 1/,
    ],
    [
      "a prompt twice",
      [
        { prompt: "one?", response: "a" },
        { prompt: "one?", response: "b" },
      ],
      /line 2, prompt: /,
    ],
    ["no id and no prompt", [{ response: "a" }], /line 1, id: .*neither id nor prompt, but response; add one/],
    ["no answer field", [{ id: "1", answer: "a" }], /line 1, response: .*got none, but answer; rename the field/],
    ["no answer at all", [{ id: "1" }], /line 1, response: .*got none; add it/],
    ["several samples", [{ id: "1", response: ["a", "b"] }], /line 1, response: .*given once, got 2; keep one/],
    [
      "several samples of lm-eval",
      [{ doc: { key: 1 }, resps: [["a", "b"]], filtered_resps: [["a", "b"]] }],
      /line 1, resps: .*given once, got 2; keep one/,
    ],
    [
      "columns instead of rows",
      [{ key: [1, 2], response: ["a", "b"] }],
      /line 1, key: must be a text or a whole number/,
    ],
    ["an answer that is no text", [{ id: "1", response: 3 }], /line 1, response: must be a text or a server's reply/],
    [
      "the wrong number of turns",
      [{ id: "4", response: "a" }],
      /line 1, turns: .*must have 2 answers, one a turn, got 1/,
    ],
    ["a word that is no JSON", ['{"id":"1","response":nan}'], /line 1: must be JSON/],
    ["one object over several lines", ["{", '"1": "a"', "}"], /line 1: must be JSON.*all records as one array/],
    ["a list of what is no record", ["[1]"], /line 1: expected object, got number/],
    [
      "a line of 10 MB",
      [{ id: "1", response: "x".repeat(10_000_000) }],
      /line 1: a line must have at most 4194304 bytes/,
    ],
    ["bytes that are not UTF-8", [Buffer.from([0x7b, 0xff, 0x7d])], /line 1: must be valid UTF-8/],
    ["nothing", [""], /must hold at least one record/],
    ["no answer to any item", [{ id: "7", response: "a" }], /must answer an item of the benchmark, got none/],
  ]
  for (const [name, lines, message] of problems) {
    it(`are refused with file and line for ${name}`, async () => {
      const refused = read(...lines)
      await expect(refused).rejects.toThrow(message)
      await expect(refused).rejects.toMatchObject({ name: "InputError", file })
    })
  }
})
