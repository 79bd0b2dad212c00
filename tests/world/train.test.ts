import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { tf, useBackend } from "../../lib/device/tf"
import { scripted } from "../../lib/engine/scripted"
import type { Model } from "../../lib/model/transformer"
import { floatParams } from "../../lib/model/transformer"
import { initModel } from "../../lib/model/weights"
import { respondMessages } from "../../lib/musc/respond"
import { rng, streamKey } from "../../lib/rng"
import { encodeChat } from "../../lib/text/chat"
import { loadTokenizer, type Tokenizer } from "../../lib/text/tokenizer"
import { worldBuildDefaults } from "../../lib/world/build"
import { modelCard, type PhaseFigures } from "../../lib/world/card"
import { corpusExample, phases, tasks } from "../../lib/world/corpus"
import { measureAbility, measureTasks } from "../../lib/world/measure"
import { realise } from "../../lib/world/realise"
import { worldInstructions } from "../../lib/world/spec"
import { worldTokenizer, worldVocabulary } from "../../lib/world/tokenizer"
import { phaseTokens, trainPhase, worldConfig } from "../../lib/world/train"
import { largestGap } from "../support/tensors"

const dir = mkdtempSync(join(tmpdir(), "world-train-"))
afterAll(() => rmSync(dir, { recursive: true }))

describe("a phase of training", () => {
  let tokenizer: Tokenizer
  beforeAll(async () => {
    await useBackend()
    for (const [name, json] of Object.entries(worldTokenizer(worldVocabulary({ seed: 1, examples: 500 })))) {
      writeFileSync(join(dir, name), JSON.stringify(json))
    }
    tokenizer = loadTokenizer(dir)
  })

  const fresh = (): Model => {
    const whole = worldConfig(tokenizer.vocabSize, tokenizer.eosIds[0]!, tokenizer.padId)
    const layers = 2
    const small = { dim: 32, layers, heads: 4, kvHeads: 2, headDim: 8, ffn: 64, queryScale: 8 ** -0.5 }
    return initModel(
      { ...whole, ...small, rope: whole.rope.slice(0, layers), window: whole.window.slice(0, layers) },
      1,
      0.05,
    )
  }
  it("counts its tokens, prompt and answers, of all examples where they are few", () => {
    const tokens = Array.from({ length: 12 }, (_, i) => {
      const { prompt, response, others = [] } = corpusExample(i, { seed: 5, phase: "able" })
      const ids = [response, ...others].map((text) => encodeChat(tokenizer, [{ role: "user", content: prompt }], text))
      return ids[0]!.promptIds.length + ids.reduce((sum, { responseIds }) => sum + responseIds.length, 0)
    })
    const of = { phase: "able", batchSize: 4, lr: 1, shape: "linear", seed: 5 } as const
    expect(phaseTokens(tokenizer, { ...of, steps: 3 })).toBe(tokens.reduce((a, b) => a + b))
  })

  const run = async (changes: { seed?: number; steps?: number; lr?: number } = {}) => {
    const model = fresh()
    const losses: number[] = []
    const options = {
      phase: "able" as const,
      steps: 30,
      batchSize: 4,
      lr: 0.02,
      shape: "plateau" as const,
      seed: 1,
      ...changes,
    }
    await trainPhase(model, tokenizer, options, { onStep: ({ loss }) => void losses.push(loss) })
    const norm = [...floatParams(model).norm!.dataSync()]
    tf.dispose(model.params)
    return { losses, norm }
  }

  it("begins at the loss of a guess and brings it down", async () => {
    const { losses } = await run({ steps: 60, lr: 0.01 })
    expect(losses).toHaveLength(60)
    // a fresh model gives every token about 1 / V
    expect(Math.abs(losses[0]! - Math.log(tokenizer.vocabSize))).toBeLessThan(0.2)
    const last = losses.slice(-5).reduce((a, b) => a + b) / 5
    expect(last).toBeLessThan(losses[0]! - 1.5)
  })

  it("is the same with the same seed, and other with another", async () => {
    const [a, b, c] = [await run({ steps: 4 }), await run({ steps: 4 }), await run({ steps: 4, seed: 2 })]
    expect(largestGap(a.losses, b.losses)).toBeLessThan(1e-5)
    expect(largestGap(a.norm, b.norm)).toBeLessThan(1e-5)
    expect(Math.abs(a.losses[1]! - c.losses[1]!)).toBeGreaterThan(1e-4)
  })
})

