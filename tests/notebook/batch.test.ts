import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, delimiter, join, resolve } from "node:path"
import { describe, expect, it, vi } from "vitest"
import {
  findNotebook,
  type Notebook,
  notebookFiles,
  numbersOf,
  readNotebook,
  tidied,
  withParameters,
} from "../../lib/notebook/batch"
import { kernelName, kernelSpec } from "../../lib/notebook/install"
import { drifts, numbersType } from "../../lib/notebook/numbers"
import { notebookSlides, withSlides } from "../../lib/notebook/slides"

const code = (source: string, tags?: string[]) => ({
  ...{ id: "a", cell_type: "code", source, execution_count: 3, metadata: { tags, execution: { started: "now" } } },
  outputs: [{ output_type: "stream", name: "stdout", text: "1\n" }],
})
const book: Notebook = { cells: [code("let n = 3\nlet name = 'a'", ["parameters"]), code("n")], metadata: {} }

describe("parameters", () => {
  it("come in a cell after the tagged one, as JSON where they are and as text otherwise", () => {
    const { cells } = withParameters(book, { n: "5", name: "kl, twice" })
    expect(cells.map(({ source }) => source)).toEqual([book.cells[0]!.source, 'n = 5\nname = "kl, twice"', "n"])
    expect(cells[1]!.metadata.tags).toEqual(["injected-parameters"])
    expect(withParameters(book, {})).toBe(book)
  })

  it("must be declared by the notebook", () => {
    expect(() => withParameters(book, { steps: "5" })).toThrow("--param must name one of n, name, got steps")
    expect(() => withParameters({ ...book, cells: [code("n")] }, { n: "5" })).toThrow("tagged `parameters`")
  })
})

it("keeps notebooks without counts and times", () => {
  const [first] = tidied(book).cells
  expect(first).toMatchObject({ execution_count: null, metadata: { tags: ["parameters"] } })
  expect(first!.metadata).not.toHaveProperty("execution")
  expect(first!.outputs).toEqual(book.cells[0]!.outputs)
})

it("marks slides: one for each heading, another below it after output", () => {
  const text = (source: string) => ({ id: source, cell_type: "markdown", source, metadata: {} })
  const quiet = { ...code("let a = 1"), outputs: [] }
  const cells = [text("# Title"), quiet, text("## Part"), code("1"), text("so"), code("2"), code("3"), text("## End")]
  const kinds = withSlides({ ...book, cells }).cells.map(
    ({ metadata }) => (metadata.slideshow as { slide_type: string }).slide_type,
  )
  expect(kinds).toEqual(["slide", "-", "slide", "-", "subslide", "-", "subslide", "slide"])
})

it("asks for slides that scroll, as wide as the lines of code", async () => {
  const folder = mkdtempSync(join(tmpdir(), "musc-slides-test-"))
  // In the place of Jupyter: keeps what it is asked.
  const jupyter = `#!${process.execPath}
require("node:fs").writeFileSync(${JSON.stringify(join(folder, "asked"))}, process.argv.slice(2).join("\\n"))
`
  writeFileSync(join(folder, "jupyter"), jupyter, { mode: 0o755 })
  vi.stubEnv("PATH", `${folder}${delimiter}${process.env.PATH}`)
  await notebookSlides(join(folder, "slides"))
  vi.unstubAllEnvs()
  const asked = readFileSync(join(folder, "asked"), "utf8").split("\n")
  expect(asked).toContain("--SlidesExporter.reveal_scroll=True")
  const width = Number(asked.find((one) => one.startsWith("--SlidesExporter.reveal_width="))?.split("=")[1])
  // a character of code is about 10.5 wide, beside a margin of 220
  const longest = notebookFiles().flatMap((file) =>
    readNotebook(file).cells.flatMap(({ cell_type, source }) =>
      cell_type === "code" ? [source].flat().join("").split("\n") : [],
    ),
  )
  const share = longest.filter((line) => 220 + 10.5 * line.length > width).length / longest.length
  expect(share).toBeLessThan(0.02)
  rmSync(folder, { recursive: true })
})

it("finds notebooks by number, name and path", () => {
  const [first] = notebookFiles()
  for (const name of ["00", "0", basename(first!, ".ipynb"), first!]) expect(findNotebook(name)).toBe(first)
  expect(() => findNotebook("99")).toThrow(/a notebook must be one of 00-start-here, .*, got 99/)
})

it("describes the kernel by absolute paths, to be interrupted by signal", () => {
  const { argv, interrupt_mode, language } = kernelSpec()
  expect(argv[0]).toBe(process.execPath)
  expect(readFileSync(argv[1]!, "utf8")).toContain("startKernel")
  expect([argv[2], interrupt_mode, language]).toEqual(["{connection_file}", "signal", "typescript"])
})

