import { beforeAll, describe, expect, it, vi } from "vitest"
import type { TokenSignals } from "../../lib/data/schema"
import { tf, useBackend } from "../../lib/device/tf"
import { type LocalModel, openLocal } from "../../lib/engine/local"
import { RefusedError } from "../../lib/errors"
import { type PairCounts, type TrainRow, type TrainSettings, trainAdapter, trainDefaults } from "../../lib/musc/train"
import { loadTokenizer } from "../../lib/text/tokenizer"
import { type CutOff, encodePairs } from "../../lib/train/pairs"

const dir = "data/models/world-small"
const tokenizer = loadTokenizer(dir)
const user = (content: string) => [{ role: "user" as const, content }]
const long = "Write about a sailor. ".repeat(20)

beforeAll(async () => {
  await useBackend()
})

describe("pairs at the cut-off", () => {
  it("are counted: left out where the prompt alone reaches it, shortened where an answer does", () => {
    const cutOff: CutOff = { leftOut: 0, shortened: 0 }
    const items = encodePairs(
      tokenizer,
      [
        { id: "a", prompt: user(long), chosen: "The sailor.", rejected: "A sailor." },
        { id: "b", prompt: user("Write."), chosen: long, rejected: "A sailor." },
        { id: "c", prompt: user("Write."), chosen: "The sailor.", rejected: "A sailor." },
      ],
      40,
      cutOff,
    )
    expect(cutOff).toEqual({ leftOut: 1, shortened: 1 })
    expect(items).toHaveLength(2)
    expect(items[0]!.prompt.length + items[0]!.chosen.length).toBe(40)
  })

  it("have a first token of weight 0 if so asked, without weights of their own too", () => {
    const [item] = encodePairs(
      tokenizer,
      [{ id: "a", prompt: user("Write."), chosen: "The sailor.", rejected: "A sailor.", firstTokenZero: true }],
      400,
    )
    expect(item!.chosenWeights[0]).toBe(0)
    expect(new Set(item!.chosenWeights.slice(1))).toEqual(new Set([1]))
  })
})

