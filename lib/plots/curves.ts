import { mean, sum } from "../data/numbers"
import type { MetricsLine } from "../data/results"
import type { PairWeights } from "../data/schema"
import { MAX_WEIGHT } from "../musc/weigh"
import {
  answerColour,
  axesOf,
  axis,
  colours,
  type Figure,
  gridLayout,
  legendRows,
  methodLooks,
  orderMethods,
  type Panel,
  plain,
  type Trace,
} from "./theme"

/** The log of one training. */
export interface TrainingLog {
  method: string
  seed: number
  lines: readonly MetricsLine[]
}

export interface CurveOptions {
  /** Steps that each point is averaged over, centred; odd. By default a thirtieth of the training. */
  window?: number
  /** Most points of a curve. */
  points?: number
}

type Quantity = "loss" | "chosen_reward" | "rejected_reward" | "margin" | "accuracy" | "lr" | "grad_norm"

/** A panel of curves: what it shows, its heading and axes. */
type CurvePanel = Panel & { of: Quantity[] }

const curvePanel = (of: Quantity[], heading: string, title: string, more = {}): CurvePanel => ({
  of,
  heading,
  x: axis("optimizer step"),
  y: axis(title, more),
})

/**
 * Loss, rewards of both answers, margin and accuracy against optimizer steps, one colour a method, averaged over seeds
 * and over neighbouring steps. Panels without any number are left out.
 */
export function trainingCurves(logs: readonly TrainingLog[], options: CurveOptions = {}): Figure {
  return curves("Training curves", logs, options, [
    curvePanel(["loss"], "loss", "loss (nats)", { rangemode: "tozero" }),
    curvePanel(
      ["chosen_reward", "rejected_reward"],
      "rewards: chosen (solid), rejected (dotted)",
      "reward β Σ w Δ (nats)",
    ),
    curvePanel(["margin"], "margin: chosen minus rejected", "margin (nats)"),
    curvePanel(["accuracy"], "accuracy: chosen above rejected", "share of pairs", {
      range: [0, 1.04],
      tickformat: ".0%",
    }),
  ])
}

/** Learning rate and norm of the gradient (before clipping) against optimizer steps. */
export function optimizerCurves(logs: readonly TrainingLog[], options: CurveOptions = {}): Figure {
  return curves("Optimizer", logs, options, [
    curvePanel(["lr"], "learning rate", "learning rate", { rangemode: "tozero", exponentformat: "e" }),
    curvePanel(["grad_norm"], "gradient norm", "norm of the gradient", { rangemode: "tozero" }),
  ])
}

function curves(
  name: string,
  logs: readonly TrainingLog[],
  { window, points = 300 }: CurveOptions,
  all: readonly CurvePanel[],
): Figure {
  const has = (names: Quantity[]) =>
    logs.some(({ lines }) => lines.some((line) => names.some((name) => line[name] !== undefined)))
  const panels = all.filter(({ of }) => has(of))
  const methods = orderMethods(logs.map(({ method }) => method))
  const look = methodLooks(methods)
  const width = window ?? defaultWindow(logs)
  const data = panels.flatMap(({ of }, i) =>
    methods.flatMap((method) =>
      of.flatMap((quantity): Trace[] => {
        const curve = averaged(
          logs.filter((log) => log.method === method),
          quantity,
          width,
          points,
        )
        if (!curve.x.length) return []
        return [
          {
            type: "scatter",
            mode: "lines",
            name: plain(method),
            legendgroup: method,
            showlegend: i === 0 && quantity === of[0],
            ...curve,
            line: { color: look(method).colour, width: 2, dash: quantity === "rejected_reward" ? "dot" : "solid" },
            hovertemplate: `${plain(method)}, step %{x}: %{y:${quantity === "lr" ? ".2e" : ".3f"}}<extra></extra>`,
            xaxis: axesOf(i).x,
            yaxis: axesOf(i).y,
          },
        ]
      }),
    ),
  )
  const seeds = new Set(logs.map(({ seed }) => seed)).size
  const over = [
    ...(seeds > 1 ? [`mean of ${seeds} seeds`] : []),
    ...(width > 1 ? [`running mean of ${width} steps`] : []),
  ]
  const layout = gridLayout(over.length ? `${name} (${over.join(", ")})` : name, panels, 2, 230, {
    legend: legendRows(methods),
  })
  const ln2 = {
    type: "line",
    xref: "x domain",
    x0: 0,
    x1: 1,
    y0: Math.LN2,
    y1: Math.LN2,
    line: { color: colours.grey, width: 1, dash: "dash" },
  }
  if (panels[0]?.of.includes("loss") && has(["margin"])) layout.shapes = [ln2]
  return { data, layout }
}

