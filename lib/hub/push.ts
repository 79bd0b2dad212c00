import { openAsBlob } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { createRepo, HubApiError, modelInfo, uploadFiles } from "@huggingface/hub"
import { show } from "../data/json-file"
import { InputError } from "../errors"
import { companions } from "../model/merge"
import { hubEndpoint, hubToken } from "./access"
import { refusal } from "./download"

/** Pushes a folder to a Hugging Face hub: an adapter or a checkpoint, with its card. */

/** What belongs to an adapter or a checkpoint; nothing else of a folder leaves the machine. */
const wanted: readonly string[] = [
  ...["adapter_config.json", "config.json", "model.safetensors.index.json"],
  ...companions,
]

export interface PushFile {
  name: string
  bytes: number
}

/** The files of a folder that a push takes. @throws InputError for a folder that is neither adapter nor checkpoint */
export async function pushFiles(dir: string): Promise<PushFile[]> {
  const names = (await readdir(dir).catch(() => []))
    .filter((name) => wanted.includes(name) || name.endsWith(".safetensors"))
    .sort()
  const isAdapter = names.includes("adapter_config.json") && names.includes("adapter_model.safetensors")
  const isModel = names.includes("config.json") && names.some((name) => name.endsWith(".safetensors"))
  if (!isAdapter && !isModel)
    throw new InputError(
      "must be the folder of an adapter or of a checkpoint with safetensors, got none; check the path",
      {
        file: dir,
      },
    )
  return Promise.all(names.map(async (name) => ({ name, bytes: (await stat(join(dir, name))).size })))
}

/** The licence that the hub names for a model; undefined where it names none or cannot be asked. */
export async function hubLicence(name: string): Promise<string | undefined> {
  try {
    const { tags } = await modelInfo({
      ...{ name, additionalFields: ["tags"], hubUrl: hubEndpoint(), accessToken: hubToken() },
    })
    return tags?.find((tag) => tag.startsWith("license:"))?.slice("license:".length)
  } catch {
    return undefined
  }
}

/**
 * Makes the repository where there is none, and commits the files of a folder with a card. Returns the address.
 * @throws InputError: no token, no access, no connection
 */
export async function pushFolder(
  dir: string,
  repo: string,
  card: string,
  { isPrivate = false, title = "Push by musc" } = {},
): Promise<string> {
  const accessToken = hubToken()
  if (!accessToken) {
    const rule = "a push needs a token that may write, got none; set HF_TOKEN, or run `hf auth login`"
    throw new InputError(rule)
  }
  const access = { hubUrl: hubEndpoint(), accessToken }
  const name = { type: "model", name: repo } as const
  const held = await pushFiles(dir)
  try {
    await createRepo({ repo: name, visibility: isPrivate ? "private" : "public", ...access }).catch((error) => {
      if (!(error instanceof HubApiError && error.statusCode === 409)) throw error // 409: it is there already
    })
    const files = await Promise.all(
      held.map(async (file) => ({ path: file.name, content: await openAsBlob(join(dir, file.name)) })),
    )
    const readme = { path: "README.md", content: new Blob([card]) }
    await uploadFiles({ repo: name, files: [...files, readme], commitTitle: title, useXet: false, ...access })
  } catch (error) {
    if (error instanceof HubApiError) throw refusal(repo, error.statusCode, show(error.data?.error ?? error.message))
    if (!(error instanceof Error)) throw error
    const said = error.cause instanceof Error ? error.cause.message : error.message
    const rule = `${hubEndpoint()} must take the files, got ${show(said)}; check the network, HF_ENDPOINT and HF_TOKEN`
    throw new InputError(rule, { file: repo }, { cause: error })
  }
  return `${hubEndpoint()}/${repo}`
}
