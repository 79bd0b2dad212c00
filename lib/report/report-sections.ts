import { percent } from "../data/numbers"
import type { EvalItem, Results, Score } from "../data/results"
import type { PairRow } from "../data/schema"
import { constraintShare } from "../eval/grader"
import { benchmarkFigure } from "../plots/benchmarks"
import { methodComparison } from "../plots/comparison"
import { trainingCurves, weightDistribution } from "../plots/curves"
import { answersHtml, diffHtml, editsHtml, type Verdict } from "../plots/diff"
import { atTemperature, resultBars, satisfactionByCount, satisfactionByKind, temperaturesOf } from "../plots/figures"
import { mapControls, mapLegend, pairMap } from "../plots/heatmap"
import { figureBlock, type Html, html, type Part, table } from "../plots/html"
import { editKinds, stageFunnel } from "../plots/stage-figures"
import { mainMethod, orderMethods } from "../plots/theme"
import { weightsByClass } from "../plots/token-classes"
import { gradeAnswer, worldSpec } from "../world/spec"
import { answerRows, kindRows } from "./answers"
import { benchmarkCells, benchmarkNotes, headlinesOf } from "./benchmark-table"
import { type RunData, type Seeded, SHOWN, sampler } from "./report-data"
import { covered, differenceBetween, isClear, judgedLine, points, resultLines } from "./tables"

/** Sections of the report: each shows one part of a run, or is undefined when the run has not come to it. */

const withSign = (share: number): string => `${percent(share)} %`
const range = ([low, high]: readonly [number, number]): string => `${percent(low)} to ${percent(high)}`
export const pointsRange = ([low, high]: readonly [number, number]): string => `${points(low)} to ${points(high)}`
const warmth = (key: string): string => key.replace(/^T/, "")
const many = (n: number, what: string): string => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`

/** A long text, cut. */
const clip = (text: string, most = 3000): string =>
  text.length > most ? `${text.slice(0, most)} … (${text.length - most} more characters)` : text

/** The result of a run in one sentence, whatever it is. */
export function summary(data: Pick<RunData, "results" | "stages">): string {
  const { results, stages } = data
  const methods = orderMethods(Object.keys(results?.methods ?? {}))
  const method = mainMethod(methods)
  const temperature = results && temperaturesOf(results)[0]
  const score = method && temperature ? results?.methods[method]?.[temperature] : undefined
  if (!results || !method || !temperature || !score) {
    const last = stages.at(-1)
    if (!last) return "The run has written nothing yet."
    const rows = `${last.passed.toLocaleString("en")} of ${many(stages[0]!.rows, "row")} passed`
    return `No results yet: the last stage with an output is ${last.stage}, which ${rows}.`
  }
  const own =
    `${method} keeps every constraint in ${withSign(score.isr)} of its answers ` +
    `(95 % interval ${range(score.isr_interval)} %) at temperature ${warmth(temperature)}`
  const base = results.methods.base?.[temperature]
  const gain = results.differences.find(
    (d) => d.method === method && d.against === "base" && d.temperature === temperature,
  )
  if (!base || !gain) return `${own}.`
  const [low, high] = gain.isr_interval
  const verdict = low > 0 ? "a gain of" : high < 0 ? "a loss of" : "no clear difference,"
  return `${own}, the base model in ${withSign(base.isr)}: ${verdict} ${points(gain.isr)} points (${pointsRange(gain.isr_interval)}).`
}

const meanings: Readonly<Record<string, string>> = {
  base: "the model before training",
  sft: "supervised fine-tuning on the chosen answers",
  "self-reward-yesno":
    "DPO on the best and worst of the model’s own answers, which it judges itself, constraint by constraint",
  "self-reward-points": "the same, with five additive points from the model itself",
  "self-reward-external": "the same, judged by another model, constraint by constraint",
  "self-reward-verifier": "the same, judged by exact checks",
  "self-correct": "DPO on the model’s own revisions, against its answers before revision",
  fine: "DPO on the best and worst of the model’s own answers, with token weights from the clean against the empty prompt",
  coarse: "DPO on the contrastive pairs, all tokens weighted equally",
  "coarse-verified": "DPO on the contrastive pairs whose chosen answer keeps more constraints",
  musc: "DPO on the contrastive pairs, with token weights",
  "musc-dynamic": "the same, with token weights recomputed each epoch by the model in training",
  "musc-verified": "DPO on the verified pairs, with token weights",
}

/** Every method at every temperature with intervals and the difference to base; nothing is left out. */
export function resultSection({ results }: Pick<RunData, "results">): Html | undefined {
  if (!results) return undefined
  const methods = orderMethods(Object.keys(results.methods))
  const lines = resultLines(results)
  const pairs = (results.trained ?? []).length > 0
  const unreadable = methods.some((method) =>
    Object.values(results.methods[method]!).some((score) => score.unreadable > 0),
  )
  const rate = (score: Score, name: "csr" | "isr") =>
    html`${withSign(score[name])} <small>(${range(score[`${name}_interval`])})</small>`
  const rows = temperaturesOf(results).flatMap((temperature) =>
    methods.flatMap((method) => {
      const score = results.methods[method]![temperature]
      if (!score) return []
      const gain = differenceBetween(results, method, results.bases?.[method] ?? "base", temperature)
      const line = lines.find((one) => one.method === method && `T${one.temperature}` === temperature)
      const change = (name: "csr" | "isr") => {
        if (!gain) return "–"
        const star = isClear(line, `${name}_minus_base`) ? "*" : ""
        return html`${points(gain[name])}${star} <small>(${pointsRange(gain[`${name}_interval`])})</small>`
      }
      const name = method === "musc" ? html`<b>musc</b>` : method
      const counts = [
        ...(pairs ? [line?.pairs ?? "–"] : []),
        score.n.toLocaleString("en"),
        ...(unreadable ? [score.unreadable] : []),
      ]
      return [
        [name, warmth(temperature), rate(score, "csr"), rate(score, "isr"), change("csr"), change("isr"), ...counts],
      ]
    }),
  )
  const head = ["method", "temperature", "CSR", "ISR", "CSR − base", "ISR − base"]
  const counted = [...(pairs ? ["pairs"] : []), "answers", ...(unreadable ? ["unreadable"] : [])]
  const judge = results.judged_by && html`<p>${judgedLine(results.judged_by)}</p>`
  return html`${judge}${table([...head, ...counted], rows, [1, 2, 3, 4, 5, 6, 7, 8])}
