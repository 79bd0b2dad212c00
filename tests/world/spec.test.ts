import { expect, test } from "vitest"
import { instructionRow } from "../../lib/data/schema"
import { rng } from "../../lib/rng"
import { readInstruction, readQuestion } from "../../lib/world/inverse"
import { questionOf, satisfies } from "../../lib/world/kinds"
import { realise } from "../../lib/world/realise"
import {
  csr,
  gradeAnswer,
  instructionOf,
  isr,
  type Split,
  sameConstraints,
  sampleConstraints,
  sampleSpec,
  splitOf,
  substitute,
  wordSpec,
  worldInstructions,
  worldSpec,
} from "../../lib/world/spec"

const specs = worldInstructions({ n: 3000, seed: 11, split: "train", constraints: [1, 6] }).map(({ world }) => world)

test("an answer that keeps all constraints passes every verifier, on each of 3,000 specs", () => {
  const failures = specs.filter((spec, i) => !gradeAnswer(spec, realise(spec, rng("all", i))).every((g) => g.satisfied))
  expect(failures).toEqual([])
})

/** Shares of wishes and of bans that hold in answers that keep the topic alone. */
function heldByChance(lapse: "forgets" | "errs") {
  const counts = { wish: [0, 0], ban: [0, 0] }
  specs.forEach((spec, i) => {
    const text = realise(spec, rng("none", i), (_, k) => k === 0, lapse)
    for (const item of spec.constraints.slice(1)) {
      const count = counts[item.negated ? "ban" : "wish"]
      count[0]! += 1
      count[1]! += Number(satisfies(item, text))
    }
  })
  return { wish: counts.wish[1]! / counts.wish[0]!, ban: counts.ban[1]! / counts.ban[0]! }
}

test("a forgotten wish holds by chance only, and so does a forgotten ban", () => {
  // Wishes: sentences 1/3 for one to three, the period .75; other kinds hold one value in tens. About .07 over all.
  // Bans: the complement for each kind, about .93.
  const { wish, ban } = heldByChance("forgets")
  expect(wish).toBeGreaterThan(0.02)
  expect(wish).toBeLessThan(0.12)
  expect(ban).toBeGreaterThan(0.88)
  expect(ban).toBeLessThan(0.98)
})

test("a writer who errs breaks every ban that is not kept", () => {
  const { wish, ban } = heldByChance("errs")
  expect(ban).toBe(0)
  expect(wish).toBeLessThan(0.12)
})

test("keeping one constraint more changes the answer only where that constraint shows", () => {
  const spec = wordSpec(
    [
      { kind: "topic", value: "sailor", negated: false },
      { kind: "setting", value: "harbor", negated: false },
      { kind: "attribute", value: "brave", negated: false },
    ],
    rng(1),
  )
  for (let i = 0; i < 200; i++) {
    const all = realise(spec, rng("edit", i))
    const less = realise(spec, rng("edit", i), (_, k) => k !== 2)
    expect(less.replace(/[Tt]he (\w+ )?sailor/, "")).toBe(all.replace(/[Tt]he brave sailor/, ""))
  }
})

test("answers are 8 to 45 words and instructions at most 50", () => {
  specs.forEach((spec, i) => {
    const words = realise(spec, rng("length", i)).split(" ").length
    expect(words).toBeGreaterThanOrEqual(8)
    expect(words).toBeLessThanOrEqual(45)
    expect(instructionOf(spec).split(" ").length).toBeLessThanOrEqual(50)
  })
})

test("articles agree with the word that follows, in instructions and answers", () => {
  specs.forEach((spec, i) => {
    const text = `${instructionOf(spec)} ${realise(spec, rng("article", i))}`
    expect(text).not.toMatch(/\ba [aeiou]|\ban [^aeiou]/i)
  })
})

test("reading an instruction gives back exactly its constraints, in order", () => {
  for (const spec of specs) expect(readInstruction(instructionOf(spec))).toEqual(spec.constraints)
})

test.each([
  "Write about a sailor",
  "Write about a sailor in a dog.",
  "Write about a sailor. Use the word sailor.",
  "Write about a sailor. use the word dog.",
  "Write about a sailor. Use the word dog and the word cat.",
  "Write about a blue sailor.",
  "About a sailor.",
  "",
])("no constraints are read from a text that the world does not know: %j", (text) => {
  expect(readInstruction(text)).toBeUndefined()
})

test("reading a question gives back its constraint", () => {
  for (const item of specs.flatMap(({ constraints }) => constraints))
    expect(readQuestion(questionOf(item))).toEqual(item)
  expect(readQuestion("Is the text long?")).toBeUndefined()
})

test("constraints of a spec use distinct values, and each kind but word once", () => {
  for (const { constraints } of specs) {
    expect(new Set(constraints.map(({ value }) => value)).size).toBe(constraints.length)
    const others = constraints.map(({ kind }) => kind).filter((kind) => kind !== "word")
    expect(new Set(others).size).toBe(others.length)
  }
})

