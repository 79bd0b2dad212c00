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
    ["no id and no prompt", [{ response: "a" }], /line 1, id: .*neither id nor prompt/],
    ["no answer field", [{ id: "1", answer: "a" }], /line 1, response: .*got none/],
    ["an answer that is no text", [{ id: "1", response: 3 }], /line 1, response: expected string, got number/],
    [
      "the wrong number of turns",
      [{ id: "4", response: "a" }],
      /line 1, turns: .*must have 2 answers, one a turn, got 1/,
    ],
    ["NaN", ['{"id":"1","response":NaN}'], /line 1: must be JSON/],
    ["a list", ["[1]"], /line 1: expected object, got array/],
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
