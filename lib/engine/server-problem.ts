import { parseRecordJson } from "../data/json"
import { InputError, MuscError, RefusedError } from "../errors"
import { type HttpReply, ServerError } from "./http"
import { ReplyError, wordsOf } from "./server-reply"

/** What goes wrong with a request to a server, whether another try can help, and what the user can do. */

/** Request fields that a server may refuse and that can be left out. */
export const optionalFields = ["seed", "temperature", "top_p", "top_k", "stop"] as const
export type OptionalField = (typeof optionalFields)[number]

/** A server's answer with a status other than 200. */
export class HttpError extends Error {
  readonly words: string
  constructor(readonly reply: HttpReply) {
    const words = wordsOf(jsonIn(reply.text) ?? reply.text)
    super(`${reply.status}${words ? ` ${words}` : ", without a word"}`)
    this.words = words
  }
}

function jsonIn(text: string): unknown {
  try {
    return parseRecordJson(text) // servers in Python write NaN too
  } catch {
    return undefined
  }
}

/** The JSON of a reply. @throws ReplyError quoting how it begins */
export function jsonOf({ text }: HttpReply): unknown {
  const value = jsonIn(text)
  if (value !== undefined) return value
  if (!text.trim()) throw new ReplyError("a reply must be JSON, got nothing")
  if (/^\s*data:/.test(text)) throw new ReplyError("a reply must be JSON, got a stream of events")
  throw new ReplyError(`a reply must be JSON, got ${wordsOf(text).slice(0, 80)}`)
}

/** What went wrong with a request, and what that means for the next try. */
export class Problem {
  /** In words, without the key. */
  readonly text: string
  /** Nobody is there, or not yet; may be so for minutes while a server starts. */
  readonly outOfReach: boolean
  /** Perhaps a matter of this request alone: the server failed at it, or what it sent is no reply. */
  readonly ofRequest: boolean
  readonly status: number | undefined
  /** The pause in seconds that the server asks for. */
  readonly askedPause: number | undefined

  constructor(
    private readonly error: unknown,
    redact: (text: string) => string,
  ) {
    this.text = redact(error instanceof Error ? error.message : `${error}`).slice(0, 400)
    this.status =
      error instanceof HttpError ? error.reply.status : error instanceof ReplyError ? error.status : undefined
    const gone = error instanceof ServerError && error.kind === "connection"
    this.outOfReach = gone || [502, 503, 504].includes(this.status ?? 0)
    this.ofRequest = !this.outOfReach && [undefined, 424, 500].includes(this.status)
    this.askedPause = error instanceof HttpError ? pauseIn(error.reply) : undefined
  }

  /** What helps where each reply is none that can be used. */
  get remedy(): string {
    if (/stream of events/.test(this.text)) return "add --field stream=false (fields)"
    return this.error instanceof ReplyError || this.text.startsWith("a reply must")
      ? "check that this is an OpenAI-compatible server, and its log"
      : "check that the server runs, or give it time with --wait (wait)"
  }

  /** The error to end with where asking again cannot help. */
  fatal(where: string, model: string, keyVariable: string, keyed = true): Error | undefined {
    const { error, status, text } = this
    if (error instanceof ServerError && error.kind === "setup") return new InputError(`${where} ${text}`)
    if (!(error instanceof ServerError || error instanceof ReplyError || error instanceof HttpError))
      return error as Error
    if (status === 429 && /insufficient_quota|exceeded your current quota/i.test(text + rawOf(error)))
      return new MuscError(`${where}: ${text}; the quota is used up: raise it, then run again`)
    if (status === undefined || status < 400 || status >= 500 || [408, 409, 424, 425, 429].includes(status))
      return undefined // 424: TGI failed at generating
    if (/flagged|moderation|content.?(policy|filter|management)/i.test(text))
      return refused(`${where}: request rejected by a content filter: ${text}`, text)
    if (status === 401 || status === 403) {
      return keyed
        ? new InputError(`${where}: key rejected: ${text}; set the right key`, { field: keyVariable })
        : noKey(where, text, keyVariable)
    }
    if (status === 402) return new InputError(`${where}: payment required: ${text}; add credit, then run again`)
    if (status === 404 || status === 405) {
      const remedy = /\/v\d/.test(where)
        ? "check address and model"
        : "most addresses end in /v1: add it, or check both"
      return new InputError(`${where}: no such address, or no model ${model} there: ${text}; ${remedy}`)
    }
    return refused(`${where}: request for model ${model} rejected: ${text}; ${remedyFor(text)}`, text)
  }
}

