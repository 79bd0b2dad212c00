import { expect, it } from "vitest"
import { methodFigure } from "../../lib/plots/method"

it("the picture of the method names its six stages in order, and no two boxes overlap", () => {
  const { layout } = methodFigure()
  const texts = (layout.annotations as { text: string }[]).map(({ text }) => text.replaceAll("<br>", " "))
  const stages = [...new Set(texts.filter((text) => /^\d /.test(text)))].sort()
  expect(stages).toEqual(["1 decompose", "2 corrupt", "3 recombine", "4 respond", "5 weigh", "6 train"])
  const shapes = layout.shapes as { type: string; x0: number; x1: number; y0: number; y1: number }[]
  const boxes = shapes.filter(({ type }) => type === "rect")
  const overlapping = boxes.flatMap((a, i) =>
    boxes.slice(i + 1).filter((b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1),
  )
  expect(boxes).toHaveLength(9)
  expect(overlapping).toEqual([])
})