describe("training", () => {
  let local: LocalModel
  beforeAll(() => {
    local = openLocal(dir)
  })
  const answers = { chosen: "The sailor.", rejected: "A sailor slept." }
  const signals = (text: string): TokenSignals => {
    const tokens = tokenizer.tokenText([...tokenizer.encode(text), 0])
    const list = (of: (t: number) => number) => tokens.map((_, t) => of(t))
    return {
      tokens,
      logprob: list((t) => -1 - t / 10),
      logprob_noised: list((t) => -1.5 + t / 10),
      logprob_empty: list(() => -3),
      entropy: list(() => 1),
      entropy_noised: list(() => 1),
      kl: list((t) => t),
      kl_reverse: list((t) => 2 * t),
    }
  }
  const row: TrainRow = { id: "a", input: null, clean_instruction: "Write about a sailor.", ...answers }
  const scored = { ...row, signals: { chosen: signals(answers.chosen), rejected: signals(answers.rejected) } }
  const preference = { ...trainDefaults, epochs: 1, batchSize: 1, lr: 1e-3, warmup: 0 } as TrainSettings & {
    kind: "preference"
  }
  /** Norm of the first gradient: it tells one weighting from another. */
  async function firstStep(rows: TrainRow[], settings: TrainSettings = preference) {
    let norm = Number.NaN
    const notes: string[] = []
    const counts: PairCounts[] = []
    const lora = await trainAdapter(local, rows, settings, {
      onStep: ({ gradNorm }) => {
        norm = gradNorm
      },
      onNote: (line) => notes.push(line),
      onPairs: (count) => {
        counts.push(count)
      },
    })
    tf.dispose(lora.params)
    return { norm, notes, counts: counts[0]! }
  }
  const stored = (weights: TrainRow["weights"]) => ({ ...scored, weights })

  it("heeds firstTokenZero and the seed of random where rows already hold weights", async () => {
    const plain = await firstStep([scored])
    const held = { kl: { chosen: scored.signals.chosen.tokens.map(() => 1), rejected: [1] } }
    const other = await firstStep([stored(held)])
    expect(other.norm).toBe(plain.norm)
    expect(other.counts.otherWeights).toBe(1)
    expect(other.notes.join()).toMatch(/1 of 1 pairs hold other weights of kl; those of the signals/)
    const zero = await firstStep([stored(held)], { ...preference, firstTokenZero: true })
    expect(zero.norm).not.toBe(plain.norm)
    const random = { random: { chosen: [1], rejected: [1] } }
    const settings: TrainSettings = { ...preference, weighting: "random", seed: 3 }
    expect((await firstStep([stored(random)], settings)).norm).toBe((await firstStep([scored], settings)).norm)
  })

  it("trains on equal answers and on an empty chosen one, and says so", async () => {
    const uniform: TrainSettings = { ...preference, weighting: "uniform" }
    const { notes } = await firstStep(
      [{ ...row, rejected: row.chosen }, { ...row, id: "b", chosen: " " }, row],
      uniform,
    )
    expect(notes).toEqual([
      "training: 1 of 3 pairs have two equal answers, which show no preference; leave them out",
      "training: 1 of 3 pairs have an empty chosen answer, which is preferred to the other; leave them out",
    ])
    expect((await firstStep([row], uniform)).notes).toEqual([])
  })

  it("takes the weights that a row holds where it holds no signals", async () => {
    const n = (text: string) => signals(text).tokens.length
    const weights = (value: number) => ({
      kl: {
        chosen: Array<number>(n(answers.chosen)).fill(value),
        rejected: Array<number>(n(answers.rejected)).fill(value),
      },
    })
    const once = await firstStep([{ ...row, weights: weights(0.5) }])
    const twice = await firstStep([{ ...row, weights: weights(1) }])
    expect(twice.norm / once.norm).toBeCloseTo(2, 1)
    await expect(firstStep([row])).rejects.toThrow(/pair a must have signals to be weighed by kl, got none/)
  })

  it("leaves out a pair whose text has no tokens for this model, says so, and trains on the others", async () => {
    const encode = (text: string) => {
      if (!text.includes("<odd>")) return tokenizer.encode(text)
      throw Object.assign(new RefusedError("tokenizer.json: no"), { reason: "no embedding for <odd>" })
    }
    const odd = { ...row, rejected: "A sailor <odd>." }
    const settings: TrainSettings = { ...preference, weighting: "uniform" }
    const strict = { ...local, tokenizer: { ...tokenizer, encode } }
    const notes: string[] = []
    const control = { onNote: (line: string) => notes.push(line), onPairs: vi.fn() }
    const lora = await trainAdapter(strict, [row, odd, row], settings, control)
    tf.dispose(lora.params)
    expect(notes).toEqual(["training: 1 of 3 pairs left out, as they were refused: no embedding for <odd>"])
    expect(control.onPairs).toHaveBeenCalledWith(expect.objectContaining({ pairs: 2, refused: 1 }))
    await expect(trainAdapter(strict, [odd], settings, control)).rejects.toThrow(
      /at least one pair, got none, as 1 were refused: no embedding for <odd>/,
    )
  })

  it("says how many pairs the cut-off takes, and why none is left", async () => {
    const tooLong = { ...row, clean_instruction: long }
    const settings: TrainSettings = { ...preference, weighting: "uniform", cutoff: 30 }
    const { notes, counts } = await firstStep([row, tooLong], settings)
    expect(counts).toMatchObject({ pairs: 1, leftOut: 1 })
    expect(notes).toEqual([
      "training: 1 of 2 pairs left out, as the prompt alone reaches the cut-off of 30 tokens; raise cutoff to keep them",
    ])
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
    await expect(trainAdapter(local, [tooLong], settings)).rejects.toThrow(
      /got none of 1, as every prompt reaches the cut-off of 30 tokens; raise cutoff/,
    )
    expect(warn).toHaveBeenCalledOnce()
    warn.mockRestore()
  })

  it.each(["simpo", "orpo"] as const)("refuses token weights under %s, which reads none", async (loss) => {
    const settings: TrainSettings = { ...preference, preference: { ...preference.preference, loss } }
    await expect(firstStep([scored], settings)).rejects.toThrow(/musc would equal coarse, got weighting kl/)
    await expect(firstStep([scored], { ...settings, weighting: "uniform", firstTokenZero: true })).rejects.toThrow(
      /got firstTokenZero/,
    )
    expect((await firstStep([scored], { ...settings, weighting: "uniform" })).norm).toBeGreaterThan(0)
  })
})