describe("measuring", () => {
  const wanted = { n: 20, temperature: 0.5, seed: 3 }
  /** Answers held-out instructions by their specs; `heeds` says whether constraints are kept. */
  const answering = (heeds: (index: number) => boolean) => {
    const rows = worldInstructions({ n: wanted.n, seed: wanted.seed, split: "eval", constraints: [3, 5] })
    const answers = rows.map(({ world, instruction }) => [
      respondMessages(instruction, null)[0]!.content,
      realise(world, rng(instruction), (_, k) => heeds(k)),
    ])
    return scripted(Object.fromEntries(answers))
  }

  it("finds all constraints kept by answers that keep them", async () => {
    const engine = answering(() => true)
    const { csr, isr, n, kinds } = await measureAbility(engine, wanted)
    expect([csr, isr, n]).toEqual([1, 1, 20])
    for (const { solved, n: asked } of Object.values(kinds)) expect(solved).toBe(asked)
    expect(kinds.topic).toEqual({ solved: 20, n: 20 })
    expect(engine.requests.every(({ temperature }) => temperature === 0.5)).toBe(true)
    expect(new Set(engine.requests.map(({ seed }) => seed)).size).toBe(20)
  })

  it("finds none kept in answers that say nothing, but for bans", async () => {
    const { csr, isr, kinds } = await measureAbility(
      scripted(() => "…"),
      wanted,
    )
    expect(isr).toBe(0)
    const bans = Object.entries(kinds).filter(([kind]) => kind.startsWith("not "))
    const wishes = Object.entries(kinds).filter(([kind]) => !kind.startsWith("not "))
    for (const [kind, { solved }] of wishes) expect(solved, kind).toBe(0)
    expect(bans.length).toBeGreaterThan(0)
    expect(csr).toBeLessThan(0.5)
  })

  it("finds the topic alone where all else is ignored", async () => {
    const { kinds, isr } = await measureAbility(
      answering((k) => k === 0),
      wanted,
    )
    expect(kinds.topic).toEqual({ solved: 20, n: 20 })
    expect(isr).toBeLessThan(0.2)
  })

  it("gives 1 for every task to an engine that knows the answers, 0 to one that is silent", async () => {
    const seed = 5
    const known = new Map<string, string>()
    const examples = Array.from({ length: 2000 }, (_, i) =>
      corpusExample(i, { seed: streamKey(seed, "measure-tasks"), phase: "finishing", split: "eval" }),
    )
    for (const { prompt, response } of examples) known.set(prompt, response)
    const knowing = scripted(({ messages }) => known.get(messages.at(-1)!.content) ?? new Error("was not asked for"))
    const right = await measureTasks(knowing, { n: 3, seed, tasks })
    const wrong = await measureTasks(
      scripted(() => ""),
      { n: 3, seed, tasks },
    )
    for (const task of tasks) {
      expect(right[task], task).toEqual({ solved: 3, n: 3 })
      expect(wrong[task], task).toEqual({ solved: 0, n: 3 })
    }
    // only self-instruct, whose prompt never changes, is sampled
    expect(knowing.requests.filter(({ temperature }) => temperature > 0)).toHaveLength(3)
  })
})

describe("the model card", () => {
  const figures = (csr: number, loss: number): PhaseFigures => ({
    loss,
    abilities: [0, 0.5].map((temperature) => ({
      temperature,
      n: 500,
      csr: csr - temperature / 10,
      isr: csr / 2 - temperature / 10,
      kinds: { "not word": { solved: 30, n: 40 } },
    })),
    tasks: { decompose: { solved: 197, n: 200 } },
  })
  const card = modelCard({
    options: { ...worldBuildDefaults, seed: 77 },
    made: { command: "musc world build", commit: "abc1234", machine: "2 cores" },
    parameters: 1_834_567,
    tokens: { ...Object.fromEntries(phases.map((phase) => [phase, 2e6])), finishing: 11_460_000 },
    able: figures(0.986, 0.12345),
    careless: { ...figures(0.612, 0.4567), tasks: {} },
  })

  it("holds what was measured, to three places, with counts", () => {
    expect(card).toContain("| 0 | 0.986 | 0.493 | 0.612 | 0.306 | 500 |")
    expect(card).toContain("| 0.5 | 0.936 | 0.443 | 0.562 | 0.256 | 500 |")
    expect(card).toContain("| decompose | 0.985 (200) | – |")
    expect(card).toContain("| not word | 0.750 (40) | 0.750 (40) |")
  })

  it("says how it was made", () => {
    for (const text of ["1.83 M parameters", "seed 77", "`musc world build` at commit abc1234 on 2 cores"]) {
      expect(card).toContain(text)
    }
    const { steps, batchSize, lr } = worldBuildDefaults.finishing
    expect(card).toContain(
      `${steps} steps of ${batchSize} examples (11.5 M tokens), AdamW at ${lr}; last loss 0.1235 nats`,
    )
    expect(card).toContain("last loss 0.4567")
    expect(card).toContain(`**Tokens**: ${(11.46 + 2 * (phases.length - 1)).toFixed(1)} M in all phases`)
    expect(card).toMatch(/^---\nlanguage: en\n/)
  })
})
