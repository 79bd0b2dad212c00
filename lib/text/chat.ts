import type { Message } from "../data/schema"
import { InputError, RefusedError } from "../errors"
import { openedThoughts } from "./thoughts"
import type { Tokenizer } from "./tokenizer"

/** What ends an answer: an id (part of the answer), or a text (not part of it). */
export interface ChatStop {
  ids: readonly number[]
  texts: readonly string[]
}

/**
 * A prompt with its answer. `responseIds` ends with the end-of-turn token; `promptIds` is what generation starts from.
 */
export interface EncodedChat {
  promptIds: number[]
  responseIds: number[]
}

/**
 * A conversation as the model's text, by its own chat template; `addGenerationPrompt` opens the assistant's turn.
 *
 * A model without a template (a base model) gets a plain dialogue that few-shot prompts continue well:
 *
 *     {system}\n\nUser: {question}\n\nAssistant: {answer}{eos}\n\nUser: …\n\nAssistant:
 *
 * The blank that follows "Assistant:" belongs to the answer, so that a word is tokenised with its blank, as in running
 * text.
 * @throws InputError naming the template's file.
 */
export function renderChat(
  tokenizer: Tokenizer,
  messages: readonly Message[],
  { addGenerationPrompt = true }: { addGenerationPrompt?: boolean } = {},
): string {
  if (!tokenizer.chatTemplate) return plainChat(tokenizer, messages, addGenerationPrompt)
  const copies = messages.map(({ role, content }) => ({ role, content }))
  return tokenizer.chatTemplate.render({
    ...tokenizer.specialTexts,
    ...tokenizer.templateVariables,
    messages: copies,
    add_generation_prompt: addGenerationPrompt,
  })
}

/**
 * Ids that generation starts from. The beginning-of-text token is in it as often as the template writes it. @throws
 * RefusedError for none
 */
export function encodePrompt(tokenizer: Tokenizer, messages: readonly Message[]): number[] {
  const ids = tokenizer.encode(renderChat(tokenizer, messages))
  if (ids.length) return ids
  throw new RefusedError(
    "a prompt must be at least one token long, got none; use a chat template that writes the messages",
    {
      file: tokenizer.chatTemplate?.file ?? tokenizer.name,
    },
  )
}

/**
 * A prompt and its answer with an exact boundary: `promptIds` equals `encodePrompt` (less an opening of thoughts that
 * the template takes back), and the two together spell the template's text up to and including the end-of-turn token.
 * @throws InputError naming the template's file, where the text of prompt and answer does not begin with that of the
 * prompt.
 */
export function encodeChat(tokenizer: Tokenizer, prompt: readonly Message[], response: string): EncodedChat {
  const { promptIds, responses } = encodeChats(tokenizer, prompt, [response])
  return { promptIds, responseIds: responses[0]! }
}

/** As `encodeChat`, for several answers to one prompt. */
export function encodeChats(
  tokenizer: Tokenizer,
  prompt: readonly Message[],
  responses: readonly string[],
): { promptIds: number[]; responses: number[][] } {
  const wholes = responses.map((content) =>
    renderChat(tokenizer, [...prompt, { role: "assistant", content }], { addGenerationPrompt: false }),
  )
  const promptText = withoutOpenedThoughts(renderChat(tokenizer, prompt), wholes)
  const promptIds = tokenizer.encode(promptText)
  return { promptIds, responses: wholes.map((whole) => answerIds(tokenizer, promptText, promptIds, whole)) }
}

/**
 * A template that forces thoughts opens them in the prompt, but writes an answer that is given without thoughts as if
 * none had been opened. Such an answer stands behind the prompt without the opening.
 */
function withoutOpenedThoughts(promptText: string, wholes: readonly string[]): string {
  const opened = openedThoughts(promptText)
  const shorter = promptText.slice(0, promptText.length - opened.length)
  const fits = (prompt: string) => wholes.every((whole) => whole.startsWith(prompt))
  return opened && !fits(promptText) && fits(shorter) ? shorter : promptText
}

/**
 * The tokenizer with thinking switched on or off, for templates that can (`enable_thinking`); undefined leaves it to
 * the template. @throws InputError for a template that knows no such switch
 */