<p class="note">CSR: mean share of constraints kept. ISR: share of answers that keep every constraint. In brackets: 95 %
intervals over ${covered(results)}. Differences are in percentage points, paired by seed and instruction. A star marks those that differ
from 0 after Holm’s correction for their column. ${methods
    .filter((method) => meanings[method])
    .map((method) => html`<b>${method}</b>: ${meanings[method]}. `)}</p>
${(results.notes ?? []).map((note) => html`<p class="note">${note}</p>`)}
${methods.length > 5 && figureBlock(methodComparison(results))}
${methods.length <= 8 && figureBlock(resultBars(results), barsNote)}
${answerTable(results)}${otherDifferences(results)}${seedTable(results)}`
}

const barsNote =
  "Numbers above the bars are percent. Overlapping intervals do not settle whether two methods differ; " +
  "the paired differences above do."

/** Lengths of answers, cut and repeated ones. */
function answerTable(results: Results): Part {
  const [head, ...rows] = answerRows(results)
  if (!head) return null
  const note =
    "Cut off: stopped at the token limit. Repeats itself: the same four words in a row occur three times or more."
  return html`<h3>Answers</h3>${table(head, rows, [1, 2, 3, 4, 5])}<p class="note">${note}</p>`
}

function otherDifferences({ differences }: Results): Part {
  const others = differences.filter(({ against }) => against !== "base")
  if (!others.length) return null
  const rows = others.map((d) => [
    `${d.method} − ${d.against}`,
    warmth(d.temperature),
    html`${points(d.csr)} <small>(${pointsRange(d.csr_interval)})</small>`,
    html`${points(d.isr)} <small>(${pointsRange(d.isr_interval)})</small>`,
  ])
  const whole = table(["", "temperature", "CSR", "ISR"], rows, [1, 2, 3])
  const title = "Other differences, in percentage points"
  return rows.length > 12
    ? html`<details><summary>${title} (${rows.length})</summary>${whole}</details>`
    : html`<h3>${title}</h3>${whole}`
}

function seedTable(results: Results): Part {
  if (results.seeds.length < 2) return null
  const rows = temperaturesOf(results).flatMap((temperature) =>
    orderMethods(Object.keys(results.methods)).flatMap((method) => {
      const seeds = results.methods[method]![temperature]?.seeds
      const isr = (seed: number) => seeds?.find((entry) => entry.seed === seed)?.isr
      const cells = results.seeds.map((seed) => (isr(seed) === undefined ? "–" : withSign(isr(seed)!)))
      return seeds ? [[method, warmth(temperature), ...cells]] : []
    }),
  )
  const head = ["method", "temperature", ...results.seeds.map((seed) => `seed ${seed}`)]
  return html`<details><summary>ISR of each seed</summary>${table(head, rows, head.map((_, i) => i).slice(1))}</details>`
}

/** The table of benchmarks, methods by benchmarks, with paired differences and a figure. */
export function benchmarkSection({ results }: Pick<RunData, "results">): Html | undefined {
  const { benchmarks = [], seeds = [] } = results ?? {}
  if (!benchmarks.length) return undefined
  const { head, values, differences } = benchmarkCells(benchmarks)
  const numeric = head.map((_, i) => i).slice(1)
  const panels = benchmarks.flatMap((of) => headlinesOf(of).map((figure) => ({ of, figure })))
  return html`${table(head, values, numeric)}
