import { existsSync, mkdtempSync, readdirSync } from "node:fs"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, delimiter, dirname, join, resolve } from "node:path"
import { z } from "zod"
import { writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { parseRecord } from "../data/jsonl"
import { variable, withVariables } from "../environment"
import { InputError, MuscError } from "../errors"
import { html } from "../plots/html"
import type { Mode } from "./display"
import { jupyter, kernelName, kernelSpec } from "./install"
import { drifts, type Numbers, numbersType } from "./numbers"

const lines = z.union([z.string(), z.array(z.string())])
const output = z.looseObject({
  output_type: z.string(),
  name: z.string().optional(),
  text: lines.optional(),
  data: z.record(z.string(), z.unknown()).optional(),
})
const cell = z.looseObject({
  id: z.string(),
  cell_type: z.string(),
  source: lines,
  metadata: z.looseObject({ tags: z.array(z.string()).optional() }),
  outputs: z.array(output).optional(),
})
const ranges = z.record(z.string(), z.tuple([z.number(), z.number()]))
const notebook = z.looseObject({
  cells: z.array(cell),
  metadata: z.looseObject({ musc: z.looseObject({ ranges: ranges.default({}) }).optional() }),
})
export type Notebook = z.infer<typeof notebook>

/** The notebooks of the project. */
const notebookFolder = resolve(__dirname, "../../notebooks")

/** All notebooks in order, as files. */
export const notebookFiles = (): string[] =>
  readdirSync(notebookFolder)
    .filter((name) => name.endsWith(".ipynb"))
    .sort()
    .map((name) => join(notebookFolder, name))

/** The file of a notebook by number ("04"), name or path. @throws InputError for none */
export function findNotebook(name: string): string {
  const files = notebookFiles()
  const number = /^\d$/.test(name) ? `0${name}` : name
  const notebook = files.find((file) => basename(file).startsWith(`${number}-`) || basename(file, ".ipynb") === name)
  if (notebook) return notebook
  if (name.endsWith(".ipynb") && existsSync(name)) return resolve(name)
  const known = files.map((file) => basename(file, ".ipynb")).join(", ")
  throw new InputError(`a notebook must be one of ${known}, or a file, got ${name}; choose one`)
}

/** Reads a notebook. @throws InputError naming the file and the field */
export const readNotebook = (file: string): Notebook => parseRecord(notebook, readJsonFile(file), { file })

const sourceOf = ({ source }: { source: string | string[] }): string =>
  typeof source === "string" ? source : source.join("")

/** A value as given on the command line: JSON where it is, else text. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/**
 * The notebook with a cell of new values after the one tagged `parameters`. `params`: texts by name.
 * @throws InputError for a notebook without such a cell, or a name that it does not declare
 */
export function withParameters(book: Notebook, params: Readonly<Record<string, string>>): Notebook {
  const names = Object.keys(params)
  if (!names.length) return book
  const at = book.cells.findIndex(({ metadata }) => metadata.tags?.includes("parameters"))
  if (at < 0) throw new InputError("the notebook must have a cell tagged `parameters`, got none; leave --param away")
  const declared = [...sourceOf(book.cells[at]!).matchAll(/^(?:let|const) (\w+)/gm)].map(([, name]) => name!)
  for (const name of names) {
    if (declared.includes(name)) continue
    throw new InputError(`--param must name one of ${declared.join(", ")}, got ${name}; correct it`)
  }
  const source = names.map((name) => `${name} = ${JSON.stringify(parsed(params[name]!))}`).join("\n")
  const injected = {
    ...{ id: "injected-parameters", cell_type: "code", execution_count: null, outputs: [], source },
    metadata: { tags: ["injected-parameters"] },
  }
  return { ...book, cells: [...book.cells.slice(0, at + 1), injected, ...book.cells.slice(at + 1)] }
}

/** The notebook as it is kept: without counts, times and the parameters of one run, so that versions compare. */
export function tidied(book: Notebook): Notebook {
  const cells = book.cells.map((one) => {
    const { execution: _, ...metadata } = one.metadata
    if (one.cell_type !== "code") return { ...one, metadata }
    return { ...one, metadata, execution_count: null, outputs: one.outputs?.map(tidiedOutput) }
  })
  return { ...book, cells }
}

function tidiedOutput(one: z.infer<typeof output>): z.infer<typeof output> {
  return "execution_count" in one ? { ...one, execution_count: null } : one
}

/** The key numbers that a notebook showed. */
export const numbersOf = (book: Notebook): Numbers =>
  Object.assign({}, ...book.cells.flatMap(({ outputs = [] }) => outputs.map(({ data }) => data?.[numbersType])))

export interface BatchOptions {
  /** Values for the cell tagged `parameters`, as text: JSON where it parses. */
  params?: Readonly<Record<string, string>>
  /** File that the executed notebook goes to; by default over the notebook itself. */
  out?: string
  mode?: Mode
}

/** Seconds that a cell may take. */
const longestCell = 600
/** Seconds that a kernel has to start; on a busy machine it needs minutes. */
const longestStart = 600

/** Outcome of an execution. */
export interface Executed {
  file: string
  seconds: number
  numbers: Numbers
  /** Key numbers that left their range; not checked where parameters were given. */
  drifts: string[]
}

/**
 * Executes a notebook by nbclient, with this project's kernel whether it is installed or not, and writes it with its
 * outputs.
 * @throws InputError without Jupyter; MuscError for a cell that fails, with what it said
 */
export async function executeNotebook(source: string, options: BatchOptions = {}): Promise<Executed> {
  const { params = {}, mode = "publish", out = source } = options
  const began = Date.now()
  if (!out.endsWith(".ipynb")) throw new InputError("an executed notebook must end in .ipynb; rename it", { file: out })
  const book = readNotebook(source)
  await mkdir(dirname(resolve(out)), { recursive: true }) // before the work, which would be lost
  const folder = mkdtempSync(join(tmpdir(), "musc-notebook-"))
  try {
    const spec = join(folder, "kernels", kernelName)
    await mkdir(spec, { recursive: true })
    await writeFile(join(spec, "kernel.json"), JSON.stringify(kernelSpec()))
    const work = join(folder, basename(source))
    await writeFile(work, JSON.stringify(withParameters(book, params)))
    const env = withVariables({
      JUPYTER_PATH: [folder, variable("JUPYTER_PATH")].filter(Boolean).join(delimiter),
      MUSC_NOTEBOOK: mode,
    })
    const limits = [`--timeout=${longestCell}`, `--startup_timeout=${longestStart}`]
    await jupyter(["execute", work, "--inplace", `--kernel_name=${kernelName}`, ...limits], env).catch((error) => {
      throw error instanceof MuscError
        ? error
        : new MuscError(`${source}: every cell must run, got\n${failureOf(error)}`)
    })
    const done = tidied(readNotebook(work))
    await writeAtomic(out, `${JSON.stringify(done, null, 1)}\n`)
    const numbers = numbersOf(done)
    const checked = Object.keys(params).length ? {} : (book.metadata.musc?.ranges ?? {})
    return { file: out, seconds: (Date.now() - began) / 1000, numbers, drifts: drifts(numbers, checked) }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** What nbclient says of a failed cell, without its Python frames. */
function failureOf(error: unknown): string {
  const text = (error as { output?: string }).output ?? `${error}`
  const cell = text.search(/An error occurred while executing the following cell|Kernel died|CellTimeoutError/)
  return (cell < 0 ? text.slice(-2000) : text.slice(cell)).trim()
}

/**
 * Writes the notebooks as HTML pages with an index; nothing in them comes from the network.
 * @throws InputError without Jupyter
 */
export async function notebookSite(folder: string): Promise<string> {
  const files = notebookFiles()
  await mkdir(folder, { recursive: true })
  const urls = ["require_js_url", "mathjax_url", "mermaid_js_url", "jquery_url", "widget_renderer_url"]
  await jupyter([
    ...["nbconvert", ...files, "--to", "html", "--output-dir", folder, "--HTMLExporter.embed_images=True"],
    ...urls.map((url) => `--HTMLExporter.${url}=`),
  ])
  const title = (file: string) => /^# (.+)$/m.exec(sourceOf(readNotebook(file).cells[0]!))?.[1] ?? basename(file)
  const items = files.map((file) => html`<li><a href="${basename(file, ".ipynb")}.html">${title(file)}</a></li>\n`)
  const index = join(folder, "index.html")
  await writeAtomic(
    index,
    html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MuSC notebooks</title></head>
<body style="font:16px/1.6 system-ui,sans-serif;max-width:44em;margin:40px auto;padding:0 16px"><h1>MuSC notebooks</h1>
<ol start="0">${items}</ol></body></html>
`.text,
  )
  return index
}
