import { existsSync, readdirSync, readFileSync } from "node:fs"
import { mkdir, readlink, rm, stat, statfs, symlink } from "node:fs/promises"
import { basename, dirname, join, relative, resolve } from "node:path"
import { getHFHubCachePath, getRepoFolderName } from "@huggingface/hub"
import { copyFinished, fileError, writeAtomic } from "../data/files"
import { isJsonObject, readJsonFile, show } from "../data/json-file"
import { lockFolder } from "../data/lock"
import { variable } from "../environment"
import { InputError } from "../errors"
import { loadConfig } from "../model/config"
import { templateFolder } from "../text/chat-template"
import { hubToken } from "./access"
import { type DownloadOptions, download, holds, type RemoteFile } from "./download"
import { describe } from "./listing"
import { type HubName, isCommit } from "./name"

/**
 * Models of a Hugging Face hub, in the cache that Python shares: `models--org--name/` with `blobs/{hash}`,
 * `snapshots/{commit}/{file}` linking to them, and `refs/{branch or tag}` naming a commit. Names and hashes that a
 * server sends are checked before they become part of a path.
 *
 * The hub client lists and describes; it neither resumes nor verifies, so the transfer is our own (download.ts).
 */

export interface PullOptions extends Pick<DownloadOptions, "signal" | "stall" | "pause"> {
  /** config and tokenizer alone, without weights */
  settingsOnly?: boolean
  /** told megabytes on disk, all files together */
  onProgress?: (done: number, total: number) => void
  /** told what was found damaged in the cache, and is fetched again */
  onNote?: (line: string) => void
}

const storeOf = (repo: string) => join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: repo }))

/** The folder of a model that lies in the cache with all its files; undefined for one that does not. */
export function cachedModel({ repo, revision }: HubName): string | undefined {
  const ref = join(storeOf(repo), "refs", revision)
  const commit = isCommit(revision) ? revision : existsSync(ref) ? readFileSync(ref, "utf8").trim() : ""
  const dir = join(storeOf(repo), "snapshots", commit)
  return isCommit(commit) && isWhole(dir) ? dir : undefined
}

function isWhole(dir: string): boolean {
  const has = (name: string) => existsSync(join(dir, name))
  return has("config.json") && has("tokenizer.json") && (has(single) || (has(index) && shardsOf(dir).every(has)))
}

