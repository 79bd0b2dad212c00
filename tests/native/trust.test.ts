import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs"
import os from "node:os"
import path from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import type { Run } from "../../lib/device/child"
import { findLibrary } from "../../lib/native/libtensorflow"
import { hashOfFolder } from "../../lib/native/trust"

let root: string
let cache: string
let lines: string[]
const saved = process.env.MUSC_CACHE
const log = (line: string) => lines.push(line)

beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), "musc-trust-"))
  cache = path.join(root, "cache")
  process.env.MUSC_CACHE = cache
  lines = []
})
afterEach(() => {
  if (saved === undefined) delete process.env.MUSC_CACHE
  else process.env.MUSC_CACHE = saved
})

function makeLibrary(folder: string): void {
  const files = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2", "include/tensorflow/c/c_api.h"]
  for (const file of files) {
    mkdirSync(path.dirname(path.join(folder, "tensorflow", file)), { recursive: true })
    writeFileSync(path.join(folder, "tensorflow", file), file)
  }
}

/**
 * A Python without TensorFlow, whose pip notes what it is asked for and brings a wheel; unpacking makes empty
 * libraries.
 */
function fakePython() {
  const asked: string[][] = []
  let unpacked = 0
  const run: Run = async (_, args) => {
    if (args.includes("pip")) {
      asked.push([...args])
      const list = args[args.indexOf("--requirement") + 1]!
      asked.push(readFileSync(list, "utf8").trim().split("\n"))
      const to = args[args.indexOf("--dest") + 1]!
      if (args.includes("download")) writeFileSync(path.join(to, "tensorflow_cpu-2.21.0-x.whl"), "wheel")
      else makeLibrary(args[args.indexOf("--target") + 1]!)
    } else if (args.length === 4) {
      unpacked++
      makeLibrary(args[3]!)
    }
    return ""
  }
  return { run, asked, unpacked: () => unpacked }
}

describe.skipIf(process.platform !== "linux")("what is fetched for the native backend", () => {
  it("is named by version and hash, and pip takes nothing else", async () => {
    const python = fakePython()
    await expect(findLibrary({}, python.run, log)).rejects.toThrow(/has the right hash but other files than expected/)
    const [args, list] = python.asked
    expect(args).toEqual(expect.arrayContaining(["--require-hashes", "--no-deps", "--only-binary", ":all:"]))
    expect(list).toHaveLength(1)
    expect(list![0]).toMatch(/^tensorflow(-cpu)?==2\.21\.0 --hash=sha256:[0-9a-f]{64}$/)
  })

  it.skipIf(process.arch !== "x64")("for CUDA names every package by version and hash", async () => {
    const python = fakePython()
    const library = await findLibrary({ cuda: true }, python.run, log)
    const [args, list] = python.asked
    expect(args).toEqual(expect.arrayContaining(["install", "--require-hashes", "--no-deps"]))
    expect(list!.length).toBeGreaterThan(10)
    for (const line of list!) expect(line).toMatch(/^[\w-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}$/)
    // The second time the cache has it, and one changed byte later it has not.
    await findLibrary({ cuda: true }, python.run, log)
    expect(python.asked).toHaveLength(2)
    appendFileSync(path.join(library.folder, "include/tensorflow/c/c_api.h"), " ")
    await findLibrary({ cuda: true }, python.run, log)
    expect(python.asked).toHaveLength(4)
    expect(lines.some((line) => /holds other files than were put there; it is fetched again/.test(line))).toBe(true)
    expect(readFileSync(path.join(library.folder, "include/tensorflow/c/c_api.h"), "utf8")).toBe(
      "include/tensorflow/c/c_api.h",
    )
  })

  it("is not taken from a folder of the cache that only has the right name", async () => {
    makeLibrary(path.join(cache, process.arch === "x64" ? "tensorflow_cpu-2.21.0" : "tensorflow-2.21.0"))
    await expect(findLibrary({}, fakePython().run, log)).rejects.toThrow(/other files than expected/)
    expect(lines.some((line) => /holds other files than were put there/.test(line))).toBe(true)
  })
})

describe.skipIf(process.platform !== "linux")("a wheel that the user names", () => {
  it("is unpacked once, again when the cache is damaged, and not mistaken for another of the same name", async () => {
    const python = fakePython()
    const wheel = path.join(root, "tensorflow-2.20.0-x.whl")
    writeFileSync(wheel, "one")
    const first = await findLibrary({ wheel }, python.run, log)
    await findLibrary({ wheel }, python.run, log)
    expect(python.unpacked()).toBe(1)
    writeFileSync(path.join(first.folder, "libtensorflow_cc.so.2"), "LIBTENSORFLOW_cc.so.2")
    await findLibrary({ wheel }, python.run, log)
    expect(python.unpacked()).toBe(2)
    writeFileSync(path.join(first.folder, "include/added.h"), "")
    await findLibrary({ wheel }, python.run, log)
    expect(python.unpacked()).toBe(3)
    writeFileSync(wheel, "two")
    const second = await findLibrary({ wheel }, python.run, log)
    expect(second.folder).not.toBe(first.folder)
    expect(readdirSync(cache).filter((name) => name.startsWith("."))).toEqual([])
  })
})

describe("the hash of a folder", () => {
  it("changes with every name and every byte", async () => {
    const folder = path.join(root, "library")
    makeLibrary(folder)
    const hash = await hashOfFolder(folder)
    expect(await hashOfFolder(folder)).toBe(hash)
    renameSync(
      path.join(folder, "tensorflow/include/tensorflow/c/c_api.h"),
      path.join(folder, "tensorflow/include/tensorflow/c/c_apj.h"),
    )
    expect(await hashOfFolder(folder)).not.toBe(hash)
    expect(existsSync(folder)).toBe(true)
  })
})
