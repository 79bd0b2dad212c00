import type { PairWeights, WeighedRow } from "../data/schema"
import {
  axesOf,
  axis,
  type Figure,
  gridLayout,
  legendRows,
  methodLooks,
  plain,
  rowHeight,
  sideBySide,
  type Trace,
} from "./theme"

/**
 * Classes of response tokens, by the word that a token is part of: whether one of the pair's two instructions names it,
 * and which. A token counts in the first class that fits.
 */
const tokenClasses = [
  "end of turn",
  "punctuation",
  "word of the clean instruction alone",
  "word of the noised instruction alone",
  "word of both instructions",
  "other word",
] as const
export type TokenClass = (typeof tokenClasses)[number]

const wordsOf = (text: string) => new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])

/** The class of every token of an answer; the last token is the end of the turn where it stands for no text of it. */
export function classesOf(
  row: Pick<WeighedRow, "clean_instruction" | "noised_instruction">,
  answer: string,
  tokens: readonly string[],
): TokenClass[] {
  const [clean, noised] = [wordsOf(row.clean_instruction), wordsOf(row.noised_instruction)]
  const words = [...answer.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)].map((match) => ({
    text: match[0],
    start: match.index,
    end: match.index + match[0].length,
  }))
  let at = 0
  return tokens.map((token, i) => {
    const text = token.trim().toLowerCase()
    const start = text ? answer.toLowerCase().indexOf(text, at) : -1
    if (i === tokens.length - 1 && (start < 0 || at >= answer.trimEnd().length)) return "end of turn"
    if (start < 0) return "punctuation"
    const end = start + text.length
    at = end
    const word = words.find((one) => one.start < end && one.end > start)?.text
    if (!word) return "punctuation"
    if (clean.has(word)) return noised.has(word) ? "word of both instructions" : "word of the clean instruction alone"
    return noised.has(word) ? "word of the noised instruction alone" : "other word"
  })
}

/** Weights by class: tokens, and the sum of their weights. */
export type ClassWeights = Record<"chosen" | "rejected", Record<TokenClass, { n: number; sum: number }>>

export const noClassWeights = (): ClassWeights => {
  const none = () => Object.fromEntries(tokenClasses.map((name) => [name, { n: 0, sum: 0 }])) as ClassWeights["chosen"]
  return { chosen: none(), rejected: none() }
}

/** Adds the weights of a pair, in place, so that any number of pairs can stream through. */
export function addClassWeights(totals: ClassWeights, row: WeighedRow, weights: PairWeights): void {
  for (const side of ["chosen", "rejected"] as const)
    classesOf(row, row[side], row.signals[side].tokens).forEach((name, t) => {
      const total = totals[side][name]
      total.n++
      total.sum += weights[side][t]!
    })
}

/** Mean weight of the tokens of each class, chosen and rejected answers side by side, a mark a weighting. */
export function weightsByClass(totals: Readonly<Record<string, ClassWeights>>): Figure {
  const names = Object.keys(totals).filter((name) => name !== "uniform")
  const look = methodLooks(names)
  const sides = ["chosen", "rejected"] as const
  const data = sides.flatMap((side, i) =>
    names.map((name): Trace => {
      const there = tokenClasses.filter((of) => totals[name]![side][of].n)
      const entries = there.map((of) => totals[name]![side][of])
      return {
        type: "scatter",
        mode: "markers",
        orientation: "h",
        name: plain(name),
        legendgroup: name,
        showlegend: i === 0,
        x: entries.map(({ n, sum }) => Number((sum / n).toPrecision(5))),
        y: there,
        text: entries.map(({ n }) => n.toLocaleString("en")),
        hovertemplate: `${plain(name)}, %{y}: %{x:.2f}, mean of %{text} tokens<extra></extra>`,
        marker: { color: look(name).colour, symbol: look(name).symbol, size: 10, line: { color: "#FFFFFF", width: 1 } },
        xaxis: axesOf(i).x,
        yaxis: axesOf(i).y,
      }
    }),
  )
  const order = { categoryorder: "array", categoryarray: [...tokenClasses], autorange: "reversed" }
  const panels = sides.map((side, i) => ({
    heading: `${side} answers`,
    x: axis("mean weight of a token", { rangemode: "tozero" }),
    y: axis("", { type: "category", ticks: "", showticklabels: i === 0, ...order }),
  }))
  const height = tokenClasses.length * rowHeight(names.length)
  const layout = gridLayout("Token weights by class of token", panels, 2, height, { legend: legendRows(names) })
  return { data, layout: { ...layout, ...sideBySide } }
}
