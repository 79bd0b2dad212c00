import { isJsonObject, type JsonObject } from "../data/json-file"
import { qwenPattern } from "./repairs"

/**
 * Which class of Transformers 5 reads a folder with a normalizer and a pre-tokenizer of its own instead of those of
 * tokenizer.json, where they differ; undefined where ids are the same. The classes are those of the model families
 * here, chosen as AutoTokenizer of transformers 5.23 does.
 */
export function rebuiltBy(json: JsonObject, settings: JsonObject, modelType: unknown): string | undefined {
  const name = `${settings.tokenizer_class ?? ""}`.replace(/Fast$/, "")
  const byModel = modelType === "qwen2" || (modelType === "qwen3" && !name) ? "Qwen2Tokenizer" : undefined
  const gemma = !name && /^gemma3(_text)?$/.test(`${modelType}`) ? "GemmaTokenizer" : undefined
  const used = modelType === "mistral" ? "" : (byModel ?? gemma ?? name)
  const builds = Object.hasOwn(classes, used) ? classes[used]! : null
  return builds && !builds(json, settings) ? used : undefined
}

/** Whether the parts of tokenizer.json are those that a class builds. */
const classes: Readonly<Record<string, (json: JsonObject, settings: JsonObject) => boolean>> = {
  LlamaTokenizer: ({ normalizer, pre_tokenizer: cut }, { legacy, add_prefix_space: adds }) => {
    if (JSON.stringify(cut ?? null).includes('"ByteLevel"')) return true
    const scheme = adds === false ? "never" : legacy === true ? "always" : "first"
    return !normalizer && has(cut, { type: "Metaspace", replacement: "▁", prepend_scheme: scheme, split: false })
  },
  GemmaTokenizer: ({ normalizer, pre_tokenizer: cut }) =>
    has(normalizer, { type: "Replace", content: "▁" }) &&
    has((normalizer as JsonObject).pattern, { String: " " }) &&
    // No blank is left to split at.
    (!cut || (has(cut, { type: "Split" }) && has((cut as JsonObject).pattern, { String: " " }))),
  Qwen2Tokenizer: ({ normalizer, pre_tokenizer: cut }, { add_prefix_space: adds }) => {
    const parts = isJsonObject(cut) && Array.isArray(cut.pretokenizers) ? (cut.pretokenizers as unknown[]) : []
    const [split, bytes] = parts
    return (
      has(normalizer, { type: "NFC" }) &&
      parts.length === 2 &&
      has(split, { type: "Split", behavior: "Isolated", invert: false }) &&
      has((split as JsonObject).pattern, { Regex: qwenPattern }) &&
      has(bytes, { type: "ByteLevel", use_regex: false, add_prefix_space: adds === true })
    )
  },
}

const has = (part: unknown, fields: JsonObject): boolean =>
  isJsonObject(part) && Object.entries(fields).every(([field, value]) => part[field] === value)
