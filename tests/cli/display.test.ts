import { PassThrough } from "node:stream"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { display } from "../../lib/cli/display"

describe("progress where output goes to a file", () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it("writes the last line once, also where it was just written", () => {
    const stream = new PassThrough()
    const shown = display(stream as unknown as NodeJS.WriteStream)
    shown.progress({ stage: "weigh", unit: "rows", done: 0, total: 2 })
    vi.advanceTimersByTime(6000)
    shown.progress({ stage: "weigh", unit: "rows", done: 2, total: 2 })
    shown.end()
    shown.end()
    expect(String(stream.read())).toBe("weigh: 2 of 2 rows, 0.3 rows/s\n")
  })

  it("tells the rate of a stage, without what comes between it and the next", () => {
    const stream = new PassThrough()
    const shown = display(stream as unknown as NodeJS.WriteStream)
    const rows = (stage: string, done: number) => shown.progress({ stage, unit: "rows", done, total: 100 })
    rows("respond", 0)
    vi.advanceTimersByTime(1500)
    shown.tokens(3000)
    vi.advanceTimersByTime(500)
    rows("respond", 100)
    vi.advanceTimersByTime(8000)
    rows("weigh", 0)
    vi.advanceTimersByTime(4000)
    rows("weigh", 100)
    vi.advanceTimersByTime(60000)
    shown.end()
    expect(String(stream.read())).toBe(
      "respond: 100 of 100 rows, 50 rows/s, 1500 tokens/s\nweigh: 100 of 100 rows, 25 rows/s\n",
    )
  })
})
