import { beforeAll, describe, expect, it } from "vitest"
import { type Constraint, kindNames, kinds, satisfies } from "../../lib/checkable/kinds"
import {
  checkableInstructions,
  checkableSpec,
  gradeCheckable,
  instructionOf,
  questionsOf,
  substitute,
  taskOf,
} from "../../lib/checkable/spec"
import { tasks } from "../../lib/checkable/tasks"
import { InputError } from "../../lib/errors"
import { loadLanguages } from "../../lib/eval/ifeval/language"
import { rng } from "../../lib/rng"
import { writeAnswer } from "../support/checkable-writer"

beforeAll(() => loadLanguages())

const of = (kind: Constraint["kind"], value: string, negated = false): Constraint => ({ kind, value, negated })

describe("checkable constraints", () => {
  // Texts written by hand for each constraint: one that keeps it, one that does not.
  const cases: [Constraint, string, string][] = [
    [of("word", "light"), "Light is fast.", "Delightful lights."],
    [of("word", "light", true), "Delightful lights.", "The LIGHT is on."],
    [of("frequency", "light 2"), "Light on light.", "Light on delight."],
    [of("letter", "q 2"), "Quick queens.", "Quick kings."],
    [of("sentences", "at least 3"), "One came. Two went. Three stayed.", "One came. Two went."],
    [of("sentences", "at most 2"), "One came. Two went.", "One came. Two went. Three stayed."],
    [of("sentences", "at most 2", true), "One came. Two went. Three stayed.", "One came. Two went."],
    [of("sentences", "exactly 2"), "One came. Two went.", "One came."],
    [of("words", "at most 30"), "so ".repeat(30), "so ".repeat(31)],
    [of("words", "at least 30"), "so ".repeat(30), "so ".repeat(29)],
    [of("words", "at least 30", true), "so ".repeat(29), "so ".repeat(30)],
    [of("begin", "In short"), "in short, yes.", "Yes, in short."],
    [of("begin", "In short", true), "Yes, in short.", "In short: yes."],
    [of("end", "Take care"), "All is well. Take care.", "Take care. All is well."],
    [of("final question", "?"), "All is well?", "Is it? Yes."],
    [of("case", "small"), "the rain falls on the old town again.", "The rain falls on the old town again."],
    [of("case", "capital"), "THE RAIN FALLS ON THE OLD TOWN AGAIN.", "THE RAIN FALLS on THE OLD TOWN."],
    [of("capital words", "2"), "It was VERY, VERY late.", "It was VERY late."],
    [of("punctuation", "commas", true), "No pause here.", "Here, a pause."],
    [of("punctuation", "digits"), "At 7 sharp.", "At seven sharp."],
    [of("punctuation", "parentheses", true), "Plain.", "Plain (or not)."],
    [of("punctuation", "exclamation marks"), "Go!", "Go."],
    [of("bullets", "2"), "Here:\n* one\n* two", "Here:\n* one\n* two\n* three"],
    [of("bullets", "2", true), "Here: one - two.", "* one"],
    [of("numbered list", "2"), "1. one\n2. two", "1. one\n2. two\n3. three"],
    [of("divided parts", "2"), "One.\n***\nTwo.", "One.\n\nTwo."],
    [of("headed parts", "2"), "Part 1\nOne.\nPart 2\nTwo.", "Part 1\nOne."],
    [of("single line", "1"), "All in one. Yes.", "All in\ntwo."],
    [of("single line", "1", true), "All in\n\ntwo.", "All in one. Yes."],
    [of("JSON", "object"), '{"a": "b"}', "a: b"],
    [of("title", "<<>>"), "<<Rain>>\nIt falls.", "<Rain> It falls."],
    [of("postscript", "P.S."), "It falls. P.S. Bring a coat.", "It falls. Bring a coat."],
    [of("quotation", '"'), '"It falls."', 'It "falls".'],
    [of("placeholders", "2"), "Dear [name], see [place].", "Dear [name]."],
    [of("highlights", "2"), "It is *very* *late*.", "It is *very* late."],
  ]

  it.each(cases)("%o is kept by one text and broken by another", (constraint, kept, broken) => {
    expect([satisfies(constraint, kept), satisfies(constraint, broken)]).toEqual([true, false])
  })

  it("of every kind are among the cases", () => {
    expect(new Set(cases.map(([{ kind }]) => kind))).toEqual(new Set(kindNames))
  })

  it("are kept by no blank answer, not even bans", () => {
    expect(satisfies(of("word", "light", true), " \n")).toBe(false)
  })

  it("have a wording and a question for each value and its opposite, all different", () => {
    for (const kind of kindNames) {
      const { ask, question, values } = kinds[kind]
      for (const value of new Set(values(tasks[0]!))) {
        const [yes, no] = [ask(value, false), ask(value, true)]
        expect(new Set([...yes, ...no]).size, `${kind} ${value}`).toBe(yes.length + no.length)
        expect(question(value, false), `${kind} ${value}`).not.toBe(question(value, true))
      }
    }
  })
})

