import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { sample } from "../../lib/baselines/sample"
import { selfCorrect } from "../../lib/baselines/self-correct"
import { judgeByConstraint, judgeByPoints } from "../../lib/baselines/self-reward"
import { instructionRow } from "../../lib/data/schema"
import type { Completion, Generator } from "../../lib/engine/engine"
import { replyOf } from "../../lib/engine/reply"
import { scripted } from "../../lib/engine/scripted"
import { alpacaEval } from "../../lib/eval/alpaca-eval"
import { infobench } from "../../lib/eval/infobench"
import { judgeOf } from "../../lib/eval/judge"
import { mtBench } from "../../lib/eval/mt-bench"
import { readAnswers } from "../../lib/eval/responses"
import { corrupt } from "../../lib/musc/corrupt"
import { decompose } from "../../lib/musc/decompose"
import { evaluate } from "../../lib/musc/evaluate"
import { recombine } from "../../lib/musc/recombine"
import { respond } from "../../lib/musc/respond"
import { selfInstruct } from "../../lib/musc/source"
import { runBenchmark } from "../../lib/runs/benchmark"
import { judgeGrader } from "../../lib/runs/graders"

const dir = mkdtempSync(join(tmpdir(), "musc-thinking-"))
afterAll(() => rmSync(dir, { recursive: true }))

/** Thoughts that hold what each reader looks for: numbered lines, verdicts, ratings, labels. */
const thoughts = `Okay, step by step.
##1. Read what the user wants?
##2. Write it down?
1. Is it so?
Instruction: wrong. Score: 1. Rating: [[1]]. Answer: NO
no
NO`

/** How a model shows its thoughts around a reply. */
const manners: Record<string, (text: string) => Partial<Completion>> = {
  "in a block": (text) => ({ text: `<think>\n${thoughts}\n</think>\n\n${text}` }),
  "in a block that the prompt opened": (text) => ({ text: `${thoughts}\n</think>\n\n${text}` }),
  "in a field of the reply": (text) => ({ text: `\n\n${text}`, thoughts }),
}

/** What a model says to each prompt of the method. */
function says(messages: readonly { content: string }[]): string {
  const asked = messages.at(-1)!.content
  if (/^Split/.test(asked)) return "##1. Is it a poem?\n##2. Is it about rain?\n##3. Is it shorter than five lines?"
  if (/^Change/.test(asked)) return "Is it longer than five lines?"
  if (/^Write one instruction/.test(asked))
    return `Write a poem about rain${/longer/.test(asked) ? "" : " in four lines"}.`
  if (/^Judge/.test(asked)) return /longer|Snow/.test(asked) ? '"nothing"\nno' : '"Rain"\nyes'
  if (/^Read the instruction and the answer/.test(asked)) return "It keeps all. Score: 4"
  if (/Rewrite it/.test(asked)) return "Rain falls soft."
  if (/name of the model that gave the better/.test(asked)) return /river/.test(asked) ? "M" : "m"
  if (/question_1|rating/i.test(asked)) return "Good. Rating: [[9]]"
  if (/YES/.test(asked)) return "YES"
  return `Rain and rain${/four/.test(asked) ? "" : " and snow"}, ${messages.length}.`
}

const plain = () => scripted(({ messages }) => says(messages))
const thinking = (manner: string) => scripted(({ messages }) => manners[manner]!(says(messages)))

const start = instructionRow.parse({ id: "a", instruction: "Write a poem about rain in under five lines." })

/** All stages that ask a model, and what they make of their rows. */
async function stages(engine: Generator): Promise<object> {
  const wordy: Generator = {
    ...engine, // Self-Reward needs different answers to one instruction
    generate: async (request) => {
      const completion = await engine.generate(request)
      return { ...completion, text: `${completion.text} ${request.seed % 97}` }
    },
  }
  const written = await selfInstruct(engine, 0)
  const decomposed = await decompose(engine, start)
  const corrupted = await corrupt(engine, decomposed as never, { drop: 0, negate: 1, substitute: 0 })
  const recombined = await recombine(engine, corrupted as never)
  const pair = await respond(engine, recombined as never)
  const sampled = await sample(wordy, decomposed as never)
  const grade = judgeGrader(engine, { maxTokens: 64, shots: 2 })
  const judged = await judgeByConstraint(grade, sampled as never)
  const points = await judgeByPoints(engine, sampled as never, { maxTokens: 64 })
  const failing = { ...judged, verdicts: [[{ question: "Q?", kind: "", satisfied: false }]], scores: [0] }
  const correction = { seed: 0, temperature: 0.5, maxTokens: 64, keepCut: false }
  const corrected = await selfCorrect(engine, failing as never, correction)
  const options = { method: "base", seed: 0, temperature: 0, maxTokens: 64 }
  const evaluated = await evaluate(engine, decomposed as never, grade, options)
  return { written, decomposed, corrupted, recombined, pair, sampled, judged, points, corrected, evaluated }
}

