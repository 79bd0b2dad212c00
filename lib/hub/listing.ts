import { setTimeout as sleep } from "node:timers/promises"
import { HubApiError, type ListFileEntry, listFiles, modelInfo } from "@huggingface/hub"
import { show } from "../data/json-file"
import { InputError, MuscError, StoppedError } from "../errors"
import { templateFolder } from "../text/chat-template"
import { hubEndpoint, hubToken } from "./access"
import { type DownloadOptions, type RemoteFile, refusal } from "./download"
import { type HubName, isCommit } from "./name"

const topFile = /^[\w-][\w.-]{0,200}$/
const maxFiles = 10_000
const maxPages = 200
const maxHops = 5
const maxReply = 2 ** 25

type RequestOptions = Pick<DownloadOptions, "signal" | "pause">

/**
 * The commit that a revision stands for, and its files: those at the top and further chat templates.
 * @throws InputError: no such model, no access, a server that cannot be reached or says what no hub would;
 * StoppedError when aborted
 */
export async function describe({ repo, revision }: HubName, options: RequestOptions) {
  const where = `${repo}@${revision}`
  const access = { hubUrl: hubEndpoint(), accessToken: hubToken(), fetch: hubFetch(where, options) }
  try {
    const { sha } = await modelInfo({ name: repo, revision, additionalFields: ["sha"], ...access })
    if (!isCommit(sha)) throw new InputError(`must be a commit, got ${show(sha)}; check HF_ENDPOINT`, { file: where })
    const files = new Map<string, RemoteFile>()
    let seen = 0
    for await (const entry of entries({ repo, revision: sha, ...access })) {
      if (++seen > maxFiles) throw new InputError(`must have at most ${maxFiles} files, got more`, { file: where })
      const { type, path } = entry
      if (type !== "file" || !topFile.test(path.replace(`${templateFolder}/`, ""))) continue
      files.set(path, { url: `${hubEndpoint()}/${repo}/resolve/${sha}/${path}`, ...contentOf(entry, where) })
    }
    return { commit: sha, files }
  } catch (error) {
    if (options.signal?.aborted && !(error instanceof MuscError))
      throw new StoppedError("pull stopped", { cause: error })
    throw listingError(error, where)
  }
}

/** What a repository lists at its top, and in its folder of further chat templates. */
async function* entries(source: Parameters<typeof listFiles>[0]): AsyncGenerator<ListFileEntry> {
  let hasTemplates = false
  for await (const entry of listFiles(source)) {
    hasTemplates ||= entry.type === "directory" && entry.path === templateFolder
    yield entry
  }
  if (hasTemplates) yield* listFiles({ ...source, path: templateFolder })
}

/** Hash and size of a listed file: of what it holds, where that is stored elsewhere (LFS). @throws InputError */
function contentOf({ path, size, oid, lfs }: ListFileEntry, where: string): Pick<RemoteFile, "hash" | "size"> {
  const held = { hash: lfs?.oid ?? oid ?? "", size: lfs?.size ?? size }
  const isHash = (lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(held.hash)
  if (isHash && Number.isSafeInteger(held.size) && held.size >= 0) return held
  const rule = `must have a hash and a size, got ${show(held)}; check HF_ENDPOINT`
  throw new InputError(rule, { file: `${where}, ${path}` })
}

function listingError(error: unknown, where: string): Error {
  if (error instanceof MuscError) return error
  if (error instanceof HubApiError) return refusal(where, error.statusCode, show(error.data?.error ?? error.message))
  const { message, cause } = error as Error
  const said = cause instanceof Error ? cause.message || (cause as NodeJS.ErrnoException).code : message
  return new InputError(
    `${hubEndpoint()} must be reachable, got ${show(said)}; check the network, HF_ENDPOINT and HF_TOKEN, or set ` +
      "HF_HUB_OFFLINE=1 to use what the cache holds",
    { file: where },
    { cause: error },
  )
}

/**
 * Requests of one listing. The client follows the server's links to further pages, with the token; so they are counted,
 * and none may lead to another server. A server that is busy or does not answer is asked four times.
 */
function hubFetch(where: string, { signal, pause = 0.5 }: RequestOptions): typeof fetch {
  let pages = 0
  return async (input, init) => {
    if (++pages > maxPages) throw new InputError(`must list its files on ${maxPages} pages, got more`, { file: where })
    for (let left = 3; ; left--) {
      try {
        const response = await followed(`${input}`, { ...init, signal }, where)
        if (!left || (response.status < 500 && response.status !== 429)) return await limited(response, where)
        await response.body?.cancel()
      } catch (error) {
        if (error instanceof InputError || !left || signal?.aborted) throw error
      }
      await sleep((1000 * pause) / left)
    }
  }
}

/** The response behind redirects, each of which has a minute. @throws InputError for one that leaves the hub */
async function followed(address: string, init: RequestInit, where: string): Promise<Response> {
  const home = hubEndpoint()
  let at = address
  for (let hops = 0; hops <= maxHops; hops++) {
    if (new URL(at).origin !== new URL(home).origin)
      throw new InputError(`must stay at ${home}, got a link to ${show(at)}`, { file: where })
    const limit = AbortSignal.any([AbortSignal.timeout(60_000), ...(init.signal ? [init.signal] : [])])
    const response = await fetch(at, { ...init, redirect: "manual", signal: limit })
    const target = response.status >= 300 && response.status < 400 && response.headers.get("location")
    if (!target || !URL.canParse(target, at)) return response
    await response.body?.cancel()
    at = new URL(target, at).href
  }
  throw new InputError("must answer, got one redirect after the other", { file: where })
}

/** The same response with a body of at most 32 MiB, read to its end. */
async function limited(response: Response, where: string): Promise<Response> {
  const blocks: Uint8Array[] = []
  let bytes = 0
  for await (const block of response.body ?? []) {
    bytes += block.length
    if (bytes > maxReply)
      throw new InputError("a reply must have at most 32 MiB, got more; check HF_ENDPOINT", { file: where })
    blocks.push(block)
  }
  const { status, statusText, headers } = response
  return new Response(bytes ? Buffer.concat(blocks) : null, { status, statusText, headers })
}
