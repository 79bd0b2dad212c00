import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { afterAll, afterEach, describe, expect, it } from "vitest"

import { decomposeCommand } from "../../lib/cli/stages"

const dir = mkdtempSync(join(tmpdir(), "musc-servers-"))
const bin = join(__dirname, "../../lib/cli/bin.cjs")
afterAll(() => rmSync(dir, { recursive: true }))

/** Runs a command; `child` is there to be killed, `stdin` is what it is told. */
function musc(args: string[], { stdin = "", env = {} } = {}) {
  let child!: ChildProcess
  const done = new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) => {
    child = spawn(process.execPath, [bin, ...args], {
      cwd: dir,
      env: { ...process.env, OPENAI_API_KEY: "sk-test-9a8b7c", ...env },
    })
    const out = { stdout: "", stderr: "" }
    child.stdout!.on("data", (part) => {
      out.stdout += part
    })
    child.stderr!.on("data", (part) => {
      out.stderr += part
    })
    child.stdin!.end(stdin)
    child.on("close", (status) => resolve({ status, ...out }))
  })
  return { child, done }
}

interface Body {
  [field: string]: unknown
  messages: { role: string; content: string }[]
}
const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

/** A server with one model and a list of it. `answer` gives a text, or answers by itself. */
async function serve(answer: (body: Body, response: ServerResponse) => string | undefined, port = 0) {
  const bodies: Body[] = []
  const server = createServer((request, response) => {
    let text = ""
    request.on("data", (part) => {
      text += part
    })
    request.on("end", () => {
      response.setHeader("content-type", "application/json")
      if (request.method === "GET")
        return response.end(JSON.stringify({ data: [{ id: "m", owned_by: "vllm", root: "org/m" }] }))
      const body: Body = JSON.parse(text)
      bodies.push(body)
      const content = answer(body, response)
      if (content !== undefined)
        response.end(JSON.stringify({ choices: [{ message: { content }, finish_reason: "stop" }] }))
    })
  })
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done))
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  closing.push(close)
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, bodies, close }
}

