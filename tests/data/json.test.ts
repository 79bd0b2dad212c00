import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { jsonText, parseJson } from "../../lib/data/json"
import { readJsonFile } from "../../lib/data/json-file"

const dir = mkdtempSync(join(tmpdir(), "json-"))
afterAll(() => rmSync(dir, { recursive: true }))
const fileOf = (text: string) => {
  const file = join(dir, "x.json")
  writeFileSync(file, text)
  return file
}

describe("JSON", () => {
  it("with NaN and Infinity, as Python writes them, is read and written again", () => {
    const text = '{"a": NaN, "b": [-Infinity, Infinity, 1], "c": "NaN, -Infinity \\"NaN\\""}'
    const value = parseJson(text)
    expect(value).toEqual({
      a: Number.NaN,
      b: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, 1],
      c: 'NaN, -Infinity "NaN"',
    })
    expect(jsonText(value).replace(/\s+/g, "")).toBe(text.replace(/\s+/g, ""))
  })

  it.each(["{a: 1}", "[NaN1]", "[-NaN]", '{"a": nan}', ""])("is refused where it is neither's: %j", (text) => {
    expect(() => parseJson(text)).toThrow(SyntaxError)
  })

  it.each(["[", '{"a":'])("nested 20,000 deep with %s is refused by name, not with a stack trace", (open) => {
    const text = `{"model_type": ${open.repeat(20_000)}1${(open === "[" ? "]" : "}").repeat(20_000)}}`
    expect(() => readJsonFile(fileOf(text))).toThrow(/x\.json: must be JSON, got .*nested deeper than 500; repair/)
    expect(() => readJsonFile(fileOf(text.replace("1", "NaN")))).toThrow(/nested deeper than 500/)
  })
})
