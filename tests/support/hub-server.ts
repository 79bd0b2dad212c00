import { createHash } from "node:crypto"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

/** What a made-up hub does wrong, and whom it lets in. */
export interface Faults {
  /** bytes after which a connection that sends a file is cut, one number a connection; then no more cuts */
  cuts?: number[]
  /** files whose bytes are changed on the way */
  damage?: string[]
  /** answers ranges with the whole file */
  ignoresRanges?: boolean
  /** the token without which nothing is shown */
  token?: string
  /** answers with 503 this many times first */
  busy?: number
  /** sends this as the list of files instead of its own */
  listing?: unknown
  /** lists these sizes instead of the true ones, by file */
  sizes?: Record<string, number>
  /** every page of the list, this many entries long, names a further one */
  endlessPages?: number
  /** answers questions, not files, with a redirect to this address */
  redirect?: string
  /** follows every answer to a question with this many spaces */
  padding?: number
  /** sends files of more than 1000 bytes a byte at a time, every so many ms */
  drip?: number
}

/**
 * A hub on localhost that speaks the protocol of model pages: model info, list of files, and files under `resolve`.
 * Files above 1000 bytes are kept as LFS and redirected to a second origin, as on the real hub.
 */
export async function hubServer(repo: string, files: Record<string, Buffer>, faults: Faults = {}) {
  const commit = createHash("sha1").update(repo).digest("hex")
  const requests: { path: string; range?: string; authorization?: string; store: boolean }[] = []
  const isLarge = (file: Buffer) => file.length > 1000
  const sha = (kind: string, ...parts: (string | Buffer)[]) =>
    parts.reduce((hash, part) => hash.update(part), createHash(kind)).digest("hex")
  const entries = (below: string) =>
    Object.entries(files).filter(([path]) => path.startsWith(below) && !path.slice(below.length).includes("/"))
  const folders = () => new Set(Object.keys(files).flatMap((path) => /^(.+)\/[^/]+$/.exec(path)?.[1] ?? []))
  const listing = (folder = "") => [
    ...(folder ? [] : [...folders()].map((path) => ({ type: "directory", path, size: 0, oid: commit }))),
    ...entries(folder && `${folder}/`).map(([path, file]) => ({
      type: "file",
      path,
      size: faults.sizes?.[path] ?? file.length,
      oid: sha("sha1", `blob ${file.length}\0`, file),
      ...(isLarge(file) && {
        lfs: { oid: sha("sha256", file), size: faults.sizes?.[path] ?? file.length, pointerSize: 130 },
      }),
    })),
  ]

  const send = (name: string, request: IncomingMessage, response: ServerResponse) => {
    const whole = Buffer.from(files[name]!)
    if (faults.damage?.includes(name)) whole[whole.length - 1]! ^= 1
    const from = faults.ignoresRanges ? 0 : Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0)
    const ranged = request.headers.range && !faults.ignoresRanges
    if (from >= whole.length) return response.writeHead(416).end()
    response.writeHead(ranged ? 206 : 200, {
      "content-length": whole.length - from,
      ...(ranged && { "content-range": `bytes ${from}-${whole.length - 1}/${whole.length}` }),
    })
    if (faults.drip && isLarge(whole)) {
      let at = from
      const timer = setInterval(() => at < whole.length && response.write(whole.subarray(at, ++at)), faults.drip)
      response.on("close", () => clearInterval(timer))
      return
    }
    const cut = isLarge(whole) ? faults.cuts?.shift() : undefined
    if (cut === undefined) return response.end(whole.subarray(from))
    response.write(whole.subarray(from, from + cut), () => setTimeout(() => response.destroy(), 100))
  }
  const serve = (store: boolean) =>
    createServer((request, response) => {
      const path = decodeURIComponent(new URL(request.url!, "http://x").pathname)
      const { range, authorization } = request.headers
      requests.push({ path, range, authorization, store })
      const refuse = (status: number, error: string) =>
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error }))
      if (store) return send(path.slice(1), request, response)
      if (faults.redirect && path.startsWith("/api/"))
        return response.writeHead(307, { location: faults.redirect }).end()
      if (faults.busy && faults.busy-- > 0) return refuse(503, "busy")
      if (faults.token && authorization !== `Bearer ${faults.token}`) return refuse(401, "Access is restricted")
      const json = (value: unknown, more: Record<string, string> = {}) =>
        response
          .writeHead(200, { "content-type": "application/json", ...more })
          .end(JSON.stringify(value) + " ".repeat(faults.padding ?? 0))
      const revision = path.startsWith(`/api/models/${repo}/revision/`) && path.split("/revision/")[1]
      if (revision)
        return ["main", "v1", commit].includes(revision) ? json({ sha: commit }) : refuse(404, "no revision")
      if (faults.endlessPages !== undefined && path.includes("/tree/")) {
        const page = Array.from({ length: faults.endlessPages }, (_, i) => ({
          type: "file",
          path: `f${i}`,
          size: 1,
          oid: commit,
        }))
        return json(page, { link: `<${url}${path}?cursor=${requests.length}>; rel="next"` })
      }
      const [, tree, folder] = path.split(/^\/api\/models\/.+\/tree\/([^/]+)\/?/)
      if (tree === commit && path.startsWith(`/api/models/${repo}/`)) return json(faults.listing ?? listing(folder))
      const name = path.split(`/${repo}/resolve/${commit}/`)[1]
      if (!name || !files[name]) return refuse(404, "Repository not found")
      if (isLarge(files[name]!)) return response.writeHead(302, { location: `${storeUrl}/${name}` }).end()
      send(name, request, response)
    })
  const listen = async (store: boolean) => {
    const server = serve(store)
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
  }
  const store = await listen(true)
  const storeUrl = store.url
  const { server, url } = await listen(false)
  return {
    url,
    commit,
    requests,
    faults,
    close() {
      for (const one of [server, store.server]) {
        one.closeAllConnections()
        one.close()
      }
    },
  }
}
