import { createHash } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Benchmark } from "../../lib/eval/benchmark"
import { firstItems } from "../../lib/runs/benchmark-plan"
import { checkData, download } from "../../lib/runs/benchmarks"

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex")
const content = '{"id":"a"}\n'
let server: Server
let home = ""
let dir = ""
let fetched = 0

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "musc-data-"))
  server = createServer((request, response) => {
    fetched++
    if (request.url === "/data.jsonl") response.end(content)
    else response.writeHead(404).end()
  })
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  home = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => {
  server.close()
  rmSync(dir, { recursive: true })
})

const benchmarkWith = (...files: Benchmark["source"]["files"]) =>
  ({ name: "b", source: { home, files, licence: "MIT" } }) as unknown as Benchmark

describe("official data", () => {
  it("is fetched once, checked, and not kept with another hash or when it is not there", async () => {
    const good = benchmarkWith(
      { name: "data.jsonl", url: `${home}/data.jsonl`, sha256: sha256(content) },
      { name: "part" },
    )
    expect(await download(good, dir)).toEqual([`${join(dir, "data.jsonl")}: SHA-256 ${sha256(content)} as expected`])
    expect(readFileSync(join(dir, "data.jsonl"), "utf8")).toBe(content)
    expect(await download(good, dir)).toEqual([`${join(dir, "data.jsonl")}: already here, SHA-256 as expected`])
    expect(fetched).toBe(1)
    const changed = benchmarkWith({ name: "en/x.jsonl", url: `${home}/data.jsonl`, sha256: sha256("other") })
    await expect(download(changed, dir)).rejects.toThrow(/data\.jsonl: must have SHA-256 .*, got .*; it has changed/)
    const gone = benchmarkWith({ name: "gone.jsonl", url: `${home}/gone.jsonl` })
    await expect(download(gone, dir)).rejects.toThrow(/could not download .*gone\.jsonl: status 404/)
    expect(readdirSync(dir)).toEqual(["data.jsonl"])
  })

  it("that differs from what the scorer was tested on is named, in a file or in a folder", async () => {
    writeFileSync(join(dir, "data.jsonl"), content)
    const tested = benchmarkWith({ name: "en/data.jsonl", sha256: sha256(content) })
    expect(await checkData(tested, dir)).toEqual({ data: { "data.jsonl": sha256(content) }, warnings: [] })
    const other = benchmarkWith({ name: "data.jsonl", sha256: sha256("other") })
    for (const path of [dir, join(dir, "data.jsonl")]) {
      const { warnings } = await checkData(other, path)
      expect(warnings).toEqual([
        expect.stringMatching(/^data\.jsonl differs from the file that the scorer was tested on/),
      ])
    }
    await expect(checkData(other, join(dir, "none"))).rejects.toThrow(/none: must be a file or folder of official data/)
  })
})

it("a limit takes whole units, the first in any case", () => {
  const items = ["a", "a", "a", "b", "c", "c"].map((unit, i) => ({
    ...{ id: `${i}`, unit, turns: ["x"], temperature: 0, maxTokens: 8, data: null },
  }))
  const taken = (limit: number) =>
    firstItems(items, limit)
      .map(({ unit }) => unit)
      .join("")
  expect([1, 3, 4, 5, 6].map(taken)).toEqual(["aaa", "aaa", "aaab", "aaab", "aaabcc"])
})
