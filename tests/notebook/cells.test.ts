import { createRequire } from "node:module"
import { basename, resolve } from "node:path"
import type * as Typescript from "typescript"
import { expect, it } from "vitest"
import { notebookFiles, readNotebook } from "../../lib/notebook/batch"

const root = resolve(__dirname, "../..")
/** TypeScript as tslab has it: 5.0, and types alike for what is used here. */
const ts = createRequire(require.resolve("tslab"))("@tslab/typescript-for-tslab") as typeof Typescript

const cellsOf = (file: string) =>
  readNotebook(file)
    .cells.filter(({ cell_type }) => cell_type === "code")
    .map(({ source }) => [source].flat().join(""))

// The compiler options of tslab/dist/converter.js, with those that lib/notebook/kernel.cjs adds.
const options: Typescript.CompilerOptions = {
  ...{ module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Node10, esModuleInterop: true },
  ...{ target: ts.ScriptTarget.ES2022, lib: ["lib.es2022.d.ts"], declaration: true, resolveJsonModule: true },
  ...{ experimentalDecorators: true, allowJs: true, checkJs: true, skipLibCheck: true, outDir: "outDir" },
  typeRoots: [resolve(root, "node_modules/@types")],
  ...{ strict: true, baseUrl: root },
  paths: { musc: ["./lib/index"], "musc/notebook": ["./lib/notebook/index"] },
}

it("the cells of all notebooks have right types in the compiler of the kernel", () => {
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
  const found = [...sources.values()].flatMap((file) => [
    ...program.getSyntacticDiagnostics(file),
    ...program.getSemanticDiagnostics(file),
  ])
  const lines = found.map(({ file, start, messageText }) => {
    const line = file!.getLineAndCharacterOfPosition(start!).line + 1
    return `${basename(file!.fileName)}:${line} ${ts.flattenDiagnosticMessageText(messageText, "\n").slice(0, 300)}`
  })
  expect(lines).toEqual([])
}, 600_000)

it.each(notebookFiles().map((file) => [basename(file), file]))(
  "cells of %s import from musc, musc/notebook and Node alone, so that they can be copied into other projects",
  (_, file) => {
    const imports = cellsOf(file).flatMap((cell) => [...cell.matchAll(/(?:from |import\()"([^"]+)"/g)])
    const names = imports.map(([, name]) => name!)
    expect(names.filter((name) => !/^(musc(\/notebook)?|node:.+)$/.test(name))).toEqual([])
  },
)
