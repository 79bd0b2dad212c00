import { describe, expect, it } from "vitest"
import { type InstructionRow, instructionRow } from "../../lib/data/schema"
import { scripted } from "../../lib/engine/scripted"
import { selfInstructDemos } from "../../lib/musc/demos"
import type { Outcome } from "../../lib/musc/row"
import { markNearDuplicates, selfInstruct } from "../../lib/musc/source"
import { rng } from "../../lib/rng"

describe("self-instruct", () => {
  it("shows two examples with a text and two without, drawn for each row", async () => {
    const engine = scripted(() => "Instruction: Do this.")
    const row = await selfInstruct(engine, 7)
    expect(instructionRow.parse(row)).toMatchObject({ id: "self-7", instruction: "Do this.", source: "self-instruct" })
    const shown = async (index: number) => {
      await selfInstruct(engine, index)
      return engine.requests
        .at(-1)!
        .messages.filter(({ role }) => role === "assistant")
        .map(({ content }) => content)
    }
    const demos = await shown(7)
    expect(demos.filter((demo) => selfInstructDemos.text.includes(demo))).toHaveLength(2)
    expect(demos.filter((demo) => selfInstructDemos.plain.includes(demo))).toHaveLength(2)
    expect(await shown(7)).toEqual(demos)
    const others = [await shown(0), await shown(1), await shown(2), await shown(3)]
    expect(new Set(others.map((some) => some.join())).size).toBe(4)
  })

  it("keeps an empty reply as a failed row that can be stored", async () => {
    const row = await selfInstruct(
      scripted(() => " "),
      0,
    )
    expect(instructionRow.parse(row).failure).toEqual({ stage: "source", reason: "empty instruction" })
  })
})

describe("near-duplicates", () => {
  const mark = async (texts: readonly string[], threshold?: number, inputs: readonly (string | null)[] = []) => {
    const rows = texts.map(
      (instruction, i): Outcome<InstructionRow> => ({
        ...instructionRow.parse({ id: `${i}`, instruction, input: inputs[i] ?? null }),
        failure: undefined,
      }),
    )
    const out: Outcome<InstructionRow>[] = []
    for await (const row of markNearDuplicates(rows, threshold)) out.push(row)
    return out
  }

  it("keep the first and mark later ones, whatever their case and punctuation", async () => {
    const out = await mark(["Write a poem about the sea.", "List ten rivers in Asia.", "write a poem, about the SEA"])
    expect(out.map((row) => row.failure?.reason)).toEqual([undefined, undefined, "near-duplicate"])
    expect(out[2]).toMatchObject({ duplicate_of: "0" })
  })

  // 5-grams of 20 characters each way: "abcdefghijklmnopqrst" has 16; changing its last letter changes one: 15 / 17 =
  // .88; changing a middle letter changes five: 11 / 21 = .52.
  it("are those whose Jaccard similarity of 5-grams reaches the threshold", async () => {
    const last = ["abcdefghijklmnopqrst", "abcdefghijklmnopqrsX"]
    const middle = ["abcdefghijklmnopqrst", "abcdefghijXlmnopqrst"]
    const marks = async (texts: string[], t: number) => (await mark(texts, t))[1]!.failure !== undefined
    expect([await marks(last, 0.88), await marks(last, 0.89)]).toEqual([true, false])
    expect([await marks(middle, 0.52), await marks(middle, 0.53)]).toEqual([true, false])
    expect([await marks(["a b", "a b"], 1), await marks(["a b", "a b"], 1.01)]).toEqual([true, false])
  })

  it("take the text into account", async () => {
    const same = "Sort the sentence."
    const out = await mark([same, same, same], 0.7, [
      "The cat sat on the red mat.",
      "Nobody drove home yesterday night.",
      null,
    ])
    expect(out.map((row) => row.failure)).toEqual([undefined, undefined, undefined])
  })

  // The index must find exactly what comparing all pairs finds.
  it("are the same as those found by comparing all pairs", async () => {
    const words = "red blue green tall small house tree river song cloud".split(" ")
    const { pick } = rng("duplicates")
    const texts = Array.from({ length: 1300 }, () => Array.from({ length: 5 }, () => pick(words)).join(" "))
    const grams = (text: string) => new Set(Array.from({ length: text.length - 4 }, (_, i) => text.slice(i, i + 5)))
    const kept: Set<string>[] = []
    const expected = texts.map((text) => {
      const mine = grams(text)
      const near = kept.some((other) => {
        const shared = [...mine].filter((gram) => other.has(gram)).length
        return shared / (mine.size + other.size - shared) >= 0.4
      })
      if (!near) kept.push(mine)
      return near
    })
    expect((await mark(texts, 0.4)).map((row) => row.failure !== undefined)).toEqual(expected)
    expect(expected.filter(Boolean).length).toBeGreaterThan(20)
  })
})