test("a substitute keeps kind and polarity and takes a value that the list does not use", () => {
  for (let i = 0; i < 500; i++) {
    const list = sampleConstraints(6, rng("substitute", i))
    const other = substitute(list[1]!, list, rng("other", i))
    expect([other.kind, other.negated]).toEqual([list[1]!.kind, list[1]!.negated])
    expect(list.map(({ value }) => value)).not.toContain(other.value)
  }
})

test("the split is the same for any order of the constraints, and keeps about a tenth for evaluation", () => {
  let kept = 0
  for (let i = 0; i < 5000; i++) {
    const list = sampleConstraints(4, rng("split", i))
    expect(splitOf([...list].reverse())).toBe(splitOf(list))
    kept += Number(splitOf(list) === "eval")
  }
  // Binomial, n 5000, p .1: standard deviation 21.
  expect(Math.abs(kept - 500)).toBeLessThan(100)
})

test("instructions of the two splits share no combination of constraints", () => {
  const key = (spec: { constraints: object[] }) =>
    JSON.stringify(spec.constraints.map((item) => JSON.stringify(item)).sort())
  const train = new Set(
    worldInstructions({ n: 3000, seed: 1, split: "train", constraints: [2, 2] }).map((r) => key(r.world)),
  )
  const held = worldInstructions({ n: 500, seed: 1, split: "eval", constraints: [2, 2] })
  expect(held.filter((row) => train.has(key(row.world)))).toEqual([])
  expect(held.every((row) => splitOf(row.world.constraints) === "eval")).toBe(true)
})

test("instructions are valid rows with a valid spec, depend on seed, split and index only, and respect the bounds", () => {
  const rows = worldInstructions({ n: 50, seed: 7, split: "eval", constraints: [2, 4] })
  for (const row of rows) {
    expect(instructionRow.parse(row)).toEqual(row)
    expect(worldSpec.parse(JSON.parse(JSON.stringify(row.world)))).toEqual(row.world)
    expect(row.world.constraints.length).toBeGreaterThanOrEqual(2)
    expect(row.world.constraints.length).toBeLessThanOrEqual(4)
  }
  expect(worldInstructions({ n: 10, seed: 7, split: "eval", constraints: [2, 4] })).toEqual(rows.slice(0, 10))
  expect(worldInstructions({ n: 10, seed: 8, split: "eval", constraints: [2, 4] })).not.toEqual(rows.slice(0, 10))
})

test("a spec with a value of another kind is refused", () => {
  const spec = sampleSpec(2, "train", rng(3))
  expect(worldSpec.safeParse(spec).success).toBe(true)
  expect(
    worldSpec.safeParse({ ...spec, constraints: [{ kind: "topic", value: "harbor", negated: false }] }).success,
  ).toBe(false)
})

test("the satisfaction rates average over answers", () => {
  const constraints = [
    { kind: "topic", value: "sailor", negated: false },
    { kind: "word", value: "storm", negated: true },
  ] as const
  const both = gradeAnswer({ constraints }, "The sailor slept.")
  const one = gradeAnswer({ constraints }, "The sailor saw the storm.")
  expect(one).toEqual([
    { ...constraints[0], question: "Is the text about a sailor?", satisfied: true },
    { ...constraints[1], question: "Does the text avoid the word storm?", satisfied: false },
  ])
  // (1 + 1/2) / 2 of constraints; one answer of two is perfect.
  expect(csr([both, one])).toBe(0.75)
  expect(isr([both, one])).toBe(0.5)
})

test("lists are the same in any order, and differ by polarity or length", () => {
  const list = sampleConstraints(4, rng(5))
  expect(sameConstraints(list, [...list].reverse())).toBe(true)
  expect(sameConstraints(list, list.slice(1))).toBe(false)
  expect(sameConstraints(list, [{ ...list[0]!, negated: true }, ...list.slice(1)])).toBe(false)
})

test("a split that there is not is named, where looking for its instructions would never end", () => {
  const options = { n: 1, seed: 0, split: "test" as "eval" }
  expect(() => worldInstructions(options)).toThrow('split: must be train, eval, development, got "test"')
})

test("the development split shares no combination of constraints with training or with what is reported", () => {
  const combination = ({
    world,
  }: {
    world: { constraints: readonly { kind: string; value: string; negated: boolean }[] }
  }) =>
    world.constraints
      .map(({ kind, value, negated }) => `${kind} ${value} ${negated}`)
      .sort()
      .join("|")
  const of = (split: Split, n: number, seed = 0) =>
    worldInstructions({ n, seed, split, constraints: [3, 5] }).map(combination)
  const development = [...of("development", 300), ...of("development", 300, 1)]
  const reported = new Set(of("eval", 2000))
  const train = new Set([0, 1, 2, 3, 4].flatMap((seed) => of("train", 600, seed)))
  expect(development.filter((one) => reported.has(one) || train.has(one))).toEqual([])
  expect(new Set(development).size).toBeGreaterThan(550)
  const [first] = worldInstructions({ n: 1, seed: 0, split: "eval", constraints: [3, 5] })
  expect(first!.id).toBe("world-eval-0-0")
})
