import { Agent as HttpAgent, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from "node:http"
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import { promisify } from "node:util"
import { brotliDecompress, gunzip, inflate } from "node:zlib"
import { MuscError } from "../errors"

/** What a server sent, whole and unpacked. */
export interface HttpReply {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

/** Sends requests to one server over connections that are kept open. */
export interface HttpClient {
  /**
   * @throws ServerError saying what went wrong on the way: no connection, TLS, a redirect, a reply that is too large,
   * broken or cut off; the reason of `signal` when that ends it
   */
  send(request: HttpRequest): Promise<HttpReply>
}

export interface HttpRequest {
  url: URL
  method: "GET" | "POST"
  headers: Readonly<Record<string, string>>
  body?: string
  signal: AbortSignal
}

/** Something went wrong between a server and us. */
export class ServerError extends MuscError {
  constructor(
    message: string,
    /** connection: no server there, it may come back. setup: asking again cannot help. reply: what came is broken. */
    readonly kind: "connection" | "setup" | "reply",
  ) {
    super(message)
  }
}

/** Same-origin redirects that are followed in a row. */
const MOST_REDIRECTS = 3

/**
 * A client with at most `connections` open at once, which reads at most `maxBytes` of a reply, counted after unpacking.
 * It follows redirects (307, 308) to the same origin alone: prompts go nowhere else.
 */
export function httpClient({ connections, maxBytes }: { connections: number; maxBytes: number }): HttpClient {
  const options = { keepAlive: true, maxSockets: connections, scheduling: "lifo" as const }
  const agents = { "http:": new HttpAgent(options), "https:": new HttpsAgent(options) }

  const once = (request: HttpRequest) =>
    new Promise<HttpReply>((resolve, reject) => {
      const { url, method, headers, body, signal } = request
      const secure = url.protocol === "https:"
      const send = secure ? httpsRequest : httpRequest
      const length = body === undefined ? {} : { "content-length": `${Buffer.byteLength(body)}` }
      const outgoing = send(url, {
        ...{ method, agent: agents[secure ? "https:" : "http:"], signal },
        headers: { ...headers, ...length, "accept-encoding": "identity" },
      })
      const fail = (error: unknown) => reject(signal.aborted ? signal.reason : explained(error))
      outgoing.on("error", fail)
      outgoing.on("response", (response) => {
        read(response, maxBytes).then(
          (text) => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
          (error) => {
            response.destroy()
            fail(error)
          },
        )
      })
      outgoing.end(body)
    })

  return {
    async send(request) {
      let { url } = request
      for (let followed = 0; ; followed++) {
        const reply = await once({ ...request, url })
        if (![301, 302, 303, 307, 308].includes(reply.status)) return reply
        const next = redirected(url, reply)
        if (followed === MOST_REDIRECTS) {
          throw new ServerError(`redirects more than ${MOST_REDIRECTS} times in a row, last to ${shown(next)}`, "setup")
        }
        url = next
      }
    },
  }
}

/** Where a redirect leads. @throws ServerError unless it is the same request to the same origin */
function redirected(from: URL, { status, headers }: HttpReply): URL {
  const location = headers.location ?? ""
  const to = URL.canParse(location, from.href) ? new URL(location, from.href) : undefined
  if (!to) throw new ServerError(`redirects (${status}) to no address`, "setup")
  to.username = to.password = ""
  if (to.origin !== from.origin) {
    const rule = "which is another server and gets no prompts; give that address if you trust it"
    throw new ServerError(`redirects (${status}) to ${shown(to)}, ${rule}`, "setup")
  }
  if (status !== 307 && status !== 308) {
    throw new ServerError(`redirects (${status}) to ${shown(to)}, which ends a request; give that address`, "setup")
  }
  return to
}

/** An address without what may be secret in it. */
const shown = ({ protocol, host, pathname }: URL) => `${protocol}//${host}${pathname}`.slice(0, 200)

const unpack: Readonly<Record<string, (packed: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>>> = {
  gzip: promisify(gunzip),
  "x-gzip": promisify(gunzip),
  deflate: promisify(inflate),
  br: promisify(brotliDecompress),
}

async function read(response: IncomingMessage, maxBytes: number): Promise<string> {
  const tooLarge = () =>
    new ServerError(`a reply must have at most ${Math.round(maxBytes / 2 ** 20)} MiB, got more`, "reply")
  const parts: Buffer[] = []
  let size = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    size += part.length
    if (size > maxBytes) throw tooLarge()
    parts.push(part)
  }
  if (!response.complete) throw new ServerError("the connection was cut within the reply", "reply")
  let bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  const encoding = response.headers["content-encoding"]?.trim().toLowerCase() || "identity"
  if (encoding !== "identity" && bytes.length) {
    const open = Object.hasOwn(unpack, encoding) ? unpack[encoding] : undefined
    if (!open)
      throw new ServerError(`a reply must be packed as gzip, deflate or br, got ${encoding.slice(0, 40)}`, "reply")
    try {
      bytes = await open(bytes, { maxOutputLength: maxBytes })
    } catch (error) {
      if ((error as { code?: string }).code === "ERR_BUFFER_TOO_LARGE") throw tooLarge()
      throw new ServerError(`a reply must be ${encoding} as its header says, got ${(error as Error).message}`, "reply")
    }
  }
  return textOf(bytes, response.headers["content-type"])
}

/**
 * The text of a reply, without a byte-order mark. It is UTF-8, as JSON is, unless the first bytes or the header say
 * UTF-16, or the bytes are not UTF-8 and the header names another encoding.
 */
function textOf(bytes: Buffer, contentType = ""): string {
  const named = /charset\s*=\s*"?([^\s;"]+)/i.exec(contentType)?.[1] ?? ""
  const mark = bytes.length > 1 ? bytes.readUInt16BE() : 0
  const wide = mark === 0xfffe ? "utf-16le" : mark === 0xfeff ? "utf-16be" : /^utf-?16/i.test(named) ? named : ""
  for (const encoding of wide ? [wide] : ["utf-8", named]) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(bytes)
    } catch {} // other bytes, or no such encoding
  }
  const got =
    named && !/^utf-?8$/i.test(named) ? `bytes that are neither that nor ${named.slice(0, 40)}` : "other bytes"
  throw new ServerError(`a reply must be UTF-8, got ${got}`, "reply")
}

