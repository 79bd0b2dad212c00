import { createHash } from "node:crypto"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { afterAll, afterEach, expect, it, vi } from "vitest"
import { register } from "../../lib/cli/push"
import { fixture } from "../support/tensors"

/** A hub on localhost that takes commits: large files by LFS, small ones within the commit. */
async function takingHub() {
  const requests: string[] = []
  const stored: Record<string, Buffer> = {}
  const uploads: Record<string, Buffer> = {}
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    const path = decodeURIComponent(request.url!)
    requests.push(`${request.method} ${path}`)
    const json = (value: unknown) =>
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value))
    if (request.method === "PUT") {
      uploads[path.slice("/store/".length)] = body
      return response.writeHead(200, { etag: "x" }).end()
    }
    if (request.headers.authorization !== "Bearer hf_test") return response.writeHead(401).end("{}")
    if (path === "/api/repos/create") return json({ url: "x", id: "x" })
    if (path.includes("/preupload/")) {
      const { files } = JSON.parse(`${body}`) as { files: { path: string }[] }
      const mode = (name: string) => (name.endsWith(".safetensors") ? "lfs" : "regular")
      return json({
        files: files.map((file) => ({ path: file.path, uploadMode: mode(file.path), shouldIgnore: false })),
      })
    }
    if (path.endsWith("/info/lfs/objects/batch")) {
      const { objects } = JSON.parse(`${body}`) as { objects: { oid: string; size: number }[] }
      const upload = (oid: string) => ({ upload: { href: `${url}/store/${oid}`, header: {} } })
      return json({ transfer: "basic", objects: objects.map(({ oid, size }) => ({ oid, size, actions: upload(oid) })) })
    }
    if (path.includes("/commit/")) {
      for (const line of `${body}`.trim().split("\n")) {
        const { key, value } = JSON.parse(line)
        if (key === "file") stored[value.path] = Buffer.from(value.content, value.encoding)
        if (key === "lfsFile") stored[value.path] = uploads[value.oid]!
      }
      return json({ commitUrl: `${url}/commit`, commitOid: "0".repeat(40), hookOutput: "" })
    }
    response.writeHead(404).end("{}")
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, requests, stored, close: () => server.close() }
}

const root = mkdtempSync(join(tmpdir(), "musc-push-"))
afterAll(() => rmSync(root, { recursive: true }))
afterEach(() => void vi.unstubAllEnvs())

/** An adapter where a run leaves it, with the run's settings and table. */
function adapter(): string {
  const run = join(root, "run")
  const dir = join(run, "seed-0/train/musc/adapter")
  mkdirSync(dir, { recursive: true })
  cpSync(join(fixture("llama"), "adapter"), dir, { recursive: true })
  writeFileSync(join(dir, "secret.txt"), "not to be pushed")
  writeFileSync(join(run, "config.json"), JSON.stringify({ instructionsFrom: "world", beta: 0.1, weighting: "kl" }))
  writeFileSync(join(run, "results.md"), "| method | ISR |\n| --- | ---: |\n| musc | 89.6 [87.3, 91.8] |\n")
  return dir
}

async function push(...args: string[]): Promise<string> {
  const program = new Command("musc").exitOverride()
  register(program)
  const log = vi.spyOn(console, "log").mockImplementation(() => {})
  try {
    await program.parseAsync(["push", ...args], { from: "user" })
    return log.mock.calls.map(([text]) => `${text}\n`).join("")
  } finally {
    log.mockRestore()
  }
}

it("musc push shows files and card first, and pushes both with --yes", async () => {
  const hub = await takingHub()
  try {
    vi.stubEnv("HF_ENDPOINT", hub.url)
    vi.stubEnv("HF_TOKEN", "hf_test")
    const dir = adapter()
    const args = [dir, "me/mine", "--base", "org/base", "--license", "apache-2.0"]
    const shown = await push(...args)
    expect(shown).toMatch(/adapter_model\.safetensors +0\.\d\d MB/)
    expect(shown).toContain('base_model: "org/base"\nlicense: apache-2.0\nlibrary_name: peft')
    expect(shown).toContain("| musc | 89.6 [87.3, 91.8] |")
    expect(shown).toContain("| weighting | kl |")
    expect(shown).toContain("Nothing was pushed to me/mine")
    expect(hub.requests).toEqual([])

    expect(await push(...args, "--yes")).toContain(`pushed: ${hub.url}/me/mine`)
    expect(Object.keys(hub.stored).sort()).toEqual(["README.md", "adapter_config.json", "adapter_model.safetensors"])
    const sha = (data: Buffer) => createHash("sha256").update(data).digest("hex")
    const { readFileSync } = await import("node:fs")
    for (const name of ["adapter_config.json", "adapter_model.safetensors"])
      expect(sha(hub.stored[name]!)).toBe(sha(readFileSync(join(dir, name))))
    expect(`${hub.stored["README.md"]}`).toMatch(/^---\nbase_model: "org\/base"[\s\S]*Method `musc`, seed 0\./)
  } finally {
    hub.close()
  }
})

it("musc push refuses a base without a known licence, a folder of something else, and a push without a token", async () => {
  vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9")
  vi.stubEnv("HF_TOKEN", "")
  vi.stubEnv("HF_HOME", root)
  const dir = adapter()
  await expect(push(dir, "me/mine", "--base", "org/base")).rejects.toThrow(
    /licence of org\/base must be known.*--license/,
  )
  await expect(push(root, "me/mine")).rejects.toThrow(/must be the folder of an adapter or of a checkpoint/)
  await expect(push(dir, "mine")).rejects.toThrow(/must be org\/name, got mine/)
  // The embedded model's own card names its licence.
  expect(await push(dir, "me/mine", "--base", "world")).toContain("license: apache-2.0")
  await expect(push(dir, "me/mine", "--base", "world", "--yes")).rejects.toThrow(/needs a token that may write/)
})
