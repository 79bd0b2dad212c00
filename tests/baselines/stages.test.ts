import { describe, expect, it } from "vitest"
import { type SampledRow, sample } from "../../lib/baselines/sample"
import { selfCorrect } from "../../lib/baselines/self-correct"
import { type JudgedRow, judgeByConstraint, judgeByPoints, selfReward } from "../../lib/baselines/self-reward"
import type { DecomposedRow } from "../../lib/data/schema"
import { scripted } from "../../lib/engine/scripted"
import { judgeGrader } from "../../lib/runs/graders"

const row: DecomposedRow = {
  id: "r1",
  instruction: "Name a red thing. Use one word.",
  input: null,
  source: "test",
  calls: {},
  constraints: ["Is it a red thing?", "Is it one word?"],
}
const sampled = (answers: string[]): SampledRow => ({ ...row, answers })
const judged = (scores: (number | null)[], verdicts?: (boolean | null)[][]): JudgedRow => ({
  ...sampled(scores.map((_, i) => `answer ${i}`)),
  scores,
  verdicts: verdicts?.map((list) =>
    list.map((satisfied, i) => ({ question: row.constraints[i]!, kind: "", satisfied })),
  ),
})
const revising = { seed: 0, temperature: 0.5, maxTokens: 20, keepCut: false }

describe("sampling", () => {
  it("asks the instruction as often as told, each time on a stream of its own, and keeps different whole answers", async () => {
    const texts = ["Blood.", " Rose. ", "Blood.", "", "A red and"]
    const engine = scripted(({ seed }) => {
      const i = seeds.indexOf(seed) < 0 ? seeds.push(seed) - 1 : seeds.indexOf(seed)
      return i === 4 ? { text: texts[i]!, finish: "length" } : texts[i]!
    })
    const seeds: number[] = []
    const out = await sample(engine, row, { samples: 5 })
    expect(out).toMatchObject({ answers: ["Blood.", "Rose."] })
    expect(new Set(seeds).size).toBe(5)
    expect(out.calls.sample).toHaveLength(5)
  })

  it("does not say a text twice that decompose found inside the instruction", async () => {
    const engine = scripted(({ seed }) => `${seed}`)
    await sample(engine, { ...row, instruction: "Shorten this: a b c", input: "a b c" })
    await sample(engine, { ...row, instruction: "Shorten this.", input: "a b c" })
    const asked = new Set(engine.requests.map(({ messages }) => messages[0]!.content))
    expect([...asked]).toEqual(["Shorten this: a b c", "Shorten this.\n\na b c"])
  })

  it("fails a row with one answer only, with the reason", async () => {
    expect(
      await sample(
        scripted(() => "Rose."),
        row,
      ),
    ).toMatchObject({
      failure: { stage: "sample", reason: "fewer than 2 different answers" },
    })
  })
})

describe("judging", () => {
  // "Rose" gets yes and yes, "A rose" yes and no, "Sky" no and an unreadable reply, "?" nothing readable.
  const replies: Record<string, [string, string]> = {
    Rose: ["a rose\nyes", "yes"],
    "A rose": ["yes", "two words\nno"],
    Sky: ["no", "Hm."],
    "?": ["Who knows", "Hm."],
  }
  const engine = scripted(({ messages }) => {
    const text = messages[0]!.content
    return replies[/Answer: (.*)/.exec(text)![1]!]![/Question: (.*)/.exec(text)![1] === row.constraints[0] ? 0 : 1]
  })

  it("by constraint scores the share of yes among readable verdicts, and keeps the replies", async () => {
    const out = await judgeByConstraint(judgeGrader(engine, { maxTokens: 9 }), sampled(Object.keys(replies)))
    expect(out).toMatchObject({ scores: [1, 0.5, 0, null] })
    expect((out as JudgedRow).verdicts![1]!.map(({ satisfied, reply }) => [satisfied, reply])).toEqual([
      [true, "yes"],
      [false, "two words\nno"],
    ])
  })

  it("by points leaves an unread score open", async () => {
    const points = scripted(({ messages }) => (messages[0]!.content.endsWith("Rose") ? "Score: 4" : "It is fine."))
    expect(await judgeByPoints(points, sampled(["Rose", "Sky"]), { maxTokens: 9 })).toMatchObject({ scores: [4, null] })
    const stopped = [
      { text: "Score: 4", problem: "stopped by the server's content filter" },
      { text: "Score: 4", finish: "length" as const }, // .5
    ]
    const cut = scripted(() => stopped.shift()!)
    expect(await judgeByPoints(cut, sampled(["Rose", "Sky"]), { maxTokens: 9 })).toMatchObject({ scores: [null, null] })
  })
})

describe("Self-Reward", () => {
  it("prefers the best answer to the worst, the first of each", () => {
    expect(selfReward(judged([0.5, 1, null, 0.25, 1, 0.25]))).toMatchObject({
      chosen: "answer 1",
      rejected: "answer 3",
      clean_instruction: row.instruction,
    })
  })

  it("drops ties and rows with fewer than two scores, with the reason", () => {
    expect(selfReward(judged([0.5, null, 0.5])).failure).toEqual({
      stage: "select",
      reason: "all answers score the same",
    })
    expect(selfReward(judged([null, 1])).failure?.reason).toBe("fewer than 2 answers with a score")
  })
})

describe("Self-Correct", () => {
  const failing = judged(
    [1, 0, 0.5],
    [
      [true, true],
      [false, false],
      [true, false],
    ],
  )

  it("has the worst answer revised against the constraints that it fails, and prefers the revision", async () => {
    const engine = scripted(() => "Answer: Rose")
    expect(await selfCorrect(engine, failing, revising)).toMatchObject({ chosen: "Rose", rejected: "answer 1" })
    expect(engine.requests[0]!.messages[0]!.content).toMatch(
      /Answer: answer 1\n\nQuestions:\n##1\. Is it a red thing\?\n##2\. Is it one word\?$/,
    )
  })

  it.each([
    [
      "no constraint fails",
      judged(
        [1, 1],
        [
          [true, true],
          [true, null],
        ],
      ),
      "Rose",
    ],
    [
      "no verdict could be read",
      judged(
        [null, null],
        [
          [null, null],
          [null, null],
        ],
      ),
      "Rose",
    ],
    ["answer unchanged", failing, "answer 1"],
    ["empty revision", failing, "  "],
  ])("fails where %s", async (reason, given, reply) => {
    expect(
      (
        await selfCorrect(
          scripted(() => reply),
          given,
          revising,
        )
      ).failure,
    ).toEqual({ stage: "revise", reason })
  })
})
