import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { respondMessages } from "../../lib/musc/respond"
import { chatStop, encodeChat, encodePrompt, renderChat } from "../../lib/text/chat"
import { loadTokenizer, type Tokenizer } from "../../lib/text/tokenizer"
import { corpusExample } from "../../lib/world/corpus"
import { allConstraints } from "../../lib/world/inverse"
import { kinds, questionOf } from "../../lib/world/kinds"
import { openers } from "../../lib/world/pools"
import { worldTokenizer, worldVocabulary } from "../../lib/world/tokenizer"

const words = worldVocabulary({ seed: 0, examples: 60000 })
const folder = mkdtempSync(join(tmpdir(), "world-tokenizer-"))
let tokenizer: Tokenizer

/** Saves the files of a tokenizer as a model folder. */
function save(dir: string, vocabulary: readonly string[]): void {
  mkdirSync(dir, { recursive: true })
  for (const [name, content] of Object.entries(worldTokenizer(vocabulary))) {
    writeFileSync(join(dir, name), `${JSON.stringify(content, null, 1)}\n`)
  }
}

beforeAll(() => {
  save(folder, words)
  tokenizer = loadTokenizer(folder)
})
afterAll(() => rmSync(folder, { recursive: true }))

test("the vocabulary is small, the same every time, and holds the words of another 5,000 examples", () => {
  expect(worldVocabulary({ seed: 0, examples: 60000 })).toEqual(words)
  expect(tokenizer.vocabSize).toBeLessThan(1600)
  const others = worldVocabulary({ seed: 99, examples: 5000 })
  expect(others.filter((word) => !words.includes(word))).toEqual([])
})

test("every question, every clause and every opener in each case is made of whole words", () => {
  const texts = allConstraints.flatMap((item) => [
    questionOf(item),
    ...(item.kind === "topic" ? [] : kinds[item.kind].clauses(item.value, item.negated)),
  ])
  const spelt = openers.flatMap((word) => [word, word.toLowerCase(), word.toUpperCase()])
  for (const text of [...texts, ...spelt]) {
    const wholeWords = text.match(/[A-Za-z]+|[.,?!]/g)!.length
    expect([text, tokenizer.encode(text).length]).toEqual([text, wholeWords])
  }
  expect(tokenizer.encode("Zebras").length).toBeGreaterThan(1)
})

test("a value is one and the same token in the instruction, in the question and in the answer", () => {
  const id = (word: string) => {
    const ids = tokenizer.encode(word)
    expect(ids).toHaveLength(1)
    return ids[0]!
  }
  const texts = [
    "Begin with the word Quietly.",
    "Does the text begin with the word Quietly?",
    "Quietly, the sailor slept.",
  ]
  for (const text of texts) expect(tokenizer.encode(text)).toContain(id("Quietly"))
  const answer = encodeChat(
    tokenizer,
    respondMessages("Begin with the word Quietly.", null),
    "Quietly, the sailor slept.",
  )
  expect(answer.promptIds).toContain(id("Quietly"))
  expect(answer.responseIds[0]).toBe(id("Quietly"))
})

test("examples come back unchanged, and their pieces spell them", () => {
  for (let i = 0; i < 500; i++) {
    const { prompt, response } = corpusExample(i, { seed: 4, phase: "able" })
    for (const text of [prompt, response]) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    expect(tokenizer.tokenText(tokenizer.encode(response)).join("")).toBe(response)
  }
})

test("the chat has one turn a message, ends answers with <|end|>, and tells prompt from answer", () => {
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Write about a sailor." },
  ] as const
  const prompt = "<|system|>Be brief.<|end|><|user|>Write about a sailor.<|end|><|assistant|>"
  expect(renderChat(tokenizer, messages)).toBe(prompt)
  expect(chatStop(tokenizer).ids.map((id) => tokenizer.decode([id]))).toEqual(["<|end|>"])
  const { promptIds, responseIds } = encodeChat(tokenizer, messages, "The sailor slept.")
  expect(promptIds).toEqual(encodePrompt(tokenizer, messages))
  expect(tokenizer.decode(responseIds, { skipSpecial: true })).toBe("The sailor slept.")
  expect(responseIds.at(-1)).toBe(tokenizer.encode("<|end|>")[0])
})

// The words are fixed, so that the fixture stays as it is when the corpus changes.
// tests/reference/make_world_tokenizer.py computes the ids with the Python library from the very tokenizer.json that
// stands in the fixture.
const few = [
  "##1.",
  "##2.",
  ..."Begin Is New No Question Quietly QUIETLY Write a about and brave never question quietly say sailor slept storm text the with word"
    .split(" ")
    .map((word) => `▁${word}`),
]
const fixture = join(__dirname, "../fixtures/world-tokenizer")

test("ids and texts equal those of the Python library, on plain and on nasty texts", () => {
  if (process.env.UPDATE_FIXTURES) save(fixture, few)
  expect(JSON.parse(readFileSync(join(fixture, "tokenizer.json"), "utf8"))).toEqual(
    worldTokenizer(few)["tokenizer.json"],
  )
  const reference = loadTokenizer(fixture)
  const { cases } = JSON.parse(readFileSync(join(fixture, "expected.json"), "utf8"))
  expect(cases.length).toBeGreaterThan(60)
  for (const { text, ids, decoded } of cases) {
    expect([text, reference.encode(text)]).toEqual([text, ids])
    expect(reference.decode(ids)).toBe(decoded)
    if (!text.includes("<|")) expect(decoded).toBe(text.replaceAll("\u2581", " "))
  }
})
