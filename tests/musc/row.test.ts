import { describe, expect, it } from "vitest"
import { requireStage } from "../../lib/musc/row"

describe("a row of another stage than the one that is wanted", () => {
  it("is refused with the stage that it is of, and what to run first", () => {
    const decomposed = { id: "a", instruction: "Sing.", constraints: ["Is it sung?", "Is it short?"] }
    expect(() => requireStage(decomposed, "weigh", "rows.jsonl")).toThrow(
      "rows.jsonl: must hold rows of `musc weigh`, got rows of `musc decompose`; run `musc corrupt` on this file first",
    )
    expect(() => requireStage({ instruction: "Sing." }, "decompose", "seeds.jsonl")).toThrow(
      /must hold rows of `musc decompose`, got instructions without more; run `musc decompose` on this file first/,
    )
    expect(() => requireStage(decomposed, "decompose", "rows.jsonl")).not.toThrow()
    expect(() => requireStage({ ...decomposed, weights: {} }, "respond", "rows.jsonl")).not.toThrow()
  })
})
