import { isJsonObject, type JsonObject, show } from "../data/json-file"
import { fieldReader } from "./fields"

/** How rotary frequencies are stretched for long contexts. */
export type RopeScaling =
  | { type: "none" }
  /** All frequencies divided by `factor`. */
  | { type: "linear"; factor: number }
  /**
   * Llama 3.1: wavelengths above `originalPositions / lowFreqFactor` divided by `factor`, below `/ highFreqFactor`
   * kept.
   */
  | { type: "llama3"; factor: number; lowFreqFactor: number; highFreqFactor: number; originalPositions: number }

/** Rotary embedding of one layer: pair i of H turns by position · theta^(-2i/H), then scaled. */
export interface Rope {
  theta: number
  scaling: RopeScaling
}

/**
 * Rope of layers with full attention, and Gemma's own for its local layers. Transformers 4 writes `rope_scaling` and
 * `rope_theta`, Transformers 5 `rope_parameters`. Where both stand, the result is that of Transformers 5:
 * `rope_scaling` wins, and what it leaves out comes from `rope_theta`; for Gemma it changes the fields of
 * `rope_parameters.full_attention`. `theta` is the default of the family. Problems are added to `problems`.
 */
export function readRopes(
  json: JsonObject,
  gemma: boolean,
  theta: number,
  problems: string[],
): { global: Rope; local: Rope } {
  for (const field of ["rope_scaling", "rope_parameters"]) {
    if (json[field] != null && !isJsonObject(json[field]))
      problems.push(`${field} must be an object or null, got ${show(json[field])}`)
  }
  const scaling = isJsonObject(json.rope_scaling) ? json.rope_scaling : {}
  const parameters = isJsonObject(json.rope_parameters) ? json.rope_parameters : {}
  const isScaled = Object.keys(scaling).length > 0
  const isByLayerType = (fields: JsonObject) => "full_attention" in fields || "sliding_attention" in fields
  const byLayerType = isByLayerType(parameters)
  const { number } = fieldReader(json, problems)
  const topTheta = number("rope_theta", theta)
  // Transformers lets a field beside the rope fields win over theirs, where its class knows one.
  const beside = json.original_max_position_embeddings
  for (const [field, inside] of Object.entries({ rope_scaling: scaling, rope_parameters: parameters })) {
    const { original_max_position_embeddings: original } = inside
    if (beside != null && original != null && beside !== original)
      problems.push(
        `original_max_position_embeddings must be the same in ${field} and beside it, got ${show(original)} and ${show(beside)}`,
      )
  }
  const cure = "save config.json again with transformers"
  if (isByLayerType(scaling)) problems.push(`rope_scaling must not be split by layer type; name it rope_parameters`)
  if (!gemma) {
    if (byLayerType && !isScaled)
      problems.push(`rope_parameters must not be split by layer type in this model family; ${cure}`)
    const both = isScaled ? readRope(scaling, "rope_scaling.", topTheta, problems) : null
    const global = both ?? readRope(byLayerType ? {} : parameters, "rope_parameters.", topTheta, problems)
    return { global, local: { theta: global.theta, scaling: { type: "none" } } }
  }
  if (Object.keys(parameters).length > 0 && !byLayerType)
    problems.push(`rope_parameters must be split into full_attention and sliding_attention in a Gemma model; ${cure}`)
  if (scaling.rope_type == null && (scaling.type ?? "default") !== "default" && parameters.full_attention == null)
    problems.push("rope_scaling.type is read by transformers 4 and ignored by 5 in a Gemma model; name it rope_type")
  const part = (name: string): JsonObject => (isJsonObject(parameters[name]) ? parameters[name] : {})
  const full = { ...part("full_attention"), ...scaling }
  return {
    global: readRope(full, isScaled ? "rope_scaling." : "rope_parameters.full_attention.", topTheta, problems),
    local: readRope(
      part("sliding_attention"),
      "rope_parameters.sliding_attention.",
      number("rope_local_base_freq", 1e4),
      problems,
    ),
  }
}

function readRope(from: JsonObject, where: string, fallbackTheta: number, problems: string[]): Rope {
  const { int, number } = fieldReader(from, problems, where)
  const type = from.rope_type ?? from.type ?? "default"
  for (const field of ["partial_rotary_factor", "attention_factor", "mrope_section"]) {
    if (from[field] != null && from[field] !== 1)
      problems.push(`${where}${field} is not supported, got ${show(from[field])}`)
  }
  const theta = number("rope_theta", fallbackTheta)
  if (type === "linear") return { theta, scaling: { type, factor: number("factor") } }
  if (type === "llama3") {
    const lowFreqFactor = number("low_freq_factor")
    const highFreqFactor = number("high_freq_factor")
    if (!(highFreqFactor > lowFreqFactor)) problems.push(`${where}high_freq_factor must be above low_freq_factor`)
    const originalPositions = int("original_max_position_embeddings", 1 << 30)
    return { theta, scaling: { type, factor: number("factor"), lowFreqFactor, highFreqFactor, originalPositions } }
  }
  if (type !== "default") {
    const rule = `${where}rope_type must be default, linear or llama3`
    problems.push(`${rule}, got ${show(type)}; use a model with one of these`)
  }
  return { theta, scaling: { type: "none" } }
}
