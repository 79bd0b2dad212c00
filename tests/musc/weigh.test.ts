import { describe, expect, it } from "vitest"
import { configDefaults } from "../../lib/config/config"
import { recipes } from "../../lib/config/recipes"
import { pairRow, type TokenSignals, weighedRow } from "../../lib/data/schema"
import type { ScoreRequest } from "../../lib/engine/engine"
import { scripted } from "../../lib/engine/scripted"
import { RefusedError } from "../../lib/errors"
import { trainDefaults } from "../../lib/musc/train"
import {
  defaultWeighting,
  MAX_WEIGHT,
  normalise,
  ownSignals,
  type WeightingName,
  weigh,
  weighDefaults,
  weightings,
  weightsOf,
} from "../../lib/musc/weigh"
import { rng } from "../../lib/rng"

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length

/** Signals of a made-up answer of `n` tokens: heavy tails as in real ones, noise around 0 in the KLs. */
function madeUp(n: number, seed: number): TokenSignals {
  const { next } = rng(seed, "signals")
  const list = <T>(value: () => T) => Array.from({ length: n }, value)
  const logprob = list(() => -Math.exp(4 * next() - 3))
  return {
    tokens: list(() => "x"),
    logprob,
    logprob_noised: logprob.map((lp) => Math.min(-1e-6, lp + (next() < 0.2 ? -4 * next() : 0.1 * (next() - 0.5)))),
    logprob_empty: list(() => -6 * next()),
    entropy: list(() => 3 * next() ** 4),
    entropy_noised: list(() => 3 * next() ** 4),
    kl: list(() => (next() < 0.1 ? 5 * next() : 1e-6 * next() - 1e-9)),
    kl_reverse: list(() => (next() < 0.1 ? 5 * next() : 1e-6 * next() - 1e-9)),
  }
}

describe("normalise", () => {
  it("gives mean 1 within [0, 2], keeps order and zeros", () => {
    for (let seed = 0; seed < 50; seed++) {
      const { next } = rng(seed)
      const s = Array.from({ length: 31 }, (_, t) => (t % 4 ? next() ** 6 : 0))
      const w = normalise(s)
      expect(mean(w)).toBeCloseTo(1, 10)
      for (const [t, value] of w.entries()) {
        expect(value).toBeGreaterThanOrEqual(0)
        expect(value).toBeLessThanOrEqual(MAX_WEIGHT)
        if (s[t] === 0) expect(value).toBe(0)
        for (const [u, other] of w.entries()) if (s[u]! > s[t]!) expect(other).toBeGreaterThanOrEqual(value)
      }
    }
  })

  // [8, 1, 1, 1]: with the 8 at 2, c (1 + 1 + 1) = 4 - 2, so c = 2/3.  [3, 2, 1]: c = 1/2 caps nothing.
  it("is the scale at which the capped mean is 1", () => {
    for (const [t, value] of normalise([8, 1, 1, 1]).entries())
      expect(value).toBeCloseTo([2, 2 / 3, 2 / 3, 2 / 3][t]!, 12)
    expect(normalise([3, 2, 1])).toEqual([1.5, 1, 0.5])
  })

  // One of four positive: it gets 2, the three others share 4 - 2.
  it("shares the rest when too few importances are positive", () => {
    expect(normalise([0, 5, 0, 0])).toEqual([2 / 3, 2, 2 / 3, 2 / 3])
    expect(normalise([0, 0])).toEqual([1, 1])
    expect(normalise([])).toEqual([])
  })
})

