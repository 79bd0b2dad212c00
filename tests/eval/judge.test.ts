import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { cachedGenerator } from "../../lib/engine/cached"
import { type ScriptedAnswer, scripted } from "../../lib/engine/scripted"
import { infobenchSingle } from "../../lib/eval/infobench"
import { estimateTokens, judgeOf } from "../../lib/eval/judge"

const dir = mkdtempSync(join(tmpdir(), "musc-judge-"))
afterAll(() => rmSync(dir, { recursive: true }))
let made = 0
const cacheFile = () => join(dir, `${made++}.jsonl`)
const request = (content: string) => ({
  messages: [{ role: "user" as const, content }],
  temperature: 0,
  maxTokens: 8,
})
const generate = (content: string, seed = 1) => ({ ...request(content), seed })
const yesOrNo = ({ text }: { text: string }) => /^(yes|no)$/.test(text)

describe("a judge", () => {
  it("is asked again, with another seed and warmer, until its reply can be read", async () => {
    const replies = ["maybe", "perhaps", "yes"]
    const engine = scripted(() => replies.shift()!)
    const { judge, counts } = judgeOf(engine, { tries: 3, retryTemperature: 0.5 })
    expect(await judge(request("q"), yesOrNo)).toEqual({
      replies: [{ text: "maybe" }, { text: "perhaps" }, { text: "yes" }],
      parsed: true,
    })
    expect(engine.requests.map(({ temperature }) => temperature)).toEqual([0, 0.5, 0.5])
    expect(new Set(engine.requests.map(({ seed }) => seed)).size).toBe(3)
    expect(counts).toEqual({ asked: 1, again: 2, unparsed: 0 })
  })

  it("is not guessed when no try gives a readable reply, and that is counted", async () => {
    const { judge, counts } = judgeOf(scripted(() => "hm"))
    expect(await judge(request("q"), yesOrNo)).toEqual({
      replies: [{ text: "hm" }, { text: "hm" }, { text: "hm" }],
      parsed: false,
    })
    expect(counts).toEqual({ asked: 1, again: 2, unparsed: 1 })
  })

  it("says nothing by a refusal or by what a filter left, and is asked again", async () => {
    const replies: ScriptedAnswer[] = [
      { text: "no", problem: "refused by the model" },
      { text: "no", problem: "stopped by the server's content filter" },
      { text: "yes", finish: "length" },
    ]
    const { judge, counts } = judgeOf(scripted(() => replies.shift()!))
    expect(await judge(request("q"), yesOrNo)).toEqual({
      replies: [
        { text: "", problem: "refused by the model" },
        { text: "", problem: "stopped by the server's content filter" },
        { text: "yes", cut: true },
      ],
      parsed: true,
    })
    expect(counts).toEqual({ asked: 1, again: 2, unparsed: 0 })
  })

  it("of InFoBench says no by that word alone, not by one about the next word", () => {
    const read = (reply: string, scoring: "official" | "corrected") => {
      const data = { input: "", questions: [{ question: "Is it?", labels: [] }], hard: false, rules: null }
      const item = { id: "a", unit: "a", turns: ["Do it."], temperature: 0, maxTokens: 8, data }
      return infobenchSingle.score(item, ["Done."], [[reply]], scoring)
    }
    const verdict = (reply: string) =>
      (["official", "corrected"] as const).map(
        (scoring) => (read(reply, scoring) as { asked: { satisfied: boolean | null }[] }).asked[0]!.satisfied,
      )
    expect(verdict("No faults found: YES")).toEqual([false, true])
    expect(verdict("No faults found.")).toEqual([false, null])
    for (const no of ["No", "NO.", "**No** - it is long", "No, since none is there.", "no because it is long"])
      expect(verdict(no)[1]).toBe(false)
    expect(verdict("Yes. No faults.")).toEqual([true, true])
    for (const both of ["YES/NO", "YES or NO: NO", "Yes and no"]) expect(verdict(both)).toEqual([true, null])
  })

  it("gives the same replies from the cache, attempt by attempt, without a call", async () => {
    const file = cacheFile()
    for (const calls of [2, 0]) {
      const replies = ["maybe", "yes"]
      const engine = scripted(() => replies.shift()!)
      const cached = await cachedGenerator(engine, { file, id: "server m" })
      const { judge } = judgeOf(cached)
      expect((await judge(request("q"), yesOrNo)).replies).toEqual([{ text: "maybe" }, { text: "yes" }])
      await cached.close()
      expect(engine.requests).toHaveLength(calls)
      expect(cached.totals).toMatchObject({ calls, cached: 2 - calls })
    }
  })
})

