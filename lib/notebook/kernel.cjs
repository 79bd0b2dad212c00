// The kernel `musc`: tslab, started in the project, with the faults mended that would lose work. Called by Jupyter with
// the path of a connection file; notebooks import from "musc" and "musc/notebook", as users of the package do.
const { existsSync } = require("node:fs")
const Module = require("node:module")
const { dirname, join } = require("node:path")

/** The names of the package and the files of this project behind them: cells see the sources, built or not. */
const entries = { musc: "./lib/index", "musc/notebook": "./lib/notebook/index" }

/** The project: the next folder above that holds a package.json. tslab compiles nothing outside the folder it starts in. */
function projectOf(folder) {
  const up = dirname(folder)
  return existsSync(join(folder, "package.json")) || up === folder ? folder : projectOf(up)
}

/** zeromq sends every 513th message later and refuses all until then; without a limit it queues them instead. */
function keepAllOutput({ Publisher }) {
  const { bind } = Publisher.prototype
  const unlimited = function (...address) {
    this.sendHighWaterMark = 0
    this.sendTimeout = 0
    return bind.apply(this, address)
  }
  Object.defineProperty(Publisher.prototype, "bind", { value: unlimited, configurable: true, writable: true })
}

/**
 * Cells are checked by strict rules, without which the types of lib/ mean something else. The files of lib/ are not
 * checked, as the project's own compiler does that, and esbuild translates them, in a twentieth of TypeScript's time.
 */
function compileFast() {
  const file = require.resolve("@tslab/typescript-for-tslab", {
    paths: [dirname(require.resolve("tslab/package.json"))],
  })
  const ts = require(file)
  const root = process.cwd().replaceAll("\\", "/")
  const isLibrary = (source) => source.fileName.startsWith(`${root}/lib/`)
  const translated = new Set()
  const createProgram = (...given) => {
    const builder = ts.createEmitAndSemanticDiagnosticsBuilderProgram(...given)
    const { emit } = builder
    builder.emit = (source, write, ...rest) => {
      if (!source || !isLibrary(source)) {
        const [cancelled, onlyTypes, transformers] = rest
        const checker = builder.getProgram().getTypeChecker()
        const writeOut = (context) => (file) => writeNamesOut(ts, checker, context, writeEntriesOut(ts, context, file))
        const after = [writeOut, ...(transformers?.after ?? [])]
        return emit(source, write, cancelled, onlyTypes, { ...transformers, after })
      }
      const { code } = require("esbuild").transformSync(source.text, libraryOptions)
      translated.add(code)
      write(source.fileName.replace(root, builder.getCompilerOptions().outDir).replace(/\.ts$/, ".js"), code)
      return { emitSkipped: false, diagnostics: [] }
    }
    return builder
  }
  const createWatchCompilerHost = (roots, options, system, _, ...rest) => {
    // TypeScript needs a second timer when a folder or a package.json changes, as after `npm install`. tslab has one, and
    // fails. So neither is watched. Changed files of lib/ still count; other packages need a new kernel.
    const { watchFile } = system
    const unwatched = { close: () => {} }
    system.watchDirectory = () => unwatched
    system.watchFile = (path, ...rest) => (/[\\/]package\.json$/.test(path) ? unwatched : watchFile(path, ...rest))
    const paths = Object.fromEntries(Object.entries(entries).map(([name, path]) => [name, [path]]))
    const own = { ...options, strict: true, baseUrl: root, paths }
    return ts.createWatchCompilerHost(roots, own, system, createProgram, ...rest)
  }
  const getPreEmitDiagnosticsOfFiles = (program, sources) =>
    ts.getPreEmitDiagnosticsOfFiles(
      program,
      sources.filter((source) => !isLibrary(source)),
    )
  // tslab turns all that was written into CommonJS, which these files are already.
  const transpileModule = (text, ...rest) =>
    translated.delete(text) ? { outputText: text } : ts.transpileModule(text, ...rest)
  require.cache[file].exports = { ...ts, createWatchCompilerHost, getPreEmitDiagnosticsOfFiles, transpileModule }
}

/** How esbuild translates files of lib/: as tslab's modules are, which know `require` alone. */
const libraryOptions = { loader: "ts", format: "cjs", target: "es2022", supported: { "dynamic-import": false } }

/** Imports of the package, also by `import()`, become imports of this project's files. */
function writeEntriesOut(ts, context, file) {
  const { factory } = ts
  const pathOf = (node) => node && ts.isStringLiteral(node) && Object.hasOwn(entries, node.text) && entries[node.text]
  const visit = (node) => {
    if (ts.isImportDeclaration(node) && pathOf(node.moduleSpecifier)) {
      const path = factory.createStringLiteral(pathOf(node.moduleSpecifier))
      return factory.updateImportDeclaration(node, node.modifiers, node.importClause, path, node.assertClause)
    }
    if (
      ts.isCallExpression(node) &&
      node.expression.kind === ts.SyntaxKind.ImportKeyword &&
      pathOf(node.arguments[0])
    ) {
      const path = factory.createStringLiteral(pathOf(node.arguments[0]))
      return factory.updateCallExpression(node, node.expression, node.typeArguments, [path])
    }
    return ts.visitEachChild(node, visit, context)
  }
  return ts.visitEachChild(file, visit, context)
}

