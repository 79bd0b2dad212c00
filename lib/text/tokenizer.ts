import { existsSync } from "node:fs"
import { basename, join, resolve } from "node:path"
import { Tokenizer as Inner } from "@huggingface/tokenizers"
import { isJsonObject, type JsonObject, readJsonFile, show } from "../data/json-file"
import { endable } from "../data/stop-signals"
import { InputError, RefusedError } from "../errors"
import { type AddedToken, addedTokens, renumbered, specialTokens } from "./added-tokens"
import { type ChatTemplate, readChatTemplate } from "./chat-template"
import { withoutPossessive } from "./possessive"
import { rebuiltBy } from "./rebuilt"
import { canHang, growthOf, modelCanHang, repair, timeLimit, withinTime } from "./repairs"
import { isThoughtMark } from "./thoughts"
import { checkPattern, UnsupportedPart } from "./tokenizer-parts"

/** Text <-> ids of one model folder. */
export interface Tokenizer {
  /** Name of the model folder. */
  readonly name: string
  /** One more than the largest id that has a text; a model's embedding may have more rows. */
  readonly vocabSize: number
  /** Every id that ends an answer, of generation_config.json, config.json and tokenizer_config.json; may be empty. */
  readonly eosIds: readonly number[]
  readonly bosId: number | null
  /** Any id will do where positions are masked: the declared one, else end of text, else 0. */
  readonly padId: number
  /** Plain text is meant to begin with `bosId` (the tokenizer's own post-processor adds it). */
  readonly addsBos: boolean
  /** Ids left out by `skipSpecial`: special tokens, but for those that mark thoughts. */
  readonly specialIds: ReadonlySet<number>
  /** Texts of the special tokens by name, e.g. `bos_token`: what a chat template may refer to. */
  readonly specialTexts: Readonly<Record<string, string>>
  /** null for a base model without one. */
  readonly chatTemplate: ChatTemplate | null
  /** Further variables of the chat template, such as `enable_thinking`. */
  readonly templateVariables?: Readonly<Record<string, unknown>>
  /** What a user should know: tokens that the model's embedding has no row for. */
  readonly note?: string
  /** Every added token, special or not. */
  readonly addedIds: ReadonlySet<number>
  /**
   * Ids of a text. Nothing is added; special tokens written out in the text become their ids.
   * @throws RefusedError for a token that the embedding of the folder's model has no row for
   */
  encode(text: string): number[]
  /** Text of ids, exact: no tidying of spaces. Ids without a text are left out. */
  decode(ids: readonly number[], options?: { skipSpecial?: boolean }): string
  /**
   * The piece of text that each id adds; together they are `decode(ids)`. A character spread over several tokens
   * belongs to the last of them, so pieces may be empty.
   */
  tokenText(ids: readonly number[]): string[]
}

const missing = "save the tokenizer again with transformers: AutoTokenizer.from_pretrained(dir).save_pretrained(dir)"

/**
 * Loads `tokenizer.json` with `tokenizer_config.json`, `generation_config.json` and `config.json` where they exist.
 * @throws InputError naming the file: absent, broken, or of a kind that the tokenizer library cannot run.
 */
