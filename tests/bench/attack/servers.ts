import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createGzip } from "node:zlib"
import { cachedGenerator } from "../../../lib/engine/cached"
import { openaiGenerator } from "../../../lib/engine/openai"
import { MuscError } from "../../../lib/errors"
import { pullModel } from "../../../lib/hub/hub"
import { type Faults, hubServer } from "../../support/hub-server"
import { Count, type Tally } from "./table"

type Mode = (request: IncomingMessage, response: ServerResponse, elsewhere: string) => void

const answer = (content: unknown = "The sailor sings.", more: object = {}) => ({
  choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 2 },
  ...more,
})
const json = (response: ServerResponse, value: unknown, status = 200, headers: Record<string, string> = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.end(typeof value === "string" ? value : JSON.stringify(value))
}
const raw = (response: ServerResponse, text: string) => (response.socket as Socket).end(text)
const said =
  (value: unknown): Mode =>
  (_, response) =>
    json(response, value)
const status =
  (code: number, headers: Record<string, string> = {}): Mode =>
  (request, response) =>
    json(response, { error: { message: `no, ${request.headers.authorization ?? "nobody"}` } }, code, headers)

/** Writes `piece` without end, as fast as it is read. */
function endless(response: NodeJS.WritableStream, piece: Buffer): void {
  const go = () => {
    while (response.write(piece)) if ((response as ServerResponse).destroyed) return
    response.once("drain", go)
  }
  response.on("error", () => {})
  go()
}

