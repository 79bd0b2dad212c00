import { describe, expect, it } from "vitest"
import type { WeighedRow } from "../../lib/data/schema"
import { addClassWeights, classesOf, noClassWeights, weightsByClass } from "../../lib/plots/token-classes"
import { leastDistance } from "../support/markers"

const row = {
  clean_instruction: "Write about a tall cook in a port.",
  noised_instruction: "Write about a cook in a mill.",
}

describe("token classes", () => {
  it("follow the word that a token is part of, however tokens cut it", () => {
    // "cook" is in both instructions, "port" in the clean one alone, "mill" in the noised one alone.
    const tokens = ["The", " co", "ok", " left", " the", " por", "t", ",", " not", " the mill", ".", ""]
    expect(classesOf(row, "The cook left the port, not the mill.", tokens)).toEqual([
      ...["other word", "word of both instructions", "word of both instructions", "other word", "other word"],
      ...["word of the clean instruction alone", "word of the clean instruction alone", "punctuation", "other word"],
      ...["other word", "punctuation", "end of turn"],
    ])
  })

  it("take a named end-of-turn token for the end of the turn", () => {
    expect(classesOf(row, "Mill.", ["Mill", ".", "<|end|>"])).toEqual([
      "word of the noised instruction alone",
      "punctuation",
      "end of turn",
    ])
  })

  it("are averaged by class and side", () => {
    const totals = noClassWeights()
    const signals = (tokens: string[]) => ({ tokens })
    const weighed = {
      ...row,
      chosen: "port!",
      rejected: "mill mill",
      signals: { chosen: signals(["port", "!", ""]), rejected: signals(["mill", " mill", ""]) },
    } as unknown as WeighedRow
    addClassWeights(totals, weighed, { chosen: [2, 0.5, 0.5], rejected: [1, 1.5, 0.5] })
    const { data } = weightsByClass({ kl: totals, uniform: noClassWeights() })
    expect(data.map(({ name, x, y }) => [name, x, y])).toEqual([
      ["kl", [0.5, 0.5, 2], ["end of turn", "punctuation", "word of the clean instruction alone"]],
      ["kl", [0.5, 1.25], ["end of turn", "word of the noised instruction alone"]],
    ])
  })
  it("are drawn with a place of its own for each weighting, where their means are the same too", async () => {
    const totals = noClassWeights()
    totals.chosen.punctuation = { n: 2, sum: 2 }
    const figure = weightsByClass({ kl: totals, contrast: totals, pmi: totals })
    expect(await leastDistance(figure, 3)).toBeGreaterThan(7)
  })
})