export function withThinking(tokenizer: Tokenizer, thinking: boolean | undefined): Tokenizer {
  if (thinking === undefined) return tokenizer
  if (!tokenizer.chatTemplate?.mentions("enable_thinking")) {
    const file = tokenizer.chatTemplate?.file ?? tokenizer.name
    throw new InputError("thinking can be set for chat templates with enable_thinking, got one without; leave it out", {
      file,
    })
  }
  return { ...tokenizer, templateVariables: { ...tokenizer.templateVariables, enable_thinking: thinking } }
}

function answerIds(tokenizer: Tokenizer, promptText: string, promptIds: readonly number[], wholeText: string) {
  const file = tokenizer.chatTemplate?.file ?? tokenizer.name
  if (!wholeText.startsWith(promptText)) {
    let at = 0
    while (promptText[at] === wholeText[at]) at++
    const show = (text: string) => JSON.stringify(text.slice(Math.max(0, at - 10), at + 30))
    throw new InputError(
      `a conversation must begin with its prompt, got ${show(wholeText)} where the prompt has ${show(promptText)}; ` +
        "use a chat template that renders the same turn openings with and without add_generation_prompt",
      { file },
    )
  }
  const whole = tokenizer.encode(wholeText)
  let rest = whole.slice(promptIds.length)
  if (promptIds.some((id, i) => id !== whole[i])) {
    // A token would span the boundary. Generation cannot have made it, so the answer is tokenised by itself.
    rest = tokenizer.encode(wholeText.slice(promptText.length))
    if (tokenizer.decode([...promptIds, ...rest]) !== tokenizer.decode(whole)) {
      throw new InputError(
        "prompt and answer must be tokenisable apart; use a template that ends the prompt in a special token",
        { file },
      )
    }
  }
  return endTurn(tokenizer, rest)
}

/**
 * What ends an answer of this model: every end-of-text id, the token with which the template closes a turn, and for the
 * plain dialogue the opening of a further turn.
 */
export function chatStop(tokenizer: Tokenizer): ChatStop {
  if (!tokenizer.chatTemplate) return { ids: tokenizer.eosIds, texts: ["\nUser:", "\nAssistant:"] }
  const known = stops.get(tokenizer)
  if (known) return known
  const probe = "QpzTurnZpq"
  const messages: Message[] = [
    { role: "user", content: "Hi" },
    { role: "assistant", content: probe },
  ]
  const text = renderChat(tokenizer, messages, { addGenerationPrompt: false })
  const tail = text.slice(text.lastIndexOf(probe) + probe.length)
  // Not every end-of-turn token is marked special. An added token of blanks alone ends no turn.
  const isClose = (id: number) =>
    tokenizer.eosIds.includes(id) || (tokenizer.addedIds.has(id) && tokenizer.decode([id]).trim() !== "")
  const close = tokenizer.encode(tail).find(isClose)
  const ids = [...new Set([...(close === undefined ? [] : [close]), ...tokenizer.eosIds])]
  // A template may close a turn with words that are no token of their own.
  const texts = close === undefined && tail.trim() ? [tail.trim()] : []
  stops.set(tokenizer, { ids, texts })
  return stops.get(tokenizer)!
}

const stops = new WeakMap<Tokenizer, ChatStop>()

/**
 * Cuts what a template writes after the end-of-turn token (often a line break), or adds the token where it writes none.
 */
function endTurn(tokenizer: Tokenizer, ids: number[]): number[] {
  const { ids: stop } = chatStop(tokenizer)
  let last = ids.length - 1
  while (last >= 0 && !stop.includes(ids[last]!)) last--
  if (last < 0) return stop.length ? [...ids, stop[0]!] : ids
  while (stop.includes(ids[last - 1]!)) last--
  return ids.slice(0, last + 1)
}

function plainChat(tokenizer: Tokenizer, messages: readonly Message[], addGenerationPrompt: boolean): string {
  const { bos_token: bos = "", eos_token: eos = "" } = tokenizer.specialTexts
  const turns = messages.map(({ role, content }) => {
    if (role === "system") return content
    if (role === "user") return `User: ${content}`
    return `Assistant:${/^\s/.test(content) ? "" : " "}${content}${eos}`
  })
  return (tokenizer.addsBos ? bos : "") + [...turns, ...(addGenerationPrompt ? ["Assistant:"] : [])].join("\n\n")
}
