import { access, appendFile, chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { z } from "zod"
import { fileError, writeAtomic } from "../../lib/data/files"
import { readRecords } from "../../lib/data/json-array"
import { appendJsonl, readJsonl } from "../../lib/data/jsonl"
import { InputError } from "../../lib/errors"

let folder = ""
let made = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "musc-jsonl-"))
})
afterAll(() => rm(folder, { recursive: true }))

const path = () => join(folder, `${made++}.jsonl`)
const fileOf = async (content: string | Uint8Array) => {
  const file = path()
  await writeFile(file, content)
  return file
}
const collect = async <T>(items: AsyncIterable<T>) => {
  const out: T[] = []
  for await (const item of items) out.push(item)
  return out
}
const row = z.looseObject({ a: z.number(), b: z.string().optional() })
const problem = async (content: string | Uint8Array, options = {}) => {
  const file = await fileOf(content)
  const error = await collect(readJsonl(file, row, options)).catch((caught: unknown) => caught)
  expect(error).toBeInstanceOf(InputError)
  expect((error as InputError).file).toBe(file)
  return { line: (error as InputError).line, field: (error as InputError).field, message: (error as Error).message }
}

describe("reading JSONL", () => {
  it("keeps unknown fields, passes over empty lines, takes CRLF, a byte-order mark and a last line without newline", async () => {
    const file = await fileOf('\uFEFF{"a":1,"x":[2]}\r\n\n  \n{"a":2}')
    expect(await collect(readJsonl(file, row))).toEqual([{ a: 1, x: [2] }, { a: 2 }])
  })

  it("reads lines that span many chunks, and characters cut by a chunk", async () => {
    const long = "äé€𝄞".repeat(200_000)
    const file = await fileOf(`{"a":1,"b":"x${long}"}\n{"a":2,"b":"${long}"}\n`)
    const rows = await collect(readJsonl(file, row))
    expect(rows.map(({ b }) => b)).toEqual([`x${long}`, long])
  })

  it("names the line that is not JSON", async () => {
    const { line, message } = await problem('{"a":1}\n\n{"a":\n')
    expect(line).toBe(3)
    expect(message).toMatch(/line 3: must be JSON, got: .*; repair or remove this record$/)
  })

  it("names line and field that break the schema, and counts the others", async () => {
    expect(await problem('{"a":1}\n{"a":"one","b":2}\n')).toMatchObject({ line: 2, field: "a" })
    expect((await problem('{"a":"one","b":2}\n')).message).toMatch(
      /line 1, a: expected number, got string \(1 more fields are wrong\); correct the record or remove it$/,
    )
    expect((await problem('{"b":"x"}\n')).message).toMatch(/a: expected number, got undefined;/)
    expect((await problem("[1]\n")).message).toMatch(/line 1: expected object, got array;/)
  })

  it.each<[string, Buffer]>([
    ["a gzip file; unpack it, e.g. by gunzip", gzipSync("{}\n")],
    ["a Parquet file; write it as JSON lines, e.g. by pandas", Buffer.from("PAR1\x15\xff", "latin1")],
    ["a zip file; unpack it", Buffer.from("PK\x03\x04\xff", "latin1")],
    ["UTF-16; save the file as UTF-8", Buffer.from("\ufeff{}\n", "utf16le")],
  ])("says what else a file is: %s", async (kind, bytes) => {
    await expect(collect(readRecords(await fileOf(bytes)))).rejects.toThrow(`must be valid UTF-8, got ${kind}`)
  })

  it("names the line that is not UTF-8", async () => {
    const { line, message } = await problem(Buffer.concat([Buffer.from('{"a":1}\n{"b":"'), Buffer.from([0xe9, 0x22])]))
    expect([line, message]).toEqual([2, expect.stringMatching(/must be valid UTF-8.*save the file as UTF-8$/)])
  })

  it("refuses a line of 50 MB without reading it whole", async () => {
    const { line, message } = await problem(Buffer.concat([Buffer.from('{"a":1}\n'), Buffer.alloc(50e6, 0x61)]))
    expect([line, message]).toEqual([2, expect.stringMatching(/must have at most 16777216 bytes, got more/)])
  })

  it("refuses a file without a record, unless allowed", async () => {
    expect((await problem("")).message).toMatch(/at least one record, got an empty file/)
    expect((await problem(" \n\n")).message).toMatch(/at least one record/)
    expect(await collect(readJsonl(await fileOf("\n"), row, { allowEmpty: true }))).toEqual([])
  })

  it("says what to do about a path that is not there or is a folder", async () => {
    await expect(collect(readJsonl(join(folder, "none"), row))).rejects.toThrow(
      /none: could not read: no such file or folder \(ENOENT\)/,
    )
    await expect(collect(readJsonl(folder, row))).rejects.toThrow(/a folder stands here \(EISDIR\); name a file/)
  })

  it("passes over a torn last line only on request", async () => {
    const torn = '{"a":1}\n{"a":2}\n{"a":3,"b":"x'
    expect((await problem(torn)).line).toBe(3)
    expect(await collect(readJsonl(await fileOf(torn), row, { dropTorn: true }))).toEqual([{ a: 1 }, { a: 2 }])
  })
})

