import { isJsonObject, type JsonObject, show } from "../data/json-file"
import { decoders } from "./tokenizer-decoders"
import { checkModel, mendModel } from "./tokenizer-models"
import { normalizers, type Part, preTokenizers, UnsupportedPart } from "./tokenizer-parts"

/** What a tokenizer of the library is made of, as far as it is mended. */
export interface Parts {
  normalizer: unknown
  pre_tokenizer: unknown
  model: unknown
  decoder: unknown
  added_tokens: readonly { content: string }[]
}

/**
 * Gives the parts of a tokenizer the original's behaviour. `json` is what they were made from; `begins` says once
 * whether a piece is the beginning of the whole text.
 * @throws UnsupportedPart naming a part that cannot be run as the original does
 */
export function mendParts(json: JsonObject, inner: Parts, begins: () => boolean): void {
  checkModel(json.model as JsonObject)
  mendModel(json.model as JsonObject, inner.model as Part, inner.added_tokens)
  for (const [config, part] of partsOf(json.normalizer, inner.normalizer)) {
    const normalize = known("normalizer", normalizers, config)(config, part)
    if (normalize) part.normalize = normalize
  }
  for (const [config, part] of partsOf(json.pre_tokenizer, inner.pre_tokenizer)) {
    const cut = known("pre-tokenizer", preTokenizers, config)(config, part, begins)
    if (cut) part.pre_tokenize_text = cut
  }
  for (const [config, part] of partsOf(json.decoder, inner.decoder)) {
    const decode = known("decoder", decoders, config)(config, part)
    if (decode) part.decode_chain = decode
  }
}

function known<Of>(what: string, table: Readonly<Record<string, Of>>, { type }: JsonObject): Of {
  if (typeof type !== "string" || !Object.hasOwn(table, type))
    throw new UnsupportedPart(`a ${what} of the type ${show(type)}`)
  return table[type]!
}

/** Every part of a tree with the JSON that it was made from. */
function partsOf(config: unknown, root: unknown): [JsonObject, Part][] {
  if (!isJsonObject(config) || root === null || root === undefined) return []
  const part = root as Part
  const configs = config.normalizers ?? config.pretokenizers ?? config.decoders
  const inner = part.normalizers ?? part.tokenizers ?? part.decoders
  if (!Array.isArray(configs) || !Array.isArray(inner)) return [[config, part]]
  return [[config, part], ...configs.flatMap((one, i) => partsOf(one, inner[i]))]
}
