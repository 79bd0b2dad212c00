import { join } from "node:path"
import { meanings } from "../config/config"
import { currentOf } from "../config/current"
import { writeAtomic } from "../data/files"
import { readJsonFile } from "../data/json-file"
import { parseRecord } from "../data/jsonl"
import { mean, percent } from "../data/numbers"
import { type Results, results as resultsRecord } from "../data/results"
import { InputError } from "../errors"
import { type AxisCurve, methodComparison, satisfactionOver } from "../plots/comparison"
import { trainingCurves } from "../plots/curves"
import { resultBars, temperaturesOf } from "../plots/figures"
import { figureBlock, type Html, html, page, table } from "../plots/html"
import type { Figure } from "../plots/theme"
import { type RunData, readOutcomes } from "./report-data"
import { benchmarkSection, kindSection, resultSection } from "./report-sections"
import { readStudy, type StudyRecord } from "./study-record"

const rate = (share: number | null) => (share === null ? "–" : `${percent(share)} %`)
const meanOfKnown = (values: readonly (number | null)[]) => {
  const known = values.filter((value) => value !== null)
  return known.length ? mean(known) : null
}

/** What each variant changes, how many pairs it made, and what its pairs keep. */
function variantSection({ variants }: StudyRecord): Html {
  const rows = variants.map(({ name, changes, pairs }) => [
    html`<a href="${name}/report.html">${name}</a>`,
    Object.entries(changes)
      .map(([key, value]) => `${key} ${value}`)
      .join(", "),
    pairs.map(({ n }) => n.toLocaleString("en")).join(", ") || "–",
    rate(meanOfKnown(pairs.map(({ chosen_csr }) => chosen_csr))),
    rate(meanOfKnown(pairs.map(({ rejected_csr }) => rejected_csr))),
  ])
  const head = ["variant", "changes", "pairs, by seed", "constraints kept by chosen", "by rejected"]
  return table(head, rows, [2, 3, 4])
}

/** The curves of a study whose variants change a setting in steps; one a model and trained method. */
function curvesOf(
  { axis, variants }: Pick<StudyRecord, "axis" | "variants">,
  results: Results,
  temperature: string,
): AxisCurve[] {
  const models = new Set(variants.map(({ model }) => model))
  const curves = new Map<string, AxisCurve & { points: AxisCurve["points"][number][] }>()
  for (const { changes, model, methods, pairs } of variants) {
    const set = axis === undefined ? undefined : changes[axis]
    if (typeof set !== "number") continue
    const at = axis === "pairs" && set ? Math.min(set, meanOfKnown(pairs.map(({ n }) => n)) ?? set) : set
    for (const [method, named] of Object.entries(methods)) {
      const score = results.methods[named]?.[temperature]
      if (method === "base" || !score) continue
      const name = `${model}\n${method}`
      const base = results.methods[methods.base ?? ""]?.[temperature]
      const curve = curves.get(name) ?? { method, model: models.size > 1 ? model : "", points: [], base }
      curves.set(name, curve)
      curve.points.push({ at, score })
    }
  }
  return [...curves.values()].filter(({ points }) => points.length > 1)
}

/**
 * The one figure that says most of some results: satisfaction over the setting that every run of a study changes, if
 * there is one, at the lowest temperature; else the methods compared, in bars where they are few.
 */
export function mainFigure(results: Results, study?: Pick<StudyRecord, "axis" | "variants">): Figure {
  const { axis } = study ?? {}
  if (study && axis && study.variants.every(({ changes }) => axis in changes)) {
    const [temperature] = temperaturesOf(results)
    return satisfactionOver(axis, `temperature ${temperature!.slice(1)}`, curvesOf(study, results, temperature!), {
      log: axis === "pairs",
    })
  }
  return Object.keys(results.methods).length > 5 ? methodComparison(results) : resultBars(results)
}