it("fails a notebook whose key numbers have drifted, and passes over none that it should have", () => {
  const folder = mkdtempSync(join(tmpdir(), "musc-drift-"))
  const file = join(folder, "drift.ipynb")
  const musc = { ranges: { share: [0.2, 0.3] } }
  writeFileSync(file, JSON.stringify({ ...book, metadata: { ...book.metadata, musc }, nbformat: 4, nbformat_minor: 5 }))
  // In the place of Jupyter: each cell "shows" what stands in the variable SHOWN.
  const jupyter = `#!${process.execPath}
const fs = require("node:fs")
const book = JSON.parse(fs.readFileSync(process.argv[3], "utf8"))
const data = { "text/plain": "", "${numbersType}": JSON.parse(process.env.SHOWN) }
book.cells[0].outputs = [{ output_type: "display_data", metadata: {}, data }]
fs.writeFileSync(process.argv[3], JSON.stringify(book))
`
  writeFileSync(join(folder, "jupyter"), jupyter, { mode: 0o755 })
  const run = (shown: object) => {
    const env = { ...process.env, PATH: `${folder}${delimiter}${process.env.PATH}`, SHOWN: JSON.stringify(shown) }
    const bin = resolve(__dirname, "../../lib/cli/bin.cjs")
    return spawnSync(process.execPath, [bin, "notebook", "run", file], { env, encoding: "utf8" })
  }
  expect(run({ share: 0.25 })).toMatchObject({ status: 0, stderr: "" })
  for (const [shown, got] of [
    [{ share: 0.35 }, "share: must lie in 0.2 to 0.3, got 0.35"],
    [{}, "share: must be among the key numbers, got none"],
  ] as const) {
    const { status, stderr } = run(shown)
    expect(status).toBe(1)
    expect(stderr).toContain("a key number is outside its range")
    expect(stderr).toContain(got)
  }
  rmSync(folder, { recursive: true })
}, 60_000)

describe("the notebooks", () => {
  const books = notebookFiles().map((file) => [basename(file), readNotebook(file)] as const)
  const textOf = (source: string | string[]) => [source].flat().join("")

  it("are ten, one for each step", () => {
    expect(books.map(([name]) => name.slice(0, 2))).toEqual([
      "00",
      "01",
      "02",
      "03",
      "04",
      "05",
      "06",
      "07",
      "08",
      "09",
    ])
  })

  it.each(books)(
    "%s names the kernel, its claim, time and prerequisites, asks before it shows, and ends with folded solutions",
    (_, { cells, metadata }) => {
      expect(metadata.kernelspec).toMatchObject({ name: kernelName, language: "typescript" })
      const prose = cells.filter(({ cell_type }) => cell_type === "markdown").map(({ source }) => textOf(source))
      expect(prose[0]).toMatch(/^# \d\d · [\s\S]*\*\*Claim\.\*\*/)
      expect(prose[0]).toMatch(/\*\*Time:\*\* [\s\S]*\*\*Before this:\*\* /)
      expect(prose.some((text) => /\*\*Predict:\*\* .*\?/.test(text))).toBe(true)
      expect(prose.some((text) => /^## In the paper, and here\n\n\| \| in the paper \| here \|/.test(text))).toBe(true)
      expect(prose.at(-1)).toMatch(
        /^## Exercises[\s\S]*<details><summary>Solutions?<\/summary>[\s\S]*\n\n<\/details>\s*$/,
      )
    },
  )

  it.each(books)("%s has cells of at most 15 lines, one of them for parameters", (name, { cells }) => {
    const sources = cells
      .filter(({ cell_type }) => cell_type === "code")
      .map(({ source }) => textOf(source).split("\n").length)
    expect(Math.max(...sources)).toBeLessThanOrEqual(15)
    expect(
      cells.filter(({ metadata }) => metadata.tags?.includes("parameters")),
      name,
    ).toHaveLength(1)
  })

  it.each(books)("%s is kept with key numbers, all of them within ranges that exclude something", (_, book) => {
    const { ranges = {} } = book.metadata.musc ?? {}
    const numbers = numbersOf(book)
    expect(Object.keys(ranges).sort()).toEqual(Object.keys(numbers).sort())
    expect(Object.keys(numbers).length).toBeGreaterThan(0)
    expect(drifts(numbers, ranges)).toEqual([])
    for (const [low, high] of Object.values(ranges)) expect([low, high]).not.toEqual([0, 1])
  })

  it.each(books)("%s is kept with outputs that need no script, in less than 500 KB", (name, { cells }) => {
    expect(statSync(findNotebook(name.replace(".ipynb", ""))).size).toBeLessThan(500_000)
    const outputs = cells.flatMap(({ outputs = [] }) => outputs)
    expect(outputs.length).toBeGreaterThan(0)
    for (const { data = {}, output_type } of outputs) {
      expect(output_type).not.toBe("error")
      expect(`${[data["text/html"] ?? ""].flat().join("")}`).not.toMatch(/<(script|iframe)/i)
      if (data["application/vnd.plotly.v1+json"]) expect(data).toHaveProperty("image/png")
    }
  })
})