function defaultWindow(logs: readonly TrainingLog[]): number {
  const most = logs.reduce((n, { lines }) => Math.max(n, lines.length), 0)
  return 2 * Math.floor(most / 60) + 1
}

/** Means by step over several logs, then over `window` neighbouring steps, thinned to about `points`. */
function averaged(
  logs: readonly TrainingLog[],
  quantity: Quantity,
  window: number,
  points: number,
): { x: number[]; y: number[] } {
  const byStep = new Map<number, number[]>()
  for (const { lines } of logs)
    for (const line of lines) {
      const value = line[quantity]
      if (value !== undefined) byStep.set(line.step, [...(byStep.get(line.step) ?? []), value])
    }
  const steps = [...byStep.keys()].sort((a, b) => a - b)
  const means = steps.map((step) => mean(byStep.get(step)!))
  const half = (window - 1) / 2
  const smooth = means.map((_, i) => mean(means.slice(Math.max(0, i - half), i + half + 1)))
  const every = Math.max(1, Math.ceil(steps.length / points))
  const indices = [...steps.keys()].filter((i) => i % every === 0 || i === steps.length - 1)
  return { x: indices.map((i) => steps[i]!), y: indices.map((i) => round(smooth[i]!)) }
}

/** Five digits are enough for a curve, and keep pages small. */
const round = (value: number): number => Number(value.toPrecision(5))

const BINS = 20

/** Tokens by weight: bin `i` counts the weights in [.1 i, .1 (i + 1)), the last one also the weight 2. */
export interface WeightCounts {
  chosen: number[]
  rejected: number[]
}

export const noWeights = (): WeightCounts => ({ chosen: Array(BINS).fill(0), rejected: Array(BINS).fill(0) })

/** Adds the weights of a pair to the counts, in place, so that any number of pairs can stream through. */
export function countWeights(counts: WeightCounts, weights: PairWeights): void {
  for (const answer of ["chosen", "rejected"] as const)
    for (const weight of weights[answer]) {
      const bin = Math.floor((weight / MAX_WEIGHT) * BINS + 1e-9)
      counts[answer][Math.min(BINS - 1, Math.max(0, bin))]!++
    }
}

/**
 * How the tokens of chosen and rejected answers are weighed, one panel a weighting; `uniform` only when it is alone.
 */
export function weightDistribution(counts: Readonly<Record<string, WeightCounts>>): Figure {
  const names = Object.keys(counts)
  const shown = names.length > 1 ? names.filter((name) => name !== "uniform") : names
  const centres = Array.from({ length: BINS }, (_, i) => Number((((i + 0.5) * MAX_WEIGHT) / BINS).toFixed(3)))
  const data = shown.flatMap((name, i) =>
    (["chosen", "rejected"] as const).map((answer): Trace => {
      const total = sum(counts[name]![answer]) || 1
      return {
        type: "bar",
        name: answer,
        legendgroup: answer,
        showlegend: i === 0,
        x: centres,
        y: counts[name]![answer].map((n) => round(n / total)),
        marker: { color: answerColour[answer] },
        hovertemplate: `${plain(name)}, ${answer}, weight about %{x:.2f}: %{y:.1%}<extra></extra>`,
        xaxis: axesOf(i).x,
        yaxis: axesOf(i).y,
      }
    }),
  )
  const columns = Math.min(shown.length, shown.length === 4 ? 2 : 3)
  const panels = shown.map((name, i) => ({
    heading: plain(name),
    x: axis("weight of a token", { range: [0, MAX_WEIGHT], dtick: 0.5 }),
    y: axis(i % columns ? "" : "share of tokens", { tickformat: ".0%", rangemode: "tozero", nticks: 5 }),
  }))
  return { data, layout: { ...gridLayout("Token weights by weighting", panels, columns, 190), bargap: 0.05 } }
}
