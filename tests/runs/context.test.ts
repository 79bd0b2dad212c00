import { describe, expect, it } from "vitest"
import { type Progress, stepProgress } from "../../lib/runs/context"
import { schedule } from "../../lib/train/optim"

describe("the steps of a training", () => {
  const shown = (steps: number) => {
    const progress: Progress[] = []
    const notes: string[] = []
    const show = stepProgress("train/musc", { onProgress: (p) => progress.push(p), onNote: (line) => notes.push(line) })
    const rate = schedule("cosine", 0.1)
    for (let step = 1; step <= steps; step++) {
      show({ step, steps, loss: 0.5, lr: rate(step - 1, steps), gradNorm: 1, tokens: 9 })
    }
    return { progress, notes }
  }

  it("are shown with the loss", () => {
    expect(shown(2).progress).toEqual([
      { stage: "train/musc", unit: "steps", done: 1, total: 2, note: "loss 0.500" },
      { stage: "train/musc", unit: "steps", done: 2, total: 2, note: "loss 0.500" },
    ])
    expect(shown(2).notes).toEqual([])
  })

  it("bring a warning where there is one alone, which warm-up keeps from learning", () => {
    expect(shown(1).notes).toEqual([expect.stringMatching(/^train\/musc: nothing was learned .* raise epochs$/)])
  })
})
