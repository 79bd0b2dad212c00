import { colours, type Figure, layoutOf } from "./theme"

interface Box {
  text: string
  at: readonly [x: number, y: number]
  colour: string
  /** The stage that makes it; none for the first. */
  stage: string
  /** Shown where the pointer is. */
  about: string
}

const HALF_WIDTH = 0.72
const HALF_HEIGHT = 0.3
const UP = 1.9
const DOWN = 0.5
const MIDDLE = (UP + DOWN) / 2
const step = 2.15

const boxes = {
  instruction: { text: "instruction", at: [0, UP], colour: colours.grey, stage: "", about: "many constraints at once" },
  constraints: {
    text: "constraints",
    at: [step, UP],
    colour: colours.grey,
    stage: "1 decompose",
    about: "a list of yes/no questions",
  },
  noised: {
    text: "noised<br>constraints",
    at: [step, DOWN],
    colour: colours.vermillion,
    stage: "2 corrupt",
    about: "a few were dropped, negated or substituted",
  },
  clean: {
    text: "clean<br>instruction",
    at: [2 * step, UP],
    colour: colours.blue,
    stage: "3 recombine",
    about: "written from the constraints",
  },
  spoiled: {
    text: "noised<br>instruction",
    at: [2 * step, DOWN],
    colour: colours.vermillion,
    stage: "3 recombine",
    about: "written from the noised constraints",
  },
  chosen: {
    text: "chosen<br>answer",
    at: [3 * step, UP],
    colour: colours.blue,
    stage: "4 respond",
    about: "the answer to the clean instruction",
  },
  rejected: {
    text: "rejected<br>answer",
    at: [3 * step, DOWN],
    colour: colours.vermillion,
    stage: "4 respond",
    about: "the answer to the noised instruction",
  },
  weights: {
    text: "token<br>weights",
    at: [4 * step, MIDDLE],
    colour: colours.green,
    stage: "5 weigh",
    about: "large where clean and noised prompt disagree",
  },
  adapter: {
    text: "LoRA<br>adapter",
    at: [5 * step, MIDDLE],
    colour: colours.black,
    stage: "6 train",
    about: "trained by token-weighted DPO",
  },
} satisfies Record<string, Box>
type Name = keyof typeof boxes

const arrows: readonly [from: Name, to: Name][] = [
  ["instruction", "constraints"],
  ["constraints", "noised"],
  ["constraints", "clean"],
  ["noised", "spoiled"],
  ["clean", "chosen"],
  ["spoiled", "rejected"],
  ["chosen", "weights"],
  ["rejected", "weights"],
  ["weights", "adapter"],
]

/** The method in one picture: from an instruction to the two answers, the token weights and the adapter. */
export function methodFigure(): Figure {
  const all: Box[] = Object.values(boxes)
  const shapes = all.map(({ at: [x, y], colour }) => ({
    type: "rect",
    ...{ x0: x - HALF_WIDTH, x1: x + HALF_WIDTH, y0: y - HALF_HEIGHT, y1: y + HALF_HEIGHT },
    ...{ line: { color: colour, width: 2 }, fillcolor: "#FFFFFF", layer: "below" },
  }))
  const texts = all.map(({ text, at: [x, y], colour }) => ({
    ...{ x, y, text, showarrow: false },
    font: { size: 13, color: colour },
  }))
  const annotations = [...texts, ...all.flatMap(label)]
  const data = [
    {
      type: "scatter",
      mode: "markers",
      x: all.map(({ at }) => at[0]),
      y: all.map(({ at }) => at[1]),
      customdata: all.map(({ text, about }) => `${text.replace("<br>", " ")}: ${about}`),
      hovertemplate: "%{customdata}<extra></extra>",
      marker: { size: 40, opacity: 0.01, color: colours.light, symbol: "square" },
      showlegend: false,
    },
  ]
  const hidden = { visible: false, fixedrange: true }
  const layout = layoutOf("MuSC: the model makes its own pairs, and learns from them", 210, {
    legend: false,
    ...{ shapes: [...arrows.map(arrow), ...shapes], annotations, margin: { l: 8, r: 8, t: 50, b: 8 }, height: 270 },
    xaxis: { ...hidden, range: [-0.85, 5 * step + 0.85] },
    yaxis: { ...hidden, range: [-0.05, 2.45] },
  })
  return { data, layout }
}

/** The stage that makes what a box names, beside the box. */
function label({ stage, at: [x, y] }: Box): object[] {
  const lower = y === DOWN
  const beside = lower ? y - HALF_HEIGHT - 0.04 : y + HALF_HEIGHT + 0.04
  const look = { showarrow: false, yanchor: lower ? "top" : "bottom", font: { size: 12, color: colours.black } }
  return stage ? [{ x, y: beside, text: stage, ...look }] : []
}

/** An arrow from the edge of one box to the edge of the next, as a line with a filled head. */
function arrow([from, to]: (typeof arrows)[number]): object {
  const [[x0, y0], [x1, y1]] = [boxes[from].at, boxes[to].at]
  const down = x0 === x1
  const start = down ? [x0, y0 - HALF_HEIGHT] : [x0 + HALF_WIDTH, y0]
  const end = down ? [x1, y1 + HALF_HEIGHT] : [x1 - HALF_WIDTH, y1]
  const [dx, dy] = [end[0]! - start[0]!, end[1]! - start[1]!]
  const length = Math.hypot(dx, dy)
  const [ux, uy] = [dx / length, dy / length]
  const point = (back: number, side: number) =>
    `${(end[0]! - back * ux - side * uy).toFixed(3)},${(end[1]! - back * uy + side * ux).toFixed(3)}`
  const path = `M${start.join(",")}L${point(0, 0)}L${point(0.14, 0.06)}L${point(0.14, -0.06)}L${point(0, 0)}Z`
  return { type: "path", path, line: { color: colours.grey, width: 1.5 }, fillcolor: colours.grey, layer: "below" }
}
