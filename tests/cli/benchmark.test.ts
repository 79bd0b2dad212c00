import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import type { ServerResponse } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest"
import { register as registerBenchmark } from "../../lib/cli/benchmark"
import { register as registerCompare } from "../../lib/cli/compare"
import { type ChatBody, type ChatServer, chatServer } from "../support/chat-server"

const dir = mkdtempSync(join(tmpdir(), "musc-eval-"))
const place = (name: string) => join(dir, name)
const put = (name: string, rows: readonly unknown[]) => {
  writeFileSync(place(name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
  return place(name)
}
const read = (...path: string[]) => readFileSync(join(dir, ...path), "utf8")

/** Runs a command in this process and gives what it prints. */
async function musc(...args: string[]): Promise<string> {
  const program = new Command("musc").exitOverride()
  registerBenchmark(program)
  registerCompare(program)
  const log = vi.spyOn(console, "log").mockImplementation(() => {})
  try {
    await program.parseAsync(args, { from: "user" })
    return log.mock.calls.map(([text]) => `${text}\n`).join("")
  } finally {
    log.mockRestore()
  }
}

/** Two Easy items and one Hard one: 2 + 2 + 3 questions. */
const records = [
  {
    ...{ id: "e1", input: "", category: "c", instruction: "Write a haiku.", subset: "Easy_set" },
    decomposed_questions: ["Is it a haiku?", "Has it three lines?"],
    question_label: [["Format"], ["Format", "Number"]],
  },
  {
    ...{ id: "e2", input: "Hello", category: "c", instruction: "Translate.", subset: "Easy_set" },
    decomposed_questions: ["Is it a translation?", "Is it polite?"],
    question_label: [["Linguistic"], ["Style"]],
  },
  {
    ...{ id: "h1", input: "", category: "c", instruction: "List two birds.", subset: "Hard_set" },
    decomposed_questions: ["Are they birds?", "Are they two?", "Is it a list?"],
    question_label: [["Content"], ["Number"], ["Format"]],
  },
]
const answers = [
  { id: "e1", response: "an old pond" },
  { id: "e2", response: "Hallo" },
  { id: "h1", response: "owl, tit" },
]
const script: Record<string, string> = {
  "Is it a haiku?": "YES",
  "Has it three lines?": "no, it has one",
  "Is it a translation?": "The answer is YES.",
  "Is it polite?": "Nothing in it is impolite.",
  "Are they birds?": "Yes",
  "Are they two?": "Hard to say.",
  "Is it a list?": "YES",
}
const asked = ({ messages }: ChatBody) => messages.at(-1)!.content.trimEnd().split("\n").at(-1)!
const judging = (body: ChatBody) => script[asked(body)] ?? "?"

let data = ""
let responses = ""
let server: ChatServer | undefined
const withJudge = (...more: string[]) => [
  ...["benchmark", "infobench", "--data", data, "--responses", responses],
  ...["--judge", server!.url, "--judge-model", "scripted", "--samples", "50", ...more],
]
const withJudgeAt = (name: string) => () => withJudge("--out", place(name))

beforeAll(() => {
  data = put("data.jsonl", records)
  responses = put("answers.jsonl", answers)
  vi.stubEnv("OPENAI_API_KEY", "sk-test-51bd0e")
})
afterEach(() => server?.close())
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(dir, { recursive: true })
})

