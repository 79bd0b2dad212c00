import { mkdir } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { fileError, writeAtomic } from "../data/files"
import { isJsonObject } from "../data/json-file"
import { percent } from "../data/numbers"
import type { EvalItem } from "../data/results"
import { differenceOf, scoreOf } from "../eval/score"
import { trainingCurves } from "../plots/curves"
import { figureBlock, type Html, html, type Part, page, table } from "../plots/html"
import { orderMethods } from "../plots/theme"
import { type RunData, readRun } from "./report-data"
import { pointsRange, summary } from "./report-sections"
import { fromFirstStep, timesOf } from "./run-sections"
import { points } from "./tables"

/** Two runs side by side: their settings, rows, times, curves, and the answers of the methods that both have. */

const said = (value: unknown): string =>
  value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value)

/** Settings, model, commit and machine in which two runs differ. */
function differingFacts(a: RunData, b: RunData): [string, string, string][] {
  const of = ({ config = {}, manifest = {} }: RunData): Record<string, unknown> => {
    const { model, commit, machine, musc, backend } = manifest
    const weights = isJsonObject(model) ? model.fingerprint : model
    return { ...config, "hash of the model": weights, commit, machine, "musc version": musc, "backend used": backend }
  }
  const [left, right] = [of(a), of(b)]
  return [...new Set([...Object.keys(left), ...Object.keys(right)])]
    .map((key): [string, string, string] => [key, said(left[key]), said(right[key])])
    .filter(([, x, y]) => x !== y)
}

/** Methods and temperatures that both runs evaluated, with the answers of each. */
function sharedAnswers(a: RunData, b: RunData) {
  const groups = (items: readonly EvalItem[]) => {
    const map = new Map<string, EvalItem[]>()
    for (const item of items) {
      const key = `${item.method}\n${item.temperature}`
      map.set(key, [...(map.get(key) ?? []), item])
    }
    return map
  }
  const [left, right] = [groups(a.items), groups(b.items)]
  const order = orderMethods(a.items.map(({ method }) => method))
  return [...left.keys()]
    .filter((key) => right.has(key))
    .map((key) => {
      const [method, temperature] = key.split("\n") as [string, string]
      return { method, temperature: Number(temperature), a: left.get(key)!, b: right.get(key)! }
    })
    .sort((x, y) => x.temperature - y.temperature || order.indexOf(x.method) - order.indexOf(y.method))
}

function resultSection(a: RunData, b: RunData): Html | undefined {
  const shared = sharedAnswers(a, b)
  if (!shared.length) return undefined
  const options = { samples: 2000, seed: 0 }
  const rows = shared.map(({ method, temperature, a: left, b: right }) => {
    const key = ({ seed, id }: EvalItem) => `${seed} ${id}`
    const common = (items: readonly EvalItem[], others: readonly EvalItem[]) => {
      const keys = new Set(others.map(key))
      return items.filter((item) => keys.has(key(item)))
    }
    const [own, others] = [common(left, right), common(right, left)]
    if (!own.length) return [method, temperature, "–", "–", "no instruction in common", "–", 0]
    const [x, y] = [scoreOf(own, options), scoreOf(others, options)]
    const head: Part[] = [method, temperature, percent(x.isr), percent(y.isr)]
    const gap = differenceOf(others, own, options)
    const clear = gap.isr_interval[0] > 0 || gap.isr_interval[1] < 0
    const isr = html`${points(gap.isr)} <small>(${pointsRange(gap.isr_interval)})</small>`
    return [
      ...head,
      clear ? html`<b>${isr}</b>` : isr,
      html`${points(gap.csr)} <small>(${pointsRange(gap.csr_interval)})</small>`,
      own.length.toLocaleString("en"),
    ]
  })
  const head = ["method", "temperature", `ISR % of A`, `ISR % of B`, "ISR, B − A", "CSR, B − A", "answers compared"]
  return html`${table(head, rows, [1, 2, 3, 4, 5, 6])}
<p class="note">All figures cover the instructions that both runs answered. Differences are in percentage points, with paired 95 % bootstrap
intervals; bold where the interval excludes 0.</p>`
}

function stageSection(a: RunData, b: RunData): Html | undefined {
  const names = [...new Set([...a.stages, ...b.stages].map(({ stage }) => stage))]
  if (!names.length) return undefined
  const cell = (data: RunData, name: string) => {
    const count = data.stages.find(({ stage }) => stage === name)
    return count ? `${count.passed.toLocaleString("en")} of ${count.rows.toLocaleString("en")}` : "–"
  }
  return table(
    ["stage", "rows passed, A", "rows passed, B"],
    names.map((name) => [name, cell(a, name), cell(b, name)]),
    [1, 2],
  )
}

function timeSection(a: RunData, b: RunData): Html | undefined {
  const [left, right] = [new Map(timesOf(a)), new Map(timesOf(b))]
  const names = [...new Set([...left.keys(), ...right.keys()])]
  if (!names.length) return undefined
  const cell = (time?: { seconds: number; done: number; unit: string }) =>
    time ? `${time.seconds.toFixed(1)} s for ${time.done.toLocaleString("en")} ${time.unit}` : "–"
  const rows = names.map((name) => [name, cell(left.get(name)), cell(right.get(name))])
  return html`${table(["stage", "A", "B"], rows, [1, 2])}
<p class="note">${fromFirstStep} A dash: the result was already in the folder or in the cache.</p>`
}

function curveSection(a: RunData, b: RunData): Html | undefined {
  const named = (data: RunData, name: string) =>
    data.logs.filter(({ lines }) => lines.length).map((log) => ({ ...log, method: `${name}: ${log.method}` }))
  const logs = [...named(a, "A"), ...named(b, "B")]
  return logs.length ? figureBlock(trainingCurves(logs)) : undefined
}

/** Two runs compared, as one HTML page that needs nothing else. */
function comparePage(a: RunData, b: RunData): string {
  const facts = differingFacts(a, b)
  const sections: [string, Html | undefined][] = [
    ["Results", resultSection(a, b)],
    [
      "What differs",
      facts.length ? table(["", "A", "B"], facts) : html`<p>Nothing: same settings, model, commit and machine.</p>`,
    ],
    ["Rows of each stage", stageSection(a, b)],
    ["Training", curveSection(a, b)],
    ["Time", timeSection(a, b)],
  ]
  const title = `MuSC runs ${a.name} and ${b.name}`
  const body = html`<h1>${title}</h1>
<p><b>A, ${a.name}.</b> ${summary(a)}</p><p><b>B, ${b.name}.</b> ${summary(b)}</p>
${sections.map(([name, section]) => section && html`<section><h2>${name}</h2>\n${section}</section>\n`)}`
  return page(title, body)
}

/**
 * Writes a page that compares two runs, by default into the first one's folder, and returns its path.
 * @throws InputError for a folder that is no run, for damaged files, and when the page cannot be written.
 */
export async function writeComparison(dirA: string, dirB: string, out?: string): Promise<string> {
  const [a, b] = [await readRun(dirA), await readRun(dirB)]
  // Runs of one study or repetition often have folders of the same name.
  const named = (dir: string) => `${basename(dirname(resolve(dir)))}/${basename(resolve(dir))}`
  if (a.name === b.name) Object.assign(a, { name: named(dirA) }) && Object.assign(b, { name: named(dirB) })
  const file = out ?? join(dirA, `compared-with-${basename(resolve(dirB))}.html`)
  try {
    await mkdir(dirname(file), { recursive: true })
    await writeAtomic(file, comparePage(a, b))
  } catch (error) {
    throw fileError(error, file, "write")
  }
  return file
}
