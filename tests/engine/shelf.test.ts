import { execFileSync } from "node:child_process"
import { existsSync, readdirSync } from "node:fs"
import type { Tensor1D } from "@tensorflow/tfjs-core"
import { beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { Shelf } from "../../lib/engine/shelf"
import { randomValues } from "../support/tensors"

describe.runIf(existsSync("/dev/shm") && existsSync("/proc/self/fd"))("a shelf", () => {
  const [first, second] = [randomValues(1000, 1, "first"), randomValues(1000, 1, "second")].map((x) =>
    Float32Array.from(x),
  ) as [Float32Array, Float32Array]

  const vector = (values: Float32Array): Tensor1D => tf.tensor1d(values)
  const taken = (shelf: Shelf, slot: number) => tf.tidy(() => shelf.take(slot).dataSync())
  beforeAll(() => useBackend())

  it("gives what was put into a slot, whoever of its processes asks", async () => {
    const shelf = Shelf.make(1000)!
    const other = Shelf.open(shelf.place)
    expect(await shelf.put(0, vector(first))).toBe(true)
    expect(await other.put(2, vector(second))).toBe(true)
    expect(taken(other, 0)).toEqual(first)
    expect(taken(shelf, 2)).toEqual(second)
    expect(await other.put(0, vector(second))).toBe(true)
    expect(taken(shelf, 0)).toEqual(second)
    shelf.close()
    expect(taken(other, 0)).toEqual(second)
    other.close()
  })

  it("is read by another process by its place", async () => {
    const shelf = Shelf.make(1000)!
    await shelf.put(1, vector(first))
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

  it("refuses to give what nobody has put", async () => {
    const shelf = Shelf.make(1000)!
    expect(() => shelf.take(0)).toThrow("slot must hold what is asked for, got less")
    shelf.close()
    expect(await shelf.put(0, vector(first))).toBe(false)
  })
})