const modes: Record<string, Mode> = {
  sound: said(answer()),
  "usage null": said(answer("x", { usage: null })),
  "usage of nulls": said(answer("x", { usage: { prompt_tokens: null, completion_tokens: null } })),
  "usage of texts": said(answer("x", { usage: { prompt_tokens: "10", completion_tokens: "2" } })),
  "usage a list": said(answer("x", { usage: [] })),
  "usage minus infinity": said(JSON.stringify(answer()).replace('"completion_tokens":2', '"completion_tokens":-1e999')),
  "content null": said(answer(null)),
  "content of parts": said(answer([{ type: "text", text: "hi" }])),
  "content a number": said(answer(5)),
  "half a letter": said(answer("a \ud800 b")),
  "control characters": said(answer("a \u0000 \u001b[31m b \u2028")),
  "no choices": said({ choices: [] }),
  "choices null": said({ choices: null }),
  "an error in a 200": said({ error: { message: "overloaded" } }),
  null: said("null"),
  "a number": said("5"),
  nothing: said(""),
  "not JSON": said("<html>Login</html>"),
  prototype: said('{"__proto__":{"polluted":1},"choices":[{"message":{"__proto__":{"polluted":1},"content":"x"}}]}'),
  deep: said(`{"choices":[{"message":{"content":"x"},"z":${"[".repeat(100_000)}${"]".repeat(100_000)}}]}`),
  "20 MB of text": said(answer("a".repeat(20e6))),
  "a log-prob of null": said({
    choices: [
      {
        message: { content: "m" },
        finish_reason: "stop",
        logprobs: { content: [{ token: "m", logprob: 0, top_logprobs: [{ token: "M", logprob: null }] }] },
      },
    ],
  }),
  "event stream": (_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    response.end('data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n')
  },
  "bad gzip": (_, response) => json(response, "not gzip", 200, { "content-encoding": "gzip" }),
  "gzip bomb": (_, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
    const zip = createGzip()
    zip.pipe(response)
    zip.write('{"choices":[{"message":{"content":"')
    endless(zip, Buffer.alloc(2 ** 20, "a"))
    response.on("close", () => zip.destroy())
  },
  "endless reply": (_, response) => {
    response.writeHead(200, { "content-type": "application/json" })
    endless(response, Buffer.alloc(2 ** 20, "a"))
  },
  "endless header": (_, response) => raw(response, `HTTP/1.1 200 OK\r\nx-a: ${"b".repeat(1e6)}\r\n\r\n`),
  garbage: (_, response) => raw(response, "\0\x01garbage\r\n\r\n"),
  reset: (_, response) => (response.socket as Socket).resetAndDestroy(),
  "shorter than it says": (_, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": 100_000 })
    response.write(JSON.stringify(answer()))
    setTimeout(() => response.destroy(), 100)
  },
  "two replies": (_, response) => {
    const one = (text: string) => {
      const body = JSON.stringify(answer(text))
      return `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
    }
    raw(response, one("first") + one("STOLEN"))
  },
  "a byte now and then": (_, response) => {
    response.writeHead(200, { "content-type": "application/json" })
    const timer = setInterval(() => response.write(" "), 100)
    response.on("close", () => clearInterval(timer))
  },
  "no answer": () => {},
  "redirect 302": (_, response, to) => response.writeHead(302, { location: to }).end(),
  "redirect 307": (_, response, to) => response.writeHead(307, { location: to }).end(),
  "redirect 308": (_, response, to) => response.writeHead(308, { location: to }).end(),
  "redirect to a file": (_, response) => response.writeHead(302, { location: "file:///etc/hostname" }).end(),
  "redirect to itself": (request, response) => response.writeHead(307, { location: request.url! }).end(),
  "retry after a year": status(429, { "retry-after": "31536000" }),
  "retry after less than nothing": status(429, { "retry-after": "-5" }),
  "retry after 9999": status(429, { "retry-after": "Fri, 31 Dec 9999 23:59:59 GMT" }),
  ...Object.fromEntries([204, 304, 400, 401, 404, 418, 422, 500, 503].map((code) => [`status ${code}`, status(code)])),
}

const secret = "sk-attack-1234567890abcdef"

/**
 * Every odd reply of a server: an answer or a clear error, in time, in bounded memory, nothing sent or believed
 * elsewhere.
 */
export async function chatServers(): Promise<Tally> {
  const count = new Count("misbehaving chat servers")
  let stolen = 0
  const thief = createServer((_, response) => {
    stolen++
    json(response, answer("STOLEN"))
  })
  const server = createServer((request, response) => {
    response.on("error", () => {})
    request
      .resume()
      .on("end", () => modes[decodeURIComponent(request.url!.split("/")[1]!)]!(request, response, elsewhere))
  })
  const listen = async (one: typeof server) => {
    await new Promise<void>((resolve) => one.listen(0, "127.0.0.1", resolve))
    return `http://127.0.0.1:${(one.address() as AddressInfo).port}`
  }
  const elsewhere = `${await listen(thief)}/v1/chat/completions`
  const url = await listen(server)
  process.env.ATTACK_KEY = secret
  let slowest = 0
  let peak = 0
  const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss / 2 ** 20)), 20)
  const dir = mkdtempSync(join(tmpdir(), "attack-chat-"))
  for (const mode of Object.keys(modes)) {
    const began = Date.now()
    const before = process.memoryUsage().rss / 2 ** 20
    peak = before
    const file = join(dir, `${mode.replaceAll(/\W/g, "-")}.jsonl`)
    const open = () =>
      cachedGenerator(
        openaiGenerator({
          ...{ baseURL: `${url}/${encodeURIComponent(mode)}/v1`, model: "m", keyVariable: "ATTACK_KEY" },
          ...{ maxRetries: 1, timeout: 2 },
        }),
        { file, id: "m" },
      )
    let problem: string | undefined
    const request = { messages: [{ role: "user" as const, content: "Sing." }], temperature: 0, maxTokens: 10, seed: 1 }
    try {
      const engine = await open()
      const result = await engine.generate(request).catch((error) => error)
      if (result instanceof Error) {
        if (!(result instanceof MuscError)) problem = `${mode}: ${result.stack?.slice(0, 300)}`
        else if (result.message.includes(secret)) problem = `${mode}: the key stands in the message`
      } else if (result.text.includes("STOLEN")) problem = `${mode}: believed another server`
      await engine.close()
      await (await open()).close() // what was kept must be readable
    } catch (error) {
      problem ??= `${mode}: ${(error as Error).message.slice(0, 300)}`
    }
    const seconds = (Date.now() - began) / 1000
    slowest = Math.max(slowest, seconds)
    if (seconds > 20) problem ??= `${mode}: ${seconds.toFixed(0)} s`
    if (peak - before > 512) problem ??= `${mode}: ${(peak - before).toFixed(0)} MiB`
    if (stolen) problem ??= `${mode}: the prompt was sent elsewhere`
    stolen = 0
    count.add(problem)
  }
  clearInterval(watch)
  if (({} as { polluted?: number }).polluted) count.add("the prototype of all objects was changed")
  for (const file of readdirSync(dir))
    if (readFileSync(join(dir, file), "utf8").includes(secret)) count.add(`${file} holds the key`)
  rmSync(dir, { recursive: true })
  delete process.env.ATTACK_KEY
  for (const one of [server, thief]) {
    one.closeAllConnections()
    one.close()
  }
  count.note = `slowest ${slowest.toFixed(1)} s`
  return count
}

