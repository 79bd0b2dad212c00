import { execFileSync } from "node:child_process"
import { existsSync, readdirSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { Shelf } from "../../lib/engine/shelf"
import { randomValues } from "../support/tensors"

describe.runIf(existsSync("/dev/shm") && existsSync("/proc/self/fd"))("a shelf", () => {
  const [first, second] = [randomValues(1000, 1, "first"), randomValues(1000, 1, "second")].map((x) =>
    Float32Array.from(x),
  ) as [Float32Array, Float32Array]

  it("gives what was put into a slot, whoever of its processes asks", () => {
    const shelf = Shelf.make(1000)!
    const other = Shelf.open(shelf.place)
    expect(shelf.put(0, first)).toBe(true)
    expect(other.put(2, second)).toBe(true)
    expect(other.take(0)).toEqual(first)
    expect(shelf.take(2)).toEqual(second)
    expect(other.put(0, second.subarray())).toBe(true)
    expect(shelf.take(0)).toEqual(second)
    shelf.close()
    expect(other.take(0)).toEqual(second)
    other.close()
  })

  it("is read by another process by its place", () => {
    const shelf = Shelf.make(1000)!
    shelf.put(1, first)
    const script = `const d = require("fs").readFileSync(process.argv[1]); console.log(new Float32Array(d.buffer, d.byteOffset + 4000, 1000)[7])`
    const printed = execFileSync(process.execPath, ["-e", script, shelf.place.path], { encoding: "utf8" })
    expect(Number(printed)).toBe(first[7])
    shelf.close()
  })

  it("has no name by which it could be left behind", () => {
    const shelf = Shelf.make(1000)!
    expect(readdirSync("/dev/shm").filter((name) => name.startsWith(`musc-${process.pid}-`))).toEqual([])
    shelf.close()
  })

  it("refuses to give what nobody has put", () => {
    const shelf = Shelf.make(1000)!
    expect(() => shelf.take(0)).toThrow("slot 0 must hold 4000 bytes, got 0")
    shelf.close()
    expect(shelf.put(0, first)).toBe(false)
  })
})