const put = (name: string, rows: readonly unknown[]) => {
  writeFileSync(join(dir, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
  return name
}
const rowsOf = (name: string) =>
  readFileSync(join(dir, name), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
const seeds = (name: string, n: number) =>
  put(
    name,
    Array.from({ length: n }, (_, i) => ({ instruction: `Write ${i} lines about tea.` })),
  )
const at = (url: string, ...more: string[]) => ["--endpoint", url, "--endpoint-model", "m", ...more]
const questions = () => "##1. Is it about tea?\n##2. Has it lines?"

describe("a stage asked of a server", () => {
  it("sends what the options say, and nothing else of its own", async () => {
    const { url, bodies } = await serve(questions)
    const options = [
      "--limit-field",
      "max_completion_tokens",
      "--leave-out",
      "seed,temperature",
      "--field",
      "min_p=0.1",
    ]
    const more = ["--thinking", "off", "--thinking-tokens", "100", "--set", "decomposeMaxTokens=50", "--set", "shots=0"]
    const { status, stdout } = await musc([
      "decompose",
      seeds("a.jsonl", 1),
      "-o",
      "a-out.jsonl",
      ...at(url),
      ...options,
      ...more,
    ]).done
    expect([stdout, status]).toEqual(["1 of 1 rows passed: a-out.jsonl\n", 0])
    const { messages, ...fields } = bodies[0]!
    expect(messages).toHaveLength(1)
    expect(fields).toEqual({
      model: "m",
      top_p: 1,
      top_k: -1,
      min_p: 0.1,
      repetition_penalty: 1,
      max_completion_tokens: 150,
      chat_template_kwargs: { enable_thinking: false },
    })
  })

  it("goes on at another address after a kill, and asks no finished call again", async () => {
    let answered = 0
    const slow = (_: Body, response: ServerResponse) => {
      setTimeout(() => {
        if (response.destroyed) return
        answered++
        response.end(JSON.stringify({ choices: [{ message: { content: questions() }, finish_reason: "stop" }] }))
      }, 100)
      return undefined
    }
    const first = await serve(slow)
    const command = (url: string, more: string[] = []) =>
      musc(["decompose", seeds("b.jsonl", 60), "-o", "b-out.jsonl", ...at(url), "--concurrency", "4", ...more])
    const { child, done } = command(first.url)
    while (answered < 20) await new Promise((next) => setTimeout(next, 20))
    child.kill("SIGKILL")
    await done
    const before = answered
    const second = await serve(questions)
    const { status } = await command(second.url, ["--concurrency", "16"]).done
    expect(status).toBe(0)
    expect(rowsOf("b-out.jsonl").map(({ instruction }) => instruction)).toEqual(
      Array.from({ length: 60 }, (_, i) => `Write ${i} lines about tea.`),
    )
    // Up to 4 answers were on the way when the process died, and some more were being written down.
    expect(second.bodies.length).toBeLessThanOrEqual(60 - before + 8)
    expect(second.bodies.length).toBeGreaterThanOrEqual(60 - before)
    expect(readdirSync(dir).filter((name) => name.includes("b-out") && name.includes("calls"))).toEqual([])
    second.close()
    const third = await command(second.url).done
    expect([third.stdout, third.status]).toEqual(["60 of 60 rows passed: b-out.jsonl\n", 0])
  })

  it("keeps a row that the server refuses, or that has no answer, with the reason", async () => {
    const { url } = await serve((body, response) => {
      const asked = body.messages.at(-1)!.content
      if (/ 1 lines/.test(asked)) {
        response.statusCode = 400
        response.end(JSON.stringify({ error: { message: "the request exceeds the available context size" } }))
        return undefined
      }
      if (/ 2 lines/.test(asked)) {
        response.end(
          JSON.stringify({ choices: [{ message: { content: null, refusal: "No." }, finish_reason: "stop" }] }),
        )
        return undefined
      }
      return questions()
    })
    const { stdout } = await musc(["decompose", seeds("c.jsonl", 4), "-o", "c-out.jsonl", ...at(url)]).done
    expect(stdout).toContain("2 of 4 rows passed")
    expect(stdout).toContain("1 failed, decompose: refused by the model")
    expect(stdout).toContain("1 failed, decompose: request refused: 400 the request exceeds the available context size")
    expect(stdout).not.toContain(url)
  })

  it("stops where a server refuses all requests, and says what helps", async () => {
    const { url } = await serve((_, response) => {
      response.statusCode = 422
      response.end(JSON.stringify({ detail: [{ loc: ["body", "seed"], msg: "Extra inputs are not permitted" }] }))
      return undefined
    })
    const { status, stderr } = await musc(["decompose", seeds("d.jsonl", 9), "-o", "d-out.jsonl", ...at(url)]).done
    expect(status).toBe(1)
    expect(stderr).toMatch(
      /all of the first 3 requests were refused: .*seed: Extra inputs are not permitted; add --leave-out seed/,
    )
  })

  it.each([
    [["--endpoint", "http://user:hunter2@127.0.0.1/v1"], /must hold no secret.*environment variable/],
    [["--endpoint", "http://127.0.0.1/v1?key=hunter2"], /must hold no secret.*environment variable/],
    [["--endpoint", "127.0.0.1:8000"], /must be an address such as/],
    [["--endpoint", "http://127.0.0.1:9/v1"], /--endpoint-model/],
    [
      ["--endpoint-model", "m"],
      /^InputError: --endpoint-model: names a model of --endpoint, got no --endpoint; add it/,
    ],
    [["--endpoint-model", "m", "--serve", "vllm serve {model} --port {port}"], /got no --endpoint; leave it out/],
    [["--leave-out", "max_tokens"], /--limit-field none/],
    [["--thinking", "maybe"], /must be on or off/],
    [["--field", "top_k"], /must read key=value/],
    [["--wait", "-1"], /must be a whole number from 0/],
  ])("refuses %j before it asks anybody", async (options, message) => {
    const program = new Command("musc").exitOverride().configureOutput({ writeErr: () => {} })
    decomposeCommand.register(program)
    program.commands[0]!.exitOverride().configureOutput({ writeErr: () => {} })
    const args = ["decompose", join(dir, seeds("e.jsonl", 1)), "-o", join(dir, "e-out.jsonl"), ...options]
    const error = await program.parseAsync(args, { from: "user" }).then(() => undefined, String)
    expect(error).toMatch(message)
    expect(error).not.toContain("hunter2")
  })
})

describe("other commands", () => {
  it("evaluate asks a server to answer and to judge", async () => {
    const { url, bodies } = await serve(({ messages }) =>
      /^Judge/.test(messages.at(-1)!.content) ? "yes" : "Tea is hot.",
    )
    const rows = put("f.jsonl", [
      { id: "a", instruction: "Write about tea.", input: null, constraints: ["Is it about tea?", "Is it short?"] },
    ])
    const { stdout, status, stderr } = await musc([
      "evaluate",
      rows,
      "-o",
      "f-out.jsonl",
      ...at(url),
      "--set",
      "evalTemperatures=0",
    ]).done
    expect([stderr.includes("Error"), status]).toEqual([false, 0])
    expect(stdout).toContain("100.0")
    expect(bodies).toHaveLength(3)
    expect(rowsOf("f-out.jsonl")[0]).toMatchObject({ method: "m", answer: "Tea is hot." })
    expect(existsSync(join(dir, ".f-out.jsonl.calls.jsonl"))).toBe(false)
  })

  it("evaluate has a judge of its own, asked in its own way, and says who judged", async () => {
    const writer = await serve(() => "Tea is hot.")
    const judge = await serve(() => "plan\n</think>\n\nno")
    const rows = put("g.jsonl", [
      { id: "a", instruction: "Write about tea.", input: null, constraints: ["Is it about tea?", "Is it short?"] },
    ])
    const asked = ["--judge", judge.url, "--judge-model", "m", "--judge-leave-out", "seed"]
    const args = ["evaluate", rows, "-o", "g-out.jsonl", ...at(writer.url), "--set", "evalTemperatures=0"]
    const { stdout, status } = await musc([...args, ...asked, "--judge-thoughts-open", "on"]).done
    expect(status).toBe(0)
    expect([writer.bodies.length, judge.bodies.length]).toEqual([1, 2])
    expect(stdout).toMatch(/^Judged by: the judge m/)
    expect(judge.bodies[0]!.messages.at(-1)!.content).toContain("Write about tea.")
    expect(["seed" in judge.bodies[0]!, "seed" in writer.bodies[0]!]).toEqual([false, true])
    expect(rowsOf("g-out.jsonl")[0].constraints).toMatchObject([{ satisfied: false }, { satisfied: false }])
    expect(existsSync(join(dir, ".g-out.jsonl.judge.calls.jsonl"))).toBe(false)
    // Finished verdicts belong to this judge: without it they are others.
    const without = await musc(args).done
    expect(without.stderr).toContain("must be a new file or one of this evaluation")
    const half = await musc([...args.slice(0, 4), "--judge-model", "m"]).done
    expect(half.stderr).toContain("--judge-model: names the model of --judge, got no --judge; add it")
  })

  it("chat talks with a server, shows no thoughts, and keeps the turns", async () => {
    const { url, bodies } = await serve(({ messages }) => `<think>\nhm\n</think>\n\nTurn ${messages.length}.`)
    const { stdout } = await musc(["chat", ...at(url)], { stdin: "hello\nagain\n" }).done
    expect(stdout).toBe("Turn 1.\nTurn 3.\n")
    expect(bodies[1]!.messages.map(({ content }) => content)).toEqual(["hello", "Turn 1.", "again"])
  })
})
