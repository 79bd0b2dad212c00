import { existsSync } from "node:fs"
import { InputError } from "../errors"
import { cachedModel, type PullOptions, pullModel } from "../hub/hub"
import { parseHubName } from "../hub/name"
import { localFolder, modelTraits } from "../model/traits"
import type { Progress } from "./context"

/**
 * The folder of a model: a path, the name of a model that comes with the package, or `org/name[@revision]` on the hub.
 * One of those that lies in the cache is taken as it is, without a question to the hub; others are fetched.
 * @throws InputError for none of them, and as `pullModel`
 */
export async function modelFolder(
  name: string,
  options: Pick<PullOptions, "signal" | "settingsOnly"> & { onProgress?: (progress: Progress) => void } = {},
): Promise<string> {
  const folder = localFolder(name)
  if (folder) return folder
  const hub = parseHubName(name)
  if (hub && !existsSync(name)) {
    const onProgress = (done: number, total: number) =>
      options.onProgress?.({ stage: `pull ${name}`, unit: "MB", done, total })
    return cachedModel(hub) ?? pullModel(hub, { ...options, onProgress })
  }
  throw new InputError(
    "a model must be a folder with config.json, org/name on the hub, or one that comes with musc, " +
      `got ${name}; check the path`,
    { field: "model" },
  )
}

/** Whether this is a model of the embedded world, which its folder says (a copy or a merged one too). */
export const isEmbedded = (name: string) => modelTraits(name).embedded
