import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { createServer as createTcpServer } from "node:net"
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { serverAddress, serverAddresses } from "../../lib/engine/address"
import { openaiGenerator } from "../../lib/engine/openai"
import { openServer } from "../../lib/engine/server"
import { InputError, MuscError, RefusedError, StoppedError } from "../../lib/errors"

const SECRET = "sk-test-7f3a9c51d0"
const ask = { messages: [{ role: "user" as const, content: "hi" }], temperature: 0.5, maxTokens: 7, seed: 42 }
const closing: (() => void)[] = []

beforeEach(() => {
  vi.stubEnv("OPENAI_API_KEY", SECRET)
})
afterEach(() => {
  for (const close of closing.splice(0)) close()
  vi.unstubAllEnvs()
})

interface Seen {
  url: string
  method: string
  body: Record<string, unknown>
  headers: IncomingMessage["headers"]
}
type Answer = (response: ServerResponse, seen: Seen, count: number) => void

/** A server on 127.0.0.1; `port` 0 takes a free one. */
async function serve(answer: Answer, port = 0) {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    let text = ""
    request.on("data", (chunk) => {
      text += chunk
    })
    response.on("error", () => {})
    request.on("end", () => {
      const { url = "", method = "", headers } = request
      seen.push({ url, method, headers, body: text ? JSON.parse(text) : {} })
      answer(response, seen.at(-1)!, seen.length)
    })
  })
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done))
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  closing.push(close)
  const at = (server.address() as AddressInfo).port
  return { baseURL: `http://127.0.0.1:${at}/v1`, port: at, seen, close }
}

const json = (response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.end(typeof body === "string" ? body : JSON.stringify(body))
}
const reply = (content = "fine") => ({ choices: [{ message: { content }, finish_reason: "stop" }] })
const fine: Answer = (response) => json(response, reply())
const once = { model: "m", maxRetries: 0 }
const errorOf = (baseURL: string, options = {}) =>
  openaiGenerator({ ...once, baseURL, ...options })
    .generate(ask)
    .then(
      () => new Error("no error"),
      (error: Error) => error,
    )

describe("redirects", () => {
  it.each([301, 302, 303, 307, 308])(
    "to another server (%i) are an error that names it, and it gets nothing",
    async (status) => {
      const other = await serve(fine)
      const { baseURL } = await serve((response) =>
        response.writeHead(status, { location: `${other.baseURL}/stolen?token=abc` }).end(),
      )
      const error = await errorOf(baseURL, { maxRetries: 3 })
      expect(error).toBeInstanceOf(InputError)
      expect(error.message).toMatch(`redirects (${status}) to ${other.baseURL}/stolen, which is another server`)
      expect(error.message).not.toContain("abc")
      expect(other.seen).toEqual([])
    },
  )

  it.each(["file:///etc/hostname", "//127.0.0.2/v1", "http://localhost:1/v1", "https://127.0.0.1/v1", ""])(
    "to %j are an error",
    async (location) => {
      const { baseURL, seen } = await serve((response) => response.writeHead(307, { location }).end())
      expect(await errorOf(baseURL)).toBeInstanceOf(InputError)
      expect(seen.length).toBeLessThan(5)
    },
  )

  it("to the same server are followed with the whole request where the status allows it, but not for ever", async () => {
    const { baseURL, seen } = await serve((response, { url }) =>
      url.endsWith("/") ? fine(response, seen[0]!, 1) : response.writeHead(307, { location: `${url}/` }).end(),
    )
    expect((await openaiGenerator({ ...once, baseURL }).generate(ask)).text).toBe("fine")
    expect(seen[1]).toMatchObject({ method: "POST", body: { model: "m" } })
    const loop = await serve((response, { url }) => response.writeHead(308, { location: url }).end())
    expect((await errorOf(loop.baseURL)).message).toMatch(/redirects more than 3 times/)
    const got = await serve((response, { url }) => response.writeHead(302, { location: `${url}/` }).end())
    expect((await errorOf(got.baseURL)).message).toMatch(/redirects \(302\) to .*give that address/)
  })

  it("do not carry user and password of the target", async () => {
    const { baseURL, port, seen } = await serve((response, { url }) =>
      url === "/ok"
        ? fine(response, seen[0]!, 1)
        : response.writeHead(307, { location: `http://user:pw@127.0.0.1:${port}/ok` }).end(),
    )
    expect((await openaiGenerator({ ...once, baseURL }).generate(ask)).text).toBe("fine")
    expect(seen[1]!.headers.authorization).toBe(`Bearer ${SECRET}`)
  })
})

