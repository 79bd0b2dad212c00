import { withoutEndMarks } from "../data/rendered"
import { splitThoughts } from "../text/thoughts"
import type { Completion } from "./engine"
import { CUT_IN_THOUGHTS } from "./reply"

/** A server's reply is none that can be used; asking again may help. */
export class ReplyError extends Error {
  constructor(
    message: string,
    /** HTTP status that the body of the reply names, where it reports an error under status 200. */
    readonly status?: number,
  ) {
    super(message)
  }
}

/** What is known of the request that a reply answers. */
export interface ReplyOptions {
  /** most likely first tokens that are wanted */
  topLogprobs?: number
  /** whether the prompt of the server's chat template opens the thoughts */
  thoughtsOpen?: boolean
  /** most tokens of the reply; a reply of that length counts as cut off where the server does not say how it ended */
  limit?: number
}

/** Why a server's reply holds no text; fixed, so that they can be counted. */
const problems = {
  refusal: "refused by the model",
  filter: "stopped by the server's content filter",
  tool: "a tool call instead of text",
  nothing: "a reply without content",
  part: "a part that is no text",
} as const

type Fields = Readonly<Record<string, unknown>>
const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)
const textOf = (value: unknown) => (typeof value === "string" && value.trim() ? value : undefined)

/**
 * The one completion of a chat reply, every field checked, so that nothing odd is kept on disk. Lists of text parts are
 * joined, thoughts go apart, a reply without text says why. Tokens that are no numbers count as unknown.
 * @throws ReplyError for anything that is no reply
 */
export function readReply(value: unknown, options: ReplyOptions = {}): Completion {
  const { topLogprobs = 0, thoughtsOpen = false, limit = Number.POSITIVE_INFINITY } = options
  const choice = choiceOf(value)
  const usage = isFields(value) && isFields(value.usage) ? value.usage : {}
  const tokens = count(usage.completion_tokens) ?? 0
  const reason = textOf(choice.finish_reason)?.toLowerCase() ?? (tokens >= limit ? "length" : "stop")
  if (gaveUp.test(reason)) throw new ReplyError(`the server gave up within the reply (${reason})`)
  const message = isFields(choice.message) ? choice.message : { content: choice.text }
  const content = contentOf(message.content)
  const details = Array.isArray(message.reasoning_details) ? message.reasoning_details.map(detailText).join("") : ""
  const told = [message.reasoning_content, message.reasoning, message.thinking].map(partText)
  const thoughts = [...told, details].map(textOf).find(Boolean)
  const spoken = withoutEndMarks(content.text)
  const opened = thoughtsOpen && spoken.trim() && !splitThoughts(spoken).thoughts
  const text = opened ? `<think>${spoken}` : spoken
  const finish = cutOff.test(reason) ? "length" : "stop"
  const allThoughts = `${thoughts ?? ""}${content.thoughts}`
  const refusal = textOf(message.refusal) ?? content.refusal ?? (reason === "refusal" ? textOf(text) : undefined)
  const about = { text, reason, refusal, message, thoughts: allThoughts, finish, usage }
  const problem = content.problem ?? problemOf(about)
  const promptTokens = count(usage.prompt_tokens)
  const first = topLogprobs ? firstOf(choice.logprobs, text, !!allThoughts) : undefined
  return {
    text: problem === problems.refusal ? (refusal ?? text) : text,
    tokens,
    finish,
    ...(allThoughts && { thoughts: allThoughts }),
    ...(problem && { problem }),
    ...(promptTokens !== undefined && { promptTokens }),
    ...(first && { first }),
  }
}

/** Reasons of a reply's end, of different servers: it was cut off, the server gave up, or stopped it. */
const cutOff =
  /^(?:length|max_(?:output_|completion_)?tokens|max_length|model_length|limit|(?:model_)?context_(?:window|length)_exceeded)$/
const gaveUp =
  /^(?:error|abort(?:ed)?|cancel(?:l?ed)?|time_?out|interrupted|overloaded|network_error|insufficient_system_resource)$/
const filtered =
  /^(?:content_?filter(?:ed)?|safety|recitation|blocklist|prohibited_content|spii|sensitive|guardrail_intervened)$/