async function outcomesOf(dir: string, { variants }: StudyRecord): Promise<Pick<RunData, "logs" | "items">> {
  const logs: RunData["logs"] = []
  const items = new Map<string, RunData["items"][number]>()
  for (const { name, methods } of variants) {
    const folder = join(dir, name)
    const config = readJsonFile(join(folder, "config.json"))
    const { seed = 0, repeat = 1 } = config as { seed?: number; repeat?: number }
    const seeds = Array.from({ length: repeat }, (_, i) => seed + i)
    const own = await readOutcomes(folder, seeds, currentOf(config))
    logs.push(...own.logs.map((log) => ({ ...log, method: methods[log.method] ?? log.method })))
    for (const item of own.items) {
      const method = methods[item.method] ?? item.method
      items.set(`${method} ${item.temperature} ${item.seed} ${item.id}`, { ...item, method })
    }
  }
  return { logs, items: [...items.values()] }
}

/** Methods that figures with a mark a method can show: all up to twelve, else those of each model's last variant. */
function shownOf({ variants }: StudyRecord): Set<string> {
  const all = new Set(variants.flatMap(({ methods }) => Object.values(methods)))
  if (all.size <= 12) return all
  const last = new Map(variants.map((variant) => [variant.model, variant]))
  return new Set([...last.values()].flatMap(({ methods }) => Object.values(methods)))
}

/**
 * Writes `report.html` into a study's folder, from its results and the folders of its runs, and returns its path.
 * @throws InputError for a folder that holds no study, and for damaged files.
 */
export async function writeStudyReport(dir: string): Promise<string> {
  const study = readStudy(dir)
  if (!study) throw new InputError("must hold study.json, got none; check the path", { file: dir })
  const results = parseRecord(resultsRecord, readJsonFile(join(dir, "results.json")), {
    file: join(dir, "results.json"),
  })
  const { logs, items } = await outcomesOf(dir, study)
  const name = dir.split(/[\\/]/).filter(Boolean).at(-1)!
  const figures = temperaturesOf(results).flatMap((temperature) => {
    const curves = curvesOf(study, results, temperature)
    const at = `temperature ${temperature.slice(1)}`
    return curves.length ? figureBlock(satisfactionOver(study.axis!, at, curves, { log: study.axis === "pairs" })) : []
  })
  const fewNote =
    "To stay readable, the figures show only the last variant of each model. The reports of the runs show the others."
  const over = figures.length && study.axis ? html`<p>${study.axis}: ${meanings[study.axis]}.</p>${figures}` : undefined
  const few = shownOf(study)
  const shown = <Row extends { method: string }>(rows: readonly Row[]) => rows.filter(({ method }) => few.has(method))
  const some = few.size < Object.keys(results.methods).length && html`<p class="note">${fewNote}</p>`
  const all: [string, string, Html | undefined][] = [
    ["results", "Results", resultSection({ results })],
    ["benchmarks", "Benchmarks", benchmarkSection({ results })],
    ["curve", `By ${study.axis}`, over],
    ["variants", "Variants", variantSection(study)],
    ["training", "Training", logs.length ? html`${some}${figureBlock(trainingCurves(shown(logs)))}` : undefined],
    ["kinds", "By kind and by number of constraints", html`${some}${kindSection({ items: shown(items) })}`],
    ["reproduce", "How to reproduce", html`<pre>${study.command}</pre>`],
  ]
  const there = all.filter(([, , body]) => body)
  const body = html`<h1>MuSC study ${name}</h1>
<p class="lead">${study.variants.length} runs that differ in the settings below; each has a report of its own.</p>
<nav>${there.map(([id, title]) => html`<a href="#${id}">${title}</a>`)}</nav>
${there.map(([id, title, section]) => html`<section id="${id}"><h2>${title}</h2>\n${section}</section>\n`)}`
  const file = join(dir, "report.html")
  await writeAtomic(file, page(`MuSC study ${name}`, body))
  return file
}
