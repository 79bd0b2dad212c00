import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { openaiGenerator } from "../../lib/engine/openai"
import { InputError, MuscError } from "../../lib/errors"

type Answer = (response: ServerResponse, body: Record<string, unknown>, request: IncomingMessage) => void

/** A server on 127.0.0.1 that gives the answers in turn, the last one for ever. */
async function serve(...answers: Answer[]) {
  const bodies: Record<string, unknown>[] = []
  const server = createServer((request, response) => {
    let text = ""
    request.on("data", (chunk) => {
      text += chunk
    })
    request.on("end", () => {
      const body = JSON.parse(text)
      bodies.push(body)
      answers[Math.min(bodies.length, answers.length) - 1]!(response, body, request)
    })
  })
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  close = () => {
    server.closeAllConnections()
    server.close()
  }
  return { baseURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, bodies }
}

let close = () => {}
const SECRET = "sk-test-7f3a9c"

beforeEach(() => vi.stubEnv("OPENAI_API_KEY", SECRET))
afterEach(() => {
  close()
  vi.unstubAllEnvs()
})

const json = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.end(JSON.stringify(body))
}
const says =
  (text: string | null, finish_reason = "stop"): Answer =>
  (response) =>
    json(response, 200, {
      choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason }],
      usage: { completion_tokens: 5, prompt_tokens: 1, total_tokens: 6 },
    })
const refuses =
  (status: number, message: string): Answer =>
  (response) =>
    json(response, status, { error: { message } }, { "retry-after-ms": "1" })
const cuts: Answer = (response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "500" })
  response.write('{"choices": [{"mess')
  setTimeout(() => response.destroy(), 5)
}

const ask = { messages: [{ role: "user" as const, content: "hi" }], temperature: 0.5, maxTokens: 7, seed: 42 }

