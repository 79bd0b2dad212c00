import { describe, expect, it } from "vitest"
import { withoutThoughts } from "../../lib/engine/reply"
import { ReplyError, readReply, wordsOf } from "../../lib/engine/server-reply"

const reply = (message: unknown, choice: object = {}, more: object = {}) => ({
  choices: [{ index: 0, message, finish_reason: "stop", ...choice }],
  usage: { prompt_tokens: 5, completion_tokens: 7 },
  ...more,
})
const says = (content: unknown) => reply({ role: "assistant", content })
const read = (value: unknown) => withoutThoughts(readReply(value))
const fine = { text: "fine", tokens: 7, finish: "stop", promptTokens: 5 }

describe("a reply of a server", () => {
  it.each([
    ["a text", says("fine")],
    [
      "a list of parts",
      says([
        { type: "text", text: "fi" },
        { type: "text", text: "ne" },
      ]),
    ],
    ["parts of the other name", says([{ type: "output_text", text: "fine" }])],
    [
      "the old form",
      { choices: [{ text: "fine", finish_reason: "stop" }], usage: { prompt_tokens: 5, completion_tokens: 7 } },
    ],
    [
      "a reason that is no text",
      JSON.parse(JSON.stringify(reply({ content: "fine" }, { finish_reason: { toString: 1 } }))),
    ],
    ["a type that is no text", says([{ type: { toString: 1 }, text: "fine" }])],
    [
      "choices out of order",
      {
        ...says(""),
        choices: [
          { index: 1, message: { content: "no" } },
          { index: 0, message: { content: "fine" } },
        ],
      },
    ],
    ["no reason of its end", reply({ content: "fine" }, { finish_reason: null })],
    ["an end-of-turn token in the text", says("fine<|im_end|>")],
    ["two of them", says("fine</s><|endoftext|>\n")],
    [
      "a citation beside the text",
      says([
        { type: "text", text: "fine" },
        { type: "reference", reference_ids: [1] },
      ]),
    ],
  ])("is read as it is meant: %s", (_, value) => expect(read(value)).toEqual(fine))

  it.each([
    ...["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "max_length"],
    ...["model_context_window_exceeded"],
  ])("was cut off where it says %s", (finish_reason) =>
    expect(read(reply({ content: "fi" }, { finish_reason })).finish).toBe("length"),
  )

  it("was cut off too where it does not say how it ended, but has all tokens that it may have", () => {
    const untold = reply({ content: "fi" }, { finish_reason: null }) // 7 tokens
    expect([7, 8].map((limit) => readReply(untold, { limit }).finish)).toEqual(["length", "stop"])
    expect(readReply(reply({ content: "fi" }), { limit: 7 }).finish).toBe("stop")
  })

  it("keeps the end of HTML that looks like an end-of-turn token", () => {
    for (const text of ["Now: <s>9</s>", "a <s>b</s> c <s>d</s>"]) expect(read(says(text)).text).toBe(text)
    expect(read(says("<s>9</s>")).text).toBe("<s>9")
    expect(read(says("Now: <s>9</s></s>")).text).toBe("Now: <s>9</s>")
  })

  it.each([
    ["refused by the model", reply({ content: null, refusal: "I can't." })],
    ["refused by the model", says([{ type: "refusal", refusal: "I can't." }])],
    [
      "a tool call instead of text",
      reply({ content: null, tool_calls: [{ id: "1" }] }, { finish_reason: "tool_calls" }),
    ],
    ["stopped by the server's content filter", reply({ content: "" }, { finish_reason: "content_filter" })],
    ["stopped by the server's content filter", reply({ content: "half of" }, { finish_reason: "content_filter" })],
    ["stopped by the server's content filter", reply({ content: "half of" }, { finish_reason: "RECITATION" })],
    ["stopped by the server's content filter", reply({ content: "" }, { finish_reason: "prohibited_content" })],
    ["refused by the model", reply({ content: "I can't." }, { finish_reason: "refusal" })],
    ["refused by the model", reply({ content: null }, { finish_reason: "refusal" })],
    [
      "a tool call instead of text",
      reply({ content: "Let me look.", tool_calls: [{ id: "1" }] }, { finish_reason: "tool_calls" }),
    ],
    ["a reply without content", says(null)],
    ["stopped by the server's content filter", { choices: [{ index: 0, finish_reason: "content_filter" }] }],
    ["a reply without content", { choices: [{ index: 0, finish_reason: "stop", message: null }] }],
    ["a part that is no text", says([{ type: "image_url", image_url: {} }])],
    [
      "a part that is no text",
      says([
        { type: "text", text: "See:" },
        { type: "tool_use", id: "1" },
      ]),
    ],
    ["a reply without content", reply({ role: "assistant" })],
    ["cut off inside its thoughts", reply({ content: null, reasoning_content: "hm" }, { finish_reason: "length" })],
    ["thoughts without an answer", reply({ content: null, reasoning: "hm" })],
    [
      "cut off inside its thoughts",
      reply(
        { content: "" },
        { finish_reason: "length" },
        { usage: { completion_tokens_details: { reasoning_tokens: 9 } } },
      ),
    ],
  ])("without an answer says why: %s", (problem, value) => expect(read(value).problem).toBe(problem))

  it.each([
    ["reasoning_content", reply({ content: "Blue.", reasoning_content: "hm, comma" })],
    ["reasoning", reply({ content: "Blue.", reasoning: "hm, comma" })],
    [
      "parts",
      says([
        { type: "thinking", thinking: [{ type: "text", text: "hm, comma" }] },
        { type: "text", text: "Blue." },
      ]),
    ],
    ["a list of thoughts", reply({ content: "Blue.", reasoning: [{ type: "text", text: "hm, " }, "comma"] })],
    ["an object of thoughts", reply({ content: "Blue.", reasoning_content: { content: "hm, comma" } })],
    ["details", reply({ content: "Blue.", reasoning_details: [{ type: "reasoning.text", text: "hm, comma" }] })],
    [
      "hidden parts",
      says([
        { type: "redacted_thinking", data: "x" },
        { type: "reasoning.text", text: "hm, comma" },
        { type: "output_text", text: "Blue." },
      ]),
    ],
  ])("keeps thoughts apart: %s", (_, value) =>
    expect(read(value)).toMatchObject({ text: "Blue.", thoughts: "hm, comma" }),
  )

  it("that the prompt began inside the thoughts has no answer where it was cut there", () => {
    const cut = reply({ content: "plan, plan" }, { finish_reason: "length" })
    expect(read(cut).text).toBe("plan, plan")
    expect(withoutThoughts(readReply(cut, { thoughtsOpen: true }))).toMatchObject({
      text: "",
      problem: "cut off inside its thoughts",
    })
    expect(withoutThoughts(readReply(says("plan</think>\n\nfine"), { thoughtsOpen: true })).text).toBe("fine")
    expect(withoutThoughts(readReply(says("<think>plan</think>fine"), { thoughtsOpen: true })).text).toBe("fine")
  })

  it.each([
    null,
    5,
    "text",
    [],
    {},
    { choices: [] },
    { choices: null },
    { choices: [null] },
    { choices: [{}] },
    says([1, 2]),
    says({ text: "x" }),
    says(7),
    says([{ type: "text" }]),
    { choices: [{ error: { message: "Provider returned error", code: 502 }, message: { content: "" } }] },
    reply({ content: "fi" }, { finish_reason: "error" }),
    reply({ content: "fi" }, { finish_reason: "abort" }),
    reply({ content: "fi" }, { finish_reason: "cancelled" }),
    reply({ content: "fi" }, { finish_reason: "insufficient_system_resource" }),
    { error: { message: "model overloaded", code: 502 } },
    { error: "busy" },
  ])("is none: %j", (value) => expect(() => readReply(value)).toThrow(ReplyError))

  it("that reports an error under status 200 carries its status and words", () => {
    const error = (() => {
      try {
        return readReply({ error: { message: "Provider returned error", code: 502 } })
      } catch (caught) {
        return caught as ReplyError
      }
    })()
    expect(error).toMatchObject({ status: 502, message: "the server reports an error: Provider returned error" })
  })

  it("that has the words of an error in the place of choices carries them", () => {
    const error = { object: "error", message: "no such model", code: 404 }
    expect(() => readReply(error)).toThrow(
      expect.objectContaining({ status: 404, message: expect.stringMatching(/but no such model$/) }),
    )
    const path = { error: "Unexpected endpoint or method. (POST /chat/completions)" }
    expect(() => readReply(path)).toThrow(expect.objectContaining({ status: 404 }))
  })

  it.each([
    [null],
    [[]],
    [{}],
    [{ prompt_tokens: null, completion_tokens: null }],
    [{ prompt_tokens: "10", completion_tokens: "2" }],
    [{ prompt_tokens: Number.NEGATIVE_INFINITY, completion_tokens: -1 }],
    [{ prompt_tokens: 1.5, completion_tokens: 1e300 }],
  ])("with a usage that is none has unknown tokens: %j", (usage) =>
    expect(read(reply({ content: "fine" }, {}, { usage }))).toEqual({ text: "fine", tokens: 0, finish: "stop" }),
  )

  const withTop = (top: unknown, content = "m") =>
    readReply(reply({ content }, { logprobs: { content: [{ token: "m", top_logprobs: top }] } }), { topLogprobs: 5 })
      .first

  it("has log-probs only where all of them are some", () => {
    const m = { token: "m", logprob: -0.1 }
    expect(withTop([m, { token: "M", logprob: -2 }])).toEqual([m, { token: "M", logprob: -2 }])
    expect(withTop([m, { token: "M", logprob: Number.NEGATIVE_INFINITY }])).toEqual([m]) // probability 0
    for (const logprob of [null, "0", Number.NaN, 3, undefined])
      expect(withTop([m, { token: "M", logprob }])).toBe(undefined)
    for (const top of [null, [], {}, [null], [{ logprob: -1 }]]) expect(withTop(top)).toBe(undefined)
  })

  it("has the log-probs of the first token of the answer, not of the thoughts before it", () => {
    const tokens = ["<think>", "x", "</think>", "\n\n", "M"].map((token) => ({
      token,
      logprob: 0,
      top_logprobs: [{ token, logprob: -0.5 }],
    }))
    const value = reply({ content: "<think>x</think>\n\nM" }, { logprobs: { content: tokens } })
    expect(readReply(value, { topLogprobs: 5 }).first).toEqual([{ token: "M", logprob: -0.5 }])
  })

  it("has them too where the thoughts came apart, but the log-probs of both together", () => {
    const places = (pieces: string[]) =>
      pieces.map((token) => ({ token, logprob: 0, top_logprobs: [{ token, logprob: -0.5 }] }))
    const first = (pieces: string[], content = "M") =>
      readReply(reply({ content, reasoning_content: "m" }, { logprobs: { content: places(pieces) } }), {
        topLogprobs: 5,
      }).first
    const itsM = [{ token: "M", logprob: -0.5 }]
    expect(first(["m", "</think>", "\n\n", "M"])).toEqual(itsM)
    expect(first(["m", "</think>", "\n\n", "M", "<|im_end|>"])).toEqual(itsM)
    expect(first(["M"])).toEqual(itsM)
    expect(first(["m", "</think>", "\n\n"])).toBeUndefined()
  })

  it("cannot reach the prototypes of objects", () => {
    read(JSON.parse('{"__proto__":{"polluted":1},"choices":[{"message":{"__proto__":{"polluted":1},"content":"x"}}]}'))
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })
})

describe("the words of a server's error", () => {
  it.each([
    [{ error: { message: "bad key", code: 401 } }, "bad key"],
    [{ error: "bad key." }, "bad key"],
    [{ message: "bad key" }, "bad key"],
    [{ detail: "bad key" }, "bad key"],
    [{ detail: [{ loc: ["body", "messages"], msg: "field required" }] }, "body.messages: field required"],
    [
      { message: { detail: [{ loc: ["body", "seed"], msg: "Extra inputs are not permitted" }] } },
      "body.seed: Extra inputs are not permitted",
    ],
    ["<!doctype html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"],
    ["teapot", "teapot"],
    [{ error: { message: "oops \u001b]0;pwn\u0007" } }, "oops ]0;pwn"],
    [null, ""],
    [{}, ""],
  ])("are found: %j", (body, words) => expect(wordsOf(body)).toBe(words))
})
