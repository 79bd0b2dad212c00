import { describe, expect, it } from "vitest"
import {
  corruptedRow,
  type DecomposedRow,
  decomposedRow,
  instructionRow,
  pairRow,
  recombinedRow,
} from "../../lib/data/schema"
import { scripted } from "../../lib/engine/scripted"
import { applyEdits, corrupt, corruptDefaults, editCount, planEdits } from "../../lib/musc/corrupt"
import { decompose } from "../../lib/musc/decompose"
import { recombine } from "../../lib/musc/recombine"
import { respond } from "../../lib/musc/respond"

const start = instructionRow.parse({ id: "a", instruction: "Write about tea. Use two lines.", topic: "tea" })
const constraints = ["Is it about tea?", "Has it two lines?", "Does it rhyme?", "Is it short?"]
const decomposed = decomposedRow.parse({ ...start, constraints })
const edit = { index: 1, kind: "constraint-dropout", before: constraints[1], after: null }
const corrupted = corruptedRow.parse({ ...decomposed, noised_constraints: constraints.slice(0, 1), edits: [edit] })
const recombined = recombinedRow.parse({
  ...corrupted,
  clean_instruction: "Tea, two lines.",
  noised_instruction: "Tea.",
})

describe("decompose", () => {
  it("adds the constraints, keeps unknown fields and the raw call", async () => {
    const engine = scripted(() => ({ text: "##1. A?\n##2. B?", tokens: 9 }))
    const row = decomposedRow.parse(await decompose(engine, start, { shots: 0 }))
    expect(row).toMatchObject({ constraints: ["A?", "B?"], topic: "tea", input: null })
    expect(row.calls.decompose).toEqual([
      { prompt: engine.requests[0]!.messages[0]!.content, text: "##1. A?\n##2. B?", tokens: 9, finish: "stop" },
    ])
  })

  it.each([
    [{ text: "##1. A?" }, "fewer than 2 constraints"],
    [{ text: "" }, "fewer than 2 constraints"],
    [{ text: "##1. A?\n##2. B", finish: "length" as const }, "cut off at the token limit"],
  ])("fails a row whose reply is %j", async (answer, reason) => {
    const row = await decompose(
      scripted(() => answer),
      start,
    )
    expect(row.failure).toEqual({ stage: "decompose", reason })
    expect(instructionRow.parse(row).calls.decompose).toHaveLength(1)
  })

  it("passes on the constraints that a seed file brings, without a call, and says so", async () => {
    const engine = scripted(() => "##1. A?\n##2. B?")
    const row = decomposedRow.parse(
      await decompose(engine, { ...start, constraints: [" Is it tea? ", "Has it two lines?"] }),
    )
    expect(row).toMatchObject({ constraints: ["Is it tea?", "Has it two lines?"], decomposed_by: "seed file" })
    expect(engine.requests).toEqual([])
    const one = await decompose(engine, { ...start, constraints: ["Is it tea?"] })
    expect(one.failure?.reason).toBe("fewer than 2 constraints in the seed file")
    const none = await decompose(engine, { ...start, constraints: [] })
    expect(none).toMatchObject({ constraints: ["A?", "B?"] })
    expect(none.decomposed_by).toBeUndefined()
  })

  it("keeps a list that was cut off after it had begun to repeat itself, without the broken last line", async () => {
    const engine = scripted(() => ({ text: "1. A?\n2. B?\n3. A?\n4. C", finish: "length" as const }))
    expect(await decompose(engine, start)).toMatchObject({ constraints: ["A?", "B?"], failure: undefined })
  })

  it("finds the text inside an instruction, unless told not to or the model takes no examples, and leaves a given one alone", async () => {
    const engine = scripted(() => "##1. A?\n##2. B?\nText: two lines")
    expect((await decompose(engine, start, { findText: true })).input).toBe("two lines")
    expect((await decompose(engine, { ...start, input: "given" }, { findText: true })).input).toBe("given")
    expect((await decompose(engine, start)).input).toBe("two lines")
    expect((await decompose(engine, start, { findText: false })).input).toBeNull()
    expect((await decompose({ ...engine, maxShots: 0 }, start)).input).toBeNull()
  })
})