describe("musc benchmark infobench", () => {
  /*
   * Official: "Nothing ..." begins with no. "Hard to say." cannot be read in three tries: it counts as no and ends h1.
   *   e1 yes no, e2 yes no, h1 yes none: 3 of 6. Easy 2 of 4, Hard 1 of 2.
   *   Format: haiku yes, lines no: 1/2. Number: lines no, two none: 0/2. Linguistic 1/1, Style 0/1, Content 1/1.
   * Corrected: "Nothing ..." and "Hard to say." are no verdicts and left out: yes no, yes, yes: 3 of 4. Easy 2 of 3, Hard 1 of 1.
   *   Format 1/2, Number: lines no: 0/1, Linguistic 1/1, Style 0/0, Content 1/1.
   * Calls: e1 2, e2 1 + 3 (asked again since one of the two readings finds nothing), h1 1 + 3: 10.
   */
  const official = [3 / 6, 2 / 4, 1 / 2, 1 / 1, 1 / 2, 0 / 2, 0 / 1, 1 / 1]
  const corrected = [3 / 4, 2 / 3, 1 / 1, 1 / 1, 1 / 2, 0 / 1, null, 1 / 1]

  it("gives the hand-computed rates of both scorings, the second without a call", async () => {
    server = await chatServer(judging)
    const scores = JSON.parse(await musc(...withJudge("--out", place("both"), "--json")))
    const values = (of: typeof scores) => Object.values(of.figures as Record<string, { value: number }>)
    expect(Object.keys(scores.figures)).toEqual([
      ...["DRFR", "DRFR Easy", "DRFR Hard"],
      ...["Content", "Format", "Number", "Style", "Linguistic"].map((label) => `type: ${label}`),
    ])
    expect(values(scores).map(({ value }) => value)).toEqual(official)
    expect(scores).toMatchObject({ benchmark: "infobench", scoring: "official", judge: "scripted", items: 3 })
    expect(scores.calls.judge).toEqual({
      ...{ calls: 10, cached: 0, tokens: 20, promptTokens: 100 },
      ...{ retries: 0, asked: 6, again: 4, unparsed: 2 },
    })
    expect(scores.notes).toEqual([
      expect.stringContaining("data.jsonl differs from the file that the scorer was tested on"),
      "1 replies could not be read: counted as no",
      "1 questions behind an unreadable reply were not asked, and are left out",
      expect.stringContaining("1 items are of the Hard set, which MuSC's released pairs were made from"),
      expect.stringContaining("rules are in our own words"),
    ])
    const again = JSON.parse(await musc(...withJudge("--out", place("both"), "--json", "--scoring", "corrected")))
    expect(values(again).map(({ value }) => value)).toEqual(corrected)
    expect(again.calls.judge).toMatchObject({ calls: 0 })
    expect(server.bodies).toHaveLength(10)
  })

  it("asks one conversation an item, or each question by itself", async () => {
    server = await chatServer(judging)
    await musc(...withJudge("--out", place("conversation")))
    const second = server.bodies.find((body) => asked(body) === "Has it three lines?")!
    expect(second.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user"])
    expect(second.messages[0]!.content).toMatch(/Generated Text:\n"an old pond"\n\nQuestion:\nIs it a haiku\?\n$/)
    expect(second.messages.slice(1).map(({ content }) => content)).toEqual(["YES", "Has it three lines?\n"])
    const first = server.bodies.find((body) => asked(body) === "Is it a translation?")!
    expect(first.messages[0]!.content).toContain('Input:\n"Hello"\n\nGenerated Text:\n"Hallo"')
    server.bodies.length = 0
    const single = withJudge("--out", place("single"), "--json").map((arg) =>
      arg === "infobench" ? "infobench-single" : arg,
    )
    const scores = JSON.parse(await musc(...single))
    expect(server.bodies.every(({ messages }) => messages.length === 1)).toBe(true)
    // the question behind the unreadable reply is asked too: yes no yes no yes none yes
    expect(scores.figures.DRFR.value).toBe(4 / 7)
  })

  it("takes the judge's rules from the official script beside the data", async () => {
    server = await chatServer(judging)
    writeFileSync(place("evaluation.py"), 'import json\nSYS_MSG ="Answer \\"YES\\" or NO.\\n\\n- be “strict”"\nx = 1\n')
    try {
      const scores = JSON.parse(await musc(...withJudge("--out", place("rules"), "--json")))
      expect(server.bodies[0]!.messages[0]!.content).toMatch(
        /^Answer "YES" or NO\.\n\n- be “strict”\n\nGenerated Text:/,
      )
      expect(scores.notes.join()).not.toContain("our own words")
    } finally {
      rmSync(place("evaluation.py"))
    }
  })

  it("shows prompts, calls and tokens first, and asks nothing", async () => {
    server = await chatServer(judging)
    const plan = await musc(...withJudge("--out", place("planned"), "--dry-run"))
    expect(plan).toMatch(/answers: 3 of 3 items, made elsewhere\njudge: 7 calls, about \d[\d,]* tokens of prompts/)
    expect(plan).toContain('Generated Text:\n"an old pond"\n\nQuestion:\nIs it a haiku?')
    expect(server.bodies).toHaveLength(0)
    expect(existsSync(place("planned"))).toBe(false)
  })
})

describe("a judge that misbehaves", () => {
  it("is waited for and asked again, to the same scores, without the key in any file", async () => {
    server = await chatServer(judging)
    await musc(...withJudge("--out", place("steady")))
    server.close()
    server = await chatServer((body, response, count) => {
      if (count === 1) response.writeHead(429, { "retry-after": "1" }).end("{}")
      else if (count === 2) response.writeHead(500).end("oops")
      else if (count === 3) response.destroy()
      else if (count === 4) response.writeHead(200, { "content-type": "application/json" }).end('{"choices": [')
      else if (count === 5) response.writeHead(200, { "content-type": "application/json" }).end('{"ok": true}')
      else if (count === 6)
        setTimeout(() => response.destroy(), 3000) // later than --timeout
      else return judging(body)
      return undefined
    })
    const scores = JSON.parse(await musc(...withJudge("--out", place("shaky"), "--json", "--timeout", "2")))
    expect(scores.calls.judge).toMatchObject({ calls: 10, retries: 6 })
    expect(read("shaky", "items.jsonl")).toBe(read("steady", "items.jsonl"))
    expect(read("shaky", "scores.json")).toBe(read("steady", "scores.json"))
    for (const file of ["scores.json", "judge.calls.jsonl", "collected.jsonl", "table.md"]) {
      expect(read("shaky", file)).not.toContain("sk-test-51bd0e")
    }
  })

  it("that goes away half-way is not asked any finished call again, at whatever address it comes back", async () => {
    const answered: string[] = []
    const first = await chatServer((body) => {
      answered.push(JSON.stringify(body))
      if (answered.length === 4) setTimeout(first.close, 0)
      return answered.length <= 4 ? judging(body) : undefined
    })
    server = first
    await expect(musc(...withJudge("--out", place("half"), "--retries", "1"))).rejects.toThrow(
      /no complete reply in 2 tries .*check that the server runs/,
    )
    const kept = read("half", "judge.calls.jsonl").trim().split("\n").length
    expect(kept).toBeGreaterThanOrEqual(3) // closing may cut the last reply
    server = await chatServer(judging)
    expect(server.url).not.toBe(first.url)
    await musc(...withJudge("--out", place("half")))
    expect(server.bodies).toHaveLength(10 - kept)
    expect(server.bodies.filter((body) => answered.slice(0, kept).includes(JSON.stringify(body)))).toEqual([])
    expect(read("half", "items.jsonl")).toBe(read("steady", "items.jsonl"))
    expect(read("half", "table.md")).toBe(read("steady", "table.md"))
  })

  it("goes on behind the finished calls when the process is killed", async () => {
    let slow = true
    let reached = () => {}
    const half = new Promise<void>((done) => {
      reached = done
    })
    server = await chatServer((body, _response, count) => {
      if (!slow || count <= 5) return judging(body)
      reached() // the sixth is never answered
      return undefined
    })
    const args = withJudge("--out", place("killed"), "--concurrency", "1")
    const child = spawn(process.execPath, [join(__dirname, "../../lib/cli/bin.cjs"), ...args], { stdio: "ignore" })
    await half
    // The sixth is sent while the reply to the fifth is being written down.
    await vi.waitFor(() => expect(read("killed", "judge.calls.jsonl").trim().split("\n")).toHaveLength(5), 10_000)
    const gone = new Promise((done) => child.on("exit", done))
    child.kill("SIGKILL")
    await gone
    slow = false
    await musc(...args)
    // ten calls are needed; the sixth was asked twice, as it had not been answered
    expect(server.bodies).toHaveLength(11)
    const finished = new Set(server.bodies.slice(0, 5).map((body) => JSON.stringify(body)))
    expect(server.bodies.slice(5).filter((body) => finished.has(JSON.stringify(body)))).toEqual([])
    expect(read("killed", "items.jsonl")).toBe(read("steady", "items.jsonl"))
    expect(read("killed", "table.md")).toBe(read("steady", "table.md"))
  })
})

describe("a server that refuses the request of one item", () => {
  const refuse = (response: ServerResponse, status = 400) => {
    response.writeHead(status, { "content-type": "application/json" })
    response.end('{"error":{"message":"the prompt is too long"}}')
    return undefined
  }
  const about = (text: string, { messages }: ChatBody) => messages[0]!.content.includes(text)
  const lines = (...path: string[]) =>
    read(...path)
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))

  it("as judge leaves that item out with its reason, keeps the rest, and is asked for it alone by the next run", async () => {
    const args = withJudgeAt("refused")
    server = await chatServer((body, response) => (about("owl", body) ? refuse(response) : judging(body)))
    const scores = JSON.parse(await musc(...args(), "--json"))
    // e1 yes no, e2 yes no; h1 is refused
    expect(scores).toMatchObject({ items: 2, refused: 1, figures: { DRFR: { value: 2 / 4 } } })
    const reason = expect.stringMatching(/request for model scripted rejected: 400 .*prompt is too long/)
    expect(lines("refused", "items.jsonl").at(-1)).toEqual({
      id: "h1",
      unit: "h1",
      failure: { stage: "judge", reason },
    })
    expect(scores.notes.join()).toMatch(/left out because their request was refused, .*: 1 \(h1, judge: .*too long/)
    server.close()
    // another scoring needs no server
    const corrected = JSON.parse(await musc(...args(), "--scoring", "corrected", "--json", "--retries", "1"))
    expect(corrected).toMatchObject({ items: 2, refused: 1, calls: { judge: { calls: 0 } } })
    server = await chatServer(judging)
    await musc(...args(), "--scoring", "corrected")
    expect(server.bodies.every((body) => about("owl", body))).toBe(true)
    expect(server.bodies).toHaveLength(4)
    await musc(...args())
    expect(server.bodies).toHaveLength(4)
    expect(read("refused", "items.jsonl")).toBe(read("steady", "items.jsonl"))
    expect(read("refused", "table.md")).toBe(read("steady", "table.md"))
  })

  it("as answerer leaves that item out, and results are compared over the others", async () => {
    const answer = (body: ChatBody) => (about("Generated Text", body) ? judging(body) : "owl")
    server = await chatServer((body, response) => (about("Translate.", body) ? refuse(response, 422) : answer(body)))
    const endpoint = () => ["--endpoint", server!.url, "--endpoint-model", "m", "--judge-self"]
    const args = ["benchmark", "infobench", "--data", data, "--samples", "50", "--out", place("unanswered")]
    const table = await musc(...args, ...endpoint())
    expect(table).toMatch(/- left out because their request was refused, .*: 1 \(e2, answer: .*rejected: 422/)
    expect(server.bodies).toHaveLength(3 + 2 + 4)
    expect(await musc("compare", place("steady"), place("unanswered"))).toContain("2 items in common")
    server.close()
    server = await chatServer(answer)
    await musc(...args, ...endpoint())
    expect(server.bodies).toHaveLength(1 + 4)
    expect(lines("unanswered", "items.jsonl").map(({ id }) => id)).toEqual(["e1", "e2", "h1"])
  })

  it("stops at once for all items, a refused key, or an unknown address", async () => {
    const stopped = async (status: number) => {
      server = await chatServer((_, response) => refuse(response, status))
      const run = musc(...withJudgeAt(`stopped-${status}`)())
      const message = await run.then(
        () => "no error",
        (error: Error) => error.message,
      )
      server.close()
      return message
    }
    expect(await stopped(400)).toMatch(/^all of the first 3 items were refused: http.*rejected: 400 .*longer context/)
    expect(await stopped(401)).toMatch(/key rejected: 401/)
    expect(await stopped(404)).toMatch(/no such address, or no model scripted there: 404 .*check address and model/)
  })
})

describe("musc benchmark with an endpoint", () => {
  it("makes answers, judges them by the same server, and is compared with other answers", async () => {
    server = await chatServer((body) => (body.messages[0]!.content.includes("Generated Text") ? judging(body) : "owl"))
    const endpoint = ["--endpoint", server.url, "--endpoint-model", "m", "--judge-self"]
    const args = ["benchmark", "infobench", "--data", data, "--samples", "50", "--out", place("made"), ...endpoint]
    await musc(...args)
    expect(server.bodies).toHaveLength(3 + 10)
    expect(server.bodies.map(({ messages }) => messages[0]!.content)).toContain("Translate.\n\nHello")
    await musc(...args)
    expect(server.bodies).toHaveLength(13)
    const table = await musc("compare", place("steady"), place("made"))
    expect(table).toContain("infobench, official scoring, 3 items in common")
    expect(table).toContain("the judges differ: scripted and m")
    const { figures } = JSON.parse(await musc("compare", place("steady"), place("made"), "--json"))
    expect(figures.DRFR).toEqual({ a: 0.5, b: 0.5, difference: 0, interval: [0, 0] })
    await expect(musc("compare", place("steady"), place("both"))).rejects.toThrow(
      /scoring: both results must have the same scoring, got official and corrected/,
    )
    await expect(musc("compare", place("steady"), dir)).rejects.toThrow(/scores\.json: a file must be here/)
  })
})

describe("bad input", () => {
  const wrong = (change: object) => [records[0], { ...records[1], ...change }]
  const problems: [string, readonly unknown[], RegExp][] = [
    ["a missing field", wrong({ instruction: undefined }), /bad\.jsonl, line 2, instruction: .*string.*got undefined/],
    ["an id twice", wrong({ id: "e1" }), /bad\.jsonl, line 2, id: must be unique, got e1 again .first on line 1./],
    [
      "labels that do not match",
      wrong({ question_label: [[]] }),
      /line 2, question_label: .*each of the 2 questions, got 1/,
    ],
    ["an unknown subset", wrong({ subset: "Middle" }), /bad\.jsonl, line 2, subset: /],
  ]
  for (const [name, rows, message] of problems) {
    it(`is refused with file, line and field: ${name}`, async () => {
      server = await chatServer(judging)
      const bad = put("bad.jsonl", rows)
      const args = withJudge("--out", place("refused")).map((arg) => (arg === data ? bad : arg))
      await expect(musc(...args)).rejects.toThrow(message)
    })
  }

  it("such as options that name no answers, no judge, no data, no benchmark, is refused with the remedy", async () => {
    const start = ["benchmark", "infobench", "--data", data]
    await expect(musc(...start)).rejects.toThrow(/--responses: answers must come from/)
    await expect(musc(...start, "--responses", responses)).rejects.toThrow(/--judge: infobench needs a judge/)
    await expect(musc("benchmark", "infobench")).rejects.toThrow(
      /SHA-256 66a2ee8d[\s\S]*to download it: npx musc benchmark infobench --download benchmarks\/infobench$/,
    )
    await expect(musc("benchmark", "infobench", "--data", place("none"))).rejects.toThrow(
      /none: must be a file or folder/,
    )
    await expect(musc("benchmark", "glue")).rejects.toThrow(/benchmark: must be one of .*infobench.*got glue/)
  })
})
