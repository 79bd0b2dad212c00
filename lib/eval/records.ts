import { existsSync, statSync } from "node:fs"
import { join } from "node:path"
import type { z } from "zod"
import { readRecords } from "../data/json-array"
import { type Place, parseRecord } from "../data/jsonl"
import { InputError } from "../errors"

/**
 * A file of official data: the path itself, or the first of `names` that is in it where it is a folder.
 * @throws InputError for a folder that holds none of them
 */
export function fileIn(path: string, ...names: readonly string[]): string {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path
  const found = names.map((name) => join(path, name)).find((file) => existsSync(file))
  if (found) return found
  const got = names.length > 1 ? "none of them" : "a folder without it"
  throw new InputError(`must hold ${names.join(" or ")}, got ${got}; name the file`, { file: path })
}

/**
 * The records of some files, one at a time, no two with the same `key`.
 * @throws InputError naming file, line and field of what breaks the schema, and of a second record with a key
 */
export async function* uniqueRecords<Schema extends z.ZodType<object>>(
  files: readonly string[],
  schema: Schema,
  key: keyof z.output<Schema> & string,
): AsyncGenerator<{ record: z.output<Schema>; place: Required<Place> }> {
  const seen = new Map<unknown, Place>()
  for (const file of files) {
    for await (const { value, place } of readRecords(file)) {
      const record = parseRecord(schema, value, place)
      const before = seen.get(record[key])
      if (before) {
        const first = before.file === file ? `on line ${before.line}` : `in ${before.file}, line ${before.line}`
        const got = `${record[key]}`.slice(0, 80)
        const problem = `must be unique, got ${got} again (first ${first}); remove one of the two`
        throw new InputError(problem, { ...place, field: key })
      }
      seen.set(record[key], place)
      yield { record, place }
    }
  }
}
