import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import ts from "typescript"
import { describe, expect, it } from "vitest"

const lib = join(__dirname, "../lib")

/** Imports go one way: a file may import its own area and those on lines above. */
const order = [
  ["errors", "rng", "machine"],
  ["environment"],
  ["data"],
  ["device"],
  ["ops"],
  ["graph"],
  ["native"],
  ["text"],
  ["model"],
  ["hub"],
  ["train"],
  ["engine"],
  ["eval"],
  ["musc"],
  ["baselines"],
  ["world"],
  ["checkable"],
  ["plots"],
  ["config"],
  ["report"],
  ["trackers"],
  ["runs"],
  ["notebook"],
  ["cli"],
  ["index"],
]

interface Import {
  from: string
  to: string
  /** gone when the program runs */
  typeOnly: boolean
  /** loaded when first used, so it makes no cycle at start */
  lazy: boolean
}

const files = readdirSync(lib, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.replaceAll("\\", "/"))
  .sort()

const allTypes = (clause: ts.ImportClause | undefined): boolean => {
  if (!clause) return false
  if (clause.isTypeOnly) return true
  const named = clause.namedBindings
  return !clause.name && !!named && ts.isNamedImports(named) && named.elements.every((element) => element.isTypeOnly)
}

/** Every import of a file, with paths as written. */
function written(file: string): { path: string; typeOnly: boolean; lazy: boolean }[] {
  const source = ts.createSourceFile(file, readFileSync(join(lib, file), "utf8"), ts.ScriptTarget.ES2022)
  const found: { path: string; typeOnly: boolean; lazy: boolean }[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      found.push({
        path: (node.moduleSpecifier as ts.StringLiteral).text,
        typeOnly: allTypes(node.importClause),
        lazy: false,
      })
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier) {
      found.push({ path: (node.moduleSpecifier as ts.StringLiteral).text, typeOnly: node.isTypeOnly, lazy: false })
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [path] = node.arguments
      if (path && ts.isStringLiteralLike(path)) found.push({ path: path.text, typeOnly: false, lazy: true })
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      found.push({ path: (node.argument.literal as ts.StringLiteral).text, typeOnly: true, lazy: false })
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

const imports: Import[] = files.flatMap((from) =>
  written(from)
    .filter(({ path }) => path.startsWith("."))
    .map(({ path, typeOnly, lazy }) => {
      const to = `${relative(lib, resolve(lib, dirname(from), path)).replaceAll("\\", "/")}.ts`
      return { from, to, typeOnly, lazy }
    }),
)

const areaOf = (file: string) => file.split("/")[0]!.replace(/\.ts$/, "")
const placeOf = (file: string) => order.findIndex((line) => line.includes(areaOf(file)))

describe("imports in lib", () => {
  it("are found", () => {
    expect(files.length).toBeGreaterThan(60)
    expect(imports).toContainEqual({ from: "model/cache.ts", to: "model/layer.ts", typeOnly: true, lazy: false })
    expect(imports).toContainEqual({ from: "train/loop.ts", to: "model/safetensors.ts", typeOnly: false, lazy: false })
  })

  it("stay in areas that have a place in the order", () => {
    expect(files.filter((file) => placeOf(file) < 0)).toEqual([])
  })

  it("name files, without extension and without relying on a folder's index", () => {
    expect(imports.filter(({ to }) => !existsSync(join(lib, to)))).toEqual([])
  })

  it("go one way", () => {
    const against = imports.filter(({ from, to }) => areaOf(from) !== areaOf(to) && placeOf(to) >= placeOf(from))
    expect(against.map(({ from, to, typeOnly }) => `${from} -> ${to}${typeOnly ? " (types)" : ""}`)).toEqual([])
  })

  it("go as the table of lib/README.md says; it and CONTRIBUTING.md name every folder", () => {
    const rows = readFileSync(join(lib, "README.md"), "utf8").matchAll(/^\| [a-z]+ \| ((?:`[\w.]+\/?` ?)+)\|/gm)
    const layers = [...rows].map(([, cells]) => [...cells!.matchAll(/`([\w.]+)\/?`/g)].map(([, name]) => areaOf(name!)))
    const areas = [...new Set(files.map(areaOf))]
    expect(layers.flat().sort()).toEqual(areas.sort())
    const tree = readFileSync(join(lib, "../.github/CONTRIBUTING.md"), "utf8")
    const lines = [...tree.matchAll(/^ {2}((?:[\w.]+\/? )+)/gm)].flatMap(([, names]) => names!.trim().split(" "))
    expect(areas.filter((area) => !lines.some((name) => areaOf(name) === area))).toEqual([])
    const layerOf = (file: string) => layers.findIndex((layer) => layer.includes(areaOf(file)))
    expect(imports.filter(({ from, to }) => layerOf(to) > layerOf(from))).toEqual([])
  })

  it("make no cycle, of types neither: the notebook kernel trips on one at run time, and a reader on any", () => {
    const next = (file: string) => imports.filter(({ from, lazy }) => from === file && !lazy).map(({ to }) => to)
    const cycles: string[] = []
    const done = new Set<string>()
    const walk = (file: string, trail: readonly string[]): void => {
      if (trail.includes(file)) cycles.push([...trail.slice(trail.indexOf(file)), file].join(" -> "))
      if (done.has(file) || trail.includes(file)) return
      for (const to of next(file)) walk(to, [...trail, file])
      done.add(file)
    }
    for (const file of files) walk(file, [])
    expect(cycles).toEqual([])
  })
})
