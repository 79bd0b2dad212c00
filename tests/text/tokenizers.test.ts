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
    ['a BPE model with the suffix "</w>"', { model: { ...model, end_of_word_suffix: "</w>" } }],
    ['a decoder of the type "CTC"', { decoder: { type: "CTC", pad_token: "<pad>", cleanup: true } }],
  ])("is refused by name: %s", (name, change) => {
    const folder = folderOf(name.replaceAll(/\W+/g, "-"), { ...json, ...change })
    expect(() => loadTokenizer(folder)).toThrow(
      `tokenizer.json: must be a tokenizer whose ids are those of the original library, got one with ${name}`,
    )
  })

  // The original library numbers added tokens itself, behind the vocabulary, and only warns.
  it.each([
    ["leaves a gap", { id: 400, content: "<x>" }, 369],
    ["is that of another token", { id: 0, content: "<x>" }, 369],
    ["differs from its vocabulary", { id: 369, content: "the" }, 265],
  ])("has the id of the original library, with a note, where that of the file %s", (name, added, id) => {
    const flags = { special: false, normalized: false, lstrip: false, rstrip: false, single_word: false }
    const added_tokens = [{ ...added, ...flags }]
    const { note, encode, decode } = loadTokenizer(folderOf(name.replaceAll(" ", "-"), { ...json, added_tokens }))
    expect(encode(`a${added.content}b`)).toEqual([...encode("a"), id, ...encode("b")])
    expect(decode([id])).toBe(added.content)
    expect(note).toMatch(
      `get the ids that the original library gives them: "${added.content}" ${id} instead of ${added.id}`,
    )
  })

  it("is refused where special tokens are not to be seen in texts", () => {
    const folder = folderOf("split-special", json)
    writeFileSync(join(folder, "tokenizer_config.json"), '{"split_special_tokens": true}')
    expect(() => loadTokenizer(folder)).toThrow(/tokenizer_config.json, split_special_tokens: must be false/)
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

// What AutoTokenizer of transformers 5.23 gives for the same folders.
describe("tokens that only the files beside tokenizer.json name", () => {
  const of = (kind: string) => kinds.find(({ name }) => name === kind)!.json
  const text = "a</s>b x<|im_end|>y ab<extra>cd<tool>"
  const token = (content: string, special: boolean) => ({
    ...{ content, special, normalized: false },
    ...{ lstrip: false, rstrip: false, single_word: false },
  })
  it.each([
    ["eos_token", "tokenizer_config.json", { eos_token: "</s>" }, ["</s>"]],
    ["eos_token with flags", "tokenizer_config.json", { eos_token: token("</s>", true) }, ["</s>"]],
    [
      "a list",
      "tokenizer_config.json",
      { additional_special_tokens: ["<|im_end|>", "<extra>"] },
      ["<|im_end|>", "<extra>"],
    ],
    ["a list of transformers 5", "tokenizer_config.json", { extra_special_tokens: ["<extra>"] }, ["<extra>"]],
    ["a name of its own", "tokenizer_config.json", { extra_special_tokens: { tool_token: "<tool>" } }, ["<tool>"]],
    [
      "added_tokens_decoder",
      "tokenizer_config.json",
      { added_tokens_decoder: { 370: token("<|im_end|>", true), 369: token("<extra>", true) } },
      ["<extra>", "<|im_end|>"],
    ],
    ["special_tokens_map.json", "special_tokens_map.json", { eos_token: "</s>" }, ["</s>"]],
  ])("are added, by %s", (name, file, settings, added) => {
    const folder = folderOf(`named-${name.replaceAll(/\W+/g, "-")}`, of("gpt2"))
    writeFileSync(join(folder, file), JSON.stringify(settings))
    const tokenizer = loadTokenizer(folder)
    expect(added.flatMap((one) => tokenizer.encode(one))).toEqual(added.map((_, i) => 369 + i))
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    const plain = added.reduce((rest, one) => rest.replaceAll(one, ""), text)
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecial: true })).toBe(plain)
    expect(tokenizer.eosIds).toEqual(added.includes("</s>") ? [369] : [])
  })

  it("of added_tokens.json are no special ones", () => {
    const folder = folderOf("added-tokens-json", of("gpt2"))
    writeFileSync(join(folder, "added_tokens.json"), JSON.stringify({ "<tool>": 369 }))
    const tokenizer = loadTokenizer(folder)
    expect(tokenizer.encode("d<tool>")).toEqual([68, 369])
    expect(tokenizer.decode([68, 369], { skipSpecial: true })).toBe("d<tool>")
  })

  it("keep the id that the vocabulary has, and are found within words", () => {
    const folder = folderOf("piece", of("gpt2"))
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ eos_token: "the" }))
    const tokenizer = loadTokenizer(folder)
    expect(tokenizer.encode("other the")).toEqual([79, 265, 82, 221, 265])
    expect(tokenizer.decode([79, 265, 82, 221, 265], { skipSpecial: true })).toBe("or ")
  })

  it.each([{ eos_token: "<word>" }, { added_tokens_decoder: { 365: token("<word>", true) } }])(
    "make those of tokenizer.json special: %j",
    (settings) => {
      const folder = folderOf(`special-${Object.keys(settings)[0]}`, of("smollm2"))
      expect(loadTokenizer(folder).decode([365, 65], { skipSpecial: true })).toBe("<word>a")
      writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(settings))
      expect(loadTokenizer(folder).decode([365, 65], { skipSpecial: true })).toBe("a")
    },
  )

  it.each([
    ["LlamaTokenizer", "llama2", { tokenizer_class: "LlamaTokenizerFast" }, "llama"],
    ["Qwen2Tokenizer", "smollm2", { tokenizer_class: "PreTrainedTokenizerFast" }, "qwen2"],
    ["Qwen2Tokenizer", "llama3", {}, "qwen3"],
    ["GemmaTokenizer", "llama2", {}, "gemma3_text"],
    [null, "llama2", { tokenizer_class: "LlamaTokenizer" }, "mistral"],
    [null, "llama2", { tokenizer_class: "PreTrainedTokenizerFast" }, "llama"],
    [null, "llama3", { tokenizer_class: "LlamaTokenizerFast" }, "llama"],
    [null, "metaspace-whole", { tokenizer_class: "LlamaTokenizer" }, "llama"],
    [null, "qwen", { tokenizer_class: "Qwen2Tokenizer" }, "qwen2"],
    [null, "gemma", {}, "gemma3"],
    [null, "smollm2", {}, "llama"],
  ])(
    "are beside a note where transformers takes the parts of its class: %s, %s, %j, %s",
    (name, kind, settings, type) => {
      const folder = folderOf(`class-${kind}-${type}-${Object.values(settings)}`, of(kind))
      writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(settings))
      writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type: type }))
      const { note } = loadTokenizer(folder)
      if (name) expect(note).toContain(`the parts of its class ${name} instead`)
      else expect(note).toBeUndefined()
    },
  )
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
    expect(() => tokenizer.encode(`${"a".repeat(50)}!`)).toThrow(/tokenising must take at most 1500 ms/)
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
