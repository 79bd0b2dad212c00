import { darkColours } from "./page-style"

/** A plotly figure as plain data: shown by the report, by notebooks, or saved as JSON. */
export interface Figure {
  data: Trace[]
  layout: Layout
}

/** One plotly trace; `type` and whatever belongs to it. */
export interface Trace {
  type: string
  [attribute: string]: unknown
}

/** A plotly layout. Heights are fixed in pixels, widths follow the page. */
export interface Layout {
  height: number
  [attribute: string]: unknown
}

/** Colours of Okabe and Ito, told apart with any colour vision; yellow is left out as too faint on white. */
export const colours = {
  black: "#222222",
  grey: "#6E6E6E",
  light: "#C9CED6",
  orange: "#E69F00",
  sky: "#56B4E9",
  green: "#009E73",
  blue: "#0072B2",
  vermillion: "#D55E00",
  purple: "#CC79A7",
} as const

/** Fixed colours of both answers of a pair, as red, green, blue. */
export const answerRgb = { chosen: [0, 114, 178], rejected: [213, 94, 0] } as const
export const answerColour = { chosen: colours.blue, rejected: colours.vermillion } as const

/** How a method looks in every figure, and its place in every list; others follow by name, in the spare looks. */
const known: Readonly<Record<string, { colour: string; symbol: string }>> = {
  base: { colour: colours.grey, symbol: "circle" },
  sft: { colour: colours.orange, symbol: "square" },
  "self-reward-yesno": { colour: colours.purple, symbol: "triangle-up" },
  "self-reward-points": { colour: "#AA4499", symbol: "triangle-left" },
  "self-reward-external": { colour: "#661100", symbol: "triangle-right" },
  "self-reward-verifier": { colour: "#332288", symbol: "hourglass" },
  "self-correct": { colour: colours.green, symbol: "triangle-down" },
  fine: { colour: "#DDAA33", symbol: "square-cross" },
  coarse: { colour: colours.sky, symbol: "diamond" },
  tdpo1: { colour: "#44AA99", symbol: "bowtie" },
  tdpo2: { colour: "#117733", symbol: "star-diamond" },
  musc: { colour: colours.blue, symbol: "star" },
  able: { colour: colours.black, symbol: "cross" },
}
const spare = [
  { colour: colours.vermillion, symbol: "pentagon" },
  { colour: "#999933", symbol: "x" },
  { colour: "#882255", symbol: "hexagon" },
  { colour: "#7B6FD0", symbol: "star-square" },
  { colour: "#888888", symbol: "diamond-wide" },
  { colour: "#6699CC", symbol: "circle-cross" },
  { colour: "#BBCC33", symbol: "diamond-cross" },
]

const natural = new Intl.Collator("en", { numeric: true })

/** Method names without repeats in the order of every figure and table: the baselines, then musc, then all others. */
export function orderMethods(names: Iterable<string>): string[] {
  const order = Object.keys(known)
  const rank = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length)
  return [...new Set(names)].sort((a, b) => rank(a) - rank(b) || natural.compare(a, b))
}

/** The method that tables and the report tell of: musc, or else the last one that is not the base model. */
export const mainMethod = (methods: readonly string[]): string | undefined =>
  methods.includes("musc") ? "musc" : methods.filter((name) => !/^base\b/.test(name)).at(-1)

/** Colours and markers of some methods; unknown ones take the spare looks in the order of their names. */
export function methodLooks(names: Iterable<string>): (name: string) => { colour: string; symbol: string } {
  const others = orderMethods(names).filter((name) => !Object.hasOwn(known, name))
  return (name) =>
    Object.hasOwn(known, name) ? known[name]! : spare[Math.max(0, others.indexOf(name)) % spare.length]!
}

const font =
  "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, Liberation Sans, DejaVu Sans, sans-serif"
const bottom = 56

/**
 * Black or white, whichever reads better on a colour "#RRGGBB" (WCAG contrast). On a dark page black and white change
 * places where the colour changes too (`darkColours`); on other colours the ink is a shade that stays.
 */
