import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { canHang, soundPatterns } from "../../lib/text/repairs"
import { loadTokenizer } from "../../lib/text/tokenizer"

const dir = mkdtempSync(join(tmpdir(), "tokenizers-"))
afterAll(() => rmSync(dir, { recursive: true }))

interface Kind {
  name: string
  json: object
  /** text, its ids and their text; ids alone where there is none */
  rows: [string | null, number[], string][]
}

/** Milliseconds that this process has computed: what a limit means on a machine that does much else. */
const processorTime = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const folderOf = (name: string, json: object): string => {
  const folder = join(dir, name)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json))
  return folder
}

// What Hugging Face's own library gives (tests/reference/tokenizers.py): U+FEFF, U+0085, words, blanks, half
// characters.
const file = join(__dirname, "../fixtures/tokenizers/expected.json")
const { kinds }: { kinds: Kind[] } = JSON.parse(readFileSync(file, "utf8"))

describe("a tokenizer of the kind", () => {
  it.each(kinds)("$name gives the ids and texts of the original library", ({ name, json, rows }) => {
    const tokenizer = loadTokenizer(folderOf(name, json))
    for (const [text, ids, decoded] of rows) {
      if (text !== null) expect([text, tokenizer.encode(text)]).toEqual([text, ids])
      expect([ids, tokenizer.decode(ids)]).toEqual([ids, decoded])
    }
  })
})