describe("a reply", () => {
  const packed =
    (name: string, bytes: Buffer): Answer =>
    (response) => {
      response.writeHead(200, { "content-type": "application/json", "content-encoding": name })
      response.end(bytes)
    }

  it("may be packed although nobody asked for it", async () => {
    const bytes = Buffer.from(JSON.stringify(reply()))
    for (const [name, body] of [
      ["gzip", gzipSync(bytes)],
      ["deflate", deflateSync(bytes)],
      ["br", brotliCompressSync(bytes)],
      ["identity", bytes],
    ] as const) {
      const { baseURL, seen } = await serve(packed(name, body))
      expect((await openaiGenerator({ ...once, baseURL }).generate(ask)).text).toBe("fine")
      expect(seen[0]!.headers["accept-encoding"]).toBe("identity")
    }
  })

  it.each<[string, string, Buffer]>([
    ["a byte-order mark", "application/json", Buffer.from("\ufeffTEXT")],
    ["Latin-1, as the header says", "application/json; charset=ISO-8859-1", Buffer.from("TEXT", "latin1")],
    ["UTF-8, whatever the header says", 'application/json; charset="iso-8859-1"', Buffer.from("TEXT")],
    ["UTF-16 with a mark", "application/json", Buffer.from("\ufeffTEXT", "utf16le")],
    ["UTF-16, as the header says", "text/plain; charset=utf-16le", Buffer.from("TEXT", "utf16le")],
  ])("is read with its own characters: %s", async (_, type, sample) => {
    const wide = sample.includes(0)
    const encoding = wide ? "utf16le" : /iso-8859-1$/i.test(type) ? "latin1" : "utf8"
    const mark = sample.subarray(0, sample.indexOf("T"))
    const { baseURL } = await serve((response) => {
      response.writeHead(200, { "content-type": type })
      response.end(Buffer.concat([mark, Buffer.from(JSON.stringify(reply("Café zürnt.")), encoding)]))
    })
    expect((await openaiGenerator({ ...once, baseURL }).generate(ask)).text).toBe("Café zürnt.")
  })

  it("may hold numbers as Python writes them: a log-prob of NaN is unknown, one of -Infinity no chance", async () => {
    const top = (logprob: string) => `{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": ${logprob}}`
    const { baseURL } = await serve((response, _, count) => {
      const entry = `{"token": "m", "logprob": NaN, "top_logprobs": [${top(count === 1 ? "-Infinity" : "NaN")}]}`
      const message = '{"role": "assistant", "content": "NaN"}'
      json(response, `{"choices": [{"message": ${message}, "logprobs": {"content": [${entry}]}}]}`)
    })
    const engine = openaiGenerator({ ...once, baseURL })
    const replies = [1, 2].map(() => engine.generate({ ...ask, topLogprobs: 2 }))
    const [known, unknown] = await Promise.all(replies)
    expect([known!.text, unknown!.text]).toEqual(["NaN", "NaN"])
    expect([known!.first, unknown!.first]).toContainEqual([{ token: "m", logprob: -0.1 }])
    expect([known!.first, unknown!.first]).toContain(undefined)
  })

  it("is read up to 8 MiB, packed or not, with or without a stated length", async () => {
    const huge = Buffer.from(JSON.stringify(reply("a".repeat(20 * 2 ** 20))))
    const answers: Answer[] = [
      packed("gzip", gzipSync(huge)),
      packed("br", brotliCompressSync(huge, { params: { 1: 1 } })),
      (response) => json(response, huge.toString(), 200, { "content-length": `${huge.length}` }),
      (response) => {
        response.writeHead(200)
        const more = () => {
          while (response.write("a".repeat(2 ** 16)));
        }
        response.on("drain", more)
        more()
      },
    ]
    for (const answer of answers) {
      const { baseURL, close } = await serve(answer)
      expect((await errorOf(baseURL)).message).toMatch(/a reply must have at most 8 MiB, got more/)
      close()
    }
  })

  it.each<[RegExp, Answer]>([
    [/a reply must be gzip as its header says/, packed("gzip", Buffer.from("not gzip"))],
    [/a reply must be packed as gzip, deflate or br, got zstd/, packed("zstd", Buffer.from("x"))],
    [
      /a reply must be UTF-8, got other bytes/,
      (response) => response.end(Buffer.from(JSON.stringify(reply("Café")), "latin1")),
    ],
    [/a reply must be JSON, got nothing/, (response) => json(response, "")],
    [/204, without a word/, (response) => response.writeHead(204).end()],
    [
      /a reply must be JSON, got a stream of events\); add --field stream=false/,
      (response) => response.end('data: {"choices":[]}\n\ndata: [DONE]\n'),
    ],
    [/a reply must be JSON, got Login/, (response) => response.end("<html><title>Login</title></html>")],
    [/the server reports an error: overloaded/, (response) => json(response, { error: { message: "overloaded" } })],
    [/the connection was cut \(ECONNRESET\)/, (response) => response.socket!.resetAndDestroy()],
    [/does not speak HTTP/, (response) => response.socket!.end("\0\u0001garbage\r\n\r\n")],
    [
      /its headers are too large/,
      (response) => response.socket!.end(`HTTP/1.1 200 OK\r\nx: ${"b".repeat(1e6)}\r\n\r\n`),
    ],
    [
      /the connection was cut/,
      (response) => {
        response.writeHead(200, { "content-length": "10000" }).write("{")
        setTimeout(() => response.destroy(), 20)
      },
    ],
    [/418 teapot/, (response) => json(response, "teapot", 418)],
  ])("that is none says what came: %s", async (message, answer) => {
    const { baseURL } = await serve(answer)
    const error = await errorOf(baseURL)
    expect(error).toBeInstanceOf(MuscError)
    expect(error.message).toMatch(message)
  })

  it("is not taken for that of the next request where a server sends two at once", async () => {
    const wire = (text: string) =>
      `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`
    const { baseURL } = await serve((response, _, count) => {
      const both = [reply(`own ${count}`), reply("SMUGGLED")].map((body) => wire(JSON.stringify(body)))
      response.socket!.write(both.join(""))
    })
    const engine = openaiGenerator({ ...once, baseURL, maxRetries: 3 })
    for (const count of [1, 2, 3]) {
      const { text } = await engine.generate(ask)
      expect(text).toBe(`own ${count}`)
      await new Promise((done) => setTimeout(done, 20))
    }
  })
})

