import { mean } from "../data/numbers"
import { axis, type Figure, layoutOf, methodLooks, orderMethods, plain, type Trace } from "./theme"

/** Lengths of texts under a name. */
export interface LengthGroup {
  name: string
  /** words of each text */
  words: readonly number[]
}

/** Words of a text: what stands between spaces. */
export const wordCount = (text: string): number => text.split(/\s+/).filter(Boolean).length

/** Share `q` of sorted values lies below; between two values by their distance. */
function quantileOf(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1)
  const below = sorted[Math.floor(at)]!
  return below + (at - Math.floor(at)) * (sorted[Math.ceil(at)]! - below)
}

export interface LengthSummary {
  name: string
  n: number
  mean: number
  /** 5 %, 25 %, 50 %, 75 %, 95 % */
  quantiles: readonly [number, number, number, number, number]
}

/** Mean and quantiles of each group that has texts. */
export const lengthSummaries = (groups: readonly LengthGroup[]): LengthSummary[] =>
  groups
    .filter(({ words }) => words.length)
    .map(({ name, words }) => {
      const sorted = [...words].sort((a, b) => a - b)
      const at = (q: number) => quantileOf(sorted, q)
      return { name, n: words.length, mean: mean(words), quantiles: [at(0.05), at(0.25), at(0.5), at(0.75), at(0.95)] }
    })

/** Lengths of answers as boxes: the middle half, the median, and from 5 to 95 %; the dashed line is the mean. */
export function lengthBoxes(groups: readonly LengthGroup[]): Figure {
  const summaries = lengthSummaries(groups)
  const look = methodLooks(orderMethods(summaries.map(({ name }) => name)))
  const data = summaries.map(
    ({ name, mean, quantiles: [low, q1, median, q3, high] }): Trace => ({
      type: "box",
      name: plain(name),
      x: [plain(name)],
      q1: [q1],
      median: [median],
      q3: [q3],
      lowerfence: [low],
      upperfence: [high],
      mean: [mean],
      marker: { color: look(name).colour },
      showlegend: false,
    }),
  )
  const layout = layoutOf("Length of answers", 240, { legend: false })
  layout.xaxis = axis("", { showgrid: false })
  layout.yaxis = axis("words", { rangemode: "tozero" })
  return { data, layout }
}
