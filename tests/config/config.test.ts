import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it, vi } from "vitest"
import { configDefaults, configKeys, parseConfig } from "../../lib/config/config"
import { namesElsewhere, nearest } from "../../lib/config/problems"
import { recipes } from "../../lib/config/recipes"
import { parseSets, readSettings } from "../../lib/config/settings"
import { ConfigError } from "../../lib/errors"
import { checkMethods, trainSettings } from "../../lib/runs/stages"

function problemsOf(given: Record<string, unknown>): readonly string[] {
  try {
    parseConfig(given)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

describe("settings", () => {
  it("show all problems together, each with the value and what the setting means", () => {
    const problems = problemsOf({
      epochs: -1,
      weighting: "kll",
      lrr: 1,
      minConstraints: 7,
      maxConstraints: 4,
      drop: 0,
      negate: 0,
      substitute: 0,
    })
    expect(problems).toHaveLength(5)
    expect(problems.find((line) => line.startsWith("epochs"))).toMatch(/got -1; passes over the pairs/)
    expect(problems.find((line) => line.startsWith("weighting"))).toMatch(/got "kll"/)
    expect(problems.find((line) => line.startsWith("lrr"))).toMatch(/did you mean lr\?/)
    expect(problems.find((line) => line.startsWith("minConstraints"))).toMatch(/at most maxConstraints \(4\), got 7/)
    expect(problems.find((line) => line.startsWith("drop"))).toMatch(/one must be above 0/)
  })

  it("name the nearest setting for a typing error, and none for a word that is far from all", () => {
    expect(nearest("temprature", ["temperature", "topics"])).toBe("temperature")
    expect(nearest("LearningRate", ["lr", "rank"])).toBeUndefined()
    expect(problemsOf({ zzzzzz: 1 })[0]).toMatch(/see musc run --help/)
  })

  it("know the names that other trainers have for a setting", () => {
    const others = [
      "learning_rate",
      "learningRate",
      "num_train_epochs",
      "per_device_train_batch_size",
      "lora_r",
      "batch_size",
    ]
    const means = others.map((name) => /did you mean (\w+)\?/.exec(problemsOf({ [name]: 1 })[0]!)?.[1])
    expect(means).toEqual(["lr", "lr", "epochs", "batchSize", "rank", "batchSize"])
    expect(configKeys).toEqual(expect.arrayContaining(Object.values(namesElsewhere)))
  })

  it("say in words what a value must be", () => {
    const problems = problemsOf({ lr: "fast", epochs: -1, rank: 1.5, equalPairs: "maybe", methods: 3, loss: "dpp" })
    expect(problems.map((line) => line.split("; ")[0])).toEqual([
      "methods: must be a list, got 3",
      'equalPairs: must be true or false, got "maybe"',
      expect.stringMatching(/^loss: must be one of "dpo".*, got "dpp"$/),
      "rank: must be a whole number, got 1.5",
      'lr: must be a number, got "fast"',
      "epochs: must be above 0, got -1",
    ])
  })

  it("are all described, and all recipes are made of them", () => {
    for (const { config, otherModels, variants = {} } of Object.values(recipes)) {
      const all = [
        config,
        { ...config, ...otherModels },
        ...Object.values(variants).map((own) => ({ ...config, ...own })),
      ]
      for (const one of all) expect(problemsOf({ model: "org/name", ...one })).toEqual([])
    }
  })

  it.each([
    [{ simpoMargin: 1 }, /simpoMargin: must be left at 0.5, as only the loss simpo reads it, got 1 with the loss dpo/],
    [{ simpoBeta: 5, loss: "orpo" }, /simpoBeta: .* as only the loss simpo reads it/],
    [{ beta: 0.5, loss: "simpo" }, /beta: must be left at 0.1, .* got 0.5 with the loss simpo/],
    [{ labelSmoothing: 0.1, loss: "ipo" }, /labelSmoothing: /],
    [{ tdpoAlpha: 0.3, methods: ["tdpo1"] }, /tdpoAlpha: .* only the loss tdpo2 reads it/],
  ])("are refused by a run for %j, which no loss of it reads", (given, message) => {
    const run = () => checkMethods(parseConfig({ methods: ["coarse"], ...given }))
    expect(run).toThrow(ConfigError)
    expect(run).toThrow(message)
  })

  it("of a loss are heeded where one of the methods reads them", () => {
    for (const given of [
      { tdpoAlpha: 0.3, methods: ["tdpo2"] },
      { beta: 0.5, loss: "simpo", methods: ["coarse", "tdpo1"] },
      { simpoBeta: 5, simpoMargin: 1, labelSmoothing: 0.1, loss: "simpo", methods: ["coarse"] },
    ])
      expect(() => checkMethods(parseConfig(given))).not.toThrow()
  })

  it("of a run refuse musc with a loss that reads no token weights, before anything is done", () => {
    expect(() => checkMethods(parseConfig({ loss: "simpo" }))).toThrow(/musc would equal coarse, got weighting kl/)
  })

  it("refuse a list that names a method twice", () => {
    expect(problemsOf({ methods: ["base", "base"] })[0]).toMatch(/must not name one twice/)
  })
})

describe("key=value texts", () => {
  it("are read as numbers, truth values, lists and texts, by what the setting wants", () => {
    const sets = [
      "lr=1e-4",
      "keepCut=true",
      "methods=base,musc-kl",
      "evalTemperatures=[0, .5]",
      "instructionsFrom=12",
      "model=true",
    ]
    const config = parseConfig(parseSets(sets))
    expect(config).toMatchObject({ lr: 1e-4, keepCut: true, methods: ["base", "musc-kl"], evalTemperatures: [0, 0.5] })
    expect(config).toMatchObject({ instructionsFrom: "12", model: "true" })
    expect(parseConfig(parseSets(["evalTemperatures=0"])).evalTemperatures).toEqual([0])
  })

  it("may name a setting as it was called before, not under both names", () => {
    expect(parseConfig({ seeds: "checkable" })).toEqual(parseConfig({ instructionsFrom: "checkable" }))
    const said = vi.spyOn(console, "error").mockImplementation(() => {})
    expect(parseSets(["seeds=12"])).toEqual({ instructionsFrom: "12" })
    parseSets(["seeds=13"])
    expect(said.mock.calls).toEqual([["note: the setting seeds is called instructionsFrom now"]])
    said.mockRestore()
    expect(problemsOf({ seeds: "a", instructionsFrom: "b" })).toEqual([
      "seeds: is the former name of instructionsFrom, got both; leave it out",
    ])
  })

  it("keep what stands behind the first equals sign", () => {
    expect(parseSets(["model=a=b"])).toEqual({ model: "a=b" })
  })

  it("without an equals sign are refused", () => {
    expect(() => parseSets(["lr", "=3"])).toThrow(/--set lr: must read key=value[\s\S]*--set =3/)
  })
})

describe("settings files", () => {
  const dir = mkdtempSync(join(tmpdir(), "musc-settings-"))
  const file = (name: string, text: string) => {
    writeFileSync(join(dir, name), text)
    return join(dir, name)
  }

  it("may be YAML or JSON", () => {
    expect(readSettings(file("a.yaml", "lr: 1e-4 # low\nmethods: [base]\n"))).toEqual({ lr: 1e-4, methods: ["base"] })
    expect(readSettings(file("a.json", '{"lr": 1e-4}'))).toEqual({ lr: 1e-4 })
    expect(parseConfig(readSettings(file("b.yaml", "lr: 1e-4"))).rank).toBe(configDefaults.rank)
  })

  it("that are missing, broken or no settings are errors that name the file", () => {
    expect(() => readSettings(join(dir, "none.yaml"))).toThrow(
      /none\.yaml: could not read: no such file or folder \(ENOENT\)/,
    )
    expect(() => readSettings(file("c.yaml", "a: [1"))).toThrow(/c\.yaml, line 1: must be YAML or JSON/)
    expect(() => readSettings(file("c.yaml", "recipe: smoke\nlr: 'a\n"))).toThrow(/c\.yaml, line \d: must be YAML/)
    expect(() => readSettings(file("d.yaml", "- 1"))).toThrow(/d\.yaml: must hold settings/)
    expect(() => readSettings(file("e.yaml", "# none\n"))).toThrow(/e\.yaml: must hold settings.*got an empty file/)
  })
})

it("tdpo1 and tdpo2 are coarse training with their loss, and one of the ablation's methods each", () => {
  const config = parseConfig({ weighting: "kl", tdpoAlpha: 0.3 })
  const [coarse, one, two] = (["coarse", "tdpo1", "tdpo2"] as const).map((method) => trainSettings(config, method, 4))
  const preference = { ...(coarse as { preference: object }).preference }
  expect(coarse).toMatchObject({ weighting: "uniform", preference: { loss: "dpo" } })
  expect(one).toEqual({ ...coarse, preference: { ...preference, loss: "tdpo1" } })
  expect(two).toEqual({ ...coarse, preference: { ...preference, loss: "tdpo2", tdpoAlpha: 0.3 } })
  expect(recipes["ablation-weights"]!.config.methods).toEqual(expect.arrayContaining(["tdpo1", "tdpo2"]))
})
