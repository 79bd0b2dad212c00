import type { Tensor2D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { effective } from "../../lib/ops/linear"
import { backends, largestGap, randomValues, tensorsLeft } from "../support/tensors"

describe.each(backends)("on %s, an effective matrix", (backend) => {
  beforeAll(async () => {
    await useBackend(backend)
  })

  const matrix = (rows: number, columns: number, key: string) =>
    tf.tensor2d(randomValues(rows * columns, 1, key), [rows, columns]) as Tensor2D

  it.each([
    { widths: [20], gaps: [0] },
    { widths: [12, 7], gaps: [0, 0] },
    { widths: [12, 7], gaps: [3, 5] },
  ])("is W + scale · A · B in the columns of its updates: $widths after $gaps", async ({ widths, gaps }) => {
    const [D, r, scale] = [29, 3, 7 / 3]
    const offsets = widths.map(
      (_, i) => widths.slice(0, i).reduce((a, b) => a + b, 0) + gaps.slice(0, i + 1).reduce((a, b) => a + b, 0),
    )
    const O = offsets.at(-1)! + widths.at(-1)! + 4
    const weight = matrix(D, O, "W")
    const updates = widths.map((width, i) => ({
      A: matrix(D, r, `A${i}`),
      B: matrix(r, width, `B${i}`),
      offset: offsets[i]!,
    }))
    const wanted = weight.arraySync()
    for (const { A, B, offset } of updates) {
      const [a, b] = [A.arraySync(), B.arraySync()]
      for (const [d, row] of a.entries()) {
        b[0]!.forEach((_, o) => {
          wanted[d]![offset + o]! += scale * row.reduce((sum, x, j) => sum + x * b[j]![o]!, 0)
        })
      }
    }
    const left = await tensorsLeft(() => {
      const made = effective(weight, updates, scale)
      expect(largestGap(made.weight.dataSync(), wanted.flat())).toBeLessThan(2e-6)
      made.lora.forEach(({ A, B, offset, scaled }, i) => {
        expect([A, B, offset]).toEqual([updates[i]!.A, updates[i]!.B, updates[i]!.offset])
        expect(
          largestGap(
            scaled.A.dataSync(),
            tf.tidy(() => tf.mul(A, scale).dataSync()),
          ),
        ).toBeLessThan(1e-6)
        expect(
          largestGap(
            scaled.B.dataSync(),
            tf.tidy(() => tf.mul(B, scale).dataSync()),
          ),
        ).toBeLessThan(1e-6)
      })
      tf.dispose([made.weight, made.lora.map(({ scaled }) => [scaled.A, scaled.B])])
    })
    expect(left).toBe(0)
    tf.dispose([weight, updates.map(({ A, B }) => [A, B])])
  })
})