${differences.map(({ against, rows }) => html`<h3>Difference from ${against}</h3>${table(head, rows, numeric)}`)}
${figureBlock(benchmarkFigure(panels))}
${benchmarkNotes(benchmarks, seeds.length).map((note) => html`<p class="note">${note}</p>`)}`
}

const shareText = (share: number | null) => (share === null ? "not graded" : withSign(share))

/** Why rows failed, the most frequent reasons first. */
const reasonsText = (reasons: Readonly<Record<string, number>>): string =>
  Object.entries(reasons)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, n]) => `${reason} (${n.toLocaleString("en")})`)
    .join("; ") || "–"

/** How many rows passed each stage, and why others failed. */
export function stageSection({ stages, results, seeds }: RunData): Html | undefined {
  if (!stages.length) return undefined
  const rows = stages.map(({ stage, rows, passed, reasons }) => [
    stage,
    rows.toLocaleString("en"),
    passed.toLocaleString("en"),
    reasonsText(reasons),
  ])
  const pairs = results?.pairs.map((entry) => [
    entry.seed,
    entry.n.toLocaleString("en"),
    shareText(entry.chosen_csr),
    shareText(entry.rejected_csr),
  ])
  const note = `${seeds.length > 1 ? `Rows of all ${seeds.length} seeds. ` : ""}A row that fails stays in the files, with the reason.`
  return html`${figureBlock(stageFunnel(stages), note)}
${table(["stage", "rows in", "passed", "failed, by reason"], rows, [1, 2])}
${
  pairs?.length
    ? html`<h3>Pairs</h3>${table(["seed", "pairs", "constraints kept by chosen", "by rejected"], pairs, [0, 1, 2, 3])}
<p class="note">Both answers are checked against the clean instruction. The difference is the contrast that training learns from.</p>`
    : null
}${baselineTable(results)}`
}

/** Pairs of the baselines, and why other instructions gave none. */
function baselineTable(results: Results | undefined): Part {
  if (!results?.baselines?.length) return null
  const rows = results.baselines.map(({ method, seed, n, failures, unreadable, chosen_csr, rejected_csr }) => [
    method,
    seed,
    n.toLocaleString("en"),
    shareText(chosen_csr),
    shareText(rejected_csr),
    unreadable.toLocaleString("en"),
    reasonsText(failures),
  ])
  const head = ["baseline", "seed", "pairs", "kept by chosen", "by rejected", "unreadable", "no pair, by reason"]
  return html`<h3>Pairs of the baselines</h3>${table(head, rows, [1, 2, 3, 4, 5])}`
}

const card = (row: { seed: number; id: string }, ...body: readonly Part[]): Html =>
  html`<div class="card"><div class="head">${row.id} · seed ${row.seed}</div>${body}</div>\n`

/** What was done to constraints, as counts and in examples. */
export function editSection({ edits, corrupted }: RunData): Html | undefined {
  if (!edits.length) return undefined
  const note =
    "The model writes negated and substituted questions. The embedded world recognises its own questions and says " +
    "what the new one really asks; other questions are not checked."
  return html`${figureBlock(editKinds(edits), note)}