export function loadTokenizer(dir: string): Tokenizer {
  const file = join(dir, "tokenizer.json")
  const json = readJsonFile(file, { missing })
  const optional = (name: string) => (existsSync(join(dir, name)) ? readJsonFile(join(dir, name)) : {})
  const settings = optional("tokenizer_config.json")
  const generation = optional("generation_config.json")
  const model = optional("config.json")

  if (settings.split_special_tokens === true) {
    const rule = "must be false, as prompts write special tokens out, got true; remove it"
    throw new InputError(rule, { file: join(dir, "tokenizer_config.json"), field: "split_special_tokens" })
  }
  const legacy = countsTokenMap(settings)
  const map = legacy ? optional(tokenMap) : {}
  const companions = { settings, map, added: legacy ? optional(addedMap) : {} }
  checkIds(json, file)
  const tokens = addedTokens(json, companions)
  const moved = renumbered(json, tokens)
  const inner = construct(json, tokens, settings, file)
  const specialTexts = Object.fromEntries([...specialTokens(companions)].map(([name, { content }]) => [name, content]))
  const text = isJsonObject(model.text_config) ? model.text_config : {}
  const rows = embeddingRows(model, text)
  const vocabulary = inner.get_vocab()
  const beyond = [...vocabulary].filter(([, id]) => id >= rows).sort(([, a], [, b]) => a - b)
  const rebuilt = rebuiltBy(json, settings, model.model_type)
  const notes = [
    ...(moved.length ? [renumberedNote(file, moved)] : []),
    ...(beyond.length ? [beyondNote(file, beyond, rows)] : []),
    ...(rebuilt ? [rebuiltNote(file, rebuilt)] : []),
  ]
  const special = (name: string): number[] => {
    const text = specialTexts[`${name}_token`]
    const id = text === undefined ? undefined : inner.token_to_id(text)
    return id === undefined ? [] : [id]
  }
  const field = (name: string): number[] =>
    [generation, model, text].flatMap((from) => idList(from[`${name}_token_id`]))
  const inRows = (ids: readonly number[]) => [...new Set(ids)].filter((id) => id < rows)
  const eosIds = inRows([...field("eos"), ...special("eos")])
  const bosId = inRows([...special("bos"), ...field("bos")])[0] ?? null
  const codec = new Codec(file, inner, json, rows)
  return {
    name: basename(resolve(dir)),
    vocabSize: 1 + [...vocabulary.values()].reduce((a, b) => Math.max(a, b), -1),
    ...(notes.length && { note: notes.join("; ") }),
    eosIds,
    bosId,
    padId: inRows([...special("pad"), ...field("pad"), ...eosIds, 0])[0]!,
    addsBos: bosId !== null && codec.firstId("a") === bosId,
    addedIds: codec.addedIds,
    specialIds: codec.specialIds,
    specialTexts,
    chatTemplate: readChatTemplate(dir, settings),
    encode: (text) => codec.encode(text),
    decode: (ids, options) => codec.decode(ids, options),
    tokenText: (ids) => codec.tokenText(ids),
  }
}

/** Runs work on texts of so many characters, or tokens, within a time limit. */
type Guard = <T>(size: number, work: () => T) => T

/** Text to ids and back, by the tokenizer library; with a time limit where a pattern may never end. */
class Codec {
  readonly addedIds = new Set<number>()
  readonly specialIds = new Set<number>()
  private readonly encoding: Guard
  private readonly decoding: Guard

  /** `rows`: of the model's embedding */
  constructor(
    private readonly file: string,
    private readonly inner: Inner,
    json: JsonObject,
    private readonly rows: number,
  ) {
    const guard = guardOf(file)
    const untimed: Guard = (_, work) => work()
    const hangs = canHang(json.normalizer) || canHang(json.pre_tokenizer) || modelCanHang(json.model as JsonObject)
    this.encoding = hangs ? guard : untimed
    this.decoding = canHang(json.decoder) ? guard : untimed
    for (const [id, token] of inner.get_added_tokens_decoder()) {
      this.addedIds.add(id)
      if (token.special && !isThoughtMark(token.content)) this.specialIds.add(id)
    }
  }

  /** The first id of a text with what the tokenizer itself adds. */
  firstId(text: string): number | undefined {
    return runnable(this.file, () => this.encoding(text.length, () => this.inner.encode(text).ids[0]))
  }

  encode(text: string): number[] {
    const { file, inner, rows } = this
    const ids = runnable(file, () =>
      this.encoding(text.length, () => inner.encode(text, { add_special_tokens: false }).ids as number[]),
    )
    const odd = ids.find((id) => id >= rows)
    if (odd === undefined) return ids
    const token = `${show(inner.id_to_token(odd))} (id ${odd})`
    const rule = `a text must hold only tokens that the model has an embedding for, ${rows} by config.json`
    const reason = `the model has no embedding for the token ${token}`
    throw Object.assign(new RefusedError(`${rule}, got ${token}; ${resize}`, { file }), { reason })
  }