/** Without what a model thought and how many tokens that took. */
const withoutThoughts = (value: object): unknown =>
  JSON.parse(
    JSON.stringify(value, (key, inner) =>
      key === "thoughts" || key === "tokens" ? undefined : key === "text" || key === "reply" ? inner.trim() : inner,
    ),
  )

describe("a model that thinks aloud", () => {
  it.each(Object.keys(manners))("gets through every stage as if it did not think: %s", async (manner) => {
    const expected = await stages(plain())
    expect(JSON.stringify(expected)).not.toContain('"failure"')
    const rows = await stages(thinking(manner))
    expect(withoutThoughts(rows)).toEqual(withoutThoughts(expected))
    expect(JSON.stringify(rows)).toContain("Read what the user wants?")
  })

  it.each([
    ["decompose", (engine: Generator) => decompose(engine, start)],
    ["source", (engine: Generator) => selfInstruct(engine, 0)],
  ])("fails the row with its own reason where it is cut off inside its thoughts: %s", async (stage, work) => {
    const row = await work(scripted(() => ({ text: `<think>\n${thoughts}`, finish: "length" })))
    expect(row.failure).toEqual({ stage, reason: "cut off inside its thoughts" })
    const silent = await work(scripted(() => ({ text: "", thoughts })))
    expect(silent.failure).toEqual({ stage, reason: "thoughts without an answer" })
    expect(silent.calls?.[stage as "source"]?.[0]?.thoughts).toBe(thoughts)
  })

  it("satisfies no constraint where it gives no answer, not even what an empty answer cannot break", async () => {
    const lenient = async () => [{ question: "Is it free of the word sea?", kind: "", satisfied: true }]
    const options = { method: "base", seed: 0, temperature: 0, maxTokens: 64 }
    const cut = scripted(() => ({ text: "<think>The sea", finish: "length" }))
    expect(await evaluate(cut, start, lenient, options)).toMatchObject({
      answer: "",
      problem: "cut off inside its thoughts",
      constraints: [{ satisfied: false }],
    })
  })
})

