import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, it } from "vitest"
import { world } from "../../lib/world/benchmark"
import { splitOf, worldInstructions } from "../../lib/world/spec"

const dir = mkdtempSync(join(tmpdir(), "musc-world-benchmark-"))
afterAll(() => rmSync(dir, { recursive: true }))

it("the world's benchmark is its held-out set, and an instruction file can take its place", async () => {
  const items = await world.load("")
  expect(items).toHaveLength(500)
  expect(new Set(items.map(({ id }) => id)).size).toBe(500)
  expect(items.every(({ data }) => splitOf(data.constraints) === "eval")).toBe(true)
  const file = join(dir, "rows.jsonl")
  const rows = worldInstructions({ n: 3, seed: 9, split: "eval" })
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""))
  expect((await world.load(file)).map(({ turns }) => turns)).toEqual(rows.map(({ instruction }) => [instruction]))
  writeFileSync(file, '{"id":"a","instruction":"x"}\n')
  await expect(world.load(file)).rejects.toThrow(/rows\.jsonl, line 1, world: /)
})

it("its answers are graded exactly: rates by number and kind of constraints", async () => {
  const constraint = (kind: "topic" | "word", value: string, negated = false) => ({ kind, value, negated })
  const [topic, other] = ["sailor", "king"]
  const words = (await world.load("")).flatMap(({ data }) => data.constraints.filter(({ kind }) => kind === "word"))
  const [first, second] = [...new Set(words.map(({ value }) => value))] as [string, string]
  const item = (constraints: ReturnType<typeof constraint>[]) => ({
    ...{ id: "x", unit: "x", turns: ["x"], temperature: 0, maxTokens: 8 },
    data: { constraints, opening: 0, wording: [], joined: [] },
  })
  const score = (constraints: ReturnType<typeof constraint>[], answer: string) =>
    world.score(item(constraints), [answer], null, "official")
  // a: 2 of 2 kept; b: the wish is kept, the ban is not: 2 of 3; c: another topic: 1 of 2
  const results = [
    score([constraint("topic", topic), constraint("word", first)], `A ${topic} saw the ${first}.`),
    score(
      [constraint("topic", topic), constraint("word", first), constraint("word", second, true)],
      `A ${topic} saw the ${first} and the ${second}.`,
    ),
    score([constraint("topic", topic), constraint("word", first)], `A ${other} saw the ${first}.`),
  ]
  const figures = world.figures(results, "official")
  expect(figures.CSR).toBeCloseTo((1 + 2 / 3 + 1 / 2) / 3, 12)
  expect(figures.ISR).toBeCloseTo(1 / 3, 12)
  expect(figures["ISR of 2 constraints"]).toBe(0.5)
  expect(figures["ISR of 3 constraints"]).toBe(0)
  expect(figures["type: topic"]).toBeCloseTo(2 / 3, 12)
  expect(figures["type: word"]).toBeCloseTo(3 / 4, 12)
})
