import { join } from "node:path"
import { writeAtomic } from "../data/files"
import { defaultWeighting } from "../musc/weigh"
import { heatmapScript } from "../plots/heatmap"
import { type Html, html, type Part, page, table } from "../plots/html"
import { lossWarning } from "./losses"
import { type RunData, readRun } from "./report-data"
import {
  benchmarkSection,
  changeSection,
  editSection,
  kindSection,
  pairSection,
  resultSection,
  stageSection,
  summary,
  trainingSection,
  weightSection,
} from "./report-sections"
import { lengthSection, optimizerSection, timeSection } from "./run-sections"
import { samplesScript, samplesSection } from "./samples"

/** A setting or a fact as text. */
function said(value: unknown): string {
  if (value === undefined || value === null) return ""
  if (typeof value !== "object") return `${value}`
  if (Array.isArray(value) && value.every((entry) => typeof entry !== "object")) return value.join(", ")
  const entries = Object.entries(value)
  if (entries.some(([, entry]) => typeof entry === "object")) return JSON.stringify(value)
  return entries.map(([name, entry]) => `${name} ${entry}`).join(", ")
}

/** Facts by name; those without a value are left out. */
const facts = (entries: readonly (readonly [string, unknown])[]): Html =>
  html`<dl class="facts">${entries.map(([name, value]) => said(value) && html`<dt>${name}</dt><dd>${said(value)}</dd>`)}</dl>`

/** A line for each plan, with the work that ran so. */
function plansByText(plans: unknown): [string, string][] {
  const works = new Map<string, string[]>()
  for (const [work, text] of Object.entries(typeof plans === "object" && plans !== null ? plans : {}))
    works.set(said(text), [...(works.get(said(text)) ?? []), work])
  return [...works].map(([text, by]) => ["plan", `${by.join(", ")}: ${text}`])
}

function dataCard(data: RunData): Html {
  const { config = {}, manifest = {}, seeds } = data
  const { files: _, model = config.model, seeds: __, command, stages: ___, backend, plans, ...rest } = manifest
  const top = facts([
    ["instructions", config.instructionsFrom ?? config.seeds],
    ["model", model],
    ["seeds", seeds],
    ...Object.entries(rest),
    ["backend", said(backend).replace(/^backend: /, "")],
    ...plansByText(plans),
    ["command", command],
  ])
  return html`${top}${stageSection(data)}`
}

/** A command as it works in a checkout and in a project that has musc installed. */
const npx = (command: string) => command.replace(/^musc /, "npx musc ")

function reproduce({ config, manifest }: RunData): Html {
  const files = typeof manifest?.files === "object" && manifest.files !== null ? Object.entries(manifest.files) : []
  const hashes = files
    .slice(0, 300)
    .map(([file, hash]) => [html`<code>${file}</code>`, html`<code>${said(hash)}</code>`])
  const command = said(manifest?.command)
  const settings = JSON.stringify(config ?? null, null, 2).slice(0, 50_000)
  return html`${
    command &&
    html`<p>The same command with the same model gives the same rows: every random number depends only on seed, stage and row.
Run in the same folder, it resumes where it stopped.</p><pre>${npx(command)}</pre>`
  }
<p>To rewrite this page alone, with the folder that holds it:</p><pre>npx musc report FOLDER</pre>
${config && html`<details><summary>All settings (config.json)</summary><pre>${settings}</pre></details>`}
${hashes.length > 0 && html`<details><summary>Files and their hashes</summary>${table(["file", ""], hashes)}</details>`}`
}

/** Stages that lost more than half of their rows. They come first, since all figures rest on the rows that are left. */
const warnings = ({ stages }: RunData): Part =>
  stages.map((count) => {
    const warning = lossWarning(count)
    return warning && html`<p class="warning"><b>Rows were lost.</b> ${warning}</p>\n`
  })

/** The report of a run as one HTML page that needs nothing else, not even a network. */
export function reportPage(data: RunData): string {
  const weighting = said(data.config?.weighting) || defaultWeighting
  const sections: [string, string, Html | undefined][] = [
    ["results", "Results", resultSection(data)],
    ["benchmarks", "Benchmarks", benchmarkSection(data)],
    ["data", "Data card", dataCard(data)],
    ["edits", "Edits of the constraints", editSection(data)],
    ["pairs", "Pairs", pairSection(data)],
    ["weights", "Token weights", weightSection(data, weighting)],
    ["training", "Training", trainingSection(data)],
    ["optimizer", "Learning rate and gradient norm", optimizerSection(data)],
    ["kinds", "By kind and by number of constraints", kindSection(data)],
    ["changes", "Answers won and lost", changeSection(data)],
    ["lengths", "Length of answers", lengthSection(data)],
    ["samples", "Samples", samplesSection(data.samples)],
    ["time", "Time and speed", timeSection(data)],
    ["reproduce", "How to reproduce", reproduce(data)],
  ]
  const there = sections.filter(([, , body]) => body)
  const missing = sections.filter(([, , body]) => !body).map(([, title]) => title.toLowerCase())
  const notYet: Part =
    missing.length > 0 &&
    html`<p class="note">${!data.manifest && "The run has not finished. "}No data for: ${missing.join(", ")}.</p>`
  const body = html`<h1>MuSC run ${data.name}</h1>
<p class="lead">${summary(data)}</p>
${warnings(data)}${notYet}<nav>${there.map(([id, title]) => html`<a href="#${id}">${title}</a>`)}</nav>
${there.map(([id, title, section]) => html`<section id="${id}"><h2>${title}</h2>\n${section}</section>\n`)}`
  return page(`MuSC run ${data.name}`, body, [heatmapScript, samplesScript])
}

/**
 * Writes `report.html` into a run folder, from whatever the run has written so far, and returns its path. Examples are
 * drawn by a fixed rule, so the same run gives the same page.
 * @throws InputError for a folder that is no run, for damaged files, and when the page cannot be written.
 */
export async function writeReport(dir: string): Promise<string> {
  const data = await readRun(dir)
  const file = join(dir, "report.html")
  await writeAtomic(file, reportPage(data))
  return file
}
