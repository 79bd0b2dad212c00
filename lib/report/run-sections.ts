import { isJsonObject } from "../data/json-file"
import type { EvalItem } from "../data/results"
import { optimizerCurves } from "../plots/curves"
import { atTemperature } from "../plots/figures"
import { figureBlock, type Html, html, table } from "../plots/html"
import { type LengthGroup, lengthBoxes, lengthSummaries, wordCount } from "../plots/lengths"
import { orderMethods } from "../plots/theme"
import type { RunData } from "./report-data"

/** Sections of the report about the run itself: time and speed of each stage, the optimizer, lengths of answers. */

/** A stage's time as the manifest holds it; other things there are passed over. */
interface Time {
  seconds: number
  unit: string
  done: number
  tokens?: number
}

/** Times of a run's stages in the order of its work. */
export function timesOf({ manifest }: Pick<RunData, "manifest">): [string, Time][] {
  const stages = manifest?.stages
  if (!isJsonObject(stages)) return []
  return Object.entries(stages).flatMap(([stage, time]): [string, Time][] => {
    if (!isJsonObject(time)) return []
    const { seconds, done, unit, tokens } = time
    const sound = typeof seconds === "number" && typeof done === "number" && seconds >= 0
    if (!sound) return []
    return [[stage, { seconds, done, unit: `${unit}`, ...(typeof tokens === "number" && { tokens }) }]]
  })
}

const number = (value: number) => value.toLocaleString("en", { maximumSignificantDigits: 3 })

/** The time of each stage. Stages whose results were there already, here or in the cache, have no line. */
export function timeSection(data: Pick<RunData, "manifest">): Html | undefined {
  const times = timesOf(data)
  if (!times.length) return undefined
  const rows = times.map(([stage, { seconds, unit, done, tokens }]) => [
    stage,
    `${done.toLocaleString("en")} ${unit}`,
    `${number(seconds)} s`,
    seconds > 0 ? `${number(done / seconds)} ${unit}/s` : "–",
    tokens === undefined ? "–" : tokens.toLocaleString("en"),
    tokens === undefined || !seconds ? "–" : number(tokens / seconds),
  ])
  const total = times.reduce((sum, [, { seconds }]) => sum + seconds, 0)
  return html`${table(["stage", "timed", "time", "rate", "tokens written", "tokens/s"], rows, [1, 2, 3, 4, 5])}
<p class="note">${number(total)} s in all. ${fromFirstStep} Stages whose results were already in this folder or
in the cache are not listed.</p>`
}

export const fromFirstStep = "A training is timed from the end of its first step."

/** Learning rate and gradient norm. */
export function optimizerSection({ logs }: Pick<RunData, "logs">): Html | undefined {
  if (!logs.some(({ lines }) => lines.length)) return undefined
  return figureBlock(
    optimizerCurves(logs),
    "Norm of the whole gradient before clipping to 1. If it keeps growing, lower the learning rate.",
  )
}

/** Words of the answers of each method, and of chosen and rejected answers of the pairs that the page holds. */
export function lengthSection({ items, samples }: Pick<RunData, "items" | "samples">): Html | undefined {
  if (!items.length) return undefined
  const { items: cold, temperature } = atTemperature(items)
  const wordsOf = (method: string) =>
    cold.filter((item: EvalItem) => item.method === method).map(({ answer }) => wordCount(answer))
  const methods: LengthGroup[] = orderMethods(cold.map(({ method }) => method)).map((name) => ({
    name,
    words: wordsOf(name),
  }))
  const pair = (name: string): LengthGroup => ({
    name: `${name} (pairs)`,
    words: samples.flatMap(({ texts }) => texts.filter(([label]) => label === name).map(([, text]) => wordCount(text))),
  })
  const groups = [...methods, pair("chosen"), pair("rejected")]
  const rows = lengthSummaries(groups).map(({ name, n, mean, quantiles }) => [
    name,
    n.toLocaleString("en"),
    mean.toFixed(1),
    quantiles[2].toFixed(0),
    `${quantiles[0].toFixed(0)} to ${quantiles[4].toFixed(0)}`,
  ])
  const bias = "DPO tends to make answers longer when chosen answers are longer than rejected ones."
  const boxes = "Boxes: quartiles and median; whiskers: 5th to 95th percentile; dashed line: mean."
  const figure = figureBlock(lengthBoxes(groups), `Answers at temperature ${temperature}. ${boxes}`)
  return html`<p>${bias} Check a gain that comes with much longer answers.</p>${figure}
${table(["", "answers", "mean words", "median", "5 to 95 %"], rows, [1, 2, 3, 4])}`
}
