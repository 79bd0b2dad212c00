import { spawn, spawnSync } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { hostname, tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { beforeEach, describe, expect, it } from "vitest"
import { lockFolder } from "../../lib/data/lock"
import { isRunning, thisProcess } from "../../lib/data/process"
import { InputError } from "../../lib/errors"
import { lockRaces } from "../bench/attack/locks"

let dir = ""
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "musc-lock-"))
})

const file = () => join(dir, "lock.json")
const write = (content: object | string, age = 0) => {
  writeFileSync(file(), typeof content === "string" ? content : JSON.stringify(content))
  const then = Date.now() / 1000 - age
  utimesSync(file(), then, then)
}
const takeOver = () => {
  const lock = lockFolder(dir)
  expect(JSON.parse(readFileSync(file(), "utf8")).pid).toBe(process.pid)
  lock.release()
  expect(readdirSync(dir)).toEqual([])
}

describe("the lock of a folder", () => {
  it("keeps a second one out, and is gone afterwards", () => {
    const lock = lockFolder(dir)
    expect(() => lockFolder(dir)).toThrow(InputError)
    lock.release()
    lock.release()
    expect(readdirSync(dir)).toEqual([])
    lockFolder(dir).release()
  })

  it("is taken over from a process that has ended, and from one that died while writing it", () => {
    const { pid } = spawnSync(process.execPath, ["-e", ""])
    for (const lock of [{ ...thisProcess(), pid, id: "a" }, { pid, host: hostname() }, "", '{"pid": 1', "\0\0", "[]"]) {
      write(lock)
      takeOver()
    }
  })

  it.skipIf(process.platform !== "linux")("is taken over where its process id was given to another process", () => {
    write({ ...thisProcess(), id: "a", started: "1" })
    takeOver()
    write({ ...thisProcess(), id: "a", pid: process.ppid, started: "1" })
    takeOver()
  })

  it("is respected as long as its process runs, however long ago it gave a sign of life", () => {
    if (process.platform !== "linux") return
    write({ ...thisProcess(), id: "a" }, 10_000)
    expect(() => lockFolder(dir)).toThrow(
      /lock\.json: one process at a time.*got process \d+ on .*; wait for it to end/,
    )
  })

  it("of another machine or container is respected while it gives signs of life, and left behind a minute later", () => {
    const here = thisProcess()
    const others = [
      { ...here, id: "a", host: "elsewhere", boot: "another start" },
      { ...here, id: "a", namespace: "pid:[1]" }, // a container with the same host name
      { pid: 1, host: "elsewhere" },
    ]
    for (const other of others) {
      write(other, 20)
      expect(() => lockFolder(dir)).toThrow(
        /one process at a time.*if it is gone \(last sign of life 2\d s ago\), run again in (3\d|40) s/,
      )
      write(other, 70)
      takeOver()
    }
  })

  it("gives signs of life while the process computes", async () => {
    const lock = lockFolder(dir, "lock.json", { beat: 0.05, patience: 60 })
    await sleep(500) // the thread that gives them starts
    utimesSync(file(), 1, 1)
    const until = Date.now() + 1000
    while (Date.now() < until); // nothing else gets a turn
    expect(Date.now() - Number(statMs(file()))).toBeLessThan(1500)
    expect(lock.lost.aborted).toBe(false)
    lock.release()
  })

  it.each([0, 300])("tells its holder when another one took it after %i ms", async (ms) => {
    const lock = lockFolder(dir, "lock.json", { beat: 0.05, patience: 60 })
    await sleep(ms)
    const other = JSON.stringify({ id: "b", pid: 1, host: "elsewhere" })
    writeFileSync(`${file()}.new`, other)
    spawnSync("mv", [`${file()}.new`, file()])
    for (let i = 0; i < 100 && !lock.lost.aborted; i++) await sleep(50)
    expect(`${lock.lost.reason}`).toMatch(/StoppedError: .*another process took this lock/)
    lock.release()
    expect(readFileSync(file(), "utf8")).toBe(other)
  })

  it("says what stands in its place", () => {
    mkdirSync(file())
    expect(() => lockFolder(dir)).toThrow(/lock\.json: a lock must be a file, got a folder; remove it/)
    const linked = join(dir, "linked")
    mkdirSync(linked)
    symlinkSync("/etc/passwd", join(linked, "lock.json"))
    expect(() => lockFolder(linked)).toThrow(/a lock must be a file, got a link/)
    writeFileSync(join(dir, "taken"), "")
    expect(() => lockFolder(join(dir, "taken"))).toThrow(/taken: must be a folder, got a file; choose another name/)
    expect(() => lockFolder(join(dir, "taken", "in"))).toThrow(/taken\/in: could not write: .*\(ENOTDIR\)/)
  })

  it("takes folders away that were made for it and are empty, and no others", () => {
    const deep = join(dir, "a/b/c")
    lockFolder(deep).release()
    expect(existsSync(join(dir, "a"))).toBe(false)
    const lock = lockFolder(deep)
    writeFileSync(join(dir, "a/b/kept"), "")
    lock.release()
    expect(readdirSync(join(dir, "a/b"))).toEqual(["kept"])
    lockFolder(dir).release()
    expect(existsSync(dir)).toBe(true)
  })

  it("goes to one of four processes that race for it, stale or free", async () => {
    const { tried, lost } = await lockRaces(dir, 200, 60)
    expect({ tried, lost }).toEqual({ tried: 200, lost: [] })
  })

  it("is sound where a taker was killed on its way", () => {
    const { pid } = spawnSync(process.execPath, ["-e", ""])
    const dead = (id: string) => ({ ...thisProcess(), pid, id })
    write(dead("a"))
    writeFileSync(join(dir, ".lock.json.a.next"), JSON.stringify(dead("b")))
    writeFileSync(join(dir, ".lock.json.b.next"), JSON.stringify({ ...dead("c"), leaving: true }))
    writeFileSync(join(dir, ".lock.json.x.next"), JSON.stringify(dead("y"))) // came too late
    takeOver()
    // One that took over lives, though it has not yet put its own lock in the place of the old one.
    write(dead("a"))
    writeFileSync(join(dir, ".lock.json.a.next"), JSON.stringify({ ...thisProcess(), id: "b" }))
    expect(() => lockFolder(dir)).toThrow(/one process at a time/)
  })
})

const statMs = (path: string) => Number(spawnSync("stat", ["-c", "%Y", path], { encoding: "utf8" }).stdout) * 1000

describe("whether a process runs", () => {
  it.skipIf(process.platform !== "linux")(
    "is known by id and start, on this start of the machine and in this container",
    async () => {
      const here = thisProcess()
      expect(isRunning(here)).toBe(true)
      expect(isRunning({ ...here, started: "1" })).toBe(false)
      expect(isRunning({ ...here, pid: 2 ** 22 + 1 })).toBe(false)
      for (const unknown of [{ boot: "x" }, { namespace: "x" }, { boot: undefined }, { started: undefined }])
        expect(isRunning({ ...here, ...unknown })).toBeUndefined()
      // One that has ended and that its parent has not asked for runs no more.
      const child = spawn("sh", ["-c", "sleep 0 & exec sleep 30"], { stdio: "ignore" })
      await sleep(300)
      const { stdout } = spawnSync("ps", ["-o", "pid=,stat=", "--ppid", `${child.pid}`], { encoding: "utf8" })
      const zombie = /(\d+) +Z/.exec(stdout)?.[1]
      if (zombie) expect(isRunning({ ...here, pid: Number(zombie) })).toBe(false)
      child.kill()
    },
  )
})
