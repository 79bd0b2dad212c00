import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { inflateSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import { barFigure } from "../../lib/plots/bars"
import { figureBlock, figuresIn, html, page } from "../../lib/plots/html"
import { figurePng, figureSvg, saveFigure } from "../../lib/plots/picture"
import { indexedPng } from "../../lib/plots/png"
import { innerBox, pageBox, type SvgElement, textWidth } from "../../lib/plots/text-box"
import { writeReportFigures } from "../../lib/report/report-figures"

/** The pixels of an indexed PNG whose rows have no filter, as red, green, blue; and its size. */
function decode(png: Buffer) {
  const chunks: Record<string, Buffer> = {}
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at))
    chunks[png.toString("latin1", at + 4, at + 8)] = png.subarray(at + 8, at + 8 + png.readUInt32BE(at))
  const [width, height] = [chunks.IHDR!.readUInt32BE(0), chunks.IHDR!.readUInt32BE(4)]
  const rows = inflateSync(chunks.IDAT!)
  const pixels = Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => {
      const index = rows[y * (width + 1) + 1 + x]!
      return [...chunks.PLTE!.subarray(3 * index, 3 * index + 3)]
    }),
  )
  return { width, height, pixels }
}

const figure = barFigure(
  { chosen: { spoiled: 0.5, "left alone": 0.75 }, rejected: { spoiled: 0.25, "left alone": 0.75 } },
  { title: "Kept constraints", value: "share", format: ".0%" },
)

describe("pictures without a browser", () => {
  it("hold title, legend, labels and bars of the figure as SVG, and leave the figure as it was", async () => {
    const copy = structuredClone(figure)
    const svg = await figureSvg(figure, { width: 700 })
    expect(figure).toEqual(copy)
    for (const text of ["Kept constraints", "chosen", "rejected", "spoiled", "left alone", "75%"])
      expect(svg).toContain(text)
    expect(svg).toMatch(/<svg[^>]*width="700"/)
    expect(svg.match(/class="point"/g)).toHaveLength(4)
  })

  it("name the value of a bar of length 0", async () => {
    const none = barFigure({ all: { a: 0, b: 0.5 } }, { title: "Kept", value: "share", format: ".1%" })
    expect(await figureSvg(none, { width: 700 })).toMatch(/class="bartext[^>]*>0\.0%</)
  })

  it("are PNG of the figure's size, white around bars of its colours", async () => {
    const { width, height, pixels } = decode(await figurePng(figure, { width: 700, scale: 1 }))
    expect([width, height]).toEqual([700, figure.layout.height])
    expect(pixels[1]![1]).toEqual([255, 255, 255])
    const seen = new Set(pixels.flat().map(String))
    expect(seen).toContain("0,114,178")
    expect(seen).toContain("213,94,0")
  })

  it("go to files by their ending", async () => {
    const folder = mkdtempSync(join(tmpdir(), "musc-picture-"))
    await saveFigure(figure, join(folder, "a.svg"))
    await saveFigure(figure, join(folder, "a.png"))
    expect(readFileSync(join(folder, "a.svg"), "utf8")).toMatch(/^<svg/)
    expect(readFileSync(join(folder, "a.png")).toString("latin1", 1, 4)).toBe("PNG")
    await expect(saveFigure(figure, join(folder, "a.gif"))).rejects.toThrow("must end in .svg or .png")
    rmSync(folder, { recursive: true })
  })

  it("of a report are those on its page", async () => {
    const folder = mkdtempSync(join(tmpdir(), "musc-figures-"))
    const report = join(folder, "report.html")
    const other = barFigure({ all: { a: 1 } }, { title: "Rows </script> & more", value: "rows" })
    const text = page("Report", html`${figureBlock(figure, "A caption")}<p>text</p>${figureBlock(other)}`)
    expect(figuresIn(text)).toEqual([figure, other])
    writeFileSync(report, text)
    const files = await writeReportFigures(report, join(folder, "figures"))
    expect(files.map((file) => basename(file))).toEqual([
      "01-kept-constraints.svg",
      "01-kept-constraints.png",
      "02-rows-more.svg",
      "02-rows-more.png",
    ])
    expect(readFileSync(files[0]!, "utf8")).toBe(await figureSvg(figure))
    rmSync(folder, { recursive: true })
  })

  it("keep up to 256 colours exactly and take the nearest of them for others", () => {
    const few = Uint8Array.from([255, 255, 255, 255, 1, 2, 3, 255, 200, 0, 0, 255, 1, 2, 3, 255])
    expect(decode(indexedPng({ width: 2, height: 2, pixels: few })).pixels).toEqual([
      [
        [255, 255, 255],
        [1, 2, 3],
      ],
      [
        [200, 0, 0],
        [1, 2, 3],
      ],
    ])
    // 300 greys and near-greys, the first 256 of them twice: the others come out as one of those, at most 1 away in
    // blue.
    const colours = Array.from({ length: 300 }, (_, i) => [i % 256, i % 256, i < 256 ? i % 256 : (i % 256) + 1, 255])
    const many = [...colours, ...colours.slice(0, 256)]
    const { pixels } = decode(indexedPng({ width: many.length, height: 1, pixels: Uint8Array.from(many.flat()) }))
    for (const [x, colour] of pixels[0]!.entries()) expect(Math.abs(colour[2]! - many[x]![2]!)).toBeLessThanOrEqual(1)
  })
})

describe("boxes of texts", () => {
  const element = (tagName: string, attributes: Record<string, string>, children: SvgElement[] = [], text = "") => {
    const made = {
      ...{ tagName, children, textContent: text, parentElement: null as SvgElement | null },
      getAttribute: (name: string) => attributes[name] ?? null,
    }
    for (const child of children) Object.assign(child, { parentElement: made })
    return made
  }

  it("stand where anchor and position put them", () => {
    const width = textWidth("loss", 10)
    const at = (anchor: string) =>
      innerBox(element("text", { x: "50", y: "20", "font-size": "10px", "text-anchor": anchor }, [], "loss"))
    expect(at("start")).toMatchObject({ left: 50, right: 50 + width })
    expect(at("middle")).toMatchObject({ left: 50 - width / 2, right: 50 + width / 2 })
    expect(at("end")).toMatchObject({ left: 50 - width, right: 50 })
    expect(at("start").top).toBeLessThan(20)
    expect(at("start").bottom).toBeGreaterThan(20)
  })

  it("grow with their lines, and groups hold all that is in them, moved and turned", () => {
    const line = (text: string) => element("tspan", { class: "line" }, [], text)
    const text = (children: SvgElement[]) => element("text", { "font-size": "10" }, children, "ab")
    const [one, two] = [innerBox(text([line("ab")])), innerBox(text([line("ab"), line("a")]))]
    expect(two.bottom - two.top - (one.bottom - one.top)).toBeCloseTo(13)
    expect(two.right).toBe(one.right)
    const label = element("text", { x: "0", y: "0", "font-size": "10", transform: "rotate(90)" }, [], "abc")
    const group = element("g", { transform: "translate(100,0)" }, [label])
    const plain = innerBox(element("text", { x: "0", y: "0", "font-size": "10" }, [], "abc"))
    // Turned by a quarter, what went right goes down.
    const box = pageBox(group)
    expect(box.bottom - box.top).toBeCloseTo(plain.right - plain.left)
    expect(box.left).toBeCloseTo(100 - plain.bottom)
  })
})
