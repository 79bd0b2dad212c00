import { readFileSync, statSync } from "node:fs"
import { InputError } from "../errors"
import { parseJson } from "./json"

/** A JSON object whose fields are not known. */
export type JsonObject = { [key: string]: unknown }

/** Largest file that is read whole, in bytes. */
const maxBytes = 2 ** 28

/** True for a JSON object (not an array, not null). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

/**
 * A JSON file whose top level is an object, with NaN and Infinity as Python writes them. `missing` says what a caller
 * should do about a file that is not there.
 * @throws InputError naming the file: absent, larger than 256 MiB, not JSON, nested too deeply, not an object.
 */
export function readJsonFile(file: string, { missing = "check the path" } = {}): JsonObject {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (!stat?.isFile()) throw new InputError(`a file must be here, got none; ${missing}`, { file })
  if (stat.size > maxBytes) {
    throw new InputError(`must have at most ${maxBytes} bytes, got ${stat.size}; check that this is the right file`, {
      file,
    })
  }
  let value: unknown
  try {
    value = parseJson(readFileSync(file, "utf8"))
  } catch (cause) {
    throw new InputError(
      `must be JSON, got ${(cause as Error).message}; repair or fetch the file again`,
      { file },
      { cause },
    )
  }
  if (!isJsonObject(value)) throw new InputError("must hold a JSON object; repair or fetch the file again", { file })
  return value
}

/** A value as JSON for messages: at most 80 characters, and safe on whatever a hostile file holds. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing"
  if (typeof value === "number") return `${value}` // JSON has no word for NaN
  try {
    return (JSON.stringify(value) ?? `${value}`).slice(0, 80)
  } catch {
    return "a value that is nested too deeply"
  }
}
