import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { hostname, tmpdir } from "node:os"
import { join } from "node:path"
import { beforeEach, describe, expect, it } from "vitest"
import { lockFolder } from "../../lib/data/lock"
import { InputError, StoppedError } from "../../lib/errors"
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
    replay: true,
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
    const short = (replay: boolean) => stage({ rows: () => [0, 1, 2, 3, 4], chunk: () => 2, replay })
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
    const cut = () => truncateSync(file, Buffer.byteLength(`${lines.slice(0, 6).join("\n")}\n`))
    cut()
    const replayed = stage({ replay: true })
    await runRows(replayed.options)
    expect(replayed.worked).toEqual([4, 5, 6, 7, 8, 9])
    cut()
    const rest = stage({ replay: false })
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
    const rest = stage({ replay: false })
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

  it("says so when a file stands where its folder should be", async () => {
    writeFileSync(join(dir, "taken"), "")
    const { options } = stage({ file: join(dir, "taken", "double.jsonl") })
    await expect(runRows(options)).rejects.toThrow(/must be possible to write, got E(EXIST|NOTDIR)/)
  })
})

describe("keys", () => {
  it("do not depend on the order of fields, but on every value", () => {
    expect(keyOf("a", { x: 1, y: [{ p: 1, q: 2 }] })).toBe(keyOf("a", { y: [{ q: 2, p: 1 }], x: 1 }))
    expect(keyOf("a", { x: 1 })).not.toBe(keyOf("a", { x: 2 }))
    expect(keyOf("a", [1, 2])).not.toBe(keyOf("a", [2, 1]))
  })
})

describe("the lock of a folder", () => {
  const file = () => join(dir, "lock.json")

  it("keeps a second one out, and is gone afterwards", () => {
    const unlock = lockFolder(dir)
    expect(() => lockFolder(dir)).toThrow(InputError)
    unlock()
    expect(existsSync(file())).toBe(false)
    lockFolder(dir)()
  })

  it("is taken over from a process that is dead, and from one that died while writing it", () => {
    const { pid } = spawnSync(process.execPath, ["-e", ""])
    for (const text of [JSON.stringify({ pid, host: hostname() }), "", '{"pid": 1']) {
      writeFileSync(file(), text)
      const unlock = lockFolder(dir)
      expect(JSON.parse(readFileSync(file(), "utf8")).pid).toBe(process.pid)
      unlock()
    }
  })

  it("is respected when its process lives, or lives where nobody can look", () => {
    for (const holder of [
      { pid: process.ppid, host: hostname() },
      { pid: 1, host: "elsewhere" },
    ]) {
      writeFileSync(file(), JSON.stringify(holder))
      expect(() => lockFolder(dir)).toThrow(
        new RegExp(`lock\\.json: one process at a time.*process ${holder.pid} on ${holder.host}`),
      )
    }
  })
})
