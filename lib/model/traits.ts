import { existsSync } from "node:fs"
import { join } from "node:path"
import { z } from "zod"
import { readJsonFile } from "../data/json-file"
import { InputError } from "../errors"

/** Models that come with the package. */
const shipped = join(__dirname, "../../data/models")

/**
 * The folder of a model on this machine: the path itself, or the name of one that comes with musc; undefined for
 * neither.
 */
export function localFolder(name: string): string | undefined {
  return [name, join(shipped, name)].find((dir) => existsSync(join(dir, "config.json")))
}

/** File of a model folder that holds its traits, beside the files of Hugging Face. */
export const traitsFile = "musc.json"

const traits = z.strictObject({
  embedded: z.boolean().default(false).describe("a model of the embedded world: recipes take its settings"),
  shots: z
    .int()
    .min(0)
    .max(100)
    .optional()
    .describe("examples that its prompts may show, at most; any number if absent"),
  turns: z.int().min(1).optional().describe("turns of a conversation that it knows, at most; any number if absent"),
})

/** What a model folder says of the prompts that the model was trained on. */
export type ModelTraits = z.output<typeof traits>

/** What the models of the embedded world say of themselves: bare prompts, single turns. */
export const embeddedTraits: ModelTraits = { embedded: true, shots: 0, turns: 1 }

/**
 * The traits of a model by folder or name; a folder without `musc.json`, and a model that is not on this machine, has
 * none.
 * @throws InputError for a file with other fields
 */
export function modelTraits(name: string): ModelTraits {
  const file = join(localFolder(name) ?? name, traitsFile)
  if (!existsSync(file)) return traits.parse({})
  const parsed = traits.safeParse(readJsonFile(file))
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0]!
  throw new InputError(`${message}; known fields: ${Object.keys(traits.shape).join(", ")}`, {
    file,
    field: path.join(".") || undefined,
  })
}
