import { createRequire } from "node:module"
import { basename, resolve } from "node:path"
import type * as Typescript from "typescript"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { findNotebook, notebookFiles, readNotebook } from "../../lib/notebook/batch"
import { drifts, type Numbers, numbersType } from "../../lib/notebook/numbers"
import { type Kernel, plainTslab, startKernel } from "../support/kernel"

const root = resolve(__dirname, "../..")
/** TypeScript as tslab has it: 5.0, and types alike for what is used here. */
const ts = createRequire(require.resolve("tslab"))("@tslab/typescript-for-tslab") as typeof Typescript

const cellsOf = (file: string) =>
  readNotebook(file)
    .cells.filter(({ cell_type }) => cell_type === "code")
    .map(({ source }) => [source].flat().join(""))

/** Plain tslab knows no names of this package: there, cells import the files behind them. */
const byPath = (cell: string) =>
  cell
    .replaceAll(' from "musc"', ' from "./lib/index"')
    .replaceAll(' from "musc/notebook"', ' from "./lib/notebook/index"')

describe("under plain tslab", () => {
  // The compiler options of tslab/dist/converter.js; `strict` is not among them.
  const options: Typescript.CompilerOptions = {
    ...{ module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Node10, esModuleInterop: true },
    ...{ target: ts.ScriptTarget.ES2022, lib: ["lib.es2022.d.ts"], declaration: true, resolveJsonModule: true },
    ...{ experimentalDecorators: true, allowJs: true, checkJs: true, skipLibCheck: true, outDir: "outDir" },
    typeRoots: [resolve(root, "node_modules/@types")],
    baseUrl: root,
    paths: { musc: ["./lib/index"], "musc/notebook": ["./lib/notebook/index"] },
  }

  it("the library and the cells of all notebooks have right types, without strict null checks too", () => {
    const sources = new Map(
      notebookFiles().map((file) => {
        const name = resolve(root, `${basename(file, ".ipynb")}.ts`)
        return [name, ts.createSourceFile(name, `export {}\n${cellsOf(file).join("\n")}`, ts.ScriptTarget.ES2022, true)]
      }),
    )
    const host = ts.createCompilerHost(options)
    const { getSourceFile } = host
    host.getSourceFile = (name, ...rest) => sources.get(name) ?? getSourceFile(name, ...rest)
    const program = ts.createProgram([...sources.keys()], options, host)
    const checked = program.getSourceFiles().filter(({ fileName }) => !/node_modules|\.d\.ts$/.test(fileName))
    expect(checked.length).toBeGreaterThan(100)
    const found = checked.flatMap((file) => [
      ...program.getSyntacticDiagnostics(file),
      ...program.getSemanticDiagnostics(file),
    ])
    const lines = found.map(({ file, start, messageText }) => {
      const line = file!.getLineAndCharacterOfPosition(start!).line + 1
      return `${basename(file!.fileName)}:${line} ${ts.flattenDiagnosticMessageText(messageText, "\n").slice(0, 300)}`
    })
    expect(lines).toEqual([])
  }, 600_000)

  // tslab writes names of earlier cells as `exports.name`, but neither in `{ name }` nor in `const { key: name } = …`.
  it.each(notebookFiles().map((file) => [basename(file), file]))(
    "cells of %s say no name that it misses",
    (_, file) => {
      for (const cell of cellsOf(file)) {
        const own = new Set<string>()
        const short: string[] = []
        const visit = (node: Typescript.Node): void => {
          const { name } = node as { name?: Typescript.Node }
          if (ts.isShorthandPropertyAssignment(node)) short.push(node.name.text)
          else if (name && ts.isIdentifier(name)) own.add(name.text)
          if (ts.isBindingElement(node)) expect(node.propertyName?.getText() ?? "").toBe("")
          ts.forEachChild(node, visit)
        }
        visit(ts.createSourceFile("cell.ts", cell, ts.ScriptTarget.ES2022, true))
        expect(short.filter((name) => !own.has(name))).toEqual([])
      }
    },
  )

  it.each(notebookFiles().map((file) => [basename(file), file]))(
    "cells of %s import from musc, musc/notebook and Node alone, so that they can be copied into other projects",
    (_, file) => {
      const names = cellsOf(file).flatMap((cell) =>
        [...cell.matchAll(/(?:from |import\()"([^"]+)"/g)].map(([, name]) => name),
      )
      expect(names.filter((name) => !/^(musc(\/notebook)?|node:.+)$/.test(name!))).toEqual([])
    },
  )

  describe("started in the project", () => {
    let kernel: Kernel
    beforeAll(async () => {
      kernel = await startKernel({ MUSC_NOTEBOOK: "publish" }, plainTslab)
    }, 240_000)
    afterAll(() => kernel?.stop())

    it("the first notebook runs, to key numbers within their ranges", async () => {
      const file = findNotebook("00")
      let numbers: Numbers = {}
      for (const cell of cellsOf(file).map(byPath)) {
        const { stderr, reply, displays } = await kernel.run(cell)
        expect({ cell, stderr, status: reply.status }).toEqual({ cell, stderr: "", status: "ok" })
        for (const data of displays) numbers = { ...numbers, ...(data[numbersType] as Numbers | undefined) }
      }
      const { ranges = {} } = readNotebook(file).metadata.musc ?? {}
      expect(Object.keys(ranges).length).toBeGreaterThan(0)
      expect(drifts(numbers, ranges)).toEqual([])
    }, 600_000)
  })
})
