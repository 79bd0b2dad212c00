import { describe, expect, it } from "vitest"
import type { EvalItem, MetricsLine, Score } from "../../lib/data/results"
import { countWeights, noWeights, trainingCurves, weightDistribution } from "../../lib/plots/curves"
import { resultBars, satisfactionByCount, satisfactionByKind } from "../../lib/plots/figures"
import { figureSvg } from "../../lib/plots/picture"
import { shareBy, wilson } from "../../lib/plots/shares"
import { editKinds, stageFunnel } from "../../lib/plots/stage-figures"
import { type Figure, inkOn, methodLooks, orderMethods } from "../../lib/plots/theme"
import { leastDistance } from "../support/markers"

const trace = (figure: Figure, name: string, xaxis?: string) => {
  const found = figure.data.find((one) => one.name === name && (xaxis === undefined || one.xaxis === xaxis))
  if (!found) throw new Error(`no trace ${name}`)
  return found as unknown as { x: unknown[]; y: unknown[]; [name: string]: unknown }
}

const item = (method: string, verdicts: Record<string, boolean | null>, more: Partial<EvalItem> = {}): EvalItem => ({
  id: "a",
  seed: 0,
  method,
  temperature: 0,
  instruction: "write",
  answer: "text",
  constraints: Object.entries(verdicts).map(([kind, satisfied]) => ({ question: `${kind}?`, kind, satisfied })),
  ...more,
})

describe("satisfaction", () => {
  const items = [
    item("base", { topic: true, word: false }),
    item("base", { topic: true, word: true, end: false }),
    item("base", { topic: true, word: null, end: true }),
    item("musc", { topic: true, word: true }),
    item("musc", { topic: false, word: false }, { temperature: 0.5 }),
  ]

  it("by kind is the share of readable verdicts at the lowest temperature, the hardest kind at the bottom", () => {
    // base: topic 3 of 3, word 1 of 2 (one unreadable), end 1 of 2; ties by name. The axis lists from the bottom up.
    const figure = satisfactionByKind(items)
    const base = trace(figure, "base")
    const shares = Object.fromEntries(base.y.map((kind, i) => [kind, base.x[i]]))
    expect(shares).toEqual({ topic: 1, word: 0.5, end: 0.5 })
    expect(figure.layout.yaxis).toMatchObject({ categoryarray: ["topic", "end", "word"], autorange: "reversed" })
    const musc = trace(figure, "musc")
    expect(Object.fromEntries(musc.y.map((kind, i) => [kind, musc.x[i]]))).toEqual({ topic: 1, word: 1 })
  })

  it("by kind has a place of its own for each method, where their shares are the same too", async () => {
    const same = ["base", "sft", "coarse", "musc"].map((method) => item(method, { topic: true }))
    expect(await leastDistance(satisfactionByKind(same), 4)).toBeGreaterThan(7)
  })

  it("by number of constraints follows the definitions of CSR and ISR", () => {
    // base, 2 constraints: one answer, CSR 1/2, ISR 0. base, 3 constraints: 2/3 and 2/2 readable: CSR 5/6, ISR 1/2.
    const figure = satisfactionByCount(items)
    const [csr, isr] = [trace(figure, "base", "x").y, trace(figure, "base", "x2").y] as [number[], number[]]
    expect(csr[0]).toBeCloseTo(1 / 2, 12)
    expect(csr[1]).toBeCloseTo(5 / 6, 12)
    expect(isr).toEqual([0, 0.5])
  })

  it("asked for at another temperature, shows that one", () => {
    expect(satisfactionByCount(items, 0.5).data.map(({ name }) => name)).toEqual(["musc", "musc"])
    expect(trace(satisfactionByKind(items, 0.5), "musc").x).toEqual([0, 0])
  })

  it("grouped by several keys keeps groups apart whatever their names", () => {
    const names = [
      ["a", "b-c"],
      ["a-b", "c"],
      ["musc-kl", "word"],
    ] as const
    const rows = Array.from({ length: 63 }, (_, i) => {
      const [method, kind] = names[i % 3]!
      return { method, kind, count: 3 + (i % 2), satisfied: Number(i % 7 < 3) }
    })
    const groups = shareBy(rows, ["method", "kind", "count"])
    expect(groups).toHaveLength(6)
    for (const { method, kind, count, share, n } of groups) {
      const own = rows.filter((row) => row.method === method && row.kind === kind && row.count === count)
      expect(n).toBe(own.length)
      expect(share).toBeCloseTo(own.reduce((sum, row) => sum + row.satisfied, 0) / own.length, 12)
    }
  })
})

