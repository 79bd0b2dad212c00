import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest"
import type { WeighedRow } from "../../lib/data/schema"
import { weightsOf } from "../../lib/musc/weigh"
import { type Bundle, display } from "../../lib/notebook/display"
import { figureBundle } from "../../lib/notebook/figure"
import { drifts, keyNumbers, numbersType } from "../../lib/notebook/numbers"
import { show, viewOf } from "../../lib/notebook/show"
import { barFigure } from "../../lib/plots/bars"
import { html } from "../../lib/plots/html"

const hostile = `</script><script>alert(1)</script><img src=x onerror=alert(2)>"'&`

const signals = (tokens: string[]) => {
  const values = tokens.map((_, t) => -1 - t / 10)
  const positive = tokens.map((_, t) => t / 10)
  return {
    ...{ tokens, logprob: values, logprob_noised: values.map((v) => v - 1), logprob_empty: values },
    ...{ entropy: positive, entropy_noised: positive, kl: positive, kl_reverse: positive },
  }
}

/** One row as each stage leaves it, with hostile text wherever text stands. */
const instruction = { id: hostile, instruction: hostile, input: null, source: "test", calls: {} }
const decomposed = { ...instruction, constraints: [`0 ${hostile}`, `1 ${hostile}`] }
const edits = [{ index: 1, kind: "constraint-negate" as const, before: `1 ${hostile}`, after: `not ${hostile}` }]
const corrupted = { ...decomposed, noised_constraints: [`0 ${hostile}`, `not ${hostile}`], edits }
const recombined = { ...corrupted, clean_instruction: `clean ${hostile}`, noised_instruction: `noised ${hostile}` }
const pair = { ...recombined, chosen: `good ${hostile}`, rejected: `bad ${hostile}` }
const both = { chosen: signals(["good", ` ${hostile}`, ""]), rejected: signals(["bad", ` ${hostile}`, ""]) }
const weighed: WeighedRow = { ...pair, signals: both, weights: { kl: weightsOf(both, "kl") } }
const failedRow = { ...instruction, failure: { stage: "decompose" as const, reason: hostile } }
const graded = {
  ...{ id: "1", seed: 0, method: hostile, temperature: 0, instruction: hostile, answer: hostile },
  constraints: [{ question: hostile, kind: "", satisfied: true }],
}
const rows = { instruction, decomposed, corrupted, recombined, pair, weighed, failedRow, graded }

describe("views", () => {
  it.each(Object.entries(rows))("of a row escape all text: %s", (_, row) => {
    const { html, text } = viewOf(row)
    expect(html.text).not.toMatch(/<(script|img|\/script)/i)
    expect(html.text).toContain("&lt;script&gt;alert(1)&lt;/script&gt;")
    expect(text).toContain("alert(1)")
  })

  it("show each record as what it is", () => {
    expect(viewOf(decomposed).html.text).toContain('<ol start="0"')
    expect(viewOf(corrupted).html.text).toMatch(/negate<\/b> <del/)
    expect(viewOf(recombined).html.text).toMatch(/<del[^>]*>clean<\/del>.*<ins[^>]*>noised<\/ins>/)
    expect(viewOf(recombined).text).toContain("[-clean-]{+noised+}")
    expect(viewOf(pair).html.text).toMatch(/<b>chosen<\/b>[\s\S]*<b>rejected<\/b>/)
    expect(viewOf(weighed).html.text).toContain("weight: kl")
    expect(viewOf(failedRow).html.text).toContain("failed in decompose")
    expect(viewOf(graded).html.text).toContain("keeps 1 of 1")
  })

  it("mark heavy tokens by elements too, and name their weight in the text", () => {
    // kl of (0, .1, .2) plus a quarter of its mean .1 is (.025, .125, .225), as weights of mean 1 (.2, 1, 1.8): the
    // last is heavy.
    expect(weighed.weights.kl!.chosen.map((weight) => Number(weight.toFixed(6)))).toEqual([0.2, 1, 1.8])
    expect(viewOf(weighed).html.text).toMatch(/<b><ins[^>]*>∅<\/ins><\/b>/)
    expect(viewOf(weighed).text).toContain("[ 1.8]")
  })

  it("make tables of frames and of lists of records, with every field that any record has", () => {
    const { html, text } = viewOf([{ a: 1.23456789 }, { a: -0.0000023456 }, { a: null, b: hostile }])
    expect(html.text).toContain("text-align:right;vertical-align:top;padding:4px 10px;border-bottom:1px solid #e6e9ee")
    expect(html.text).not.toMatch(/<(script|img)/)
    expect(text.split("\n")[0]).toMatch(/^ *a {2}b$/)
    expect(text).toMatch(/ 1\.235 .*\n-2\.3e-6 /)
    expect(viewOf({ columns: ["x"], values: Array.from({ length: 30 }, (_, i) => [i]) }).text).toContain(
      "30 rows, 20 shown",
    )
  })

  it("leave everything else as text", () => {
    expect(viewOf("a <b>").html.text).toContain("a &lt;b&gt;")
    expect(viewOf(html`<b>${"<"}</b>`)).toMatchObject({ text: "<" })
    expect(viewOf(undefined).text).toBe("undefined")
  })
})