describe("an OpenAI-compatible server", () => {
  it("gets the request and gives text, tokens and the reason of the end", async () => {
    const { baseURL, bodies } = await serve(says("hello "), says("hel", "length"), says(null))
    const engine = openaiGenerator({ model: "m", baseURL })
    expect(await engine.generate({ ...ask, topP: 0.9, topK: 5, stop: ["\n"] })).toEqual({
      text: "hello ",
      tokens: 5,
      promptTokens: 1,
      finish: "stop",
    })
    expect((await engine.generate(ask)).finish).toBe("length")
    expect(await engine.generate(ask)).toMatchObject({ text: "", problem: "a reply without content" })
    const plain = { model: "m", messages: ask.messages, temperature: 0.5, top_p: 1, max_tokens: 7, seed: 42 }
    expect(bodies).toEqual([{ ...plain, top_p: 0.9, top_k: 5, stop: ["\n"] }, plain, plain])
  })

  it("gets the key from the environment, or none", async () => {
    const keys: (string | undefined)[] = []
    const note: Answer = (response, body, request) => {
      keys.push(request.headers.authorization)
      says("x")(response, body, request)
    }
    const { baseURL } = await serve(note)
    await openaiGenerator({ model: "m", baseURL }).generate(ask)
    await openaiGenerator({ model: "m", baseURL, keyVariable: "NO_SUCH_KEY" }).generate(ask)
    expect(keys).toEqual([`Bearer ${SECRET}`, "Bearer none"])
    vi.stubEnv("OPENAI_BASE_URL", undefined)
    expect(() => openaiGenerator({ model: "m", keyVariable: "NO_SUCH_KEY" })).toThrow(/^NO_SUCH_KEY: must hold the key/)
  })

  it("is asked again after 429, 500 and a connection cut within the reply", async () => {
    const { baseURL, bodies } = await serve(
      refuses(429, "slow down"),
      refuses(500, "oops"),
      cuts,
      cuts,
      says("at last"),
    )
    expect((await openaiGenerator({ model: "m", baseURL }).generate(ask)).text).toBe("at last")
    expect(bodies).toHaveLength(5)
  })

  it("is asked again after a body that is not JSON, not a reply, or stalls, within the time-out", async () => {
    const { baseURL, bodies } = await serve(
      (response) => response.writeHead(200, { "content-type": "application/json" }).end('{"choices": [{'),
      (response) => response.writeHead(200, { "content-type": "text/html" }).end("<html>busy</html>"),
      (response) => json(response, 200, { choices: [{ message: { content: [1, 2] } }] }),
      (response) => response.writeHead(200, { "content-type": "application/json" }).write('{"choices"'),
      says("at last"),
    )
    const problems: string[] = []
    const options = { model: "m", baseURL, timeout: 5, onRetry: (problem: string) => problems.push(problem) }
    expect((await openaiGenerator(options).generate(ask)).text).toBe("at last")
    expect(bodies).toHaveLength(5)
    expect(problems.map((problem) => problem.replace(/JSON.*/, "JSON"))).toEqual([
      "a reply must be JSON",
      "a reply must be JSON",
      "a part of a message must be a text, got a number",
      "no whole reply in 5 s",
    ])
  })

  it("decides how long to wait, in seconds or milliseconds, unless that is longer than the time-out", async () => {
    const wait =
      (headers: Record<string, string>): Answer =>
      (response) =>
        json(response, 429, { error: { message: "slow down" } }, headers)
    const { baseURL } = await serve(wait({ "retry-after": "1" }), wait({ "retry-after-ms": "20" }), says("at last"))
    const pauses: number[] = []
    const began = Date.now()
    const options = { model: "m", baseURL, onRetry: (_: string, pause: number) => pauses.push(pause) }
    expect((await openaiGenerator(options).generate(ask)).text).toBe("at last")
    expect(pauses).toEqual([1, 0.02])
    expect(Date.now() - began).toBeGreaterThanOrEqual(1020 - 5)
    const far = await serve(wait({ "retry-after": "3600" }))
    await expect(openaiGenerator({ model: "m", baseURL: far.baseURL }).generate(ask)).rejects.toThrow(
      /the server asks to wait 3600 s .*run again later/,
    )
    expect(far.bodies).toHaveLength(1)
  })

  it("gives the most likely first tokens when asked for them", async () => {
    const top = [
      { token: "m", logprob: -0.1, bytes: null },
      { token: "M", logprob: -2.3, bytes: null },
    ]
    const { baseURL, bodies } = await serve((response) =>
      json(response, 200, {
        choices: [
          { message: { content: "m" }, logprobs: { content: [{ token: "m", logprob: -0.1, top_logprobs: top }] } },
        ],
      }),
    )
    const { first } = await openaiGenerator({ model: "m", baseURL }).generate({ ...ask, topLogprobs: 5 })
    expect(bodies[0]).toMatchObject({ logprobs: true, top_logprobs: 5 })
    expect(first).toEqual([
      { token: "m", logprob: -0.1 },
      { token: "M", logprob: -2.3 },
    ])
  })

  it("is given up, with what it said, when it keeps failing", async () => {
    const { baseURL, bodies } = await serve(refuses(429, "slow down"))
    const failing = openaiGenerator({ model: "m", baseURL, maxRetries: 2 }).generate(ask)
    await expect(failing).rejects.toThrow(/\/v1: failed after 3 tries: .*slow down.*lower the concurrency/)
    expect(bodies).toHaveLength(3)
  })

  it("is given up when each reply is cut", async () => {
    const { baseURL, bodies } = await serve(cuts)
    const failing = openaiGenerator({ model: "m", baseURL, maxRetries: 1 }).generate(ask)
    await expect(failing).rejects.toThrow(/no complete reply in 2 tries .*check that the server runs/)
    expect(bodies).toHaveLength(2)
  })

  it("is not asked again for a request that it refuses", async () => {
    const { baseURL, bodies } = await serve(refuses(404, "no model m"))
    await expect(openaiGenerator({ model: "m", baseURL }).generate(ask)).rejects.toThrow(InputError)
    expect(bodies).toHaveLength(1)
  })

  it("never gets the key into an error", async () => {
    const { baseURL } = await serve(refuses(401, `bad key ${SECRET}`))
    const error = await openaiGenerator({ model: "m", baseURL })
      .generate(ask)
      .catch((caught: unknown) => caught as Error)
    expect(error).toBeInstanceOf(InputError)
    expect(`${(error as Error).message} ${JSON.stringify(error)} ${(error as Error).stack}`).not.toContain(SECRET)
    expect((error as Error).message).toContain("bad key [key]")
    expect((error as Error).cause).toBeUndefined()
  })

  it("may not be there, may answer too late, may answer with nothing", async () => {
    const absent = openaiGenerator({ model: "m", baseURL: "http://127.0.0.1:9/v1", maxRetries: 0 })
    await expect(absent.generate(ask)).rejects.toThrow(/127\.0\.0\.1:9\/v1: no complete reply in 1 try/)
    const { baseURL } = await serve(
      () => {},
      (response) => json(response, 200, { choices: [] }),
    )
    await expect(openaiGenerator({ model: "m", baseURL, maxRetries: 0, timeout: 0.05 }).generate(ask)).rejects.toThrow(
      MuscError,
    )
    await expect(openaiGenerator({ model: "m", baseURL, maxRetries: 0 }).generate(ask)).rejects.toThrow(
      /must hold one choice with a message, got none/,
    )
  })

  it("has at most `concurrency` requests at once", async () => {
    let now = 0
    let most = 0
    const slow: Answer = (response, body, request) => {
      most = Math.max(most, ++now)
      setTimeout(() => {
        now--
        says("x")(response, body, request)
      }, 10)
    }
    const { baseURL } = await serve(slow)
    const engine = openaiGenerator({ model: "m", baseURL, concurrency: 3 })
    await Promise.all(Array.from({ length: 10 }, () => engine.generate(ask)))
    expect(most).toBe(3)
  })
})
