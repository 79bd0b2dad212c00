import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { writeAtomic } from "../data/files"
import { notInstalled, packageFolder } from "../device/packages"
import { InputError } from "../errors"
import { indexedPng } from "./png"
import { type Box, innerBox, pageBox, type SvgElement } from "./text-box"
import type { Figure } from "./theme"

/** Pictures of figures: plotly.js draws them in a document without a browser, resvg makes PNG of them. */

export interface PictureOptions {
  /** Pixels; 860 by default. The height is that of the figure. */
  width?: number
  /** Pixels of a PNG for each one of the figure; 1.5 by default. */
  scale?: number
}

/** What is used of happy-dom and of resvg; their own types would be read again by every notebook. */
interface DomPackage {
  Window: new (
    options: object,
  ) => {
    SVGElement: { prototype: object }
    URL: object
    Plotly: Plotly
    eval(code: string): void
  }
}
interface PngPackage {
  Resvg: new (svg: string, options: object) => { render(): { width: number; height: number; pixels: Uint8Array } }
}

interface Plotly {
  toImage(figure: unknown, options: Readonly<Record<string, unknown>>): Promise<string>
}

let plotly: Plotly | undefined

/** plotly.js in a window that knows the boxes of texts, made once a process (about half a second). */
function openPlotly(): Plotly {
  if (plotly) return plotly
  const { Window } = optional<DomPackage>("happy-dom")
  const settings = { enableJavaScriptEvaluation: true, suppressInsecureJavaScriptEnvironmentWarning: true }
  const window = new Window({ url: "https://localhost/", settings })
  const sized = ({ left, top, right, bottom }: Box) => {
    return { x: left, y: top, left, top, right, bottom, width: right - left, height: bottom - top }
  }
  Object.assign(window.SVGElement.prototype, {
    getBBox(this: SvgElement) {
      return sized(innerBox(this))
    },
    getBoundingClientRect(this: SvgElement) {
      return sized(pageBox(this))
    },
    getComputedTextLength(this: SvgElement) {
      return sized(innerBox(this)).width
    },
    getTotalLength: () => 0,
    getPointAtLength: () => ({ x: 0, y: 0 }),
  })
  Object.assign(window.URL, { createObjectURL: () => "" })
  window.eval(readFileSync(require.resolve("plotly.js"), "utf8"))
  plotly = window.Plotly
  return plotly
}

/** A package that only pictures need. */
function optional<Module>(name: string): Module {
  try {
    return require(name)
  } catch (cause) {
    const rule = packageFolder(name)
      ? `the package ${name} does not load (${(cause as Error).message.split("\n")[0]}); install it again`
      : notInstalled(name)
    throw new InputError(`pictures: ${rule}`, {}, { cause })
  }
}

/** A figure as SVG text that stands alone, the same each time. @throws InputError without the optional packages */
export async function figureSvg({ data, layout }: Figure, { width = 860 }: PictureOptions = {}): Promise<string> {
  const { height } = layout
  const figure = structuredClone({ data, layout: { ...layout, width } }) // plotly writes into what it is given
  const name = createHash("sha256").update(JSON.stringify(figure)).digest("hex").slice(0, 12)
  const svg = await openPlotly().toImage(figure, { format: "svg", width, height, imageDataOnly: true })
  const drawn = /id="defs-(\w+)"/.exec(svg)?.[1] // plotly's random part of all ids
  return drawn ? svg.replaceAll(drawn, name) : svg
}

/** A figure as a PNG image, in a sans-serif font of the machine. @throws InputError without the optional packages */
export async function figurePng(figure: Figure, { scale = 1.5, ...options }: PictureOptions = {}): Promise<Buffer> {
  const { Resvg } = optional<PngPackage>("@resvg/resvg-js")
  const svg = await figureSvg(figure, options)
  const image = new Resvg(svg, { background: "#fff", fitTo: { mode: "zoom", value: scale } }).render()
  return indexedPng(image)
}

/**
 * Writes a figure to a file, as its ending says. @throws InputError for another ending than .svg or .png, a bad disk.
 */
export async function saveFigure(figure: Figure, file: string, options: PictureOptions = {}): Promise<void> {
  if (file.endsWith(".svg")) return writeAtomic(file, await figureSvg(figure, options))
  if (file.endsWith(".png")) return writeAtomic(file, await figurePng(figure, options))
  throw new InputError("a picture must end in .svg or .png, got another name; rename it", { file })
}
