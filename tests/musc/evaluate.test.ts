import { describe, expect, it } from "vitest"
import type { InstructionRow } from "../../lib/data/schema"
import { scripted } from "../../lib/engine/scripted"
import { evaluate } from "../../lib/musc/evaluate"
import { rng } from "../../lib/rng"
import { gradePair, graderOf, judgeGrader, worldGrader } from "../../lib/runs/graders"
import { questionOf } from "../../lib/world/kinds"
import { realise } from "../../lib/world/realise"
import { worldInstructions } from "../../lib/world/spec"

const row: InstructionRow = {
  ...{ id: "r1", instruction: "Write a haiku about rain.", input: null, source: "", calls: {} },
  constraints: ["Is it a haiku?", "Is it about rain?", "Is it good?"],
}
const options = { method: "base", seed: 0, temperature: 0.5, maxTokens: 20 }

describe("an evaluation", () => {
  it("holds the answer and a verdict on each constraint; a reply that is neither yes nor no is null", async () => {
    const replies: Record<string, string> = {
      "Is it a haiku?": "Yes.",
      "Is it about rain?": "No, it is about snow.",
      "Is it good?": "Hard to say",
    }
    const judge = scripted(({ messages }) => {
      const prompt = messages[0]!.content
      expect(prompt).toContain("Answer: snow falls")
      return Object.entries(replies).find(([question]) => prompt.includes(`Question: ${question}`))![1]
    })
    const writer = scripted({ [row.instruction]: " snow falls \n" })
    const item = await evaluate(writer, row, judgeGrader(judge, { maxTokens: 4 }), options)
    expect(item).toMatchObject({ id: "r1", method: "base", temperature: 0.5, answer: "snow falls" })
    expect(item.constraints.map(({ satisfied }) => satisfied)).toEqual([true, false, null])
    expect(judge.requests.every(({ temperature, maxTokens }) => temperature === 0 && maxTokens === 4)).toBe(true)
  })

  it("gives methods the same draws, and seeds different ones", async () => {
    const seeds: number[] = []
    const writer = scripted((request) => {
      seeds.push(request.seed)
      return "x"
    })
    const grade = async () => []
    for (const change of [{}, { method: "musc" }, { seed: 1 }])
      await evaluate(writer, row, grade, { ...options, ...change })
    expect(seeds[0]).toBe(seeds[1])
    expect(seeds[2]).not.toBe(seeds[0])
  })

  it("judges rows of the world exactly and asks no model for them", async () => {
    const [world] = worldInstructions({ n: 1, seed: 0, split: "eval" })
    const grade = graderOf(scripted({}), { maxTokens: 4 })
    const verdicts = await grade(world!, "nothing of the sort")
    expect(verdicts).toEqual(await worldGrader(world!, "nothing of the sort"))
    expect(verdicts).toHaveLength(world!.world.constraints.length)
    expect(verdicts.every(({ satisfied }) => satisfied !== null)).toBe(true)
  })

  it("grades a pair by the constraints that its row started from when its clean instruction is none of the world's", async () => {
    const [world] = worldInstructions({ n: 1, seed: 0, split: "train" })
    const pair = {
      ...world!,
      ...{ constraints: ["a", "b"], noised_constraints: ["a"], edits: [] },
      ...{ clean_instruction: "Something else.", noised_instruction: "Another thing.", rejected: "No." },
      chosen: realise(world!.world, rng(0)),
    }
    const { chosen, rejected } = await gradePair(pair, worldGrader)
    expect(chosen.map(({ question }) => question)).toEqual(world!.world.constraints.map(questionOf))
    expect(chosen.every(({ satisfied }) => satisfied)).toBe(true)
    expect(rejected.every(({ satisfied }) => satisfied)).toBe(false)
  })
})
