import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, it } from "vitest"
import { openWriting } from "../../lib/runs/servers"

const dir = mkdtempSync(join(tmpdir(), "musc-servers-"))
let status = 200
const server = createServer((_, response) => {
  response.writeHead(status, { "content-type": "application/json" })
  response.end(JSON.stringify(status === 200 ? { data: [{ id: "m", root: "org/m" }] } : { error: "no key" }))
})
afterAll(() => {
  server.close()
  rmSync(dir, { recursive: true })
})

it("a server that was known goes on without its key until it is asked; an unknown one does not", async () => {
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  const baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
  const notes: string[] = []
  const open = (name: string) =>
    openWriting(
      { model: "m", baseURL, keyVariable: "NO_SUCH_KEY", maxRetries: 0 },
      { file: join(dir, `${name}.calls.jsonl`), onNote: (line) => notes.push(line) },
    )
  const first = await open("known")
  await first.close()
  status = 401
  const again = await open("known")
  await again.close()
  expect(again.id).toBe(first.id)
  expect(notes).toEqual([expect.stringMatching(/^m: NO_SUCH_KEY: must hold the key .*going on with what is finished/)])
  await expect(open("unknown")).rejects.toThrow(/^NO_SUCH_KEY: must hold the key of http.*no key; set it/)
})
