import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beforeEach, describe, expect, it } from "vitest"
import { StoppedError } from "../../lib/errors"
import { keyFileOf, keyOf, type RowStage, readState, runRows } from "../../lib/runs/store"

let dir = ""
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "musc-store-"))
})

/** A stage of ten rows that counts its calls; row 3 fails. */
function stage(changes: Partial<RowStage<number, object>> = {}) {
  const worked: number[] = []
  const options: RowStage<number, object> = {
    stage: "double",
    file: join(dir, "double.jsonl"),
    key: "k1",
    rows: () => [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    work: async (row) => {
      worked.push(row)
      return {
        id: `r${row}`,
        twice: 2 * row,
        text: "ä€🙂\n",
        ...(row === 3 && { failure: { stage: "double", reason: "three" } }),
      }
    },
    chunk: () => 4,
    replay: () => true,
    ...changes,
  }
  return { worked, options, file: options.file }
}

describe("a stage over rows", () => {
  it("writes its rows in order, whatever the order in which they are ready, and counts failures", async () => {
    const { options, file } = stage()
    const work = options.work
    const output = await runRows({
      ...options,
      work: async (row) => {
        await new Promise((done) => setTimeout(done, 10 - row))
        return work(row)
      },
    })
    const rows = readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(rows.map(({ twice }) => twice)).toEqual([0, 2, 4, 6, 8, 10, 12, 14, 16, 18])
    expect(output).toMatchObject({ rows: 10, failures: { "double: three": 1 }, complete: true })
  })

  it("is left alone when it is done, and done anew under another key", async () => {
    await runRows(stage().options)
    const again = stage()
    await runRows(again.options)
    expect(again.worked).toEqual([])
    const other = stage({ key: "k2" })
    await runRows(other.options)
    expect(other.worked).toHaveLength(10)
    expect(readState(other.file)?.key).toBe("k2")
  })

  it("gives the same file when it was cut off at any byte", async () => {
    const short = (replay: boolean) => stage({ rows: () => [0, 1, 2, 3, 4], chunk: () => 2, replay: () => replay })
    const { options, file } = short(true)
    await runRows(options)
    const whole = readFileSync(file)
    const done = readFileSync(keyFileOf(file))
    const unfinished = JSON.stringify({ ...JSON.parse(`${done}`), complete: false, rows: 0, bytes: 0, failures: {} })
    for (let bytes = 0; bytes < whole.length; bytes += bytes < 60 ? 1 : 7) {
      writeFileSync(file, whole.subarray(0, bytes))
      // Killed while it was written, or damaged after it was done.
      writeFileSync(keyFileOf(file), bytes % 2 ? unfinished : done)
      await runRows(short(bytes % 3 > 0).options)
      expect(readFileSync(file).equals(whole), `cut at ${bytes}`).toBe(true)
      expect(readFileSync(keyFileOf(file)).equals(done), `key after a cut at ${bytes}`).toBe(true)
    }
  })

  it("does a half-written chunk again where batches must be the same, and only the missing rows elsewhere", async () => {
    const { options, file } = stage()
    await runRows(options)
    const lines = readFileSync(file, "utf8").split("\n")
    const done = JSON.parse(readFileSync(keyFileOf(file), "utf8"))
    const cut = () => {
      truncateSync(file, Buffer.byteLength(`${lines.slice(0, 6).join("\n")}\n`))
      writeFileSync(keyFileOf(file), JSON.stringify({ ...done, complete: false }))
    }
    cut()
    const replayed = stage({ replay: () => true })
    await runRows(replayed.options)
    expect(replayed.worked).toEqual([4, 5, 6, 7, 8, 9])
    cut()
    const rest = stage({ replay: () => false })
    await runRows(rest.options)
    expect(rest.worked).toEqual([6, 7, 8, 9])
  })

  it("starts anew when the key file cannot be read, or the output has grown", async () => {
    const { options, file } = stage()
    await runRows(options)
    const whole = readFileSync(file)
    for (const damage of [
      () => writeFileSync(keyFileOf(file), "{"),
      () => rmSync(keyFileOf(file)),
      () => writeFileSync(file, `${whole}{}\n`),
    ]) {
      damage()
      const again = stage()
      await runRows(again.options)
      expect(again.worked).toHaveLength(10)
      expect(readFileSync(file).equals(whole)).toBe(true)
    }
  })

  it("keeps finished rows when the work breaks off, and goes on from there", async () => {
    const broken = stage()
    const work = broken.options.work
    const failing = {
      ...broken.options,
      work: async (row: number) => (row === 6 ? Promise.reject(new Error("down")) : work(row)),
    }
    await expect(runRows(failing)).rejects.toThrow("down")
    expect(readFileSync(broken.file, "utf8").trimEnd().split("\n")).toHaveLength(6)
    const rest = stage({ replay: () => false })
    await runRows(rest.options)
    expect(rest.worked).toEqual([6, 7, 8, 9])
  })

  it("stops at once when aborted", async () => {
    const controller = new AbortController()
    const { options, file } = stage({ signal: controller.signal })
    const work = options.work
    const waiting = runRows({
      ...options,
      work: (row) => {
        if (row < 4) return work(row)
        controller.abort()
        return new Promise<object>(() => {})
      },
    })
    await expect(waiting).rejects.toBeInstanceOf(StoppedError)
    expect(readFileSync(file, "utf8").trimEnd().split("\n")).toHaveLength(4)
  })

  it("takes a finished output of another run from the cache, and no damaged one", async () => {
    const cache = join(dir, ".cache")
    const { options, file } = stage({ cache })
    await runRows(options)
    const copy = stage({ cache, file: join(dir, "other", "double.jsonl") })
    await runRows(copy.options)
    expect(copy.worked).toEqual([])
    expect(readFileSync(copy.file).equals(readFileSync(file))).toBe(true)
    truncateSync(join(cache, "double-k1.jsonl"), 10)
    const third = stage({ cache, file: join(dir, "third", "double.jsonl") })
    await runRows(third.options)
    expect(third.worked).toHaveLength(10)
  })

  it("is made again, with a note, where an output of the same size holds something else, here and in the cache", async () => {
    const cache = join(dir, ".cache")
    const { options, file } = stage({ cache })
    await runRows(options)
    const whole = readFileSync(file)
    const cached = join(cache, "double-k1.jsonl")
    const changes: [string, (path: string) => void][] = [
      ["a digit", (path) => writeFileSync(path, `${whole}`.replace('"twice":4', '"twice":5'))],
      ["zeros", (path) => writeFileSync(path, Buffer.alloc(whole.length))],
    ]
    for (const [what, damage] of changes) {
      damage(file)
      damage(cached)
      const notes: string[] = []
      const again = stage({ cache, onNote: (line) => notes.push(line) })
      await runRows(again.options)
      expect(again.worked, what).toHaveLength(10)
      expect(readFileSync(file).equals(whole) && readFileSync(cached).equals(whole), what).toBe(true)
      expect(notes).toEqual([file, cached].map((path) => expect.stringContaining(`${path} has other content`)))
    }
  })

  it("goes on from the last sound row where a power cut left zeros or half a letter in an unfinished output", async () => {
    const { options, file } = stage()
    await runRows(options)
    const whole = readFileSync(file)
    const unfinished = JSON.stringify({ ...JSON.parse(readFileSync(keyFileOf(file), "utf8")), complete: false })
    const third = `${whole}`.split("\n").slice(0, 3).join("\n").length + 1
    const start = Buffer.byteLength(`${whole}`.slice(0, third))
    for (const tail of [Buffer.alloc(50), Buffer.from([0xc3, 10]), Buffer.from("[1]\n{}\n"), Buffer.from("\n\n")]) {
      writeFileSync(file, Buffer.concat([whole.subarray(0, start), tail, Buffer.from('\n{"id":"r9"}\n')]))
      writeFileSync(keyFileOf(file), unfinished)
      const notes: string[] = []
      const rest = stage({ replay: () => false, onNote: (line) => notes.push(line) })
      await runRows(rest.options)
      expect(rest.worked).toEqual([3, 4, 5, 6, 7, 8, 9])
      expect(readFileSync(file).equals(whole)).toBe(true)
      expect(notes).toEqual([
        expect.stringMatching(`damaged behind byte ${start}; the rows from there on are made again`),
      ])
    }
  })

  it("lets several at once, of one process too, put the same output into the cache", async () => {
    const cache = join(dir, ".cache")
    const many = Array.from({ length: 12 }, (_, i) => stage({ cache, file: join(dir, `run-${i}`, "double.jsonl") }))
    await Promise.all(many.map(({ options }) => runRows(options)))
    const [first, ...others] = many.map(({ file }) => readFileSync(file, "utf8"))
    expect(others.every((text) => text === first)).toBe(true)
    expect(readdirSync(cache).sort()).toEqual(["double-k1.jsonl", "double-k1.key.json"])
  })

  it("says so when a file stands where its folder should be", async () => {
    writeFileSync(join(dir, "taken"), "")
    const { options } = stage({ file: join(dir, "taken", "double.jsonl") })
    await expect(runRows(options)).rejects.toThrow(/could not write: .*\(E(EXIST|NOTDIR)\)/)
  })
})

describe("keys", () => {
  it("do not depend on the order of fields, but on every value", () => {
    expect(keyOf("a", { x: 1, y: [{ p: 1, q: 2 }] })).toBe(keyOf("a", { y: [{ q: 2, p: 1 }], x: 1 }))
    expect(keyOf("a", { x: 1 })).not.toBe(keyOf("a", { x: 2 }))
    expect(keyOf("a", [1, 2])).not.toBe(keyOf("a", [2, 1]))
  })
})
