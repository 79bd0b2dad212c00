import { type JsonObject, show } from "../data/json-file"

/**
 * Checked access to the fields of a settings file. A problem is noted in `problems` and a harmless value returned, so
 * that all problems are found in one go. `where` goes before field names.
 */
export function fieldReader(json: JsonObject, problems: string[], where = "") {
  /** A positive number. */
  const number = (field: string, fallback?: number): number => {
    const value = json[field] ?? fallback
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value
    problems.push(`${where}${field} must be a positive number, got ${show(value)}`)
    return 1
  }
  /** A whole number from 1 to `most`. */
  const int = (field: string, most: number, fallback?: number): number => {
    const value = json[field] ?? fallback
    if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number
    problems.push(`${where}${field} must be a whole number from 1 to ${most}, got ${show(value)}`)
    return 1
  }
  const flag = (field: string, fallback: boolean): boolean => {
    const value = json[field] ?? fallback
    if (typeof value === "boolean") return value
    problems.push(`${where}${field} must be true or false, got ${show(value)}`)
    return fallback
  }
  return { number, int, flag }
}

/**
 * Notes every field whose value is not among those allowed for it. Absent, null and empty values always are.
 * `remedy` ends the message.
 */
export function checkFields(
  json: JsonObject,
  allowed: Readonly<Record<string, readonly unknown[]>>,
  remedy: string,
  problems: string[],
): void {
  for (const [field, values] of Object.entries(allowed)) {
    const value = json[field] ?? null
    const empty = value === null || (typeof value === "object" && Object.keys(value).length === 0)
    if (empty || values.includes(value)) continue
    const rule = values.length ? `must be ${values.map(show).join(" or ")}` : "must be absent"
    problems.push(`${field} ${rule}, got ${show(value)}; ${remedy}`)
  }
}
