import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { cachedModel, pullModel } from "../../lib/hub/hub"
import { parseHubName } from "../../lib/hub/name"
import { modelFolder } from "../../lib/runs/model"
import { type Faults, hubServer } from "../support/hub-server"
import { fixture } from "../support/tensors"

const repo = "org/tiny-Llama"
const name = { repo, revision: "main" }
const needed = [
  "config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "generation_config.json",
  "chat_template.jinja",
]
const weights = readFileSync(join(fixture("llama"), "model.safetensors"))
const files: Record<string, Buffer> = {
  ...Object.fromEntries(needed.map((file) => [file, readFileSync(join(fixture("llama"), file))])),
  "model.safetensors": weights,
  "README.md": Buffer.from("not needed"),
  "pytorch_model.bin": Buffer.alloc(5000),
}
const blobOf = (home: string, hash: string) => join(home, "hub/models--org--tiny-Llama/blobs", hash)

let home: string
let server: Awaited<ReturnType<typeof hubServer>>
const saved = { ...process.env }

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "hub-"))
  for (const key of Object.keys(process.env)) if (/^(HF_|HUGGING|XDG_CACHE)/.test(key)) delete process.env[key]
  process.env.HF_HOME = home
})
afterEach(() => {
  server?.close()
  rmSync(home, { recursive: true })
  process.env = { ...saved }
})

async function serve(faults: Faults = {}, held: Record<string, Buffer> = files) {
  server = await hubServer(repo, held, faults)
  process.env.HF_ENDPOINT = server.url
  return server
}
const pull = (revision = "main", more = {}) => pullModel({ repo, revision }, { pause: 0.001, ...more })
const fetched = () => server.requests.filter(({ store, path }) => store || path.includes("/resolve/"))
const told = async (work: Promise<unknown>): Promise<string> => {
  const error = await work.then(
    () => new Error("nothing was thrown"),
    (e: Error) => e,
  )
  return `${error.name}: ${error.message}`
}

it("brings further chat templates, of which Transformers takes the default one first, and checks them again", async () => {
  const more = {
    "additional_chat_templates/default.jinja": Buffer.from("D{{ messages[0].content }}"),
    "additional_chat_templates/tool_use.jinja": Buffer.from("T"),
    "additional_chat_templates/deeper/x.jinja": Buffer.from("not of the folder itself"),
    "assets/picture.jinja": Buffer.from("not needed"),
  }
  await serve({}, { ...files, ...more })
  const dir = await pull()
  expect(readdirSync(dir, { recursive: true }).sort()).toEqual(
    [
      ...[...needed, "model.safetensors", "additional_chat_templates"],
      ...["additional_chat_templates/default.jinja", "additional_chat_templates/tool_use.jinja"],
    ].sort(),
  )
  expect(readFileSync(join(dir, "additional_chat_templates/default.jinja"), "utf8")).toMatch(/^D/)
  writeFileSync(realpathSync(join(dir, "additional_chat_templates/tool_use.jinja")), "X")
  const notes: string[] = []
  await pull("main", { onNote: (note: string) => notes.push(note) })
  expect(notes.join()).toMatch(/tool_use\.jinja has other content than its hash says/)
  expect(readFileSync(join(dir, "additional_chat_templates/tool_use.jinja"), "utf8")).toBe("T")
})

describe("a model name of the hub", () => {
  it.each([
    ["org/name", "org/name", "main"],
    ["Qwen/Qwen2.5-0.5B@v1.0", "Qwen/Qwen2.5-0.5B", "v1.0"],
    ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
  ])("%s is read as repository and revision", (text, repo, revision) =>
    expect(parseHubName(text)).toEqual({ repo, revision }),
  )

  it.each([
    "name",
    "a/b/c",
    "../x",
    "./x",
    "/a/b",
    "a/..",
    "a/b@../../x",
    "a/b@/etc",
    "a--b/c",
    "a/.b",
    "a/b@",
    "a/b@x//y",
  ])("%s is not one", (text) => expect(parseHubName(text)).toBeNull())
})