const single = "model.safetensors"
const index = "model.safetensors.index.json"
const settingsFiles: readonly string[] = [
  ...["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
  ...["added_tokens.json", "chat_template.jinja", index],
]
/** Whether a file is one of those that come before the weights. */
const isSmall = (file: string) =>
  settingsFiles.includes(file) || (file.startsWith(`${templateFolder}/`) && file.endsWith(".jinja"))

/**
 * Names of the weight files that the index of a folder lists. @throws InputError for a name that is no file of the
 * folder
 */
function shardsOf(dir: string): string[] {
  const file = join(dir, index)
  const map = readJsonFile(file).weight_map
  const names = [...new Set(isJsonObject(map) ? Object.values(map) : [])]
  const odd = names.find((name) => typeof name !== "string" || !/^[\w-][\w.-]{0,200}\.safetensors$/.test(name))
  if (odd === undefined && names.length) return names as string[]
  throw new InputError(`weight_map must name .safetensors files of the same folder, got ${show(odd)}`, { file })
}

/**
 * Brings a model into the cache and returns its folder (a snapshot). Only what is needed to run it: config, tokenizer,
 * chat template, safetensors. Everything that is there already is kept if its hash is right, and fetched again if not;
 * a commit that is whole needs no network at all. Reads HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN (or the token of
 * `hf auth login`) and HF_HUB_OFFLINE.
 * @throws InputError: no such model, no access, offline, damaged files, a full disk; CheckpointError for a model that
 * cannot be run here, before its weights are fetched; StoppedError when aborted
 */
export async function pullModel(name: HubName, options: PullOptions = {}): Promise<string> {
  const { repo, revision } = name
  const held = await soundModel(name, options)
  if (held && isCommit(revision)) return held
  if (variable("HF_HUB_OFFLINE")) {
    if (held) return held
    throw new InputError(
      `${repo}@${revision} must be in the cache ${getHFHubCachePath()} while HF_HUB_OFFLINE is set, got none or part ` +
        "of it; unset the variable and run `musc pull` once",
      { field: "model" },
    )
  }
  const store = storeOf(repo)
  const lock = lockFolder(join(getHFHubCachePath(), ".locks", getRepoFolderName({ type: "model", name: repo })))
  try {
    const { commit, files } = await describe(name, options)
    const dir = join(store, "snapshots", commit)
    const fetchAll = async (names: readonly string[], before: number, total: number) => {
      let done = before
      for (const file of names) {
        const remote = files.get(file)!
        const blob = join(store, "blobs", remote.hash)
        const onBytes = (bytes: number) =>
          options.onProgress?.(Math.round((done + bytes) / 1e6), Math.round(total / 1e6))
        await download(remote, blob, { ...options, token: hubToken(), onBytes })
        await link(blob, join(dir, file), remote)
        done += remote.size
      }
      return done
    }
    const sizeOf = (names: readonly string[]) => names.reduce((sum, file) => sum + files.get(file)!.size, 0)
    const first = [...files.keys()].filter((file) => isSmall(file) && !(file === index && files.has(single)))
    need(repo, files, ["config.json", "tokenizer.json", files.has(single) ? single : index])
    for (const file of first) requireSmall(`${repo}, ${file}`, files.get(file)!.size)
    await fetchAll(first, 0, sizeOf(first))
    loadConfig(dir) // refuses an architecture before gigabytes of it are fetched
    if (options.settingsOnly) return dir
    const weights = files.has(single) ? [single] : shardsOf(dir)
    need(repo, files, weights)
    const total = sizeOf(first) + sizeOf(weights)
    await checkSpace(
      store,
      weights.filter((file) => !existsSync(join(dir, file))).map((file) => files.get(file)!),
    )
    await fetchAll(weights, sizeOf(first), total)
    if (revision !== commit) {
      await mkdir(dirname(join(store, "refs", revision)), { recursive: true })
      await writeAtomic(join(store, "refs", revision), commit)
    }
    return dir
  } catch (error) {
    throw fileError(error, store, "write")
  } finally {
    lock.release()
  }
}

const MiB = 2 ** 20

/** Most bytes of a file that is read whole. The largest tokenizers have some 35 MB. */
const smallBytes = (file: string) => (/tokenizer\.json$|index\.json$/.test(file) ? 256 : 16) * MiB

function requireSmall(file: string, size: number): void {
  const most = smallBytes(file)
  if (size > most)
    throw new InputError(`must have at most ${most / MiB} MiB, got ${Math.ceil(size / MiB)}; choose another model`, {
      file,
    })
}

/**
 * A model of the cache whose files all have the content that the names of their blobs say. What has not is removed, so
 * that it is fetched again. Copies, on systems without links, are taken as they are.
 */
async function soundModel(name: HubName, { onNote }: PullOptions): Promise<string | undefined> {
  const dir = cachedModel(name)
  if (!dir) return undefined
  let sound = true
  for (const file of readdirSync(dir, { recursive: true, encoding: "utf8" })) {
    const blob = basename(await readlink(join(dir, file)).catch(() => ""))
    if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(blob)) continue
    const path = join(storeOf(name.repo), "blobs", blob)
    const size = (await stat(path).catch(() => null))?.size ?? -1
    if (await holds(path, { hash: blob, size })) continue
    onNote?.(`note: ${join(dir, file)} has other content than its hash says; it is fetched again`)
    sound = false
  }
  return sound ? dir : undefined
}

function need(repo: string, files: ReadonlyMap<string, RemoteFile>, names: readonly string[]): void {
  const missing = names.filter((name) => !files.has(name))
  if (!missing.length) return
  throw new InputError(
    `must hold ${missing.join(", ")}, got ${[...files.keys()].slice(0, 20).join(", ") || "no files"}; ` +
      "choose a repository with safetensors and a fast tokenizer",
    { file: repo },
  )
}

async function checkSpace(store: string, files: readonly RemoteFile[]): Promise<void> {
  const wanted = files.reduce((sum, { size }) => sum + size, 0)
  const { bavail, bsize } = await statfs(store)
  const free = bavail * bsize
  if (wanted <= free) return
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
  throw new InputError(`must have ${gb(wanted)} free, got ${gb(free)}; make room, or set HF_HOME to another disk`, {
    file: store,
  })
}

/**
 * A link as Python makes it, relative; a copy where the system has no links. What leads or holds otherwise is replaced.
 */
async function link(blob: string, at: string, remote: RemoteFile): Promise<void> {
  const target = await readlink(at).catch(() => undefined)
  if (target !== undefined && resolve(dirname(at), target) === blob) return
  if (target === undefined && (await holds(at, remote))) return
  await mkdir(dirname(at), { recursive: true })
  await rm(at, { force: true })
  await symlink(relative(dirname(at), blob), at).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EPERM" && error.code !== "ENOSYS") throw error
    return copyFinished(blob, at)
  })
}