it("Wilson's interval has its ends where the score test rejects at 5 %", () => {
  // The ends p of the interval solve (s - p)^2 = z^2 p (1 - p) / n.
  for (const [share, n] of [
    [0.3, 50],
    [0, 20],
    [1, 7],
  ] as const)
    for (const p of wilson(share, n)) expect((share - p) ** 2).toBeCloseTo((1.959964 ** 2 * p * (1 - p)) / n, 10)
})

const score = (csr: number, isr: number): Score => ({
  csr,
  isr,
  csr_interval: [csr - 0.02, csr + 0.03],
  isr_interval: [isr - 0.04, isr + 0.05],
  n: 100,
  unreadable: 0,
  seeds: [],
})

it("Result bars are as high as the rates, with error bars that end where the intervals end", () => {
  const figure = resultBars({
    methods: { musc: { "T0.5": score(0.8, 0.6), T0: score(0.9, 0.7) }, base: { T0: score(0.6, 0.3) } },
  })
  const musc = trace(figure, "musc", "x2")
  expect(musc.x).toEqual(["temperature 0", "temperature 0.5"])
  expect(musc.y).toEqual([0.7, 0.6])
  const { array, arrayminus } = musc.error_y as { array: number[]; arrayminus: number[] }
  expect(array[0]).toBeCloseTo(0.05, 12)
  expect(arrayminus[0]).toBeCloseTo(0.04, 12)
  // base was not evaluated at .5: no bar, not a bar of height 0
  expect(trace(figure, "base", "x").y).toEqual([0.6, null])
  expect(figure.data.filter(({ error_y }) => error_y).map(({ name }) => name)).toEqual(["base", "musc", "base", "musc"])
})