export function inkOn(colour: string): string {
  const changes = colour.toUpperCase() in darkColours
  const [red, green, blue] = [1, 3, 5].map((at) => (Number.parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2)
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue! > 0.18
    ? changes
      ? "#000000"
      : "#010101"
    : changes
      ? "#FFFFFF"
      : "#FEFEFE"
}

/** A title bounded by words: plotly never wraps by itself. Lines are joined by `<br>`. */
export function wrapped(text: string, width: number): string {
  const lines: string[] = [""]
  for (const word of plain(text).split(/\s+/)) {
    const line = lines.at(-1)!
    if (line && line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = line ? `${line} ${word}` : word
  }
  return lines.join("<br>")
}

/** Text from data for a figure: plotly reads `<b>`, `<a href>` and entities in titles and labels. */
export const plain = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** One axis in the common style; `title` names what is shown with its unit. */
export const axis = (title: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  title: { text: title, standoff: 8, font: { size: 13 } },
  automargin: true,
  zeroline: false,
  gridcolor: "#E6E9EE",
  linecolor: "#9AA3AF",
  ticks: "outside",
  tickcolor: "#9AA3AF",
  ...more,
})

/**
 * Lines that a legend of these names takes on a page of usual width; plotly gives all entries the width of the longest.
 */
export function legendRows(names: readonly string[]): number {
  const entry = 60 + 7.3 * Math.max(1, ...names.map((name) => name.length))
  return Math.ceil(names.length / Math.max(1, Math.floor(1000 / entry)))
}

/**
 * The layout that all figures share: title on the left, below it the legend where there is one (or of so many lines),
 * then the data.
 */
export function layoutOf(
  title: string,
  plotHeight: number,
  { legend = true, ...more }: Record<string, unknown> = {},
): Layout {
  const top = 62 + 22 * Number(legend)
  return {
    height: plotHeight + top + bottom,
    title: {
      text: title,
      x: 0,
      xref: "container",
      xanchor: "left",
      y: 1,
      yref: "container",
      yanchor: "top",
      pad: { t: 10 },
      font: { size: 17 },
    },
    font: { family: font, size: 13, color: "#1F2933" },
    paper_bgcolor: "#FFFFFF",
    plot_bgcolor: "#FFFFFF",
    margin: { l: 64, r: 24, t: top, b: bottom },
    legend: {
      orientation: "h",
      traceorder: "normal",
      x: 0,
      xanchor: "left",
      y: 1 + 26 / plotHeight,
      yanchor: "bottom",
      font: { size: 13 },
    },
    hoverlabel: { font: { family: font, size: 13 }, align: "left" },
    ...more,
  }
}

/** Panels side by side and below each other, each with a heading. */
export interface Panel {
  heading: string
  x: Record<string, unknown>
  y: Record<string, unknown>
}

/** The layout of a grid of panels. Panel `i` (from 0) has the axes `axesOf(i)`. Heights in pixels. */
export function gridLayout(
  title: string,
  panels: readonly Panel[],
  columns: number,
  rowHeight: number,
  more: Record<string, unknown> = {},
): Layout {
  const [gapX, gapY] = [0.09, 92]
  const wide = Math.min(columns, panels.length)
  const rows = Math.ceil(panels.length / wide)
  const height = rows * rowHeight + (rows - 1) * gapY
  const width = (1 - gapX * (wide - 1)) / wide
  const layout = layoutOf(title, height, more)
  layout.meta = { panels: panels.length, rowHeight, gap: gapY } // a page on a phone puts the panels below each other
  layout.annotations = panels.map(({ heading, x, y }, i) => {
    const [column, row] = [i % wide, Math.floor(i / wide)]
    const left = column * (width + gapX)
    const above = 1 - (row * (rowHeight + gapY)) / height
    const { x: xName, y: yName } = axesOf(i)
    layout[`xaxis${xName.slice(1)}`] = { ...x, domain: [left, Math.min(1, left + width)], anchor: yName }
    layout[`yaxis${yName.slice(1)}`] = { ...y, domain: [Math.max(0, above - rowHeight / height), above], anchor: xName }
    return {
      text: `<b>${heading}</b>`,
      x: left,
      y: above,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      yshift: 5,
      font: { size: 13 },
    }
  })
  return layout
}

/** Names of the axes of panel `i`, as traces refer to them. */
export const axesOf = (i: number): { x: string; y: string } => ({ x: i ? `x${i + 1}` : "x", y: i ? `y${i + 1}` : "y" })

/** Layout of markers in rows, an axis of categories: a place of its own for each trace, so that none hides another. */
export const sideBySide = { scattermode: "group", scattergap: 0.3 } as const

/** Pixels of such a row. */
export const rowHeight = (traces: number): number => Math.max(36, 12 * traces)