describe("checkable tasks", () => {
  it("are some 200, each with four words that its topic does not hold", () => {
    expect(tasks.length).toBeGreaterThanOrEqual(200)
    expect(new Set(tasks.map(({ topic }) => topic)).size).toBe(tasks.length)
    for (const { topic, words } of tasks) {
      expect(new Set(words).size, topic).toBe(4)
      for (const word of words) expect(topic.includes(word), `${topic}: ${word}`).toBe(false)
    }
  })
})

describe("checkable instructions", () => {
  const rows = (split: "train" | "development" | "test", n = 400) => checkableInstructions({ n, seed: 0, split })

  it("are the same for the same seed, others for another", () => {
    expect(rows("train", 20)).toEqual(rows("train", 20))
    const other = checkableInstructions({ n: 20, seed: 1, split: "train" })
    expect(other.map(({ instruction }) => instruction)).not.toEqual(rows("train", 20).map((row) => row.instruction))
  })

  it("of the test split have tasks of their own, and those of development combinations of their own", () => {
    const topics = (split: "train" | "development" | "test") =>
      new Set(rows(split).map(({ checkable }) => checkable.task))
    const [train, development, test] = [topics("train"), topics("development"), topics("test")]
    expect([...test].filter((topic) => train.has(topic) || development.has(topic))).toEqual([])
    expect(test.size).toBeGreaterThan(30)
    const combination = ({ checkable }: ReturnType<typeof rows>[number]) =>
      [checkable.task, ...checkable.constraints.map((item) => JSON.stringify(item)).sort()].join()
    const trained = new Set(rows("train", 2000).map(combination))
    expect(rows("development").filter((row) => trained.has(combination(row)))).toEqual([])
  })

  it("hold 2 to 5 constraints beside the task, each in words, with a question each", () => {
    for (const { instruction, checkable } of rows("train")) {
      const { constraints, task } = checkable
      expect(constraints.length).toBeGreaterThanOrEqual(2)
      expect(constraints.length).toBeLessThanOrEqual(5)
      expect(instruction).toContain(task)
      for (const { kind, value, negated } of constraints)
        expect(kinds[kind].ask(value, negated).some((clause) => instruction.includes(clause))).toBe(true)
      expect(new Set(questionsOf(checkable)).size).toBe(constraints.length + 1)
      expect(checkableSpec.parse(JSON.parse(JSON.stringify(checkable)))).toEqual(checkable)
    }
  })

  it("can all be kept together", () => {
    const impossible = [...rows("train", 600), ...rows("test", 200)].filter(
      ({ checkable }) => writeAnswer(checkable.constraints) === undefined,
    )
    expect(impossible.map(({ instruction }) => instruction)).toEqual([])
  })

  it("are graded constraint by constraint, the task left out", async () => {
    const constraints = [of("word", "light"), of("punctuation", "commas", true)]
    const verdicts = await gradeCheckable({ constraints }, "Light, and more light.")
    expect(verdicts.map(({ kind, satisfied }) => [kind, satisfied])).toEqual([
      ["use a word", true],
      ["no commas", false],
    ])
  })

  it("refuse a split that there is not", () => {
    expect(() => checkableInstructions({ n: 1, seed: 0, split: "eval" as "test" })).toThrow(InputError)
  })
})

describe("a substitute", () => {
  it("fits the other constraints and does not entail the one whose place it takes", () => {
    const random = rng("substitutes")
    for (const { checkable } of checkableInstructions({ n: 500, seed: 2, split: "train" })) {
      for (const item of checkable.constraints) {
        const other = substitute(item, checkable, random)
        if (!other) continue
        const rest = checkable.constraints.filter((one) => one !== item)
        // An answer made for the substitute and the rest need not keep the old constraint: so it spoils something.
        expect(writeAnswer([...rest, other]), JSON.stringify([rest, other])).toBeDefined()
        expect(instructionOf({ ...checkable, constraints: [...rest, other] })).not.toBe(instructionOf(checkable))
      }
    }
  })

  it("of a number is one that asks for something else, not for more of the same", () => {
    const spec = { task: tasks[0]!.topic, constraints: [of("placeholders", "1")] }
    const others = Array.from({ length: 40 }, (_, i) => substitute(spec.constraints[0]!, spec, rng(i))!)
    expect(others.every(({ kind }) => kind !== "placeholders")).toBe(true)
    expect(taskOf("no such task")).toBeUndefined()
  })
})