  decode(ids: readonly number[], { skipSpecial = false } = {}): string {
    const { file, inner, specialIds } = this
    const knownIds = ids.filter((id) => inner.id_to_token(id) !== undefined && !(skipSpecial && specialIds.has(id)))
    // The library refuses an empty list, and tidies spaces by default, which would not be what the model wrote.
    if (!knownIds.length) return ""
    const options = { clean_up_tokenization_spaces: false }
    return runnable(file, () => this.decoding(knownIds.length, () => inner.decode(knownIds, options)))
  }

  tokenText(ids: readonly number[]): string[] {
    const whole = this.decode(ids)
    let done = 0
    return ids.map((_, i) => {
      // An unfinished character decodes to U+FFFD and is held back until its last byte is there.
      const text = i === ids.length - 1 ? whole : this.decode(ids.slice(0, i + 1)).replace(/\uFFFD+$/, "")
      if (text.length <= done || !whole.startsWith(text)) return ""
      const piece = text.slice(done)
      done = text.length
      return piece
    })
  }
}

/** Files of an older form: names of special tokens, which then count before those of tokenizer_config.json, and ids. */
export const tokenMap = "special_tokens_map.json"
export const addedMap = "added_tokens.json"
/** Whether they count: where tokenizer_config.json is of the older form too. */
export const countsTokenMap = (settings: JsonObject): boolean => !("added_tokens_decoder" in settings)

const resize = "train with model.resize_token_embeddings(len(tokenizer)), or leave the text out"

/** Rows of the embedding by config.json; without one there is no limit. */
function embeddingRows(model: JsonObject, text: JsonObject): number {
  const rows = text.vocab_size ?? model.vocab_size
  return typeof rows === "number" && rows > 0 ? rows : Number.POSITIVE_INFINITY
}

function beyondNote(file: string, beyond: readonly (readonly [string, number])[], rows: number): string {
  const some = beyond.slice(0, 3).map(([token, id]) => `${show(token)} (id ${id})`)
  const more = beyond.length > 3 ? ` and ${beyond.length - 3} more` : ""
  return `${file}: the embedding has ${rows} rows and none for ${some.join(", ")}${more}; a row that holds one fails`
}

function renumberedNote(file: string, moved: readonly [string, number, number][]): string {
  const some = moved.slice(0, 3).map(([token, from, to]) => `${show(token)} ${to} instead of ${from}`)
  const more = moved.length > 3 ? `, and ${moved.length - 3} more` : ""
  return `${file}: added tokens get the ids that the original library gives them: ${some.join(", ")}${more}`
}

const rebuiltNote = (file: string, name: string) =>
  `${file}: is read as it is, while transformers 5 takes the parts of its class ${name} instead; ids of some texts differ`

/** Normalizers of published tokenizers make a text at most a few times as long. */
const mostGrowth = 4096

function construct(json: JsonObject, added_tokens: AddedToken[], settings: JsonObject, file: string): Inner {
  // Settings of slow tokenizers, which the original does not heed beside tokenizer.json.
  const { remove_space: _, do_lowercase_and_remove_accent: __, ...ownSettings } = settings
  const defaults = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null }
  return runnable(file, () => {
    // Strings of hundreds of megabytes take seconds that no time limit can end.
    const growth = growthOf(json.normalizer)
    if (growth > mostGrowth) throw new Error(`replacements that may make a text ${growth.toPrecision(2)} times as long`)
    const inner = guardOf(file)(
      0,
      () => new Inner({ ...defaults, ...json, added_tokens, ...withPlainPatterns(json) }, ownSettings),
    )
    repair(inner, json)
    return inner
  })
}

