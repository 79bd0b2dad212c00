import { describe, expect, it } from "vitest"
import { batching } from "../../lib/engine/batcher"

const pause = (ms: number) => new Promise<void>((done) => setTimeout(done, ms))

/** A batched doubling that notes its batches. */
function doubling(options: { maxBatch: number; order?: (n: number) => number }) {
  const batches: number[][] = []
  const call = batching(async (batch: number[]) => {
    batches.push(batch)
    await pause(1)
    return batch.map((n) => 2 * n)
  }, options)
  return { call, batches }
}

describe("batching", () => {
  it("gathers the calls of one turn and answers each with its own result", async () => {
    const { call, batches } = doubling({ maxBatch: 8 })
    expect(await Promise.all([1, 2, 3].map(call))).toEqual([2, 4, 6])
    expect(batches).toEqual([[1, 2, 3]])
  })

  it("cuts at the largest batch, and takes calls that arrive meanwhile into the next one", async () => {
    const { call, batches } = doubling({ maxBatch: 2 })
    const first = Promise.all([1, 2, 3].map(call))
    await pause(0)
    expect(await call(4)).toBe(8)
    expect(await first).toEqual([2, 4, 6])
    expect(batches).toEqual([
      [1, 2],
      [3, 4],
    ])
  })

  it("lets callers whose answer has come join the next batch with their next call", async () => {
    const { call, batches } = doubling({ maxBatch: 4 })
    const twice = async (n: number) => call(await call(n))
    expect(await Promise.all([1, 2, 3, 4, 5, 6].map(twice))).toEqual([4, 8, 12, 16, 20, 24])
    expect(batches).toEqual([
      [1, 2, 3, 4],
      [5, 6, 2, 4],
      [6, 8, 10, 12],
    ])
  })

  it("puts calls of near keys together, the oldest always among them", async () => {
    const { call, batches } = doubling({ maxBatch: 3, order: (n) => n })
    await Promise.all([9, 1, 8, 2, 7, 3].map(call))
    expect(batches).toEqual([
      [7, 8, 9],
      [1, 2, 3],
    ])
  })

  it("shares calls out among lanes, so many at once, and into none too few", async () => {
    const sizes: number[] = []
    let [running, most] = [0, 0]
    const call = batching(
      async (batch: number[]) => {
        sizes.push(batch.length)
        most = Math.max(most, ++running)
        await pause(batch.includes(0) ? 200 : 1)
        running--
        return batch.map((n) => 2 * n)
      },
      { maxBatch: 64, lanes: () => 2 },
    )
    const calls = Array.from({ length: 130 }, (_, n) => n)
    expect(await Promise.all(calls.map(call))).toEqual(calls.map((n) => 2 * n))
    expect(most).toBe(2)
    // 130 / 2 is more than a batch holds; the two that are left go to the lane that is free first
    expect(sizes).toEqual([64, 64, 2])
    sizes.length = 0
    await Promise.all(calls.slice(0, 50).map(call))
    expect(sizes).toEqual([25, 25])
    sizes.length = 0
    await Promise.all(calls.slice(0, 6).map(call))
    expect(sizes).toEqual([4, 2])
  })

  it("rejects the calls of a failed batch alone", async () => {
    const call = batching(
      async (batch: number[]) => {
        if (batch.includes(2)) throw new Error("two")
        return batch
      },
      { maxBatch: 2 },
    )
    const results = await Promise.allSettled([1, 2, 3, 4].map(call))
    expect(results.map((result) => result.status)).toEqual(["rejected", "rejected", "fulfilled", "fulfilled"])
    expect(await call(5)).toBe(5)
  })

  it("rejects when results are missing, or the function throws at once", async () => {
    await expect(batching(async () => [], { maxBatch: 2 })(1)).rejects.toThrow(/got 0 for 1 calls/)
    const thrown = batching(
      (): Promise<number[]> => {
        throw new Error("at once")
      },
      { maxBatch: 2 },
    )
    await expect(thrown(1)).rejects.toThrow("at once")
  })
})
