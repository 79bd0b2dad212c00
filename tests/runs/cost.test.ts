import { expect, it } from "vitest"
import { parseConfig } from "../../lib/config/config"
import { recipeOf } from "../../lib/config/recipes"
import { costOf } from "../../lib/runs/cost"
import { planOf } from "../../lib/runs/dry-run"
import { recorder } from "../../lib/runs/recorder"

const settings = { model: "org/name", instructionsFrom: "self-instruct", repeat: 1, methods: ["base", "musc"] as const }

it("counts calls, tokens and hours of each stage at the rates that are given", async () => {
  const config = parseConfig({ ...settings, evalTemperatures: [0], epochs: 2, respondMaxTokens: 300 })
  const sizes = { instructions: 100, evaluated: 10, written: 112, instruction: 50 }
  const { rows } = await costOf(config, recorder, sizes, { write: 100, read: 1000, train: 10 })
  const row = (name: string) => rows.find(([stage]) => stage === name)!.slice(1)
  // two answers to 100 instructions of 50 tokens, 300 tokens each at most: 200 x 50 / 1000 s + 200 x 300 / 100 s = 610
  // s
  expect(row("respond")).toEqual(["200", "10,000", "60,000", "60,000", "0", (610 / 3600).toFixed(2)])
  // both answers of 100 pairs with their prompt of 50, twice: 2 x 100 x 2 x 350 tokens, at 10 a second
  expect(row("train")).toEqual(["1", "0", "0", "0", "140,000", (14_000 / 3600).toFixed(2)])
  // 2 methods answer 10 instructions; answers of 300 tokens, as assumed for the others
  expect(row("evaluate: answers").slice(0, 2)).toEqual(["20", "1,000"])
  // examples stand in the prompt of decompose: far more than the instruction's 50
  expect(Number(row("decompose")[1]!.replaceAll(",", "")) / 110).toBeGreaterThan(300)
})

it("decomposes no held-out instructions of the world, whose constraints are known", async () => {
  const plan = await planOf(parseConfig({ ...recipeOf("smoke").config, instructions: 7, evalInstructions: 5 }))
  const lines = plan.split("\n").filter((line) => /^decompose/.test(line))
  expect(lines.map((line) => line.split(/\s+/)[1])).toEqual(["7", "7"])
})

it("plans the released settings without a model: calls, tokens, hours and the rates they rest on", async () => {
  for (const name of ["llama-3-8b", "qwen2-7b"]) {
    const { config, model, fromFile } = recipeOf(name)
    expect(config).toMatchObject({ instructionsFrom: "self-instruct", instructions: 1000, pairs: 1000, epochs: 3 })
    expect(fromFile).toEqual({ instructions: 2000 })
    const plan = await planOf(parseConfig({ ...config, model }))
    expect(plan).toMatch(/all +[\d,]+ +[\d,]+ +[\d,]+ +[\d,]+ +[\d,]+ +[\d.]+\n/)
    expect(plan).toContain("Rates assumed, in tokens/s: writing 1,500, reading 10,000, training 3,000")
  }
})

it("counts verdicts where someone is asked for them, and none where exact checks give them", async () => {
  const stagesOf = async (changes: object) => {
    const { rows } = await costOf(
      parseConfig({ ...settings, evalTemperatures: [0], samples: 4, ...changes }),
      recorder,
      { instructions: 100, evaluated: 10, written: 0 },
    )
    return Object.fromEntries(rows.slice(1, -1).map(([stage, calls, , , , , hours]) => [stage, { calls, hours }]))
  }
  // two methods answer 10 instructions of 5 constraints each, as assumed
  expect((await stagesOf({}))["evaluate: verdicts"]).toMatchObject({ calls: "100" })
  const world = await stagesOf({
    instructionsFrom: "checkable",
    stages: "world",
    methods: ["base", "musc-verified", "self-reward-verifier"],
  })
  expect(Object.keys(world)).toEqual(["respond", "weigh", "sample", "train", "evaluate: answers"])
  const asked = await stagesOf({
    keepPairs: "verified",
    judgeEndpoint: "http://127.0.0.1:1/v1",
    judgeModel: "judge",
    methods: ["base", "musc", "self-reward-yesno", "self-reward-external", "self-correct"],
  })
  expect(asked.verify).toEqual({ calls: "1,000", hours: "judge's" })
  expect(asked["judge for baselines"]).toMatchObject({ calls: "2,000" })
  expect(asked["judge for baselines, by a server"]).toEqual({ calls: "2,000", hours: "judge's" })
  expect(asked.revise).toMatchObject({ calls: "100" })
})