/** The error where a server wants a key and none is set. */
export const noKey = (where: string, text: string, keyVariable: string): InputError =>
  new InputError(`must hold the key of ${where}, got nothing, and the server says: ${text}; set it`, {
    field: keyVariable,
  })

const refused = (message: string, reason: string) => Object.assign(new RefusedError(message), { reason })

const rawOf = (error: unknown) => (error instanceof HttpError ? error.reply.text.slice(0, 2000) : "")

/** What helps where a server refuses a request in these words. */
function remedyFor(text: string): string {
  if (/max_completion_tokens/.test(text)) return "add --limit-field max_completion_tokens (limitField)"
  if (/max_tokens/.test(text) && /extra|unsupported|unrecogni[sz]ed|not permitted|unexpected|unknown/i.test(text))
    return "add --limit-field max_completion_tokens, or --limit-field none (limitField)"
  const field = optionalFields.find((name) => new RegExp(`\\b${name}\\b`).test(text))
  if (field) return `add --leave-out ${field} (leaveOut)`
  if (/context|too long|maximum.*length|exceed/i.test(text))
    return "give the server a longer context, or leave the row out"
  return "check model and options"
}

/** The error when no further try is made. */
export function givenUp(
  where: string,
  { text, status, remedy }: Problem,
  { tries, pause, timeout, alone }: { tries: number; pause: number; timeout: number; alone: boolean },
): Error {
  const number = `${tries} ${tries === 1 ? "try" : "tries"}`
  if (pause > timeout) {
    const asked = `the server asks to wait ${Math.ceil(pause)} s`
    return new MuscError(`${where}: ${asked} (${text}); run again later, or raise --timeout (timeout)`)
  }
  if (alone) {
    const rule = `no reply to this request in ${number}, while others are answered: ${text}`
    return refused(`${where}: ${rule}; see the server's log`, text)
  }
  if (status) {
    return new MuscError(`${where}: failed after ${number}: ${text}; wait, or lower the concurrency`)
  }
  const what = `no complete reply in ${number} (${text})`
  return new MuscError(`${where}: ${what}; ${remedy}`)
}

/** The pause in seconds that a server asks for by `retry-after-ms` or `Retry-After` (seconds, or a date). */
function pauseIn({ headers }: HttpReply): number | undefined {
  const milliseconds = Number.parseFloat(`${headers["retry-after-ms"] ?? ""}`)
  const after = `${headers["retry-after"] ?? ""}`
  const number = /^\s*(\d+(?:\.\d+)?)\s*s?\s*$/i.exec(after)?.[1]
  const seconds = number === undefined ? (Date.parse(after) - Date.now()) / 1000 : Number(number)
  const pause = Number.isFinite(milliseconds) ? milliseconds / 1000 : seconds
  return Number.isFinite(pause) && pause >= 0 ? pause : undefined
}

/** How many different problems of a server are told. */
const MOST_TOLD = 20

/** Tells each of a server's problems once: hundreds of calls under way have the same one when it fails. */
export function toldOnce(tell: (problem: string) => void): (problem: string) => void {
  const noted = new Set<string>()
  return (problem) => {
    if (noted.has(problem) || noted.size >= MOST_TOLD) return
    noted.add(problem)
    tell(problem)
  }
}
