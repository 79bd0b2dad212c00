import { type ChildProcess, spawn } from "node:child_process"
import type { AddressInfo } from "node:net"
import { createServer } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { useBackend } from "../../lib/device/tf"
import { openLocal } from "../../lib/engine/local"
import { openServer } from "../../lib/engine/server"
import { decomposePrompt } from "../../lib/musc/decompose"
import { worldInstructions } from "../../lib/world/spec"

// A server that others wrote, with the embedded model: `transformers serve`. It takes a Python environment with
// transformers[serving], which `npx musc python` does not hold; MUSC_SERVER_PYTHON names one (the folder that holds
// bin/).
const python = process.env.MUSC_SERVER_PYTHON
const model = join(__dirname, "../../data/models/world")
const skipped = python ? "" : " (skipped: MUSC_SERVER_PYTHON names no environment with transformers[serving])"

let child: ChildProcess
let baseURL = ""

describe.skipIf(!python)(`a server of Transformers${skipped}`, () => {
  beforeAll(async () => {
    await useBackend()
    const port = await new Promise<number>((done) => {
      const probe = createServer().listen(0, "127.0.0.1", () => {
        const { port } = probe.address() as AddressInfo
        probe.close(() => done(port))
      })
    })
    const args = ["serve", model, "--host", "127.0.0.1", "--port", `${port}`, "--device", "cpu", "--dtype", "float32"]
    child = spawn(join(python!, "bin/transformers"), args, {
      stdio: "ignore",
      env: { ...process.env, HF_HUB_OFFLINE: "1" },
    })
    baseURL = `http://127.0.0.1:${port}/v1`
    for (;;) {
      if (child.exitCode !== null) throw new Error(`transformers serve ended with ${child.exitCode}`)
      if (
        await fetch(`${baseURL}/models`).then(
          ({ ok }) => ok,
          () => false,
        )
      )
        return
      await sleep(300)
    }
  }, 180_000)
  afterAll(() => {
    child?.kill("SIGKILL")
  })

  it("writes what the model in this process writes, but for outer blanks", async () => {
    const { engine } = await openServer({ model, baseURL, concurrency: 4 })
    const local = openLocal(model)
    const own = local.engine()
    const rows = worldInstructions({ n: 6, seed: 3, split: "train" })
    const prompts = rows.flatMap((row) => [row.instruction, decomposePrompt(row)])
    const requests = prompts.map((content, seed) => ({
      ...{ messages: [{ role: "user" as const, content }], temperature: 0, maxTokens: 60, seed },
    }))
    const texts = await Promise.all(requests.map((request) => engine.generate(request)))
    const ours = await Promise.all(requests.map((request) => own.generate(request)))
    own.dispose()
    expect(texts.map(({ text }) => text.trim())).toEqual(ours.map(({ text }) => text.trim()))
    expect(texts.map(({ finish }) => finish)).toEqual(ours.map(({ finish }) => finish))
  }, 120_000)
})