describe("in a notebook", () => {
  const jupyter = require("tslab/dist/jupyter.js")
  let sent: { data: Bundle; id: string; update: boolean }[]
  beforeAll(() => vi.setConfig({ testTimeout: 60_000 }))
  beforeEach(() => {
    sent = []
    jupyter.lastWriteDisplayData = (content: { data: Bundle; transient: { display_id: string } }, update: boolean) =>
      sent.push({ data: content.data, id: content.transient.display_id, update })
  })
  afterEach(() => {
    jupyter.lastWriteDisplayData = null
    vi.unstubAllEnvs()
  })
  const figure = barFigure({ [hostile]: { a: 1, b: 2 } }, { title: "Bars", value: "rows" })

  it("displays are changed in place", () => {
    const slot = display({ "text/plain": "first" })
    slot.set({ "text/plain": "second" })
    expect(sent.map(({ data, update }) => [data["text/plain"], update])).toEqual([
      ["first", false],
      ["second", true],
    ])
    expect(sent[1]!.id).toBe(sent[0]!.id)
  })

  it("published figures are plotly's JSON, a PNG and text, without script", async () => {
    vi.stubEnv("MUSC_NOTEBOOK", "publish")
    await show(figure)
    expect(sent).toHaveLength(1)
    const { data } = sent[0]!
    expect(Object.keys(data).sort()).toEqual(["application/vnd.plotly.v1+json", "image/png", "text/plain"])
    expect(Buffer.from(data["image/png"]!, "base64").subarray(1, 4).toString()).toBe("PNG")
    expect(data["text/plain"]).toContain("[figure] Bars")
  })

  it("live figures hold a picture for where no script runs, and no text that ends their script", async () => {
    vi.stubEnv("MUSC_NOTEBOOK", "live")
    const { "text/html": page } = await figureBundle(figure)
    expect(page).toMatch(/<img src="data:image\/png;base64,/)
    expect(page!.match(/<script>/g)).toHaveLength(1)
    expect(page!.match(/<\/script>/g)).toHaveLength(1)
  })

  it("shows what says itself how it is displayed", async () => {
    await show({ [Symbol.for("Jupyter.display")]: () => ({ "text/plain": "own" }) })
    expect(sent[0]!.data).toEqual({ "text/plain": "own" })
  })

  it("key numbers are shown and left for the check", () => {
    keyNumbers({ share: 0.25 })
    expect(sent[0]!.data[numbersType]).toEqual({ share: 0.25 })
    expect(drifts({ share: 0.25 }, { share: [0.2, 0.3] })).toEqual([])
    expect(drifts({ share: 0.35 }, { share: [0.2, 0.3], gone: [0, 1] })).toEqual([
      "share: must lie in 0.2 to 0.3, got 0.35",
      "gone: must be among the key numbers, got none",
    ])
    expect(drifts({ share: Number.NaN }, { share: [0, 1] })).toHaveLength(1)
  })
})

it("prints the text outside of Jupyter", async () => {
  const log = vi.spyOn(console, "log").mockImplementation(() => {})
  await show([{ a: 1 }])
  expect(log).toHaveBeenCalledWith("a\n1")
  log.mockRestore()
})
