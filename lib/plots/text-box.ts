/** Boxes of SVG text without a screen: what plotly.js must measure to place titles, legends and tick labels. */

/** The part of an SVG element that is read. */
export interface SvgElement {
  readonly tagName: string
  readonly children: ArrayLike<SvgElement>
  readonly parentElement: SvgElement | null
  readonly textContent: string | null
  readonly style?: { getPropertyValue(name: string): string }
  getAttribute(name: string): string | null
}

export interface Box {
  left: number
  top: number
  right: number
  bottom: number
}

/** Width of a text in pixels, from four classes of letters; within a tenth for the usual sans-serif fonts. */
export function textWidth(text: string, size: number): number {
  let ems = 0
  for (const letter of text)
    ems += /[ iljtfrI.,:;'|()[\]!-]/.test(letter)
      ? 0.31
      : /[mwMW@%—]/.test(letter)
        ? 0.88
        : /[A-Z]/.test(letter)
          ? 0.68
          : 0.56
  return ems * size
}

const LINE = 1.3
const none: Box = { left: 0, top: 0, right: 0, bottom: 0 }
const number = (text: string | null | undefined) => Number.parseFloat(text ?? "") || 0

/** A property that an element has itself or takes from those around it. */
function inherited(element: SvgElement | null, name: string): string {
  for (let at = element; at; at = at.parentElement) {
    const value = at.style?.getPropertyValue(name) || at.getAttribute(name)
    if (value) return value
  }
  return ""
}

function textBox(text: SvgElement): Box {
  const size = number(inherited(text, "font-size")) || 12
  const bold = /bold|[6-9]00/.test(inherited(text, "font-weight")) ? 1.08 : 1
  const spans = Array.from(text.children).filter(({ tagName }) => tagName.toLowerCase() === "tspan")
  const isLine = (span: SvgElement) => span.getAttribute("class") === "line"
  const lines = spans.some(isLine) ? spans.filter(isLine) : [text]
  const width = bold * Math.max(...lines.map((line) => textWidth(line.textContent ?? "", size)))
  if (!width) return none
  const anchor = inherited(text, "text-anchor")
  const left = number(text.getAttribute("x")) - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0)
  const dy = text.getAttribute("dy") ?? ""
  const top = number(text.getAttribute("y")) - 0.95 * size + (dy.endsWith("em") ? number(dy) * size : number(dy))
  return { left, top, right: left + width, bottom: top + (lines.length - 1) * LINE * size + 1.2 * size }
}

/** A box moved as `translate(…)` and `rotate(…)` of a transform say, in their order. */
function moved(box: Box, transform: string | null): Box {
  const steps = [...(transform ?? "").matchAll(/(translate|rotate|scale)\(([^)]*)\)/g)].reverse()
  let corners = [
    [box.left, box.top],
    [box.right, box.top],
    [box.left, box.bottom],
    [box.right, box.bottom],
  ] as [number, number][]
  for (const [, kind, list] of steps) {
    const [a = 0, b = 0, c = 0] = list!.split(/[\s,]+/).map(Number)
    const angle = (a * Math.PI) / 180
    corners = corners.map(([x, y]) => {
      if (kind === "translate") return [x + a, y + b]
      if (kind === "scale") return [x * a, y * (b || a)]
      const [p, q] = [x - b, y - c]
      return [b + p * Math.cos(angle) - q * Math.sin(angle), c + p * Math.sin(angle) + q * Math.cos(angle)]
    })
  }
  const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)]
  return { left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys) }
}

/** The box of an element in its own coordinates: of its text, or of all that is inside a group. */
export function innerBox(element: SvgElement): Box {
  const kind = element.tagName.toLowerCase()
  if (kind === "text") return textBox(element)
  if (kind === "rect") {
    const [left, top] = [number(element.getAttribute("x")), number(element.getAttribute("y"))]
    const [width, height] = [number(element.getAttribute("width")), number(element.getAttribute("height"))]
    return { left, top, right: left + width, bottom: top + height }
  }
  const boxes = Array.from(element.children)
    .map((child) => moved(innerBox(child), child.getAttribute("transform")))
    .filter(({ left, right }) => right > left)
  if (!boxes.length) return none
  return {
    left: Math.min(...boxes.map(({ left }) => left)),
    top: Math.min(...boxes.map(({ top }) => top)),
    right: Math.max(...boxes.map(({ right }) => right)),
    bottom: Math.max(...boxes.map(({ bottom }) => bottom)),
  }
}

/** The box of an element on the page. */
export function pageBox(element: SvgElement): Box {
  let box = innerBox(element)
  for (let at: SvgElement | null = element; at; at = at.parentElement) box = moved(box, at.getAttribute("transform"))
  return box
}
