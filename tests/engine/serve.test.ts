import { mkdtempSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import type { ModelDescription } from "../../lib/engine/description"
import { engineIn, type ServedText, servedText } from "../../lib/engine/serve"

const stub = join(__dirname, "../support/serve-stub.cjs")
const model = { name: "base", dir: "/models/base", fingerprint: "f" } as ModelDescription
const open: ServedText[] = []
const served = (command = `node "${stub}" {model} --port {port}`, options = {}) => {
  const log = join(mkdtempSync(join(tmpdir(), "musc-serve-")), "server.log")
  const text = servedText(model, { command, log, client: { maxRetries: 0 }, startTimeout: 30, ...options })
  open.push(text)
  return { text, log }
}
const ask = (content: string) => ({
  messages: [{ role: "user" as const, content }],
  ...{ temperature: 0, maxTokens: 5, seed: 1 },
})
const alive = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

afterEach(async () => {
  for (const text of open.splice(0)) await text.pause()
})

describe("a server that musc starts", () => {
  it("is started by the first text, asked for its model, and ended by a pause", async () => {
    const { text, log } = served()
    const [a, b] = await Promise.all([text.base.generate(ask("a")), text.base.generate(ask("b"))])
    const [, name, pid] = /^(.*) of (\d+)$/.exec(a.text)!
    expect(name).toBe("/models/base")
    expect(b.text).toBe(a.text) // one server
    await text.pause()
    expect(alive(Number(pid))).toBe(false)
    expect(readFileSync(log, "utf8")).toContain("ready")
    expect((await text.base.generate(ask("c"))).text).not.toBe(a.text) // started anew
  })

  it("is started once for all adapters that it was told of, and again for one more", async () => {
    const { text } = served()
    text.addAdapter("/adapters/one")
    text.addAdapter("/adapters/two")
    const one = await (await text.withAdapter("/adapters/one")).generate(ask("a"))
    const two = await (await text.withAdapter("/adapters/two")).generate(ask("a"))
    const base = await text.base.generate(ask("a"))
    const pids = [one, two, base].map(({ text }) => / of (\d+)$/.exec(text)![1])
    expect(new Set(pids).size).toBe(1)
    expect(one.text).toMatch(/^musc-[0-9a-f]{10} of /)
    expect(two.text.split(" ")[0]).not.toBe(one.text.split(" ")[0])
    expect(base.text).toMatch(/^\/models\/base of /)
    const three = await (await text.withAdapter("/adapters/three")).generate(ask("a"))
    expect(/ of (\d+)$/.exec(three.text)![1]).not.toBe(pids[0])
  })

  it("that ends at once is an error with what its log said last", async () => {
    const { text } = served(`node "${stub}" FAIL {model} {port}`)
    await expect(text.base.generate(ask("a"))).rejects.toThrow(/the server ended; see its log.*CUDA out of memory/s)
  })

  it("that ends in the middle is an error, and is started again by the next text", async () => {
    const { text } = served()
    await text.base.generate(ask("a"))
    await expect(text.base.generate(ask("die"))).rejects.toThrow(/the server ended/)
    await text.base.generate(ask("a")).catch(() => undefined)
    expect((await text.base.generate(ask("a"))).text).toContain("/models/base")
  })

  it("that never answers is given up after the time that it has", async () => {
    const { text } = served(`node -e "setInterval(() => {}, 1000)" {model} {port}`, { startTimeout: 1 })
    await expect(text.base.generate(ask("a"))).rejects.toThrow(/must answer within 1 s, got nothing/)
  })

  it("whose calls fail at first is asked again, and what they have in common is said once", async () => {
    const notes: string[] = []
    const client = { maxRetries: 3 }
    const onNote = (line: string) => notes.push(line)
    const { text } = served(`node "${stub}" {model} --port {port} BUSY`, { client, onNote })
    const answers = await Promise.all(["a", "b", "c"].map((content) => text.base.generate(ask(content))))
    expect(answers.map(({ text }) => text.split(" ")[0])).toEqual(Array(3).fill("/models/base"))
    expect(notes).toEqual([
      expect.stringMatching(/^server: starting node/),
      expect.stringMatching(/^node: retrying after: 500 engine is busy/),
    ])
  })

  it("is known as vLLM, SGLang or llama.cpp also behind env and python, so that it gets their sampling fields", () => {
    const of = (command: string) => engineIn(command.split(" "))
    expect(of("vllm serve {model} --port {port}")).toBe("vllm")
    expect(of("env A=1 /opt/venv/bin/vllm serve {model}")).toBe("vllm")
    expect(of(".venv-vllm/bin/python -m vllm.entrypoints.openai.api_server --model {model}")).toBe("vllm")
    expect(of("python -m sglang.launch_server --model-path {model}")).toBe("sglang")
    expect(of("/usr/bin/llama-server -m {model}")).toBe("llamacpp")
    expect(of(".venv-vllm/bin/python serve.py --like-vllm vllm-like {model}")).toBeUndefined()
    const { text } = served(`env A=1 node "${stub}" -m vllm.entrypoints {model} --port {port}`)
    expect(text.identity).toMatch(/^base served by vllm [0-9a-f]{16}$/)
  })

  it("needs a command that says where model and port go", () => {
    expect(() => served("vllm serve")).toThrow(
      /--serve.*must be a command with \{model\} and \{port\}.*add \{model\} and \{port\}/s,
    )
    expect(() => served(`vllm "serve {model} {port}`)).toThrow(/closed quotes/)
  })
})