/**
 * tslab writes names of earlier cells as `exports.name`. It passes over those in `{ name }`, and takes the first name
 * in `const { name: other } = …` for one where an earlier cell made the object; here both are written out for it.
 */
function writeNamesOut(ts, checker, context, file) {
  const { factory } = ts
  const isEarlier = ({ declarations = [] }) =>
    declarations.some((one) => one.getSourceFile().fileName.endsWith("/__prev__.d.ts"))
  const visit = (node) => {
    if (ts.isShorthandPropertyAssignment(node)) {
      const value = checker.getShorthandAssignmentValueSymbol(node)
      if (!value || !isEarlier(value)) return node
      const { text } = node.name
      const earlier = factory.createPropertyAccessExpression(factory.createIdentifier("exports"), text)
      return factory.createPropertyAssignment(text, earlier)
    }
    const inside = ts.visitEachChild(node, visit, context)
    if (!ts.isBindingElement(inside) || !inside.propertyName || !ts.isIdentifier(inside.propertyName)) return inside
    const { dotDotDotToken, propertyName, name, initializer } = inside
    const quoted = factory.createStringLiteral(propertyName.text)
    return factory.updateBindingElement(inside, dotDotDotToken, quoted, name, initializer)
  }
  return ts.visitEachChild(file, visit, context)
}

/** tslab takes "openai", imported by engine/openai.ts, for that file itself: only "./..." names files. */
function importPackages() {
  const { _compile, require: fromPackages } = Module.prototype
  Module.prototype._compile = function (...given) {
    if (Object.hasOwn(this, "require")) {
      const fromNotebook = this.require
      this.require = (id) => (/^\.|^tslab$/.test(id) ? fromNotebook : fromPackages).call(this, id)
    }
    return _compile.apply(this, given)
  }
}

const FRAMES = 3
/** An error as cells show it: our own speak for themselves, of others a few frames outside Node and tslab. */
function shown(error) {
  if (!(error instanceof Error)) return error
  const head = `${error.name}: ${error.message}`
  if (isOwn(Object.getPrototypeOf(error))) return head
  const frames = (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line))
  const near = frames
    .filter((line) => !/node:|[\\/]tslab[\\/]|[\\/]kernel\.cjs:|^\s+at <anonymous>$/.test(line))
    .slice(0, FRAMES)
  const cause = error.cause instanceof Error ? [`caused by ${error.cause.name}: ${error.cause.message}`] : []
  return [head, ...near, ...cause].join("\n")
}
const isOwn = (prototype) =>
  prototype !== null && (prototype.constructor?.name === "MuscError" || isOwn(Object.getPrototypeOf(prototype)))

/** Errors of cells: printed short, and named in the reply, where nbclient and nbconvert look for them. */
function nameErrors({ JupyterHandlerImpl }) {
  const { error: print } = console
  let last
  const { handleExecute } = JupyterHandlerImpl.prototype
  JupyterHandlerImpl.prototype.handleExecute = async function (...request) {
    last = undefined
    const reply = await handleExecute.apply(this, request)
    if (reply.status !== "error") return reply
    const { name = "Error", message = "see the output of the cell" } = last ?? {}
    return { ...reply, ename: name, evalue: message, traceback: [] }
  }
  return (first, ...rest) => {
    if (first instanceof Error) last = first
    print(shown(first), ...rest)
  }
}

/**
 * An interrupt goes to the work that can stop by itself and keep its state (see interrupt.ts); only without any does
 * tslab give up the cell.
 */
function stopCleanly() {
  const giveUp = process.listeners("SIGINT")
  process.removeAllListeners("SIGINT")
  const stoppers = new Set()
  globalThis[Symbol.for("musc.stoppers")] = stoppers
  process.on("SIGINT", () => {
    if (stoppers.size) for (const stop of [...stoppers]) stop()
    else for (const listener of giveUp) listener()
  })
}

function start(configPath) {
  process.chdir(projectOf(__dirname))
  process.env.TF_CPP_MIN_LOG_LEVEL ??= "2"
  process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= "true"
  keepAllOutput(require("zeromq"))
  compileFast()
  importPackages()
  const { error } = console
  console.error = nameErrors(require("tslab/dist/jupyter.js"))
  require("tslab/dist/main.js").startKernel({ configPath, enableFindLocal: false })
  console.error = error // tslab holds on to the one above
  stopCleanly()
}

module.exports = { compileFast, importPackages, projectOf, shown, start }
if (require.main === module) start(process.argv[2])
