import { type EditKind, editKind } from "../data/schema"
import type { StageCount } from "../musc/run-stage"
import { axesOf, axis, colours, type Figure, gridLayout, inkOn, layoutOf, type Trace, wrapped } from "./theme"

/**
 * Rows that passed each stage, and below it the rows that failed by stage and reason, so that every row of the
 * source is accounted for.
 */
export function stageFunnel(counts: readonly StageCount[]): Figure {
  const reasons = counts.flatMap(({ stage, reasons }) =>
    Object.entries(reasons)
      .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
      .map(([reason, n]) => ({ label: `${stage}: ${reason}`, n })),
  )
  const bars = (labels: string[], values: number[], i: number, colour: string): Trace => ({
    type: "bar",
    orientation: "h",
    x: values,
    y: labels,
    text: values.map((n) => n.toLocaleString("en")),
    textposition: "outside",
    cliponaxis: false,
    marker: { color: colour },
    hovertemplate: "%{y}: %{x}<extra></extra>",
    showlegend: false,
    xaxis: axesOf(i).x,
    yaxis: axesOf(i).y,
  })
  const most = (values: number[]) => Math.max(1, ...values)
  const panel = (heading: string, values: number[]) => ({
    heading,
    x: axis("rows", { range: [0, most(values) * 1.12], tickformat: ",d", ...(most(values) < 6 ? { dtick: 1 } : {}) }),
    y: axis("", { autorange: "reversed", ticks: "", type: "category" }),
  })
  const passed = counts.map((count) => count.passed)
  const lost = reasons.map(({ n }) => n)
  const labels = reasons.map(({ label }) => wrapped(label, 46))
  const data = [
    bars(
      counts.map(({ stage }) => stage),
      passed,
      0,
      colours.blue,
    ),
  ]
  const panels = [panel("rows that passed each stage", passed)]
  if (reasons.length) {
    data.push(bars(labels, lost, 1, colours.orange))
    panels.push(panel("rows that failed, by stage and reason", lost))
  }
  const layout = gridLayout("From instructions to training pairs", panels, 1, 200, { legend: false })
  return { data, layout: reasons.length ? unequal(layout, [counts.length, reasons.length]) : layout }
}

/** Gives two panels below each other the heights that their numbers of bars need. */
function unequal(layout: Figure["layout"], bars: readonly [number, number]): Figure["layout"] {
  const [first, second] = bars.map((n) => 30 * n + 16) as [number, number]
  const gap = 92
  const height = first + gap + second
  const cut = [second / height, (second + gap) / height] as const
  const [heading, other] = layout.annotations as [object, object]
  return {
    ...layout,
    meta: undefined,
    height: layout.height - 2 * 200 - gap + height,
    yaxis: { ...(layout.yaxis as object), domain: [cut[1], 1] },
    yaxis2: { ...(layout.yaxis2 as object), domain: [0, cut[0]] },
    annotations: [heading, { ...other, y: cut[0] }],
  }
}

/** What an edit was meant to be, and what the model made of it. */
export interface EditOutcome {
  intended: EditKind
  got: EditResult
}
const editResults = ["dropped", "negated", "substituted", "changed otherwise", "not checked", "failed"] as const
export type EditResult = (typeof editResults)[number]

const editColours: Readonly<Record<EditResult, string>> = {
  dropped: colours.blue,
  negated: colours.orange,
  substituted: colours.green,
  "changed otherwise": colours.purple,
  "not checked": colours.light,
  failed: colours.grey,
}

/** Edits by the requested kind (one bar each) and by the actual outcome (colours). */
export function editKinds(edits: readonly EditOutcome[]): Figure {
  const kinds = editKind.options
  const count = (kind: EditKind, result: EditResult) =>
    edits.filter((edit) => edit.intended === kind && edit.got === result).length
  const data = editResults
    .filter((result) => edits.some(({ got }) => got === result))
    .map((result): Trace => {
      const values = kinds.map((kind) => count(kind, result))
      return {
        type: "bar",
        orientation: "h",
        name: result,
        x: values,
        y: kinds.map((kind) => kind.replace("constraint-", "")),
        text: values.map((n) => (n ? n.toLocaleString("en") : "")),
        textposition: "inside",
        insidetextanchor: "middle",
        textangle: 0,
        insidetextfont: { color: inkOn(editColours[result]) },
        marker: { color: editColours[result] },
        hovertemplate: `requested: %{y}, actual: ${result}: %{x}<extra></extra>`,
      }
    })
  const layout = layoutOf("Edits by kind, requested and actual", 150, {
    barmode: "stack",
    bargap: 0.35,
    xaxis: axis("edits", { rangemode: "tozero", tickformat: ",d" }),
    yaxis: axis("requested", { autorange: "reversed", ticks: "", type: "category" }),
  })
  return { data, layout }
}