describe("weightings", () => {
  const names = Object.keys(weightings) as WeightingName[]

  it.each(names)("%s stays in [0, 2] and, but for ratio, has mean 1", (name) => {
    for (let seed = 0; seed < 20; seed++) {
      const signals = { chosen: madeUp(1 + seed * 7, seed), rejected: madeUp(40, seed + 100) }
      const weights = weightsOf(signals, name, { id: "a", seed })
      for (const answer of ["chosen", "rejected"] as const) {
        expect(weights[answer]).toHaveLength(signals[answer].tokens.length)
        expect(Math.min(...weights[answer])).toBeGreaterThanOrEqual(0)
        expect(Math.max(...weights[answer])).toBeLessThanOrEqual(2)
        if (name !== "ratio") expect(mean(weights[answer])).toBeCloseTo(1, 9)
      }
    }
  })

  it.each(names.filter((name) => name !== "random"))(
    "%s gives the rejected answer what the chosen one gets with the prompts exchanged",
    (name) => {
      const s = madeUp(30, 3)
      const exchanged: TokenSignals = {
        ...s,
        logprob: s.logprob_noised,
        logprob_noised: s.logprob,
        entropy: s.entropy_noised,
        entropy_noised: s.entropy,
        kl: s.kl_reverse,
        kl_reverse: s.kl,
      }
      const { chosen, rejected } = weightsOf({ chosen: s, rejected: exchanged }, name)
      expect(rejected).toEqual(chosen)
    },
  )

  // Two tokens that matter, one way each: 0 is likelier under clean, 1 under noised, 2 and 3 are alike under both.
  const flat = { tokens: ["a", "b", "c", "d"], logprob_empty: [-2, -2, -2, -2], entropy: [1, 1, 1, 1] }
  const tokens: TokenSignals = {
    ...flat,
    entropy_noised: flat.entropy,
    logprob: [-1, -4, -2, -2],
    logprob_noised: [-4, -1, -2, -2],
    kl: [3, 2, 0, 0],
    kl_reverse: [2, 3, 0, 0],
  }

  it("contrast puts the weight on what its own prompt made likelier", () => {
    const { chosen, rejected } = weightsOf({ chosen: tokens, rejected: tokens }, "contrast")
    // softplus: ln(1 + e^3) = 3.0486, ln(1 + e^-3) = .0486, ln 2 = .6931 twice. The first is capped at 2, so
    // c = (4 - 2) / (.0486 + 2 * .6931) = 1.3938 and the weights are 2, .0677, .9661, .9661.
    for (const [t, value] of chosen.entries()) expect(value).toBeCloseTo([2, 0.0677, 0.9661, 0.9661][t]!, 4)
    expect(rejected).toEqual([chosen[1], chosen[0], chosen[2], chosen[3]])
  })

  it("kl puts the weight on where the prompts disagree", () => {
    // Values plus a quarter of their mean, 5/16: 53/16, 37/16, 5/16, 5/16, sum 100/16.
    const { chosen } = weightsOf({ chosen: tokens, rejected: tokens }, "kl")
    // c = 4 / (100/16) = .64 would give the first 2.12: it is capped, and c = 2 / (47/16) leaves 74/47, 10/47, 10/47.
    for (const [t, value] of chosen.entries()) expect(value).toBeCloseTo([2, 74 / 47, 10 / 47, 10 / 47][t]!, 10)
  })

  it("ratio is min(2, .6 other / own), .6 where the prompts agree, and 1.2 for a certain token", () => {
    // -1 / -4: .6 · 4 = 2.4 is capped; -4 / -1: .6 / 4; both -2: .6; own 0: 1.2, whatever the other says
    const sure = { ...tokens, logprob: [-1, -4, -2, 0], logprob_noised: [-4, -1, -2, -3] }
    const { chosen, rejected } = weightsOf({ chosen: sure, rejected: sure }, "ratio")
    for (const [t, value] of chosen.entries()) expect(value).toBeCloseTo([2, 0.15, 0.6, 1.2][t]!, 12)
    // the rejected answer's own prompt is the noised one; .6 · 0 / 3 = 0
    for (const [t, value] of rejected.entries()) expect(value).toBeCloseTo([0.15, 2, 0.6, 0][t]!, 12)
    const certain = { ...tokens, logprob: [0, 1e-8, -2, -2], logprob_noised: [0, 0, -2, -2] }
    expect(weightsOf({ chosen: certain, rejected: tokens }, "ratio").chosen).toEqual([1.2, 1.2, 0.6, 0.6])
  })

  it("ratio weighs up the tokens that their own prompt made likelier", () => {
    const s = madeUp(200, 7)
    const { chosen } = weightsOf({ chosen: s, rejected: s }, "ratio")
    for (const [t, weight] of chosen.entries()) {
      if (s.logprob[t]! > s.logprob_noised[t]!) expect(weight).toBeGreaterThan(0.6)
      if (s.logprob[t]! < s.logprob_noised[t]!) expect(weight).toBeLessThan(0.6)
    }
  })

  // 2, .15, .6, .6 sum to 3.35; 4 / 3.35 would give the first 2.39, so it is capped and c = 2 / 1.35.
  it("ratio-scaled is ratio at mean 1", () => {
    const { chosen } = weightsOf({ chosen: tokens, rejected: tokens }, "ratio-scaled")
    for (const [t, value] of chosen.entries())
      expect(value).toBeCloseTo([2, 0.3 / 1.35, 1.2 / 1.35, 1.2 / 1.35][t]!, 12)
  })

  it("tis-dpo clamps the gap to [-.5, 1.5]", () => {
    const weights = weightings["tis-dpo"](ownSignals(tokens, "chosen"))
    // e^1.5 = 4.4817, e^-.5 = .6065, 1, 1: c = 2 / 2.6065 with the first at 2.
    for (const [t, value] of weights.entries()) expect(value).toBeCloseTo([2, 0.4654, 0.7673, 0.7673][t]!, 4)
  })

  it("random depends on seed, row and answer alone", () => {
    const signals = { chosen: tokens, rejected: tokens }
    const at = (id: string, seed: number) => weightsOf(signals, "random", { id, seed })
    expect(at("a", 1)).toEqual(at("a", 1))
    expect(at("a", 1)).not.toEqual(at("a", 2))
    expect(at("a", 1)).not.toEqual(at("b", 1))
    expect(at("a", 1).chosen).not.toEqual(at("a", 1).rejected)
  })

  it("names the signal that is not finite or too short", () => {
    const bad = { ...tokens, kl: [1, Number.NaN, 0, 0] }
    expect(() => weightsOf({ chosen: bad, rejected: tokens }, "uniform")).toThrow(
      /chosen must have 4 finite values of kl/,
    )
    expect(() => weightsOf({ chosen: tokens, rejected: { ...tokens, kl: [1] } }, "kl")).toThrow(/klReverse, got 1/)
  })
})