const noChoice = "a reply must hold one choice with a message, got none"
/** Ends of a reply in which a tool is called; a text before the call is no answer. */
const toolEnd = /^(?:tool_(?:calls?|use)|function_call)$/

/**
 * The one choice of a reply. One that says why it ended may lack its message, as of services that stop it by a filter.
 * @throws ReplyError for an error in its place, with the status that it has
 */
function choiceOf(value: unknown): Fields {
  if (!isFields(value)) throw new ReplyError(`a reply must be a JSON object, got ${kindOf(value)}`)
  const choices: unknown[] = Array.isArray(value.choices) ? value.choices : []
  const choice = choices.find((one) => isFields(one) && one.index === 0) ?? choices[0]
  const error = value.error || (isFields(choice) && choice.error) // OpenRouter has it in the choice
  if (error) {
    const words = wordsOf({ error })
    // LM Studio answers so with status 200 where it has no such path.
    const status = /^unexpected endpoint/i.test(words) ? 404 : statusIn(error)
    throw new ReplyError(`the server reports an error: ${words}`, status)
  }
  const hasChoice = isFields(choice) && (isFields(choice.message) || typeof choice.text === "string")
  if (isFields(choice) && (hasChoice || textOf(choice.finish_reason))) return choice
  const words = choices.length ? "" : wordsOf(value)
  const fields = Object.keys(value).slice(0, 8).join(", ")
  throw new ReplyError(`${noChoice}, but ${words || plain(fields) || "nothing"}`, statusIn(value))
}

/** Why there is no text, or none to be used. */
function problemOf(reply: {
  text: string
  reason: string
  refusal?: string
  message: Fields
  thoughts: string
  finish: string
  usage: Fields
}): string | undefined {
  const { text, reason, refusal, message, thoughts, finish, usage } = reply
  if (filtered.test(reason)) return problems.filter
  if (reason === "refusal") return problems.refusal
  const calls = message.tool_calls ?? message.function_call
  const hasCalls = Array.isArray(calls) ? calls.length > 0 : !!calls
  if (hasCalls && toolEnd.test(reason)) return problems.tool
  if (text.trim()) return undefined
  if (refusal) return problems.refusal
  if (hasCalls) return problems.tool
  const details = isFields(usage.completion_tokens_details) ? usage.completion_tokens_details : {}
  if (finish === "length" && count(details.reasoning_tokens)) return CUT_IN_THOUGHTS // they are hidden
  if (thoughts) return undefined // for replyOf to name
  return typeof message.content === "string" || Array.isArray(message.content) ? undefined : problems.nothing
}

/** Text and thoughts of a message's content: a text, or a list of parts. */
function contentOf(content: unknown): { text: string; thoughts: string; refusal?: string; problem?: string } {
  if (content === null || content === undefined) return { text: "", thoughts: "" }
  if (typeof content === "string") return { text: content, thoughts: "" }
  if (!Array.isArray(content)) throw new ReplyError(`a message must hold a text, got ${kindOf(content)}`)
  const parts: ReturnType<typeof contentOf> = { text: "", thoughts: "" }
  for (const part of content as unknown[]) {
    const type = isFields(part) && typeof part.type === "string" ? part.type : "text"
    if (typeof part === "string") parts.text += part
    else if (!isFields(part)) throw new ReplyError(`a part of a message must be a text, got ${kindOf(part)}`)
    else if (/thinking|reasoning/.test(type)) parts.thoughts += partText(part.thinking ?? part.text)
    else if (type === "refusal") parts.refusal = textOf(part.refusal)
    else if (typeof part.text === "string") parts.text += part.text
    else if (type === "text") throw new ReplyError("a part of a message must be a text, got none")
    else if (!/^(?:reference|citation|annotation)/.test(type)) parts.problem = problems.part // those stand beside a text
  }
  return parts
}

/** The text of a part of thoughts, which may be a list itself. */
const partText = (value: unknown): string => {
  if (typeof value === "string") return value
  if (Array.isArray(value)) return value.map(partText).join("")
  return isFields(value) ? partText(value.text ?? value.content ?? value.thinking) : ""
}

