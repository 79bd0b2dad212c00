import { type JsonObject, show } from "../data/json-file"
import type { Family } from "./family"
import { fieldReader } from "./fields"

/** The sliding window of each layer, null for one that sees all. Problems are added to `problems`. */
export function readWindows(
  json: JsonObject,
  family: Family,
  layers: number,
  problems: string[],
): readonly (number | null)[] {
  const { int, flag } = fieldReader(json, problems)
  const local = localLayers(json, family, layers, problems)
  const hasDefault = (family === "gemma3_text" || family === "mistral") && json.sliding_window !== null
  const fallback = hasDefault ? 4096 : undefined
  const window = local.some(Boolean) ? int("sliding_window", 1 << 30, fallback) : null
  if (family === "qwen2" || family === "qwen3") {
    const isUsed = flag("use_sliding_window", false)
    if (!isUsed && local.some(Boolean))
      problems.push(
        "layer_types must have no sliding_attention where use_sliding_window is not true; correct one of them",
      )
    if (isUsed && json.sliding_window == null)
      problems.push("sliding_window must be given where use_sliding_window is true")
  }
  return local.map((isLocal) => (isLocal ? window : null))
}

/** Which layers attend within the sliding window. */
function localLayers(json: JsonObject, family: Family, layers: number, problems: string[]): boolean[] {
  const all = Array.from({ length: Math.min(layers, 1024) }, (_, i) => i)
  const { layer_types: types } = json
  if (types != null && !Array.isArray(types)) problems.push(`layer_types must be a list or null, got ${show(types)}`)
  // The class of Llama has no window, but its cache of keys and other programs read one.
  if (family === "llama") {
    if (json.sliding_window != null)
      problems.push(
        `sliding_window must be null in a llama model, got ${show(json.sliding_window)}; use mistral for one`,
      )
    if (Array.isArray(types) && types.some((type) => type !== "full_attention"))
      problems.push(`layer_types must be full_attention alone in a llama model, got ${show(types)}`)
    return all.map(() => false)
  }
  // The class of Mistral has one kind of layer, whatever layer_types says.
  if (family === "mistral") {
    const kind = json.sliding_window === null ? "full_attention" : "sliding_attention"
    if (Array.isArray(types) && types.some((type) => type !== kind))
      problems.push(`layer_types must be ${kind} alone, by sliding_window, in a mistral model, got ${show(types)}`)
    return all.map(() => json.sliding_window !== null)
  }
  if (Array.isArray(types)) {
    const odd: unknown = types.find((type) => type !== "full_attention" && type !== "sliding_attention")
    if (odd !== undefined) {
      problems.push(
        `layer_types must be full_attention or sliding_attention, got ${show(odd)}; this layer is not supported`,
      )
    }
    if (types.length !== layers) problems.push(`layer_types must have ${layers} entries, got ${types.length}`)
    return all.map((i) => types[i] === "sliding_attention")
  }
  const { int, flag } = fieldReader(json, problems)
  if (family === "gemma3_text") {
    const pattern = int("sliding_window_pattern", 1024, 6)
    return all.map((i) => (i + 1) % pattern !== 0)
  }
  if ((family === "qwen2" || family === "qwen3") && flag("use_sliding_window", false)) {
    const first = json.max_window_layers === 0 ? 0 : int("max_window_layers", 1024, 28)
    return all.map((i) => i >= first)
  }
  return all.map(() => false)
}