it("Result bars have their numbers above the intervals, those of 0 and of small shares too", async () => {
  const low: Score = { ...score(0.05, 0), csr_interval: [0, 0.6], isr_interval: [0, 0.3] }
  const figure = resultBars({ methods: { base: { T0: low }, musc: { T0: score(0.5, 0.94) } } })
  const numbers = figure.data.filter(({ text }) => text) as unknown as { y: number[]; text: string[] }[]
  expect(numbers.map(({ text, y }) => [text[0], y[0]])).toEqual([
    ...[["5", 0.6] as const, ["50", 0.53] as const],
    ...[["0", 0.3] as const, ["94", 0.99] as const],
  ])
  const svg = await figureSvg(figure, { width: 800 })
  const drawn = [...svg.matchAll(/class="bartext[^>]*transform="translate\(([\d.]+),([\d.]+)\)"[^>]*>(\d+)</g)]
  expect(drawn.map(([, , , text]) => text)).toEqual(["5", "50", "0", "94"])
  const [, , y5] = drawn[0]!
  const [, , y50] = drawn[1]!
  expect(Number(y5)).toBeLessThan(Number(y50)) // the higher interval carries the smaller number
})

it("The funnel shows every row of the source: those that passed and those that failed, by reason", () => {
  const figure = stageFunnel([
    { stage: "source", rows: 10, passed: 9, reasons: { repeat: 1 } },
    { stage: "decompose", rows: 9, passed: 5, reasons: { "too few": 1, "cut off": 3 } },
  ])
  const [passed, lost] = figure.data as unknown as { x: number[]; y: string[] }[]
  expect(passed).toMatchObject({ x: [9, 5], y: ["source", "decompose"] })
  expect(lost).toMatchObject({ x: [1, 3, 1], y: ["source: repeat", "decompose: cut off", "decompose: too few"] })
  expect(passed!.x.at(-1)! + lost!.x.reduce((a, b) => a + b)).toBe(10)
  expect(stageFunnel([{ stage: "source", rows: 4, passed: 4, reasons: {} }]).data).toHaveLength(1)
})

it("Edits are counted by what was asked for and what came of it", () => {
  const figure = editKinds([
    { intended: "constraint-dropout", got: "dropped" },
    { intended: "constraint-negate", got: "negated" },
    { intended: "constraint-negate", got: "substituted" },
    { intended: "constraint-negate", got: "negated" },
  ])
  expect(trace(figure, "negated").x).toEqual([0, 2, 0])
  expect(trace(figure, "substituted").x).toEqual([0, 1, 0])
  expect(figure.data.map(({ name }) => name)).toEqual(["dropped", "negated", "substituted"])
})

const line = (step: number, more: Partial<MetricsLine>): MetricsLine => ({
  step,
  steps: 3,
  loss: 1,
  lr: 1,
  grad_norm: 1,
  tokens: 1,
  ...more,
})

describe("training curves", () => {
  it("are means over seeds", () => {
    const log = (seed: number, margins: number[]) => ({
      method: "musc",
      seed,
      lines: margins.map((margin, i) => line(i + 1, { margin, chosen_reward: -margin, rejected_reward: -2 * margin })),
    })
    const figure = trainingCurves([log(0, [0, 2, 4]), log(1, [0, 4, 6])], { window: 1 })
    const margin = figure.data.find(({ xaxis }) => xaxis === "x3")!
    expect(margin).toMatchObject({ x: [1, 2, 3], y: [0, 3, 5] })
    const [chosen, rejected] = figure.data.filter(({ xaxis }) => xaxis === "x2")
    expect(chosen!.y).toEqual([0, -3, -5])
    expect(rejected!.y).toEqual([0, -6, -10])
  })

  it("are averaged over the steps of the window, fewer at both ends", () => {
    const lines = [3, 6, 9].map((loss, i) => line(i + 1, { loss }))
    // (3 + 6) / 2, (3 + 6 + 9) / 3, (6 + 9) / 2
    expect(trainingCurves([{ method: "sft", seed: 0, lines }], { window: 3 }).data[0]!.y).toEqual([4.5, 6, 7.5])
  })

  it("without rewards have the panel of the loss alone", () => {
    const figure = trainingCurves([{ method: "sft", seed: 0, lines: [line(1, {})] }])
    expect(figure.data).toHaveLength(1)
    expect(figure.layout.annotations).toHaveLength(1)
    expect(figure.layout.shapes).toBeUndefined()
  })

  it("of long trainings are thinned and keep their last step", () => {
    const lines = Array.from({ length: 5000 }, (_, i) => line(i + 1, { loss: i }))
    const { x } = trainingCurves([{ method: "sft", seed: 0, lines }], { points: 100 }).data[0] as unknown as {
      x: number[]
    }
    expect(x.length).toBeLessThanOrEqual(101)
    expect(x.at(-1)).toBe(5000)
  })
})

it("The weight distribution shows the share of tokens in each tenth, the cap in the last one", () => {
  const counts = noWeights()
  countWeights(counts, { chosen: [0, 0.05, 0.1, 2], rejected: [1.2, 1.9] })
  const figure = weightDistribution({ contrast: counts })
  const [chosen, rejected] = figure.data as unknown as { x: number[]; y: number[] }[]
  const at = ({ x, y }: { x: number[]; y: number[] }) =>
    Object.fromEntries(x.flatMap((v, i) => (y[i] ? [[v, y[i]]] : [])))
  expect(at(chosen!)).toEqual({ 0.05: 0.5, 0.15: 0.25, 1.95: 0.25 })
  expect(at(rejected!)).toEqual({ 1.25: 0.5, 1.95: 0.5 })
  expect(weightDistribution({ uniform: counts, contrast: counts }).data).toHaveLength(2)
})

describe("theme", () => {
  it("lists methods in one order and gives each its own look", () => {
    const methods = orderMethods(["musc-kl", "musc", "base", "musc-ratio", "sft", "musc"])
    expect(methods).toEqual(["base", "sft", "musc", "musc-kl", "musc-ratio"])
    const look = methodLooks(methods)
    expect(new Set(methods.map((name) => look(name).colour)).size).toBe(5)
    expect(look("musc")).toEqual(methodLooks(["musc"])("musc"))
  })

  it("writes on a colour in the ink that reads better", () => {
    expect(inkOn("#FFFFFF")).toBe("#000000")
    expect(inkOn("#0072B2")).toBe("#FFFFFF")
    expect(inkOn("#56B4E9")).toBe("#010101") // as sky stays on a dark page, so must its ink
  })

  it("keeps tags in names of methods from being read as markup", () => {
    const figure = resultBars({ methods: { "<a href='x'>": { T0: score(0.5, 0.5) } } })
    expect(figure.data[0]!.name).toBe("&lt;a href='x'&gt;")
  })
})
