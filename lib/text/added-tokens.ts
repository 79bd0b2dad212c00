import { isJsonObject, type JsonObject } from "../data/json-file"

/** A token of `added_tokens` in tokenizer.json. */
export type AddedToken = JsonObject & { content: string; id: number }

/** What stands beside tokenizer.json and may name further tokens. */
export interface Companions {
  /** tokenizer_config.json */
  settings: JsonObject
  /** special_tokens_map.json, where it counts */
  map: JsonObject
  /** added_tokens.json, where it counts */
  added: JsonObject
}

/** Special tokens by name, as Transformers has them. Families may name further ones. */
export function specialTokens({ settings, map }: Companions): Map<string, JsonObject & { content: string }> {
  const { extra_special_tokens: extra, model_specific_special_tokens: specific } = settings
  const named = Object.entries({ ...settings, ...map }).filter(([name]) => name.endsWith("_token"))
  const further = [extra, specific].flatMap((tokens) => (isJsonObject(tokens) ? Object.entries(tokens) : []))
  const tokens = [...named, ...further].flatMap(([name, value]) =>
    tokenOf(value).map((token) => [name, token] as const),
  )
  return new Map(tokens)
}

/**
 * The added tokens of tokenizer.json, then those that Transformers adds from the files beside it: of
 * `added_tokens_decoder` or added_tokens.json by id, special tokens by name, and lists of further ones. What the
 * vocabulary has keeps its id, others are numbered behind it, whatever tokenizer.json says, as in the original library.
 * What they call special is special here too.
 */
export function addedTokens(json: JsonObject, companions: Companions): AddedToken[] {
  const { settings, map, added } = companions
  const ids = numbering(isJsonObject(json.model) ? json.model.vocab : {})
  const own = ownTokens(json).map((token) => (token.content ? { ...token, id: ids.of(token.content) } : token))
  const special = specialTokens(companions)
  const listed = [settings.additional_special_tokens, settings.extra_special_tokens, map.extra_special_tokens]
  const names = new Set([...special.values()].map(({ content }) => content))
  const decoder = isJsonObject(settings.added_tokens_decoder) ? settings.added_tokens_decoder : {}
  const further = [
    ...byId(Object.entries(decoder).map(([id, token]) => [Number(id), token])),
    ...byId(Object.entries(added).map(([content, id]) => [Number(id), { content, special: names.has(content) }])),
    ...special.values(),
    ...[...listed, map.additional_special_tokens].flatMap((list) => (Array.isArray(list) ? list.flatMap(tokenOf) : [])),
  ]
  const known = new Set(own.map(({ content }) => content))
  const news = further.filter(({ content }) => content !== "" && !known.has(content) && known.add(content))
  const marked = new Set(further.filter((token) => token.special === true).map(({ content }) => content))
  const marks = own.map((token) => (marked.has(token.content) ? { ...token, special: true } : token))
  return [...marks, ...news.map((token) => ({ ...token, id: ids.of(token.content) }))]
}

const ownTokens = (json: JsonObject) => (json.added_tokens ?? []) as AddedToken[]

/** Added tokens whose id in tokenizer.json is not the one they get: their text, the id there, the id they get. */
export function renumbered(json: JsonObject, tokens: readonly AddedToken[]): [string, number, number][] {
  return ownTokens(json).flatMap(({ content, id }, i) =>
    tokens[i]!.id === id ? [] : [[content, id, tokens[i]!.id] satisfies [string, number, number]],
  )
}

/** Tokens in the order of their ids. */
const byId = (tokens: [number, unknown][]) => tokens.sort(([a], [b]) => a - b).flatMap(([, token]) => tokenOf(token))

/** A token as its text or with its flags; a text alone is a special token. */
function tokenOf(value: unknown): (JsonObject & { content: string })[] {
  if (typeof value === "string") return [{ content: value, special: true, normalized: false }]
  if (!isJsonObject(value) || typeof value.content !== "string") return []
  const { content, special = false, normalized = !special, lstrip = false, rstrip = false, single_word = false } = value
  return [{ content, special, normalized, lstrip, rstrip, single_word }]
}

/** The ids that the original library gives to added tokens in the order that they are asked for. */
function numbering(vocab: unknown) {
  const size = Array.isArray(vocab) ? vocab.length : Object.keys(vocab as object).length
  const lookUp = Array.isArray(vocab) ? new Map(vocab.map((entry, id) => [(entry as unknown[])[0], id])) : null
  const given = new Map<string, number>()
  let last = -1
  return {
    of(content: string): number {
      const own = lookUp
        ? lookUp.get(content)
        : Object.hasOwn(vocab as object, content) && (vocab as JsonObject)[content]
      const id = given.get(content) ?? (typeof own === "number" ? own : last >= size ? last + 1 : size)
      given.set(content, id)
      last = Math.max(last, id)
      return id
    },
  }
}