describe("the cache of calls", () => {
  it("asks again when model, messages, parameters or seed differ", async () => {
    const file = cacheFile()
    const engine = scripted(({ messages }) => messages[0]!.content)
    const cached = await cachedGenerator(engine, { file, id: "a" })
    await cached.generate(generate("x"))
    await cached.generate({ ...generate("x"), stop: [], topP: 1 }) // the same, spelt out
    expect(engine.requests).toHaveLength(1)
    await cached.generate(generate("y"))
    await cached.generate(generate("x", 2))
    await cached.generate({ ...generate("x"), temperature: 0.1 })
    await cached.generate({ ...generate("x"), maxTokens: 9 })
    await cached.generate({ ...generate("x"), topLogprobs: 5 })
    await cached.close()
    expect(engine.requests).toHaveLength(6)
    const other = await cachedGenerator(engine, { file, id: "b" })
    await other.generate(generate("x"))
    await other.close()
    expect(engine.requests).toHaveLength(7)
  })

  it("makes one call of equal requests under way", async () => {
    const engine = scripted(() => new Promise<ScriptedAnswer>((done) => setTimeout(() => done("x"), 5)))
    const cached = await cachedGenerator(engine, { file: cacheFile(), id: "a" })
    await Promise.all([1, 2, 3].map(() => cached.generate(generate("x"))))
    await cached.close()
    expect(engine.requests).toHaveLength(1)
    expect(cached.totals).toMatchObject({ calls: 1, cached: 2 })
  })

  it("passes over lines that hold no call, counts them, and cuts off a torn last one", async () => {
    const file = cacheFile()
    const engine = scripted(({ messages }) => messages[0]!.content)
    const first = await cachedGenerator(engine, { file, id: "a" })
    await first.generate(generate("x"))
    await first.close()
    const whole = readFileSync(file, "utf8")
    appendFileSync(file, whole.slice(0, 40))
    const second = await cachedGenerator(engine, { file, id: "a" })
    expect((await second.generate(generate("x"))).text).toBe("x")
    await second.generate(generate("y"))
    await second.close()
    expect(engine.requests).toHaveLength(2)
    expect(
      readFileSync(file, "utf8")
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line).text),
    ).toEqual(["x", "y"])
    const key = JSON.parse(whole).key
    const odd = [
      { key, text: "bad", tokens: 1, finish: "stop", promptTokens: null },
      { key, text: "bad", tokens: "1", finish: "stop" },
      { key, text: "bad", tokens: -1, finish: "stop" },
      { key, text: "bad", tokens: 1, finish: "stop", first: [{ token: "m", logprob: null }] },
      { key, text: "bad", tokens: 1, finish: "stop", first: [{ token: "m", logprob: 5 }] },
      { key: "k" },
      null,
    ].map((line) => `${JSON.stringify(line)}\n`)
    const lines = [whole, ...odd, "not JSON\n", "\u0000\u0000\n", `"${"x".repeat(17 * 2 ** 20)}"\n`]
    writeFileSync(file, Buffer.concat([...lines.map((line) => Buffer.from(line)), Buffer.from([0xff, 0xfe, 10])]))
    const third = await cachedGenerator(engine, { file, id: "a" })
    expect(third.broken).toEqual({ lines: 11, first: 2 })
    expect((await third.generate(generate("x"))).text).toBe("x")
    expect((await third.generate(generate("z"))).text).toBe("z")
    await third.close()
    expect(engine.requests).toHaveLength(3)
    const fourth = await cachedGenerator(engine, { file, id: "a" })
    expect((await fourth.generate(generate("z"))).text).toBe("z")
    await fourth.close()
    expect(engine.requests).toHaveLength(3)
  })

  it("asks again for a call that was changed in its place, and takes lines of versions that wrote no sum", async () => {
    const file = cacheFile()
    const engine = scripted(() => "no")
    const first = await cachedGenerator(engine, { file, id: "a" })
    await first.generate(generate("x"))
    await first.close()
    const whole = readFileSync(file, "utf8")
    const { sum, ...older } = JSON.parse(whole)
    const lines = [
      { line: whole.replace('"text":"no"', '"text":"ye"'), broken: 1 },
      { line: whole.replace(/"tokens":\d/, '"tokens":9'), broken: 1 },
      { line: whole.replace(sum, "0".repeat(sum.length)), broken: 1 },
      { line: `${JSON.stringify(older)}\n`, broken: 0 },
    ]
    for (const { line, broken } of lines) {
      expect(line).not.toBe(whole)
      writeFileSync(file, line)
      const asked = engine.requests.length
      const cached = await cachedGenerator(engine, { file, id: "a" })
      expect(cached.broken.lines).toBe(broken)
      expect((await cached.generate(generate("x"))).text).toBe("no")
      await cached.close()
      expect(engine.requests).toHaveLength(asked + broken)
    }
  })

  it("hands on an answer that it could not read again, but does not keep it", async () => {
    const file = cacheFile()
    const engine = scripted(() => ({ text: "x", tokens: Number.NEGATIVE_INFINITY }))
    for (const calls of [1, 2]) {
      const cached = await cachedGenerator(engine, { file, id: "a" })
      expect(cached.broken.lines).toBe(0)
      expect((await cached.generate(generate("x"))).text).toBe("x")
      await cached.close()
      expect(engine.requests).toHaveLength(calls)
      expect(readFileSync(file, "utf8")).toBe("")
    }
  })

  it("keeps thoughts and problems as they came", async () => {
    const file = cacheFile()
    const answer = { text: "<think>a</think>b", thoughts: "c", tokens: 3, finish: "stop" as const, problem: "refused" }
    for (const engine of [scripted(() => answer), scripted(() => new Error("not asked"))]) {
      const cached = await cachedGenerator(engine, { file, id: "a" })
      expect(await cached.generate(generate("x"))).toEqual(answer)
      await cached.close()
    }
  })

  it("keeps what was under way when another call failed, and begins no new one", async () => {
    const file = cacheFile()
    const engine = scripted(
      ({ messages }) =>
        new Promise<ScriptedAnswer>((done) => {
          const wanted = messages[0]!.content
          if (wanted === "bad") done(new Error("the server is gone"))
          else setTimeout(() => done(wanted), 30)
        }),
      { concurrency: 2 },
    )
    const cached = await cachedGenerator(engine, { file, id: "a" })
    const calls = ["slow", "bad", "late"].map((content) => cached.generate(generate(content)))
    expect((await Promise.allSettled(calls.slice(1))).map(({ status }) => status)).toEqual(["rejected", "rejected"])
    await expect(calls[2]).rejects.toThrow("the server is gone")
    await cached.close()
    expect(engine.requests.map(({ messages }) => messages[0]!.content)).toEqual(["slow", "bad"])
    expect(JSON.parse(readFileSync(file, "utf8")).text).toBe("slow")
  })
})

it("the token estimate takes four ASCII characters, or one Chinese one, for a token", () => {
  expect(estimateTokens("abcdefgh")).toBe(2)
  expect(estimateTokens("请用中文")).toBe(4)
  expect(estimateTokens("")).toBe(0)
})
