import { existsSync } from "node:fs"
import { join } from "node:path"
import { InputError } from "../errors"

/** Models that come with the package. */
const shipped = join(__dirname, "../../data/models")

/** The folder of a model: a path, or the name of a model that comes with the package. @throws InputError for neither. */
export function modelFolder(name: string): string {
  const found = [name, join(shipped, name)].find((dir) => existsSync(join(dir, "config.json")))
  if (found) return found
  throw new InputError(
    `a model must be a folder with config.json or the name of one that comes with musc, got ${name}; check the path`,
    {
      field: "model",
    },
  )
}

/** Whether this is the embedded world's model. */
export const isEmbedded = (name: string) => name === "world"