describe("a tokenizer that would give other ids here", () => {
  const [{ json }] = kinds as [Kind]
  const model = (json as { model: object }).model
  it.each([
    ['a normalizer of the type "BertNormalizer"', { normalizer: { type: "BertNormalizer", lowercase: true } }],
    [
      'a normalizer of the type "Precompiled"',
      { normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Precompiled" }] } },
    ],
    ['a pre-tokenizer of the type "FixedLength"', { pre_tokenizer: { type: "FixedLength", length: 2 } }],
    [
      'a split with the behaviour "Torn"',
      { pre_tokenizer: { type: "Split", pattern: { String: " " }, behavior: "Torn", invert: false } },
    ],
    ['a model of the type "WordLevel"', { model: { ...model, type: "WordLevel" } }],
    ["byte_fallback but no token for some of the bytes", { model: { ...model, byte_fallback: true, unk_token: null } }],
    [
      "the anchor \\G in a pattern",
      { pre_tokenizer: { type: "Split", pattern: { Regex: "\\Ga" }, behavior: "Isolated", invert: false } },
    ],
    [
      "a Split whose pattern is neither a text nor an expression: {}",
      { pre_tokenizer: { type: "Split", pattern: {}, behavior: "Isolated", invert: false } },
    ],
    ["a model with dropout 0.1", { model: { ...model, dropout: 0.1 } }],
    ['a BPE model with the prefix "##"', { model: { ...model, continuing_subword_prefix: "##" } }],
  ])("is refused by name: %s", (name, change) => {
    const folder = folderOf(name.replaceAll(/\W+/g, "-"), { ...json, ...change })
    expect(() => loadTokenizer(folder)).toThrow(
      `tokenizer.json: must be a tokenizer whose ids are those of the original library, got one with ${name}`,
    )
  })

  it("does not follow settings of slow tokenizers, as the original does not", () => {
    const folder = folderOf("slow", json)
    writeFileSync(
      join(folder, "tokenizer_config.json"),
      '{"do_lowercase_and_remove_accent": true, "remove_space": true}',
    )
    expect(loadTokenizer(folder).encode("  It IS")).toEqual(loadTokenizer(folderOf("fast", json)).encode("  It IS"))
  })
})

describe("a tokenizer of a stranger", () => {
  const llama = join(__dirname, "../fixtures/models/llama")
  const base = JSON.parse(readFileSync(join(llama, "tokenizer.json"), "utf8"))
  const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false })
  it.each([
    ["a pattern that never ends", { pre_tokenizer: split("(a+)+$") }],
    ["a normalizer that never ends", { normalizer: { type: "Replace", pattern: { Regex: "(a|a)*$" }, content: "b" } }],
    [
      "replacements that grow",
      {
        normalizer: {
          type: "Sequence",
          normalizers: Array.from({ length: 40 }, () => ({
            type: "Replace",
            pattern: { String: "a" },
            content: "aaaa",
          })),
        },
      },
    ],
  ])("with %s fails within 2 seconds, once, and names the file", (name, change) => {
    const folder = folderOf(name.replaceAll(" ", "-"), { ...base, ...change })
    cpSync(join(llama, "tokenizer_config.json"), join(folder, "tokenizer_config.json"))
    const start = processorTime()
    const refusal = /tokenizer.json: (tokenising must take at most|must be a tokenizer that can be run here)/
    expect(() => loadTokenizer(folder).encode(`${"a".repeat(50)}!`)).toThrow(refusal)
    expect(processorTime() - start).toBeLessThan(4000)
  })

  it("is not tried again once it took too long", () => {
    const tokenizer = loadTokenizer(folderOf("again", { ...base, pre_tokenizer: split("(a+)+$") }))
    expect(() => tokenizer.encode(`${"a".repeat(50)}!`)).toThrow(/tokenising must take at most 1502 ms/)
    const start = processorTime()
    expect(() => tokenizer.encode("b")).toThrow(/tokenising/)
    expect(processorTime() - start).toBeLessThan(100)
  })

  it.each([
    ["steps of length 0", { pre_tokenizer: { type: "FixedLength", length: 0 } }],
    [
      "words without end",
      {
        pre_tokenizer: null,
        model: {
          ...{ type: "WordPiece", max_input_chars_per_word: 1e9, unk_token: "a", continuing_subword_prefix: "" },
          vocab: Object.fromEntries([..."abcdefghijklmnopqrstuvwxyz !".replace("!", "")].map((c, i) => [c, i])),
        },
      },
    ],
    [
      "empty patterns that grow the text",
      {
        normalizer: {
          type: "Sequence",
          normalizers: Array(40).fill({ type: "Replace", pattern: { String: "" }, content: "a" }),
        },
      },
    ],
  ])("with %s is stopped as well", (name, change) => {
    const folder = folderOf(name.replaceAll(" ", "-"), { ...base, added_tokens: [], ...change })
    const start = processorTime()
    expect(() => loadTokenizer(folder).encode("abcdefgh ".repeat(2000))).toThrow(/tokenizer.json: /)
    expect(processorTime() - start).toBeLessThan(8000)
  })

  it("has one limit for all texts of a turn of the event loop, so that signals are heard", async () => {
    // Each text takes a fraction of the limit; the loop does not let go between them.
    const tokenizer = loadTokenizer(folderOf("slow", { ...base, pre_tokenizer: split("(a+)+$") }))
    const start = processorTime()
    const many = () => {
      for (let i = 0; i < 10_000; i++) tokenizer.encode(`${"a".repeat(21)}!`)
    }
    expect(many).toThrow(/tokenising must take at most \d+ ms/)
    expect(processorTime() - start).toBeLessThan(8000)
  })

  it("is not blamed for the time in which its process was suspended", async () => {
    const folder = folderOf("suspended", { ...base, pre_tokenizer: split("\\p{L}+|\\P{L}") })
    const program = `
      const { loadTokenizer } = require("./lib/text/tokenizer.ts")
      const tokenizer = loadTokenizer(${JSON.stringify(folder)})
      require("node:fs").writeSync(1, "ready")
      for (let end = Date.now() + 3500; Date.now() < end; ) tokenizer.encode("the rain ".repeat(100))`
    const child = spawn(process.execPath, ["-r", "tsx/cjs", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: join(__dirname, "../.."),
    })
    await once(child.stdout, "data")
    child.kill("SIGSTOP")
    await new Promise((done) => setTimeout(done, 2500))
    child.kill("SIGCONT")
    expect(await once(child, "exit")).toEqual([0, null])
  })

  it("nested too deeply is refused without a stack trace", () => {
    const folder = folderOf("deep", {})
    writeFileSync(join(folder, "tokenizer.json"), `{"model": ${"[".repeat(20_000)}${"]".repeat(20_000)}}`)
    expect(() => loadTokenizer(folder)).toThrow(/tokenizer.json: must be JSON, got .*nested deeper than 500/)
  })

  // They are run without a time limit, which costs a thread for each text.
  it.each([...soundPatterns])(
    "is not suspected for the pattern %s, which takes no longer than texts are",
    (pattern) => {
      const split = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false }
      expect(canHang(split)).toBe(false)
      const word = { continuing_subword_prefix: "##", max_input_chars_per_word: 100 }
      const model = { type: "WordPiece", vocab: { odd: 0 }, unk_token: "odd", ...word }
      const tokenizer = loadTokenizer(
        folderOf(`sound-${soundPatterns.size}-${pattern.length}`, { model, pre_tokenizer: split }),
      )
      for (const unit of [" ", "\n", "\t \n", "a", "A'", "'s", "7", "!", "é", "▁#", " \u2003x"]) {
        const began = performance.now()
        tokenizer.encode(`${unit.repeat(40_000 / unit.length)}\u0000`)
        expect(performance.now() - began).toBeLessThan(2000)
      }
    },
  )
})
