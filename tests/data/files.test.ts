import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beforeEach, describe, expect, it } from "vitest"
import {
  copyFinished,
  damageOf,
  finish,
  isTemporary,
  printOf,
  removeTemporaries,
  temporaryFor,
  writeAtomic,
} from "../../lib/data/files"
import { InputError } from "../../lib/errors"

let dir = ""
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "musc-files-"))
})

const folder = (name: string, content: string) => async (path: string) => {
  mkdirSync(path)
  writeFileSync(join(path, name), content)
}

describe("a finished folder", () => {
  it("replaces an older one that holds files, whole", async () => {
    const path = join(dir, "adapter")
    await finish(path, folder("old", "1"))
    await finish(path, folder("new", "2"))
    expect(readdirSync(path)).toEqual(["new"])
    expect(readdirSync(dir)).toEqual(["adapter"])
  })

  it("does not appear where its making fails, and the older one stays", async () => {
    const path = join(dir, "adapter")
    await finish(path, folder("old", "1"))
    const failing = finish(path, async (temporary) => {
      await folder("half", "2")(temporary)
      throw new Error("out of memory")
    })
    await expect(failing).rejects.toThrow("out of memory")
    expect(readdirSync(path)).toEqual(["old"])
    expect(readdirSync(dir)).toEqual(["adapter"])
  })

  it("is made by many at once without a clash", async () => {
    const path = join(dir, "entry")
    await Promise.all(Array.from({ length: 20 }, (_, i) => finish(path, folder("file", `${i}`))))
    expect(readdirSync(dir)).toEqual(["entry"])
    expect(readFileSync(join(path, "file"), "utf8")).toMatch(/^\d+$/)
  })

  it("is no folder in the place of a file", async () => {
    writeFileSync(join(dir, "taken"), "")
    await expect(finish(join(dir, "taken"), folder("a", ""))).rejects.toThrow(/taken: could not write: .*\(ENOTDIR\)/)
    mkdirSync(join(dir, "full"))
    await expect(writeAtomic(join(dir, "full"), "x")).rejects.toThrow(/full: could not write: a folder stands here/)
    expect(readdirSync(dir).sort()).toEqual(["full", "taken"])
  })
})

describe("a copy", () => {
  it("of a file or folder equals it", async () => {
    await finish(join(dir, "a"), folder("x", "abc"))
    await copyFinished(join(dir, "a"), join(dir, "b"))
    expect(readFileSync(join(dir, "b/x"), "utf8")).toBe("abc")
    await copyFinished(join(dir, "a/x"), join(dir, "y"))
    expect(readFileSync(join(dir, "y"), "utf8")).toBe("abc")
  })
})

describe("what killed processes left", () => {
  it("goes when the process is gone for certain, or after a day, and stays while it may still be written", () => {
    const mine = temporaryFor(join(dir, "file"))
    const dead = mine.replace(/-\d+-\d+-(\d+)\.tmp$/, "-4194305-7-$1.tmp")
    const other = mine.replace(/\.[0-9a-f]{8}-/, ".00000000-")
    const old = other.replace(".00000000-", ".00000001-")
    for (const path of [mine, dead, other, old]) writeFileSync(path, "")
    utimesSync(old, 1, 1)
    expect(isTemporary(mine.split("/").at(-1)!)).toBe(true)
    writeFileSync(join(dir, ".file.tmp"), "somebody else's")
    removeTemporaries(dir)
    expect([mine, dead, other, old].map((path) => existsSync(path))).toEqual([
      true,
      process.platform !== "linux",
      true,
      false,
    ])
    removeTemporaries(dir, { all: true })
    expect(readdirSync(dir)).toEqual([".file.tmp"])
  })
})

describe("an error that quotes a file", () => {
  it("has a message of bounded length", () => {
    expect(new InputError(`got ${"a".repeat(1e6)}`).message.length).toBeLessThan(10_100)
  })
})

describe("damage", () => {
  it("is told by size and hash", async () => {
    const file = join(dir, "rows")
    writeFileSync(file, "abc")
    const print = await printOf(file)
    // sha256sum of "abc", FIPS 180-2
    expect(print).toEqual({ bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" })
    expect(await damageOf(file, print)).toBeUndefined()
    writeFileSync(file, "abd")
    expect(await damageOf(file, print)).toMatch(/other content/)
    writeFileSync(file, "ab")
    expect(await damageOf(file, print)).toBe("has 2 bytes instead of 3")
    expect(await damageOf(join(dir, "none"), print)).toBe("is missing")
    expect(await damageOf(dir, print)).toBe("is missing")
  })
})

describe("files in lib", () => {
  it("are renamed, copied and linked by lib/data/files.ts alone", () => {
    const lib = join(__dirname, "../../lib")
    const moves = /\b(renameSync|rename|copyFileSync|copyFile|cpSync|cp|linkSync|link)\b/
    const sources = readdirSync(lib, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"))
    const others = sources.filter((file) => {
      const imports = readFileSync(join(lib, file), "utf8").match(/import[^;]*?from "(node:)?fs(\/promises)?"/g) ?? []
      const text = readFileSync(join(lib, file), "utf8")
      const named = imports.some((line) => moves.test(line.replace(/^[\s\S]*import (?=\{[^}]*\}[^}]*$)/, "")))
      return named || /\bfs\.(promises\.)?(rename|copyFile|cp|link)/.test(text)
    })
    expect(others).toEqual(["data/files.ts"])
  })
})