/** The text of one of OpenRouter's `reasoning_details`, where it is not hidden. */
const detailText = (detail: unknown): string =>
  isFields(detail) ? ([detail.text, detail.summary].map(textOf).find(Boolean) ?? "") : ""

const count = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < 1e9 ? (value as number) : undefined

/**
 * The most likely tokens at the first token of the answer, which is not that of the reply where thoughts come before
 * it. Nothing where the server gives none, or any that is no log-prob: a share of half-known probabilities would be
 * wrong.
 */
function firstOf(logprobs: unknown, text: string, isThinking: boolean): Completion["first"] {
  const tokens: unknown = isFields(logprobs) ? logprobs.content : undefined
  if (!Array.isArray(tokens)) return undefined
  const top: unknown = isThinking ? placeBehind(tokens, text) : placeOf(tokens, text)
  if (!isFields(top) || !Array.isArray(top.top_logprobs) || !top.top_logprobs.length) return undefined
  const entries = top.top_logprobs as unknown[]
  const known = entries.every(
    (entry) =>
      isFields(entry) && typeof entry.token === "string" && typeof entry.logprob === "number" && entry.logprob <= 1e-3,
  )
  if (!known) return undefined
  const likely = (entries as { token: string; logprob: number }[]).filter(({ logprob }) => Number.isFinite(logprob))
  return likely.map(({ token, logprob }) => ({ token, logprob }))
}

/** The token with which the answer begins. */
function placeOf(tokens: readonly unknown[], text: string): unknown {
  const { thoughts, answer } = splitThoughts(text)
  if (!thoughts) return tokens[0]
  const start = text.length - answer.trimStart().length
  let passed = 0
  for (const token of tokens) {
    const piece = isFields(token) && typeof token.token === "string" ? token.token : ""
    if (passed >= start || (passed + piece.length > start && !piece.slice(0, start - passed).trim())) return token
    passed += piece.length
  }
  return undefined
}

/**
 * The same where the thoughts came apart from the text: some servers give the log-probs of both. Found from the end on,
 * where end-of-turn tokens may stand.
 */
function placeBehind(tokens: readonly unknown[], text: string): unknown {
  const answer = splitThoughts(text).answer.trim()
  let rest = ""
  for (const token of [...tokens].reverse()) {
    rest = (isFields(token) && typeof token.token === "string" ? token.token : "") + rest
    if (!answer || rest.length > answer.length + 200) return undefined
    if (rest.length >= answer.length && withoutEndMarks(rest).trim() === answer) return token
  }
  return undefined
}

/** What a server says of an error, in its own words: the shapes of OpenAI, FastAPI and their like, or plain text. */
export function wordsOf(body: unknown): string {
  if (typeof body === "string") return plain(/<title>([^<]*)/i.exec(body)?.[1] ?? body.replace(/<[^<>]*>/g, " "))
  if (Array.isArray(body)) return plain(body.map(wordsOf).join(", "))
  if (!isFields(body)) return ""
  const { loc, msg } = body
  if (typeof msg === "string") return plain(Array.isArray(loc) ? `${loc.join(".")}: ${msg}` : msg)
  for (const inner of [body.error, body.message, body.detail, body.errors, body.title]) {
    const words = wordsOf(inner)
    if (words) return words
  }
  return ""
}

/** Without control characters, which could move a terminal's cursor. */
const plain = (text: string) =>
  text
    .slice(0, 2000)
    .replace(/[\p{Cc}\p{Cf}\s]+/gu, " ")
    .trim()
    .slice(0, 300)
    .replace(/(?<!\.)\.$/, "") // more follows

function statusIn(error: unknown): number | undefined {
  const code = isFields(error) ? Number(error.code ?? error.status) : Number.NaN
  return Number.isInteger(code) && code >= 400 && code < 600 ? code : undefined
}

const kindOf = (value: unknown): string =>
  value === undefined
    ? "nothing"
    : value === null
      ? "null"
      : Array.isArray(value)
        ? "a list"
        : typeof value === "object"
          ? "an object"
          : `a ${typeof value}`