/** Every fault of a hub: the model whole and verified, or a clear error, in time. */
export async function hubs(files: Record<string, Buffer>): Promise<Tally> {
  const count = new Count("misbehaving hubs")
  const repo = "org/model"
  const weights = files["model.safetensors"]!
  const more = { "model.safetensors": weights.length + 1000 }
  const entry = { type: "file", path: "config.json", size: 3, oid: "a".repeat(40) }
  const faults: Record<string, Faults> = {
    sound: {},
    "cut connections": { cuts: [700, 0, 300, 100, 0, 0] },
    "cut without end": { cuts: Array(1000).fill(0) },
    "a byte a connection": { cuts: Array(5000).fill(1) },
    "damaged weights": { damage: ["model.safetensors"] },
    "damaged config": { damage: ["config.json"] },
    "no ranges": { ignoresRanges: true, cuts: [700] },
    busy: { busy: 2 },
    "busy without end": { busy: 1e9 },
    "a listed size that is too large": { sizes: more },
    "the same without ranges": { sizes: more, ignoresRanges: true },
    "a listed size that is too small": { sizes: { "model.safetensors": 1000 } },
    "a size beyond all disks": { sizes: { "model.safetensors": 2 ** 52 } },
    "a huge config": { sizes: { "config.json": 2 ** 40 } },
    "pages without end": { endlessPages: 0 },
    "full pages without end": { endlessPages: 1000 },
    "a redirect elsewhere": { redirect: "http://127.0.0.2:9/x" },
    "a redirect to a file": { redirect: "file:///etc/passwd" },
    "a redirect to itself": { redirect: "/api/again" },
    "replies without end": { padding: 40 * 2 ** 20 },
    "a byte now and then": { drip: 50 },
    "access restricted": { token: "hf_secret" },
    ...Object.fromEntries(
      [
        [{ ...entry, path: "../../config.json" }],
        [{ ...entry, oid: "../../../evil" }],
        [{ ...entry, size: -1 }],
        [{ ...entry, size: "3" }],
        [null],
        [[]],
        { nothing: true },
        null,
        "text",
        Array.from({ length: 20_000 }, () => entry),
      ].map((listing, i) => [`odd list ${i + 1}`, { listing }]),
    ),
  }
  const saved = { ...process.env }
  let slowest = 0
  for (const [what, fault] of Object.entries(faults)) {
    const home = mkdtempSync(join(tmpdir(), "attack-hub-"))
    process.env.HF_HOME = home
    const server = await hubServer(repo, files, fault)
    process.env.HF_ENDPOINT = server.url
    const began = Date.now()
    let problem: string | undefined
    try {
      const dir = await pullModel({ repo, revision: "main" }, { pause: 0.001, stall: 0.3 })
      for (const [name, bytes] of Object.entries(files))
        if (name.match(/json$|safetensors$/) && !readFileSync(join(dir, name)).equals(bytes))
          problem = `${what}: a wrong ${name}`
    } catch (error) {
      if (!(error instanceof MuscError)) problem = `${what}: ${(error as Error).stack?.slice(0, 300)}`
    }
    const seconds = (Date.now() - began) / 1000
    slowest = Math.max(slowest, seconds)
    if (seconds > 30) problem ??= `${what}: ${seconds.toFixed(0)} s`
    count.add(problem)
    server.close()
    rmSync(home, { recursive: true })
  }
  process.env = saved
  count.note = `slowest ${slowest.toFixed(1)} s`
  return count
}