/** The parts of a tokenizer with patterns that JavaScript can run as they are meant. @throws UnsupportedPart */
function withPlainPatterns(json: JsonObject): JsonObject {
  const plain = (_: string, value: unknown): unknown => {
    if (!isJsonObject(value)) return value
    checkPattern(value)
    return typeof value.Regex === "string" ? { ...value, Regex: withoutPossessive(value.Regex) } : value
  }
  const { normalizer = null, pre_tokenizer = null, decoder = null } = json
  return JSON.parse(JSON.stringify({ normalizer, pre_tokenizer, decoder }, plain)) as JsonObject
}

/**
 * Runs a stranger's tokenizer within a time limit: for all texts of one turn of the event loop together, as signals are
 * heard between turns. Long texts may take longer, and are ended by signals at once. Past the limit no further text is
 * tried: each would take as long again.
 */
function guardOf(file: string): Guard {
  let failure: InputError | undefined
  let turn: { characters: number; spent: number } | undefined
  const thisTurn = () => {
    if (turn) return turn
    setImmediate(() => {
      turn = undefined
    }).unref()
    turn = { characters: 0, spent: 0 }
    return turn
  }
  return (characters, work) => {
    if (failure) throw failure
    const sum = thisTurn()
    sum.characters += characters
    const limit = characters ? timeLimit(sum.characters) : loadLimit
    for (;;) {
      const left = Math.max(1, Math.ceil(limit - sum.spent))
      const began = process.cpuUsage()
      try {
        return endable(() => withinTime(left, work))
      } catch (cause) {
        if ((cause as { code?: string }).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw cause
        // A machine that is busy or was suspended says nothing about the tokenizer: processor time decides.
        if (processorTime(began) < left / 2) continue
        const got = `more for ${sum.characters} characters`
        const remedy = "its patterns may never end; use a tokenizer that you trust"
        const rule = `tokenising must take at most ${limit} ms here, got ${got}; ${remedy}`
        failure = new InputError(rule, { file }, { cause })
        throw failure
      } finally {
        sum.spent += processorTime(began)
      }
    }
  }
}

/** Milliseconds of all processors that this process has used since. */
function processorTime(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since)
  return (user + system) / 1000
}

/** Most milliseconds for building a tokenizer, which normalises its added tokens. */
const loadLimit = 10_000

/** What the tokenizer library does, with its errors as ours. */
function runnable<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (cause instanceof InputError) throw cause
    if (cause instanceof UnsupportedPart) {
      const rule = "must be a tokenizer whose ids are those of the original library"
      throw new InputError(`${rule}, got one with ${cause.message}; use a model with another one`, { file }, { cause })
    }
    const said = show((cause as Error).message)
    throw new InputError(`must be a tokenizer that can be run here, got ${said}; ${missing}`, { file }, { cause })
  }
}

/** Ids become places in lists, so one of a billion would take the memory of a billion. */
const maxId = 2 ** 24

function checkIds({ model, added_tokens }: JsonObject, file: string): void {
  if (!isJsonObject(model))
    throw new InputError(`must be an object, got ${show(model)}; ${missing}`, { file, field: "model" })
  const { vocab } = model
  const added: unknown = added_tokens ?? []
  if (!isJsonObject(vocab) && !Array.isArray(vocab))
    throw new InputError(`must be an object or a list, got ${show(vocab)}; ${missing}`, { file, field: "model.vocab" })
  if (!Array.isArray(added) || !added.every((token) => isJsonObject(token) && typeof token.content === "string"))
    throw new InputError(`must be a list of tokens, got ${show(added)}; ${missing}`, { file, field: "added_tokens" })
  const ids: unknown[] = [...(Array.isArray(vocab) ? [] : Object.values(vocab)), ...added.map(({ id }) => id)]
  const at = ids.findIndex((id) => !Number.isInteger(id) || (id as number) < 0 || (id as number) >= maxId)
  if (at >= 0)
    throw new InputError(`token ids must be whole numbers below ${maxId}, got ${show(ids[at])}; ${missing}`, { file })
}

/** Token ids of a field that holds one, several or none. */
function idList(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).filter((id) => Number.isInteger(id) && id >= 0)
}