describe("the default weighting", () => {
  it("is the same in the library, the settings and every recipe", () => {
    expect(defaultWeighting).toBe("kl")
    expect(trainDefaults).toMatchObject({ weighting: "kl" })
    expect(configDefaults.weighting).toBe("kl")
    expect(weighDefaults.weightings).toContain("kl")
    for (const { config, otherModels, variants } of Object.values(recipes))
      for (const given of [config, otherModels, ...Object.values(variants ?? {})])
        expect({ ...configDefaults, ...config, ...given }.weighting).toBe("kl")
  })
})

describe("the stage", () => {
  const row = pairRow.parse({
    id: "a",
    instruction: "i",
    input: "text",
    constraints: ["a", "b"],
    noised_constraints: ["a"],
    edits: [{ index: 1, kind: "constraint-dropout", before: "b", after: null }],
    clean_instruction: "clean",
    noised_instruction: "noised",
    chosen: "good",
    rejected: "bad",
  })

  it("scores both answers under the three prompts and keeps the weightings asked for", async () => {
    const asked: ScoreRequest[] = []
    const scorer = {
      ...scripted({}),
      score: async (request: ScoreRequest) => {
        asked.push(request)
        return [madeUp(5, 1), madeUp(7, 2)]
      },
    }
    const done = weighedRow.parse(await weigh(scorer, row, { weightings: ["uniform", "kl"], firstTokenZero: true }))
    const user = (content: string) => [{ role: "user", content }]
    expect(asked).toEqual([
      { clean: user("clean\n\ntext"), noised: user("noised\n\ntext"), empty: user(""), responses: ["good", "bad"] },
    ])
    expect(Object.keys(done.weights)).toEqual(["uniform", "kl"])
    expect(done.weights.uniform).toEqual({ chosen: [0, 1, 1, 1, 1], rejected: [0, 1, 1, 1, 1, 1, 1] })
    expect(done.weights.kl!.rejected[0]).toBe(0)
  })

  it("fails a row whose texts the scorer refuses, with the reason, unless it refuses the first ones all", async () => {
    const refusal = Object.assign(new RefusedError("tokenizer.json: no"), { reason: "no embedding for <odd>" })
    const of = (refuses: (n: number) => boolean) => {
      let asked = 0
      return {
        ...scripted({}),
        score: async () => {
          if (refuses(asked++)) throw refusal
          return [madeUp(5, 1), madeUp(7, 2)]
        },
      }
    }
    const second = of((n) => n % 2 === 1)
    const rows = await Promise.all([row, row, row, row].map((one) => weigh(second, one, { weightings: ["kl"] })))
    const failure = { stage: "weigh", reason: "request refused: no embedding for <odd>" }
    expect(rows.map((one) => one.failure)).toEqual([undefined, failure, undefined, failure])
    const every = of(() => true)
    await expect(Promise.all([row, row, row].map((one) => weigh(every, one)))).rejects.toThrow(
      "all of the first 3 requests were refused: tokenizer.json: no",
    )
  })
})