describe("judged benchmarks", () => {
  const items = {
    infobench: join(dir, "infobench.jsonl"),
    mt: join(dir, "question.jsonl"),
    alpaca: join(dir, "model_outputs.json"),
  }
  const compared = ["Name a sea.", "Name a river.", "Name a lake."].map((instruction) => ({
    ...{ dataset: "d", instruction, output: "It has none of its own.", generator: "g" },
  }))
  writeFileSync(items.alpaca, JSON.stringify(compared))
  writeFileSync(
    items.infobench,
    `${JSON.stringify({
      ...{ id: "e1", input: "", category: "c", instruction: "Write a haiku.", subset: "Easy_set" },
      decomposed_questions: ["Is it a haiku?", "Has it three lines?"],
      question_label: [["Format"], ["Number"]],
    })}\n`,
  )
  const question = { question_id: 81, category: "writing", turns: ["Write a haiku.", "Another."] }
  writeFileSync(items.mt, `${JSON.stringify(question)}\n`)
  mkdirSync(join(dir, "reference_answer"))
  const reference = { question_id: 81, choices: [{ turns: ["a", "b"] }] }
  writeFileSync(join(dir, "reference_answer", "gpt-4.jsonl"), `${JSON.stringify(reference)}\n`)
  writeFileSync(
    join(dir, "judge_prompts.jsonl"),
    ["single-v1", "single-v1-multi-turn", "single-math-v1", "single-math-v1-multi-turn"]
      .map((name) => {
        const math = name.includes("math") ? "{ref_answer_1} " : ""
        const more = name.includes("math") ? "{ref_answer_2} " : ""
        const prompt_template = name.includes("multi")
          ? `${math}${more}{question_1} {answer_1} {question_2} {answer_2} rating`
          : `${math}{question} {answer} rating`
        return `${JSON.stringify({ name, system_prompt: "s", prompt_template })}\n`
      })
      .join(""),
  )

  const benchmarks = { infobench, mt: mtBench, alpaca: alpacaEval }
  const score = async (name: keyof typeof benchmarks, engine: Generator, folder: string) => {
    const benchmark = benchmarks[name]
    const { judge } = judgeOf(engine)
    return runBenchmark({
      benchmark: benchmark as never,
      items: await benchmark.load(items[name]),
      dir: join(dir, folder),
      subject: "s",
      source: { engine, id: folder, seed: 1, local: false },
      judge: { ask: judge, id: folder, name: "j", concurrency: 4 },
      scoring: name === "alpaca" ? "corrected" : "official", // the script has no log-probs
      bootstrap: { samples: 20, seed: 1 },
    })
  }

  it.each(["infobench", "mt", "alpaca"] as const)(
    "score a thinking model and judge as the same replies without thoughts: %s",
    async (name) => {
      const expected = await score(name, plain(), `${name}-plain`)
      expect(Object.values(expected.scores.figures)[0]!.value).toBeGreaterThan(0)
      for (const [i, manner] of Object.keys(manners).entries()) {
        const folder = `${name}-${i}`
        const { scores } = await score(name, thinking(manner), folder)
        expect(scores.figures).toEqual(expected.scores.figures)
        const kept = readdirSync(join(dir, folder)).map((file) => readFileSync(join(dir, folder, file), "utf8"))
        expect(kept.join("")).not.toContain("step by step")
      }
    },
  )

  it("count answers that are nothing but thoughts", async () => {
    const cut = scripted(({ messages }) =>
      messages.at(-1)!.content === "Another." ? { text: "<think>hm", finish: "length" } : says(messages),
    )
    const { scores } = await score("mt", cut, "cut")
    expect(scores.notes).toContain("turns without an answer, scored as empty: 1 (cut off inside its thoughts 1)")
  })

  it("score nothing of what a filter left, nor the words of a refusal", async () => {
    const filter = "stopped by the server's content filter"
    const half = scripted(({ messages }) =>
      messages.at(-1)!.content === "Another." ? { text: "half of", problem: filter } : says(messages),
    )
    const { scores } = await score("mt", half, "half")
    expect(scores.notes).toContain(`turns without an answer, scored as empty: 1 (${filter} 1)`)
    const [row] = readFileSync(join(dir, "half", "answers.jsonl"), "utf8")
      .trim()
      .split("\n")
    expect(JSON.parse(row!).responses[1]).toBe("")
    expect(scores.notes.join()).not.toContain("empty answers")
    const silent = scripted(({ messages }) => (messages.at(-1)!.content === "Another." ? " " : says(messages)))
    const { notes } = (await score("mt", silent, "silent")).scores
    expect(notes).toContain("empty answers, scored as they are: 1")
  })

  it("read answers made elsewhere without their thoughts, and say how many had some", async () => {
    const file = join(dir, "answers.jsonl")
    const lines = [
      { id: "a", response: "<think>\nplan, with commas\n</think>\n\nhello there" },
      { id: "b", response: "<think>\nplan" },
      { id: "c", response: "hello" },
    ]
    writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""))
    const asked = ["a", "b", "c"].map((id) => ({ id, unit: id, turns: [id], temperature: 0, maxTokens: 9, data: null }))
    const { answers, notes } = await readAnswers(file, asked)
    expect([...answers.values()]).toEqual([["hello there"], [""], ["hello"]])
    expect(notes).toEqual([
      "answers that begin with thoughts, which are left out: 2",
      "answers that end inside their thoughts, scored as empty: 1",
      "empty answers, scored as they are: 1",
    ])
  })
})

it("every reader of replies goes through the one function that takes thoughts out; engines that pass calls on do not", () => {
  const lib = join(__dirname, "../../lib")
  const files = readdirSync(lib, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"))
  const callers = files.filter((file) => /\.generate\(/.test(readFileSync(join(lib, file), "utf8")))
  const passOn = [
    "engine/cached.ts",
    "engine/reply.ts",
    "engine/serve.ts",
    "engine/worker.ts",
    "runs/dry-run.ts",
    "runs/engines.ts",
    "runs/run-benchmarks.ts",
  ]
  expect(callers.filter((file) => !passOn.includes(file))).toEqual([])
})

it("a reply without thoughts comes back as it is", async () => {
  const request = { messages: [{ role: "user" as const, content: "hi" }], temperature: 0, maxTokens: 9, seed: 1 }
  const reply = await replyOf(
    scripted(() => "\n hello "),
    request,
  )
  expect(reply).toEqual({ text: "\n hello ", tokens: 2, finish: "stop" })
})