describe("corrupt", () => {
  // min(n - 1, max(1, round(.3 n))): .6 -> 1, .9 -> 1, 1.2 -> 1, 1.5 -> 2 (to even), 1.8 -> 2, 4.5 -> 4 (to even).
  it.each([
    [2, 1],
    [3, 1],
    [4, 1],
    [5, 2],
    [6, 2],
    [15, 4],
  ])("spoils, of %i constraints, %i at ratio .3", (n, k) => {
    expect(editCount(n, 0.3)).toBe(k)
  })

  it("always leaves the task and at most all others are spoiled", () => {
    expect(editCount(4, 1)).toBe(3)
    expect(editCount(4, 0)).toBe(1)
    for (let i = 0; i < 200; i++) {
      const plan = planEdits({ id: `${i}`, constraints }, { ...corruptDefaults, ratio: 0.6 })
      expect(plan).toHaveLength(2)
      expect(new Set(plan.map((p) => p.index)).size).toBe(2)
      for (const { index } of plan) expect(index).toBeGreaterThan(0)
    }
  })

  // 4000 independent draws with p = .5, .25, .25: five standard deviations of a share are at most 5 sqrt(.25 / 4000) =
  // .04.
  it("drops half of its picks, negates a quarter, substitutes a quarter", () => {
    const kinds = Array.from({ length: 4000 }, (_, i) => planEdits({ id: `${i}`, constraints }, corruptDefaults)[0]!)
    const share = (kind: string) => kinds.filter((plan) => plan.kind === kind).length / kinds.length
    expect(Math.abs(share("constraint-dropout") - 0.5)).toBeLessThan(0.04)
    expect(Math.abs(share("constraint-negate") - 0.25)).toBeLessThan(0.04)
    expect(Math.abs(share("constraint-substitute") - 0.25)).toBeLessThan(0.04)
    for (const index of [1, 2, 3]) {
      expect(Math.abs(kinds.filter((plan) => plan.index === index).length / 4000 - 1 / 3)).toBeLessThan(0.04)
    }
  })

  it("drops without asking the model", async () => {
    const engine = scripted({})
    const row = corruptedRow.parse(await corrupt(engine, decomposed, { drop: 1, negate: 0, substitute: 0 }))
    expect(row.edits).toEqual([{ ...row.edits[0], kind: "constraint-dropout", after: null }])
    expect(row.noised_constraints).toEqual(constraints.filter((_, i) => i !== row.edits[0]!.index))
    expect(engine.requests).toHaveLength(0)
  })

  it("puts the new question in the place of the old one", async () => {
    for (const kind of ["negate", "substitute"] as const) {
      const engine = scripted(() => "New question: Is it long?")
      const only = { drop: 0, negate: 0, substitute: 0, [kind]: 1 }
      const row = corruptedRow.parse(await corrupt(engine, decomposed, only))
      const [{ index, before, after }] = row.edits as [(typeof row.edits)[number]]
      expect(row.edits[0]!.kind).toBe(`constraint-${kind}`)
      expect([before, after]).toEqual([constraints[index], "Is it long?"])
      expect(row.noised_constraints).toEqual(constraints.map((q, i) => (i === index ? "Is it long?" : q)))
    }
  })

  it("asks again, from another stream, for a question that stayed the same, and then fails", async () => {
    const same = scripted(({ messages }) =>
      /Question: (.*)\nNew question:$/.exec(messages.at(-1)!.content)![1]!.toUpperCase(),
    )
    const row = await corrupt(same, decomposed, { drop: 0, attempts: 3, substitute: 0 })
    expect(row.failure).toEqual({ stage: "corrupt", reason: "constraint-negate: question unchanged" })
    expect(new Set(same.requests.map((request) => request.seed)).size).toBe(3)
    expect(row.calls.corrupt).toHaveLength(3)

    let calls = 0
    const second = scripted(() => (calls++ ? "Is it long?" : ""))
    expect((await corrupt(second, decomposed, { drop: 0 })).failure).toBeUndefined()
  })

  it("applies several edits by position", () => {
    const edits = [
      { index: 1, kind: "constraint-dropout" as const, before: "b", after: null },
      { index: 3, kind: "constraint-negate" as const, before: "d", after: "D" },
    ]
    expect(applyEdits(["a", "b", "c", "d"], edits)).toEqual(["a", "c", "D"])
  })
})

describe("recombine", () => {
  const writing = (clean: string, noised: string) =>
    scripted(({ messages }) => (messages.at(-1)!.content.includes("two lines?") ? clean : noised))

  it("writes both instructions with the same examples, from streams of their own", async () => {
    const engine = writing("Instruction: Tea in two lines.", "Tea.")
    const row = recombinedRow.parse(await recombine(engine, corrupted, { shots: 2 }))
    expect([row.clean_instruction, row.noised_instruction]).toEqual(["Tea in two lines.", "Tea."])
    const [clean, noised] = engine.requests.map(({ messages }) => messages.slice(0, -1))
    expect(clean).toHaveLength(4)
    expect(clean).toEqual(noised)
    expect(engine.requests[0]!.seed).not.toBe(engine.requests[1]!.seed)
  })

  it.each([
    ["Tea.", "", "empty instruction"],
    ["Use **Instruction**: tea", "Tea.", "label in the instruction"],
    ["Tea, please.", "tea please", "clean equals noised"],
  ])("fails for %j and %j", async (clean, noised, reason) => {
    const row = await recombine(writing(clean, noised), corrupted)
    expect(row.failure).toEqual({ stage: "recombine", reason })
    expect(row.calls.recombine?.map((call) => call.text)).toEqual([clean, noised])
  })
})

describe("respond", () => {
  const answering = (clean: string, noised: string, finish: "stop" | "length" = "stop") =>
    scripted({ "Tea, two lines.": { text: clean, finish }, "Tea.": noised })

  it("chooses the answer to the clean instruction", async () => {
    const row = pairRow.parse(await respond(answering(" good\n", "bad"), recombined))
    expect([row.chosen, row.rejected]).toEqual(["good", "bad"])
    expect(row.calls.respond?.[0]?.text).toBe(" good\n")
  })

  it.each([
    ["same", "same\n", "stop", "identical answers"],
    ["", "bad", "stop", "empty answer"],
    ["go", "bad", "length", "cut off at the token limit"],
  ] as const)("fails for answers %j and %j (%s)", async (clean, noised, finish, reason) => {
    expect((await respond(answering(clean, noised, finish), recombined)).failure).toEqual({ stage: "respond", reason })
  })

  it("keeps cut-off answers on request", async () => {
    const row = await respond(answering("go", "bad", "length"), recombined, { keepCut: true })
    expect(row.failure).toBeUndefined()
  })
})

it("gives a row the same streams whatever else runs", async () => {
  const seeds = async (row: DecomposedRow, seed: number) => {
    const engine = scripted(() => "Is it long?")
    await corrupt(engine, row, { drop: 0, seed })
    return engine.requests.map((request) => request.seed)
  }
  expect(await seeds(decomposed, 1)).toEqual(await seeds(decomposed, 1))
  expect(await seeds(decomposed, 1)).not.toEqual(await seeds(decomposed, 2))
  expect(await seeds(decomposed, 1)).not.toEqual(await seeds({ ...decomposed, id: "b" }, 1))
})