${corrupted.map((row) => card(row, html`<div class="text">${clip(row.instruction)}</div>`, editsHtml(row)))}`
}

/** Verdicts of the world's verifiers where the row carries its spec, else the questions alone. */
export function verdictsOf(row: PairRow, answer: string): Verdict[] {
  const spec = worldSpec.safeParse(row.world)
  if (!spec.success) return row.constraints.map((question) => ({ question }))
  return gradeAnswer(spec.data, answer).map(({ question, satisfied }) => ({ question, satisfied }))
}

/** Pairs: both instructions as a difference, both answers, and what each keeps of the clean instruction. */
export function pairSection({ pairs }: RunData): Html | undefined {
  if (!pairs.length) return undefined
  return html`<p>Each instruction shows what the noise <del>removed</del> and <ins>added</ins>. The answer to the clean instruction is
chosen, the answer to the noised one is rejected. Both are checked against the clean instruction.</p>
${pairs.map((row) => {
  const answer = (name: "chosen" | "rejected") => ({
    name,
    text: clip(row[name]),
    verdicts: verdictsOf(row, row[name]),
  })
  return card(
    row,
    diffHtml(clip(row.clean_instruction), clip(row.noised_instruction)),
    answersHtml([answer("chosen"), answer("rejected")]),
  )
})}`
}

/** Weights of single tokens and of all tokens together. `first` is the weighting drawn at first, if there. */
export function weightSection({ weighed, weights, classes }: RunData, first: string): Html | undefined {
  if (!weighed.length) return undefined
  const all = Object.keys(weights)
  const shared = all.filter((name) => weighed.every((row) => row.weights[name]))
  const names = [...shared].sort((a, b) => Number(b === first) - Number(a === first))
  if (!names.length) return undefined
  const uniform = all.length > 1 && weights.uniform ? " The uniform weighting (1 for every token) is not drawn." : ""
  const meaning = "1 as in plain DPO, at most 2; a token of weight 0 does not count."
  return html`<p>Each token’s term in the loss is multiplied by its weight: ${meaning}</p>
${mapControls(names)}${mapLegend()}
${weighed.map((row: Seeded<(typeof weighed)[number]>) =>
  card(row, diffHtml(clip(row.clean_instruction), clip(row.noised_instruction)), pairMap(row, { weightings: names })),
)}
${figureBlock(weightDistribution(weights), `All tokens of all pairs, the end-of-turn token included.${uniform}`)}
${all.some((name) => name !== "uniform") && figureBlock(weightsByClass(classes), classesNote)}`
}

const classesNote =
  "Tokens are grouped by their word: in the clean instruction only, in the noised one only, in both, or in neither. " +
  "A weighting that finds the corrupted constraints gives more weight to words of one instruction only."

/** Loss, rewards, margin and accuracy, with a word on rewards that fall. */
export function trainingSection({ logs }: RunData): Html | undefined {
  if (!logs.some(({ lines }) => lines.length)) return undefined
  const preference = logs.some(({ lines }) => lines.some(({ margin }) => margin !== undefined))
  const note = html`<p class="note"><b>Why both rewards may fall.</b> A reward is β Σ w (log π − log π<sub>ref</sub>) over the
