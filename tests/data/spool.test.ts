import { describe, expect, it } from "vitest"
import { Spool } from "../../lib/data/spool"

describe("a spool", () => {
  it("gives back what was put in, by place and in any order, to the last bit", () => {
    const spool = new Spool<{ id: string; values: number[] }>()
    const items = Array.from({ length: 300 }, (_, i) => ({
      id: `äöü ${i}`,
      values: Array.from({ length: i % 7 }, (_, k) => Math.sin(i + k / 3)),
    }))
    for (const item of items) spool.push(item)
    expect(spool.length).toBe(300)
    for (const i of [299, 0, 150, 7, 299]) expect(spool.at(i)).toEqual(items[i])
    spool.push({ id: "late", values: [-0] })
    expect(spool.at(300)).toEqual({ id: "late", values: [-0] })
    expect(spool.at(301)).toBeUndefined()
    expect(spool.at(-1)).toBeUndefined()
    spool.dispose()
  })
})
