import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { RefusedError } from "../../lib/errors"
import { loadTokenizer } from "../../lib/text/tokenizer"

const models = join(__dirname, "../fixtures/models")
const dir = mkdtempSync(join(tmpdir(), "tokenizer-"))
afterAll(() => rmSync(dir, { recursive: true }))

interface Row {
  text: string
  ids: number[]
  decoded: string
  plain: string
}

/** The text files of the llama fixture, with some replaced (a text, or fields) or left out (null). */
function changed(files: Record<string, object | string | null>): string {
  const folder = mkdtempSync(join(dir, "changed-"))
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"]) {
    const change = files[name]
    if (change === null) continue
    const from = join(models, "llama", name)
    if (change === undefined) cpSync(from, join(folder, name))
    else if (typeof change === "string") writeFileSync(join(folder, name), change)
    else writeFileSync(join(folder, name), JSON.stringify({ ...JSON.parse(readFileSync(from, "utf8")), ...change }))
  }
  return folder
}

// expected-tokens.json is transformers' answer (tests/reference/make_text.py).
describe.each(["llama", "gemma3"])("the tokenizer of %s", (name) => {
  const tokenizer = loadTokenizer(join(models, name))
  const rows: Row[] = JSON.parse(readFileSync(join(models, name, "expected-tokens.json"), "utf8"))

  it.each(rows)("gives the ids and texts of transformers for $text", ({ text, ids, decoded, plain }) => {
    expect(tokenizer.encode(text)).toEqual(ids)
    expect(tokenizer.decode(ids)).toBe(decoded)
    expect(tokenizer.decode(ids, { skipSpecial: true })).toBe(plain)
  })

  it.each(rows)("cuts $text into one piece a token that together are the text", ({ ids, decoded }) => {
    const pieces = tokenizer.tokenText(ids)
    expect(pieces).toHaveLength(ids.length)
    expect(pieces.join("")).toBe(decoded)
  })

  it("knows its size and special tokens", () => {
    expect(tokenizer).toMatchObject({ name, vocabSize: 300, eosIds: [257, 259], bosId: 256, padId: 258 })
    expect([...tokenizer.specialIds].sort()).toEqual([256, 257, 258, 259])
    expect(tokenizer.specialTexts).toEqual({ bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>" })
    // Only gemma3's post-processor adds <s>.
    expect(tokenizer.addsBos).toBe(name === "gemma3")
  })
})

describe("a tokenizer with more tokens than the model's embedding has rows", () => {
  const added = (token: object) => {
    const json = JSON.parse(readFileSync(join(models, "llama/tokenizer.json"), "utf8"))
    return [...json.added_tokens, { ...json.added_tokens[0], ...token }]
  }
  const extra = { id: 300, content: "<|extra|>", special: false }
  const folder = changed({ "tokenizer.json": { added_tokens: added(extra) } })

  it("says so when loaded, and refuses only a text that holds one, with the remedy", () => {
    const tokenizer = loadTokenizer(folder)
    expect(tokenizer.note).toMatch(/the embedding has 300 rows and none for "<\|extra\|>" \(id 300\)/)
    expect(tokenizer.encode("the rain")).toEqual(loadTokenizer(join(models, "llama")).encode("the rain"))
    expect(() => tokenizer.encode("the <|extra|>")).toThrow(RefusedError)
    expect(() => tokenizer.encode("the <|extra|>")).toThrow(/tokenizer.json: .*300 by config.json, got "<\|extra\|>"/)
  })

  it("takes no end-of-text, beginning or padding from beyond it", () => {
    const tokenizer = loadTokenizer(
      changed({
        "tokenizer.json": { added_tokens: added(extra) },
        "generation_config.json": { eos_token_id: [257, 300], pad_token_id: 300, bos_token_id: 301 },
        "config.json": { pad_token_id: null, bos_token_id: null, eos_token_id: 257 },
        "tokenizer_config.json": { pad_token: "<|extra|>", bos_token: "<|extra|>" },
      }),
    )
    expect(tokenizer).toMatchObject({ eosIds: [257], bosId: null, padId: 257 })
  })

  it("reads the number of rows from text_config in a folder with images", () => {
    const outer = { "config.json": { vocab_size: undefined, text_config: { vocab_size: 280 } } }
    expect(() => loadTokenizer(changed(outer)).encode("the rain")).toThrow(/280 by config.json/)
  })
})

describe("a tokenizer", () => {
  const tokenizer = loadTokenizer(join(models, "llama"))

  it("gives a character of several tokens to the last of them", () => {
    // "é" is two bytes in UTF-8, the face four, and neither is a piece of its own here.
    expect(tokenizer.tokenText(tokenizer.encode("é😀"))).toEqual(["", "é", "", "", "", "😀"])
    // Cut inside the face: the text that its first bytes decode to still belongs to somebody.
    const cut = tokenizer.encode("a😀").slice(0, 3)
    expect(tokenizer.tokenText(cut).join("")).toBe(tokenizer.decode(cut))
  })

  it("decodes nothing to nothing and leaves out ids without a text", () => {
    expect(tokenizer.decode([])).toBe("")
    expect(tokenizer.decode([258], { skipSpecial: true })).toBe("")
    expect(tokenizer.decode([300, 97 - 33, 1e9])).toBe("a")
  })

  it("collects end-of-text ids from all files, which may hold one, several or none", () => {
    const folder = changed({
      "generation_config.json": { eos_token_id: 259 },
      "config.json": { eos_token_id: [5, 259] },
      "tokenizer_config.json": { eos_token: { content: "</s>" }, pad_token: null },
    })
    expect(loadTokenizer(folder)).toMatchObject({ eosIds: [259, 5, 257], padId: 258 })
    const bare = changed({ "generation_config.json": null, "config.json": null, "tokenizer_config.json": null })
    expect(loadTokenizer(bare)).toMatchObject({ eosIds: [], bosId: null, padId: 0, chatTemplate: null })
  })

  it.each([
    [
      "a missing file",
      { "tokenizer.json": null },
      /tokenizer.json: a file must be here, got none; save the tokenizer again/,
    ],
    ["a broken file", { "tokenizer.json": "{" }, /tokenizer.json: must be JSON/],
    ["a file of something else", { "tokenizer.json": "{}" }, /tokenizer.json, model: must be an object, got nothing/],
    [
      "an unknown decoder",
      { "tokenizer.json": { decoder: { type: "Magic" } } },
      /that can be run here, got "Unknown Decoder type: Magic"/,
    ],
    ["settings that are a list", { "tokenizer_config.json": "[]" }, /tokenizer_config.json: must hold a JSON object/],
  ])("refuses %s and names it", (_, files, message) => {
    expect(() => loadTokenizer(changed(files))).toThrow(message)
  })
})