describe("pulling a model", () => {
  it("brings what is needed into the layout of the cache that Python shares, and nothing else", async () => {
    const { commit } = await serve()
    const progress: [number, number][] = []
    const dir = await pull("main", { onProgress: (done: number, total: number) => progress.push([done, total]) })
    const store = join(home, "hub/models--org--tiny-Llama")
    expect(dir).toBe(join(store, "snapshots", commit))
    expect(readFileSync(join(store, "refs/main"), "utf8")).toBe(commit)
    for (const file of [...needed, "model.safetensors"]) {
      expect(readFileSync(join(dir, file)).equals(files[file]!), file).toBe(true)
      expect(lstatSync(join(dir, file)).isSymbolicLink()).toBe(true)
      expect(readlinkSync(join(dir, file))).toMatch(/^\.\.\/\.\.\/blobs\/([0-9a-f]{40}|[0-9a-f]{64})$/)
    }
    expect(existsSync(join(dir, "README.md")) || existsSync(join(dir, "pytorch_model.bin"))).toBe(false)
    const last = Math.round([...needed, "model.safetensors"].reduce((n, file) => n + files[file]!.length, 0) / 1e6)
    expect(progress.at(-1)).toEqual([last, last])
  })

  it("asks for nothing that it has, and needs no hub for a commit", async () => {
    const { commit } = await serve()
    const dir = await pull()
    const before = fetched().length
    expect(await pull()).toBe(dir)
    expect(fetched().length).toBe(before)
    server.close()
    expect(await pull(commit)).toBe(dir)
    expect(cachedModel(name)).toBe(dir)
    expect(await modelFolder(repo)).toBe(dir)
  })

  it("fetches config and tokenizer alone where no more is asked for, which counts as no model yet", async () => {
    await serve()
    const dir = await pull("main", { settingsOnly: true })
    expect(existsSync(join(dir, "tokenizer.json"))).toBe(true)
    expect(fetched().some(({ path }) => path.endsWith("model.safetensors"))).toBe(false)
    expect(cachedModel(name)).toBeUndefined()
  })

  it("follows tags beside branches", async () => {
    const { commit } = await serve()
    await pull("v1")
    expect(readFileSync(join(home, "hub/models--org--tiny-Llama/refs/v1"), "utf8")).toBe(commit)
    expect(cachedModel(name)).toBeUndefined()
  })

  it("goes on after cut connections from where they were cut", async () => {
    // The tokenizer is the first large file; each cut costs one more connection, the one without a byte too. What of a
    // cut connection reaches the disk is up to the system, so only the order of the new beginnings is certain.
    await serve({ cuts: [700, 500, 0, 300] })
    const dir = await pull()
    expect(readFileSync(join(dir, "tokenizer.json")).equals(files["tokenizer.json"]!)).toBe(true)
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true)
    const begins = fetched()
      .filter(({ store, path }) => store && path === "/tokenizer.json")
      .map(({ range }) => Number(/bytes=(\d+)-/.exec(range!)![1]))
    expect(begins).toHaveLength(5)
    expect(begins).toEqual([...begins].sort((a, b) => a - b))
    expect(begins[4]).toBeGreaterThan(0)
    expect(begins[4]).toBeLessThanOrEqual(1500)
  })

  it("goes on with what a killed process left", async () => {
    const { requests } = await serve()
    const dir = await pull()
    const hash = readlinkSync(join(dir, "model.safetensors")).split("/").at(-1)!
    rmSync(join(dir, "model.safetensors"))
    rmSync(blobOf(home, hash))
    writeFileSync(`${blobOf(home, hash)}.incomplete`, weights.subarray(0, 1000))
    requests.length = 0
    await pull()
    expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true)
    expect(fetched().filter(({ store }) => store)).toMatchObject([{ path: "/model.safetensors", range: "bytes=1000-" }])
  })

  it("starts a file again where the part on disk turns out wrong, or is too long", async () => {
    for (const length of [1000, weights.length, weights.length + 5]) {
      await serve()
      const dir = await pull()
      const hash = readlinkSync(join(dir, "model.safetensors")).split("/").at(-1)!
      rmSync(blobOf(home, hash))
      writeFileSync(`${blobOf(home, hash)}.incomplete`, Buffer.alloc(length))
      await pull()
      expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true)
      server.close()
    }
  })

  it("copes with a server that knows no ranges, and one that is busy for a moment", async () => {
    await serve({ cuts: [700], ignoresRanges: true, busy: 2 })
    expect(readFileSync(join(await pull(), "model.safetensors")).equals(weights)).toBe(true)
  })

  it.each(["model.safetensors", "generation_config.json"])(
    "refuses a damaged %s by its hash and leaves none",
    async (file) => {
      await serve({ damage: [file] })
      expect(await told(pull())).toMatch(
        new RegExp(`InputError: .*resolve/[0-9a-f]+/${file}: must have the hash [0-9a-f]+, got [0-9a-f]+; .*try again`),
      )
      expect(cachedModel(name)).toBeUndefined()
      expect(existsSync(join(home, "hub/models--org--tiny-Llama/snapshots", server.commit, file))).toBe(false)
      server.faults.damage = []
      expect(readFileSync(join(await pull(), file)).equals(files[file]!)).toBe(true)
    },
  )

  it("gives up on a connection that never brings a byte, and says how to go on", async () => {
    await serve({ cuts: Array(100).fill(0) })
    expect(await told(pull())).toMatch(
      /InputError: .*could not download: ".*" at byte 0 of \d+, after 5 connections; check the network and run the same/,
    )
  })

  it("shows its token to the hub alone, never to the store that it redirects to", async () => {
    const { requests } = await serve({ token: "hf_secret" })
    process.env.HF_TOKEN = "hf_secret"
    await pull()
    expect(
      requests.filter(({ store }) => !store).every(({ authorization }) => authorization === "Bearer hf_secret"),
    ).toBe(true)
    const stored = requests.filter(({ store }) => store)
    expect(stored.length).toBeGreaterThan(0)
    expect(stored.every(({ authorization }) => authorization === undefined)).toBe(true)
  })

  it("takes the token that a login left in HF_HOME", async () => {
    await serve({ token: "hf_kept" })
    writeFileSync(join(home, "token"), "hf_kept\n")
    expect(existsSync(await pull())).toBe(true)
  })

  it("says what to do about 401 and 404", async () => {
    await serve({ token: "hf_secret" })
    expect(await told(pull())).toBe(
      'InputError: org/tiny-Llama@main: must be readable, got status 401 ("Access is restricted"); check the name; for a gated ' +
        "or private model accept its terms on its page and set HF_TOKEN to a token that may read it",
    )
    server.faults.token = undefined
    expect(await told(pull("v9"))).toMatch(
      /v9: must be readable, got status 404 .*check the name of the model and its revision/,
    )
    expect(await told(modelFolder("org/other"))).toMatch(/org\/other@main: must be readable, got status 404/)
  })

  it("offline, uses the cache alone", async () => {
    const { requests } = await serve()
    process.env.HF_HUB_OFFLINE = "1"
    expect(await told(pull())).toMatch(/must be in the cache .* while HF_HUB_OFFLINE is set, got none/)
    delete process.env.HF_HUB_OFFLINE
    const dir = await pull()
    process.env.HF_HUB_OFFLINE = "1"
    requests.length = 0
    expect(await pull()).toBe(dir)
    expect(requests).toEqual([])
  })

  it("says so when the hub cannot be reached", async () => {
    const { url } = await serve()
    server.close()
    expect(await told(pull())).toMatch(new RegExp(`${url} must be reachable, got .*ECONNREFUSED.*HF_HUB_OFFLINE=1`))
  })

  it("stops on request and goes on later", async () => {
    await serve({ cuts: Array(50).fill(100) })
    const stop = new AbortController()
    const work = pull("main", { signal: stop.signal, onProgress: () => fetched().length > 10 && stop.abort() })
    expect(await told(work)).toMatch(/^StoppedError: .*download stopped at byte \d+/)
    server.faults.cuts = []
    expect(readFileSync(join(await pull(), "model.safetensors")).equals(weights)).toBe(true)
  })

  it("takes all shards of an index, and none beside the single file", async () => {
    const index = { weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" } }
    const { "model.safetensors": _, ...rest } = files
    const shards = {
      "model-00001-of-00002.safetensors": Buffer.from("one"),
      "model-00002-of-00002.safetensors": Buffer.from("two"),
    }
    const indexed = { "model.safetensors.index.json": Buffer.from(JSON.stringify(index)), ...shards }
    await serve({}, { ...rest, ...indexed })
    const dir = await pull()
    expect(Object.keys(shards).map((file) => readFileSync(join(dir, file), "utf8"))).toEqual(["one", "two"])
    rmSync(join(dir, "model-00002-of-00002.safetensors"))
    expect(cachedModel(name)).toBeUndefined()
    server.close()
    rmSync(join(home, "hub"), { recursive: true })
    await serve({}, { ...files, ...indexed })
    expect(existsSync(join(await pull(), "model-00001-of-00002.safetensors"))).toBe(false)
  })

  it("refuses a model that cannot be run here before its weights are fetched", async () => {
    await serve({}, { ...files, "config.json": Buffer.from('{"model_type":"gpt2"}') })
    expect(await told(pull())).toMatch(/CheckpointError: .*model_type must be one of llama/)
    expect(fetched().some(({ path }) => path.endsWith("model.safetensors"))).toBe(false)
    server.close()
    const { "tokenizer.json": _, ...rest } = files
    await serve({}, rest)
    expect(await told(pull())).toMatch(
      /org\/tiny-Llama: must hold tokenizer.json, got .*choose a repository with safetensors/,
    )
  })

  // What a hostile server says must not reach the file system: these name files outside the cache, or hashes that are
  // paths.
  const entry = { type: "file", path: "config.json", size: 3, oid: "a".repeat(40) }
  it.each([
    ["a path outside", [{ ...entry, path: "../../config.json" }], /must hold config.json/],
    ["an absolute path", [{ ...entry, path: "/tmp/config.json" }], /must hold config.json/],
    ["a hash that is a path", [{ ...entry, oid: "../../../../evil" }], /must have a hash and a size/],
    ["an LFS hash that is short", [{ ...entry, lfs: { oid: "a".repeat(40), size: 3 } }], /must have a hash and a size/],
    ["a size below nothing", [{ ...entry, size: -1 }], /must have a hash and a size/],
    ["no list", { nothing: true }, /must be reachable, got|must hold config.json/],
  ])("refuses %s from the server", async (_, listing, message) => {
    await serve({ listing })
    expect(await told(pull())).toMatch(message)
  })

  it("refuses shards of an index that lie elsewhere", async () => {
    const { "model.safetensors": _, ...rest } = files
    const index = Buffer.from(JSON.stringify({ weight_map: { a: "../../../x.safetensors" } }))
    await serve({}, { ...rest, "model.safetensors.index.json": index })
    expect(await told(pull())).toMatch(/weight_map must name .safetensors files of the same folder, got "..\/..\/..\/x/)
  })

  it("gives up on a file that is shorter than its listed size", async () => {
    await serve({ sizes: { "model.safetensors": weights.length + 1000 } })
    expect(await told(pull())).toMatch(/must have \d+ bytes as listed, got \d+; try again later/)
    server.close()
    // One that does not say how long the whole is, and starts anew each time.
    await serve({ sizes: { "model.safetensors": weights.length + 1000 }, ignoresRanges: true })
    expect(await told(pull())).toMatch(/could not download: .* after \d+ connections/)
    expect(fetched().length).toBeLessThan(100)
  })

  it("gives up on a server that sends next to nothing, for ever", async () => {
    await serve({ drip: 20 })
    expect(await told(pull("main", { stall: 0.1 }))).toMatch(/could not download: "next to nothing for 0.1 s"/)
  })

  it.each([0, 1000])("gives up on a list of files without end, %s of them a page", async (endlessPages) => {
    await serve({ endlessPages })
    expect(await told(pull())).toMatch(/must (list its files on 200 pages|have at most 10000 files), got more/)
    expect(server.requests.length).toBeLessThan(210)
  })

  it("reads no reply without end, and follows none elsewhere", async () => {
    await serve({ padding: 33 * 2 ** 20 })
    expect(await told(pull())).toMatch(/a reply must have at most 32 MiB, got more/)
    server.close()
    const other = await hubServer(repo, files)
    await serve({ redirect: `${other.url}/api/models/x` })
    expect(await told(pull())).toMatch(/must stay at http:.*, got a link to "http:/)
    expect(other.requests).toEqual([])
    other.close()
    server.close()
    await serve({ redirect: "/api/again" })
    expect(await told(pull())).toMatch(/must answer, got one redirect after the other/)
  })

  it("refuses a config or tokenizer that no model has, by its listed size", async () => {
    for (const [file, size] of [
      ["config.json", 17],
      ["tokenizer.json", 257],
    ] as const) {
      await serve({ sizes: { [file]: size * 2 ** 20 } })
      expect(await told(pull())).toMatch(new RegExp(`${file}: must have at most \\d+ MiB, got ${size}`))
      server.close()
    }
  })

  it("fetches a blob again that has the right size and other content", async () => {
    const { commit } = await serve()
    const dir = await pull()
    const blob = blobOf(home, readlinkSync(join(dir, "model.safetensors")).split("/").at(-1)!)
    for (const revision of ["main", commit]) {
      const damaged = Buffer.from(weights)
      damaged[5000]! ^= 1
      writeFileSync(blob, damaged)
      const notes: string[] = []
      await pull(revision, { onNote: (line: string) => notes.push(line) })
      expect(readFileSync(join(dir, "model.safetensors")).equals(weights)).toBe(true)
      expect(notes).toEqual([expect.stringMatching(/model.safetensors has other content than its hash says/)])
    }
  })

  it("follows no link where a part of a file should be, and mends links of a snapshot that lead elsewhere", async () => {
    await serve()
    const dir = await pull()
    const blob = blobOf(home, readlinkSync(join(dir, "model.safetensors")).split("/").at(-1)!)
    const outside = join(home, "outside")
    for (const plant of [symlinkSync, linkSync]) {
      rmSync(blob)
      writeFileSync(outside, "mine")
      plant(outside, `${blob}.incomplete`)
      await pull()
      expect(readFileSync(outside, "utf8")).toBe("mine")
      expect(readFileSync(blob).equals(weights)).toBe(true)
      expect(lstatSync(blob).isFile()).toBe(true)
    }
    rmSync(join(dir, "config.json"))
    symlinkSync(outside, join(dir, "config.json"))
    await pull()
    expect(readFileSync(join(dir, "config.json")).equals(files["config.json"]!)).toBe(true)
  })

  it("lets one process at a time fetch a model", async () => {
    await serve()
    const both = await Promise.allSettled([pull(), pull()])
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"])
  })

  it("takes a broken reference in the cache for none", async () => {
    mkdirSync(join(home, "hub/models--org--tiny-Llama/refs"), { recursive: true })
    writeFileSync(join(home, "hub/models--org--tiny-Llama/refs/main"), "../../../../etc")
    expect(cachedModel(name)).toBeUndefined()
  })
})