describe("JSON that is nested 20,000 levels deep", () => {
  it("is refused with file and line, in a record that is read and in one of a JSON array", async () => {
    const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`
    const file = await fileOf(`{"a":1}\n{"a":1,"b":${deep}}\n`)
    await expect(collect(readJsonl(file, row))).rejects.toThrow(/line 2: must be JSON, got: .*nested deeper than 500/)
    const objects = await fileOf(`[{"a":1},\n${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}]`)
    await expect(collect(readRecords(objects))).rejects.toThrow(/line 2: must be JSON, got: .*nested deeper than 500/)
  })
})

describe("appending JSONL", () => {
  it("writes rows in the order of the calls", async () => {
    const file = path()
    const writer = await appendJsonl(file)
    await Promise.all(Array.from({ length: 250 }, (_, a) => writer.write({ a })))
    await writer.close()
    expect((await collect(readJsonl(file, row))).map(({ a }) => a)).toEqual(Array.from({ length: 250 }, (_, a) => a))
  })

  it("has a row in the file when write resolves", async () => {
    const file = path()
    const writer = await appendJsonl(file)
    await writer.write({ a: 1 })
    expect(await readFile(file, "utf8")).toBe('{"a":1}\n')
    await writer.close()
  })

  it("refuses an existing file, and on resume cuts off what a crash left", async () => {
    const file = await fileOf('{"a":1}\n{"a":2}\n')
    await expect(appendJsonl(file)).rejects.toThrow(/the file is already there \(EEXIST\); resume/)
    await appendFile(file, `{"a":3,"b":"${"x".repeat(200_000)}`)
    const writer = await appendJsonl(file, { resume: true })
    await writer.write({ a: 4 })
    await writer.close()
    expect(await readFile(file, "utf8")).toBe('{"a":1}\n{"a":2}\n{"a":4}\n')
  })

  it("starts anew after a file of one torn line, and creates a missing one", async () => {
    for (const file of [await fileOf('{"a":1'), await fileOf(""), path()]) {
      const writer = await appendJsonl(file, { resume: true })
      await writer.write({ a: 2 })
      await writer.close()
      expect(await readFile(file, "utf8")).toBe('{"a":2}\n')
    }
  })

  it("says that the disk is full, and writes nothing more", async (context) => {
    const full = await access("/dev/full").then(
      () => true,
      () => false,
    )
    if (!full) context.skip()
    const writer = await appendJsonl("/dev/full", { resume: true })
    await expect(writer.write({ a: 1 })).rejects.toThrow(/\/dev\/full: could not write: the disk is full \(ENOSPC\)/)
    await expect(writer.write({ a: 2 })).rejects.toThrow(InputError)
    await expect(writer.close()).rejects.toThrow(/ENOSPC/)
  })

  it.each(["ENOSPC", "EROFS", "EACCES", "EDQUOT"])("turns %s into an InputError with a remedy", (code) => {
    const error = fileError(Object.assign(new Error("x"), { code }), "out.jsonl", "write")
    expect(error).toBeInstanceOf(InputError)
    expect((error as Error).message).toMatch(new RegExp(`^out\\.jsonl: could not write: .* \\(${code}\\); `))
  })

  it("leaves other errors as they are", () => {
    const error = new TypeError("bug")
    expect(fileError(error, "f", "read")).toBe(error)
    expect(fileError(undefined, "f", "read")).toBeUndefined()
  })
})

describe("writing whole files", () => {
  it("replaces the old content and leaves no temporary file", async () => {
    const file = await fileOf("old")
    await writeAtomic(file, ["a", "b"])
    expect(await readFile(file, "utf8")).toBe("ab")
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([])
  })

  it("keeps the old content when the new one fails half-way", async () => {
    const file = await fileOf("old")
    function* broken() {
      yield "new"
      throw new Error("half-way")
    }
    await expect(writeAtomic(file, broken())).rejects.toThrow("half-way")
    expect(await readFile(file, "utf8")).toBe("old")
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([])
  })

  it("says when the folder is missing or closed", async (context) => {
    await expect(writeAtomic(join(folder, "no", "x"), "")).rejects.toThrow(/no such file or folder \(ENOENT\)/)
    if (process.getuid?.() === 0) context.skip() // root may write anywhere
    const closed = await mkdtemp(join(folder, "closed-"))
    await chmod(closed, 0o500)
    await expect(writeAtomic(join(closed, "x"), "")).rejects.toThrow(/got EACCES: no permission/)
  })
})

describe("reading a JSON array or JSONL", () => {
  const values = async (content: string | Uint8Array) =>
    (await collect(readRecords(await fileOf(content)))).map(({ value, place }) => [place.line, value])

  it("gives the same records of either, each with its line", async () => {
    const array = '\uFEFF\n[\n  {"a": "x, ] } \\" \\\\", "b": [1, {"c": []}]},\n  {"a": "2"}\n, 3, "s"]\n'
    expect(await values(array)).toEqual([
      [3, { a: 'x, ] } " \\', b: [1, { c: [] }] }],
      [4, { a: "2" }],
      [4, 3],
      [4, "s"],
    ])
    expect(await values('{"a":1}\n{"a":2}\n')).toEqual([
      [1, { a: 1 }],
      [2, { a: 2 }],
    ])
  })

  it("reads arrays larger than its chunks as JSON.parse does", async () => {
    const records = Array.from({ length: 3000 }, (_, i) => ({
      i,
      text: `é"[\\${"x".repeat(i % 700)}]},{`,
      list: [[i], {}],
    }))
    for (const text of [JSON.stringify(records), JSON.stringify(records, null, 2)]) {
      expect((await values(text)).map(([, value]) => value)).toEqual(records)
    }
  })

  it("names what is wrong with an array", async () => {
    await expect(values("[]")).rejects.toThrow(/at least one record, got an empty array/)
    await expect(values('[\n{"a":1},\n{"a":')).rejects.toThrow(/line 3: the array must end with \]/)
    await expect(values('[\n{"a":1},\n{"a" 2}\n]')).rejects.toThrow(/line 3: must be JSON/)
    await expect(values(`["${"x".repeat(17 * 2 ** 20)}"]`)).rejects.toThrow(/a record must have at most 16777216 bytes/)
    await expect(values(" \n")).rejects.toThrow(/got an empty file/)
  })
})