tokens of an answer. The loss depends only on the margin, chosen minus rejected. The two answers share many words, so lowering the
rejected one also lowers the chosen one. A little of this is normal. If the chosen reward keeps falling by several nats, the
probability may go to answers that nobody preferred: use a smaller learning rate, fewer epochs, or an SFT term on the chosen answer.
The dashed line is ln 2, the loss before the first step.</p>`
  return html`${figureBlock(trainingCurves(logs))}${preference && note}`
}

/** Satisfaction by kind and by number of constraints. */
export function kindSection({
  items,
  results,
}: Pick<RunData, "items"> & Partial<Pick<RunData, "results">>): Html | undefined {
  if (!items.length) return undefined
  const { items: cold } = atTemperature(items)
  const [head, ...rows] = results ? kindRows(results) : []
  const kinds =
    head &&
    html`<details><summary>Table by kind (constraints kept, %)</summary>${table(head, rows, head.map((_, i) => i).slice(1))}</details>`
  const hasKinds = cold.some(({ constraints }) => constraints.some(({ kind }) => kind))
  const kindsNote = "Kinds are sorted by how often the first method keeps them."
  const countsNote =
    "Wilson intervals over answers, which treat the seeds’ answers to one instruction as independent. " +
    "Points are shifted sideways so that none is hidden."
  return html`${hasKinds && figureBlock(satisfactionByKind(items), kindsNote)}${kinds}
${figureBlock(satisfactionByCount(items), countsNote)}`
}

/** Whether an answer keeps all constraints whose verdict could be read; null without any. */
const verdict = ({ constraints }: EvalItem): boolean | null => {
  const share = constraintShare(constraints)
  return Number.isNaN(share) ? null : share === 1
}

/** Answers of base and of `method` to the same instruction where one keeps all and the other does not. */
export function wonAndLost(
  all: readonly EvalItem[],
  method: string,
): { won: [EvalItem, EvalItem][]; lost: [EvalItem, EvalItem][]; compared: number; temperature: number } {
  const { items, temperature } = atTemperature(all)
  const key = ({ seed, id }: EvalItem) => `${seed} ${id}`
  const base = new Map(items.filter((item) => item.method === "base").map((item) => [key(item), item]))
  const pairs = items.flatMap((item): [EvalItem, EvalItem][] => {
    const before = item.method === method ? base.get(key(item)) : undefined
    return before && verdict(before) !== null && verdict(item) !== null ? [[before, item]] : []
  })
  const won = pairs.filter(([before, after]) => !verdict(before) && verdict(after))
  const lost = pairs.filter(([before, after]) => verdict(before) && !verdict(after))
  return { won, lost, compared: pairs.length, temperature }
}

/** Examples of answers that got better and that got worse by training, with how many there are of each. */
export function changeSection({ items }: RunData): Html | undefined {
  const methods = orderMethods(items.map((item) => item.method))
  const method = mainMethod(methods)
  if (!method || !methods.includes("base")) return undefined
  const { won, lost, compared, temperature } = wonAndLost(items, method)
  if (!compared) return undefined
  const examples = (list: readonly [EvalItem, EvalItem][], purpose: string) => {
    const chosen = sampler<[EvalItem, EvalItem]>(purpose)
    for (const pair of list) chosen.add(`${pair[1].seed} ${pair[1].id}`, pair)
    return chosen.rows().map(([before, after]) => {
      const answer = (item: EvalItem, name: string) => ({ name, text: clip(item.answer), verdicts: item.constraints })
      const answers = answersHtml([answer(before, "base"), answer(after, method)])
      return card(after, html`<div class="text">${clip(after.instruction)}</div>`, answers)
    })
  }
  const shown = (list: readonly unknown[]) => (list.length > SHOWN ? `, ${SHOWN} shown` : "")
  return html`<p>Of ${many(compared, "answer")} at temperature ${temperature}, ${method} keeps all constraints in ${won.length} where base
does not, and misses some in ${lost.length} where base keeps all. The examples are a fixed random sample.</p>
<h3>Won: base misses some, ${method} keeps all (${won.length}${shown(won)})</h3>${examples(won, "won")}
<h3>Lost: base keeps all, ${method} misses some (${lost.length}${shown(lost)})</h3>${examples(lost, "lost")}`
}