describe("a connection that fails says why", () => {
  it.each([
    [
      "http://127.0.0.1:9/v1",
      /127\.0\.0\.1:9\/v1: no complete reply in 1 try \(the connection was refused: nothing listens there \(ECONNREFUSED\)\); check that the server runs/,
    ],
    ["http://no-such-host.invalid/v1", /the host has no address: check its name \((ENOTFOUND|EAI_AGAIN)\)/],
  ])("%s", async (baseURL, message) => expect((await errorOf(baseURL)).message).toMatch(message))

  it("TLS to a server without it, and without trust", async () => {
    const { port } = await serve(fine)
    const error = await errorOf(`https://127.0.0.1:${port}/v1`, { maxRetries: 5 })
    expect(error).toBeInstanceOf(InputError)
    expect(error.message).toMatch(/does not speak TLS as expected.*http:\/\//)
  })

  it("HTTP to something else", async () => {
    const server = createTcpServer((socket: Socket) => socket.on("error", () => {}).end("220 smtp ready\r\n"))
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
    closing.push(() => server.close())
    const { port } = server.address() as AddressInfo
    expect((await errorOf(`http://127.0.0.1:${port}/v1`)).message).toMatch(/does not speak HTTP as expected/)
  })
})

describe("a refused request says what helps", () => {
  const refusing = (status: number, body: unknown) => serve((response) => json(response, body, status))
  it.each([
    [
      422,
      { message: { detail: [{ loc: ["body", "seed"], msg: "Extra inputs are not permitted" }] } },
      /seed: Extra.*add --leave-out seed/,
    ],
    [400, { error: { message: "Unsupported value: 'temperature' does not support 0" } }, /add --leave-out temperature/],
    [
      400,
      { error: { message: "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead." } },
      /add --limit-field max_completion_tokens/,
    ],
    [400, { error: { message: "Unrecognized request argument supplied: top_k" } }, /add --leave-out top_k/],
    [422, { detail: [{ loc: ["body", "messages"], msg: "bad" }] }, /body\.messages: bad; check model and options/],
    [400, { error: { message: "the request exceeds the available context size" } }, /longer context/],
    [403, { error: { message: "Your input was flagged by moderation" } }, /request rejected by a content filter/],
  ])("%i %j", async (status, body, message) => {
    const { baseURL, seen } = await refusing(status, body)
    const error = await errorOf(baseURL, { maxRetries: 5 })
    expect(error).toBeInstanceOf(RefusedError)
    expect(error.message).toMatch(message)
    expect(seen).toHaveLength(1)
  })

  it("as a key where none is set, also when it is first asked what it serves", async () => {
    const { baseURL } = await refusing(401, { error: { message: "You didn't provide an API key." } })
    vi.stubEnv("JUDGE_KEY", "")
    const wanted = /^JUDGE_KEY: must hold the key of .*\/v1, got nothing, and the server says: .*provide an API key/
    expect((await errorOf(baseURL, { keyVariable: "JUDGE_KEY" })).message).toMatch(wanted)
    await expect(openServer({ ...once, baseURL, keyVariable: "JUDGE_KEY" })).rejects.toThrow(wanted)
    await expect(openServer({ ...once, baseURL })).rejects.toThrow(/^OPENAI_API_KEY: .*key rejected: 401/)
    const { baseURL: barred } = await serve((response, { method }) =>
      method === "GET" ? json(response, { error: "missing scope" }, 403) : json(response, reply()),
    )
    expect((await (await openServer({ ...once, baseURL: barred })).engine.generate(ask)).text).toBe("fine")
  })

  it("as the end of the address where that may be missing", async () => {
    const { baseURL, seen } = await refusing(404, { detail: "Not Found" })
    const origin = baseURL.replace("/v1", "")
    expect((await errorOf(origin)).message).toMatch(/no such address, or no model m there: .*end in \/v1: add it/)
    expect((await errorOf(`${baseURL}/`)).message).toMatch(/no model m there: .*; check address and model$/)
    expect(seen.map(({ url }) => url)).toEqual(["/chat/completions", "/v1/chat/completions"])
  })

  it("and a quota that is used up is not asked again", async () => {
    const { baseURL, seen } = await refusing(429, {
      error: { message: "You exceeded your current quota", code: "insufficient_quota" },
    })
    expect((await errorOf(baseURL, { maxRetries: 5 })).message).toMatch(/the quota is used up/)
    expect(seen).toHaveLength(1)
  })

  it("without the key in any form", async () => {
    const forms = [SECRET, `Bearer ${SECRET}`].flatMap((text) => [text, Buffer.from(text).toString("base64")])
    for (const form of forms) {
      const { baseURL } = await refusing(400, { error: { message: `got ${form} \u001b]0;x\u0007` } })
      const { message } = await errorOf(baseURL)
      expect(message).toContain("[key]")
      expect(message).not.toContain(SECRET)
      expect(message).not.toContain(Buffer.from(SECRET).toString("base64").slice(0, 12))
      expect(message).not.toContain("\u001b")
    }
  })
})

describe("a request", () => {
  it("has fields left out, renamed and added", async () => {
    const { baseURL, seen } = await serve(fine)
    const options = { ...once, baseURL }
    await openaiGenerator({ ...options, leaveOut: ["seed", "temperature", "top_p"] }).generate(ask)
    await openaiGenerator({ ...options, limitField: "max_completion_tokens", thinkingTokens: 100 }).generate(ask)
    await openaiGenerator({
      ...options,
      limitField: null,
      fields: { top_k: -1, chat_template_kwargs: { enable_thinking: false } },
    }).generate(ask)
    const { messages } = ask
    expect(seen.map(({ body }) => body)).toEqual([
      { model: "m", messages, max_tokens: 7 },
      { model: "m", messages, temperature: 0.5, top_p: 1, max_completion_tokens: 107, seed: 42 },
      {
        model: "m",
        messages,
        temperature: 0.5,
        top_p: 1,
        seed: 42,
        top_k: -1,
        chat_template_kwargs: { enable_thinking: false },
      },
    ])
    expect(() => openaiGenerator({ ...options, leaveOut: ["model" as never] })).toThrow(/leaveOut: must name seed, /)
    expect(() => openaiGenerator({ ...options, fields: { stream: true } })).toThrow(/fields: must be fields beside/)
    expect(() => openaiGenerator({ ...options, concurrency: 0 })).toThrow(/concurrency: must be a whole number/)
  })

  it("goes to an address with a version in its query, with the key in the header that such services read", async () => {
    const { baseURL, seen } = await serve(fine)
    await openaiGenerator({ ...once, baseURL: `${baseURL}/?api-version=2024-10-21` }).generate(ask)
    expect(seen[0]!.url).toBe("/v1/chat/completions?api-version=2024-10-21")
    expect(seen[0]!.headers).toMatchObject({ authorization: `Bearer ${SECRET}`, "api-key": SECRET })
  })

  it("can carry a user and a password, which the key's variable holds", async () => {
    const { baseURL, seen } = await serve(fine)
    vi.stubEnv("PROXY_LOGIN", "Basic dXNlcjpwYXNz")
    await openaiGenerator({ ...once, baseURL, keyVariable: "PROXY_LOGIN" }).generate(ask)
    expect(seen[0]!.headers.authorization).toBe("Basic dXNlcjpwYXNz")
  })

  it("ends at once when it is aborted, in a call or in a pause", async () => {
    for (const answer of [() => {}, (response: ServerResponse) => json(response, {}, 503)]) {
      const { baseURL } = await serve(answer)
      const controller = new AbortController()
      const { signal } = controller
      const asked = openaiGenerator({ model: "m", baseURL, wait: 600, signal }).generate(ask)
      setTimeout(() => controller.abort(), 50)
      const began = Date.now()
      await expect(asked).rejects.toThrow(StoppedError)
      expect(Date.now() - began).toBeLessThan(1500)
    }
  })
})

describe("an address", () => {
  it.each([
    "http://user:password@127.0.0.1/v1",
    "http://user@127.0.0.1/v1",
    "https://h/v1?key=abc",
    "https://h/v1?api_key=abc",
    "https://h/v1?access_token=x",
    "https://h/v1?code=abc",
    "https://h/v1?x=0123456789abcdef0123456789abcdef",
    "https://h/v1?sig=a",
    "https://h/v1?pwd=abc",
    "https://h/v1?jwt=abc",
    "https://h/v1?session=abc",
    "https://h/sk-abcdef0123456789/v1",
    "https://h/v1#sk-abcdef0123456789",
    "https://h/ghp_abcdef0123456789/v1",
    "https://h/eyJhbGciOiJIUzI1NiJ9.eyJabcdefIn0.x/v1",
  ])("with a secret is refused with the way to do it, and not repeated: %s", (text) => {
    const error = (() => {
      try {
        return serverAddress(text, "--endpoint")
      } catch (caught) {
        return caught as InputError
      }
    })()
    expect(error).toBeInstanceOf(InputError)
    expect((error as InputError).message).toMatch(
      /^--endpoint: .*must hold no secret.*environment variable.*--key-variable/,
    )
    expect((error as InputError).message).not.toMatch(/password@|abcdef|=abc|=x/)
  })

  it.each(["127.0.0.1:8000", "ftp://h/v1", "", "file:///etc/passwd", "http://"])(
    "that is none is refused: %j",
    (text) => expect(() => serverAddress(text)).toThrow(/must be an address such as/),
  )

  it.each([
    ...["ftp://user:password@h/v1", "ftp:user:password@h", "user:password@h/v1", "ftp://user:password/x@h/v1"],
    ...["h/v1?key=password", "localhost:8000/v1?key=password", "h/v1#password", "h/sk-password0123/v1"],
  ])("that is none is not repeated with its secret: %s", (text) =>
    expect(() => serverAddress(text)).toThrow(/^(?!.*password).*must be an address such as/),
  )

  it.each([
    "https://router.huggingface.co/hf-inference/v1",
    "https://h/sk-learn-serving/v1",
    "https://h/v1beta/openai",
  ])("with a path of words is fine: %s", (text) => expect(serverAddress(text).href).toBe(text))

  it("of an API version is fine, and so are several servers, each named once", () => {
    expect(serverAddress("https://h/openai/v1/?api-version=preview").search).toBe("?api-version=preview")
    expect(serverAddresses("http://a/v1, http://b/v1").map(({ host }) => host)).toEqual(["a", "b"])
    expect(() => serverAddresses("http://a/v1,http://a/v1")).toThrow(/twice/)
    expect(() => serverAddresses("http://a/v1/,http://a/v1")).toThrow(/twice/)
    expect(() => serverAddresses("http://a/v1,")).toThrow(/got nothing/)
  })
})

describe("a request that keeps failing", () => {
  const brief = { model: "m", maxRetries: 1, concurrency: 4 }
  /** Fails for seed 1 alone; answers others while it is tried. */
  const outcome = async (fail: Answer, others = true, rest = fine) => {
    const { baseURL } = await serve((response, seen) => (seen.body.seed === 1 ? fail : rest)(response, seen, 0))
    const engine = openaiGenerator({ ...brief, baseURL })
    const failing = engine.generate({ ...ask, seed: 1 }).catch((error: Error) => error)
    for (let i = 0; others && i < 8; i++) {
      await engine.generate(ask)
      await new Promise((done) => setTimeout(done, 100))
    }
    return failing
  }
  const broken: Answer = (response) => json(response, { error: "Failed to parse the output" }, 500)

  it.each<[string, Answer]>([
    ["at a status of 500", broken],
    ["at 424", (response) => json(response, { error: "generation failed" }, 424)],
    ["at replies that are none", (response) => json(response, { choices: [{ message: { content: 5 } }] })],
  ])("is refused alone, while others are answered: %s", async (_, fail) => {
    for (const others of [true, false]) {
      const error = await outcome(fail, others)
      expect(error).toBeInstanceOf(RefusedError)
      expect((error as Error).message).toMatch(/no reply to this request in 2 tries, while others are answered: /)
    }
  })

  it("ends all where no other is answered, or the server asks for fewer", async () => {
    for (const error of [await outcome(broken, false, broken), await outcome((response) => json(response, {}, 429))]) {
      expect(error).toBeInstanceOf(MuscError)
      expect(error).not.toBeInstanceOf(RefusedError)
    }
  })
})

describe("several servers", () => {
  it("are dealt the calls in turn", async () => {
    const servers = await Promise.all([serve(fine), serve(fine), serve(fine)])
    const engine = openaiGenerator({ ...once, baseURL: servers.map(({ baseURL }) => baseURL).join(",") })
    await Promise.all(Array.from({ length: 30 }, (_, seed) => engine.generate({ ...ask, seed })))
    for (const { seen } of servers) expect(Math.abs(seen.length - 10)).toBeLessThan(3) // a faster one gets more
  })

  it("go on without one that is out of reach, and no call fails", async () => {
    const [alive, dying] = [await serve(fine), await serve(fine)]
    const engine = openaiGenerator({ ...once, baseURL: `${dying.baseURL},${alive.baseURL}` })
    await engine.generate(ask)
    dying.close()
    const texts = await Promise.all(Array.from({ length: 20 }, (_, seed) => engine.generate({ ...ask, seed })))
    expect(texts.every(({ text }) => text === "fine")).toBe(true)
    expect(alive.seen.length).toBeGreaterThanOrEqual(20)
  })
})

describe("a server that restarts", () => {
  it("is waited for beyond the retries, as long as that is allowed", async () => {
    const first = await serve(fine)
    const engine = openaiGenerator({ ...once, baseURL: first.baseURL, wait: 20 })
    await engine.generate(ask)
    first.close()
    const asked = engine.generate(ask)
    setTimeout(
      () =>
        void serve(
          (response, _, count) =>
            count < 2 ? json(response, { error: { message: "Loading model" } }, 503) : fine(response, _, count),
          first.port,
        ),
      700,
    )
    expect((await asked).text).toBe("fine")
  })

  it("is given up when the time is over", async () => {
    const began = Date.now()
    const error = await errorOf("http://127.0.0.1:9/v1", { wait: 1 })
    expect(error.message).toMatch(/no complete reply in [2-4] tries .*or give it time with --wait/)
    expect(Date.now() - began).toBeLessThan(4000)
  })
})

describe("what decides the answers of a server", () => {
  const models =
    (entry: object): Answer =>
    (response, { url }) =>
      url.endsWith("/models")
        ? json(response, { object: "list", data: [{ id: "other" }, { id: "m", ...entry }] })
        : json(response, reply())
  const idOf = async (answer: Answer, options = {}) => {
    const { baseURL } = await serve(answer)
    return (await openServer({ ...once, baseURL, ...options })).id
  }

  it("is the model, its revision and how it is sampled, but not where it is or how many calls are under way", async () => {
    const entry = { root: "org/model", owned_by: "vllm" }
    const id = await idOf(models(entry))
    expect(id).toMatch(/^m /)
    expect(await idOf(models(entry), { concurrency: 64, timeout: 9, limitField: "max_completion_tokens" })).toBe(id)
    const others = await Promise.all([
      idOf(models({ ...entry, root: "org/other" })),
      idOf(models({ ...entry, revision: "abc" })),
      idOf(models({ root: "org/model" })),
      idOf(models(entry), { leaveOut: ["seed"] }),
      idOf(models(entry), { limitField: null }),
      idOf(models(entry), { fields: { top_k: 5 } }),
      idOf(models(entry), { thinkingTokens: 5 }),
      idOf(models(entry), { model: "other" }),
    ])
    expect(new Set([id, ...others]).size).toBe(9)
    expect(await idOf(models({ root: "/a/b/model-1" }))).toBe(await idOf(models({ root: "/c/model-1" })))
  })

  it("includes the sampling fields that its kind knows, which are sent", async () => {
    const { baseURL, seen } = await serve(models({ owned_by: "vllm" }))
    const { engine } = await openServer({ ...once, baseURL })
    await engine.generate(ask)
    expect(seen[1]!.body).toMatchObject({ top_p: 1, top_k: -1, min_p: 0, repetition_penalty: 1 })
    const plain = await serve(models({ owned_by: "openai" }))
    await (await openServer({ ...once, baseURL: plain.baseURL })).engine.generate(ask)
    expect(Object.keys(plain.seen[1]!.body)).not.toContain("top_k")
  })

  it("is the name alone where a server lists no models", async () => {
    const none: Answer = (response, { url }) =>
      url.endsWith("/models") ? json(response, {}, 404) : json(response, reply())
    expect(await idOf(none)).toBe(await idOf((response) => json(response, { data: [null, { id: 5 }, "x"] })))
  })

  it("must be the same for all of several servers", async () => {
    const [a, b] = [await serve(models({ root: "one" })), await serve(models({ root: "two" }))]
    await expect(openServer({ ...once, baseURL: `${a.baseURL},${b.baseURL}` })).rejects.toThrow(/got one and two/)
    expect((await openServer({ ...once, baseURL: `http://127.0.0.1:9/v1,${b.baseURL}` })).listed?.root).toBe("two")
    await expect(openServer({ ...once, baseURL: "http://127.0.0.1:9/v1" })).rejects.toThrow(
      /could not list its models: the connection was refused.*give it time with --wait/,
    )
  })
})
