import { existsSync } from "node:fs"
import { basename, join } from "node:path"
import { InputError } from "../errors"
import { cachedModel, type PullOptions, parseHubName, pullModel } from "../hub/hub"
import type { Progress } from "./context"

/** Models that come with the package. */
const shipped = join(__dirname, "../../data/models")

/**
 * The folder of a model: a path, the name of a model that comes with the package, or `org/name[@revision]` on the hub. One
 * of those that lies in the cache is taken as it is, without a question to the hub; others are fetched.
 * @throws InputError for none of them, and as `pullModel`
 */
export async function modelFolder(
  name: string,
  options: Pick<PullOptions, "signal" | "settingsOnly"> & { onProgress?: (progress: Progress) => void } = {},
): Promise<string> {
  const found = [name, join(shipped, name)].find((dir) => existsSync(join(dir, "config.json")))
  if (found) return found
  const hub = parseHubName(name)
  if (hub && !existsSync(name)) {
    const onProgress = (done: number, total: number) =>
      options.onProgress?.({ stage: `pull ${name}`, unit: "MB", done, total })
    return cachedModel(hub) ?? pullModel(hub, { ...options, onProgress })
  }
  throw new InputError(
    `a model must be a folder with config.json, org/name on the hub, or one that comes with musc, got ${name}; check the path`,
    { field: "model" },
  )
}

/** Whether this is a model of the embedded world: `world`, `world-small`, or a folder of that name. */
export const isEmbedded = (name: string) => /^world(-\w+)?$/.test(basename(name))
