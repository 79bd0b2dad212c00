import { readFileSync, statSync } from "node:fs"
import { basename } from "node:path"
import { describe, expect, it } from "vitest"
import {
  findNotebook,
  type Notebook,
  notebookFiles,
  readNotebook,
  tidied,
  withParameters,
} from "../../lib/notebook/batch"
import { kernelName, kernelSpec } from "../../lib/notebook/install"

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

describe("the notebooks", () => {
  const books = notebookFiles().map((file) => [basename(file), readNotebook(file)] as const)
  const textOf = (source: string | string[]) => [source].flat().join("")

  it("are nine, one for each step", () => {
    expect(books.map(([name]) => name.slice(0, 2))).toEqual(["00", "01", "02", "03", "04", "05", "06", "07", "08"])
  })

  it.each(books)(
    "%s names the kernel, says its claim, and ends with exercises whose solutions are folded",
    (_, { cells, metadata }) => {
      expect(metadata.kernelspec).toMatchObject({ name: kernelName, language: "typescript" })
      const prose = cells.filter(({ cell_type }) => cell_type === "markdown").map(({ source }) => textOf(source))
      expect(prose[0]).toMatch(/^# \d\d · [\s\S]*\*\*Claim\.\*\*/)
      expect(prose.some((text) => text.startsWith("**Beside the paper.**"))).toBe(true)
      expect(prose.at(-1)).toMatch(/^## Exercises[\s\S]*<details><summary>Solutions?<\/summary>[\s\S]*<\/details>/)
    },
  )

  it.each(books)("%s has cells of at most 18 lines, one of them for parameters", (name, { cells }) => {
    const sources = cells
      .filter(({ cell_type }) => cell_type === "code")
      .map(({ source }) => textOf(source).split("\n").length)
    expect(Math.max(...sources)).toBeLessThanOrEqual(18)
    expect(
      cells.filter(({ metadata }) => metadata.tags?.includes("parameters")),
      name,
    ).toHaveLength(1)
  })

  it.each(books)("%s is kept with outputs that need no script, in less than 400 KB", (name, { cells }) => {
    expect(statSync(findNotebook(name.replace(".ipynb", ""))).size).toBeLessThan(400_000)
    const outputs = cells.flatMap(({ outputs = [] }) => outputs)
    expect(outputs.length).toBeGreaterThan(0)
    for (const { data = {}, output_type } of outputs) {
      expect(output_type).not.toBe("error")
      expect(`${[data["text/html"] ?? ""].flat().join("")}`).not.toMatch(/<(script|iframe)/i)
      if (data["application/vnd.plotly.v1+json"]) expect(data).toHaveProperty("image/png")
    }
  })
})