/** What the codes of failed connections mean, and what helps. */
const causes: readonly [RegExp, string, ServerError["kind"]][] = [
  [/^ECONNREFUSED$/, "the connection was refused: nothing listens there", "connection"],
  [/^(ENOTFOUND|EAI_\w+)$/, "the host has no address: check its name", "connection"],
  [/^(ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN)$/, "the host cannot be reached", "connection"],
  [/^(ECONNRESET|EPIPE|ECONNABORTED)$/, "the connection was cut", "connection"],
  [
    /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+|CERT_UNTRUSTED)$/,
    "its certificate is not trusted: name the authority's file in NODE_EXTRA_CA_CERTS",
    "setup",
  ],
  [/^CERT_HAS_EXPIRED$/, "its certificate has expired", "setup"],
  [/^ERR_TLS_CERT_ALTNAME_INVALID$/, "its certificate is for another host", "setup"],
  [/^(CERT_\w+|ERR_TLS_\w+)$/, "its certificate is not accepted", "setup"],
  [/^(EPROTO|ERR_SSL_\w+)$/, "it does not speak TLS as expected: perhaps the address must begin with http://", "setup"],
  [/^HPE_HEADER_OVERFLOW$/, "its headers are too large", "reply"],
  [/^HPE_\w+$/, "it does not speak HTTP as expected: perhaps the address must begin with https://", "reply"],
]

/** A failed connection in words, with the code. */
function explained(error: unknown): unknown {
  if (error instanceof ServerError) return error
  const inner = (error as { errors?: unknown[] }).errors?.[0] // one for each address of a host
  const code = `${(error as { code?: unknown }).code ?? (inner as { code?: unknown } | undefined)?.code ?? ""}`
  for (const [pattern, meaning, kind] of causes) {
    if (pattern.test(code)) return new ServerError(`${meaning} (${code})`, kind)
  }
  const message = error instanceof Error ? error.message : `${error}`
  return new ServerError(code && !message.includes(code) ? `${message} (${code})` : message, "connection")
}
