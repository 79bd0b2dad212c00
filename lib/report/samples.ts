import type { EvalItem } from "../data/results"
import type { Failure, InstructionRow, PairRow } from "../data/schema"
import { constraintShare } from "../eval/grader"
import { dataBlock, type Html, html } from "../plots/html"
import { gradeAnswer, worldSpec } from "../world/spec"

/** The browser of samples: pairs, failed rows and graded answers, searched and filtered on the page itself. */

/** A sample as the page holds it; all of it is shown as text. */
export interface Sample {
  /** Stage that the row ended at, or method and temperature of an answer. */
  stage: string
  id: string
  seed: number
  /** Kinds of its edits, or of an answer's constraints. */
  kinds: readonly string[]
  verdict: string
  /** Texts under their labels. */
  texts: readonly (readonly [label: string, text: string])[]
  /** Questions with what the judge said: yes, no, or that nothing could be read. */
  questions?: readonly (readonly [question: string, verdict: string])[]
}

/** Samples of one stage, method and temperature that a page holds, at most: a page of some megabytes. */
export const MOST_SAMPLES = 150

const clip = (text: string) => (text.length > 2000 ? `${text.slice(0, 2000)} …` : text)
const word = (satisfied: boolean | null | undefined) =>
  satisfied === undefined ? "not judged" : satisfied === null ? "unreadable" : satisfied ? "yes" : "no"

/** A pair; verdicts are those of the embedded world's checks on the chosen answer. */
export function pairSample(row: PairRow, seed: number): Sample {
  const spec = worldSpec.safeParse(row.world)
  const verdicts = spec.success ? gradeAnswer(spec.data, row.chosen) : undefined
  const allSatisfied = verdicts?.every(({ satisfied }) => satisfied)
  return {
    ...{
      stage: "respond",
      id: row.id,
      seed,
      kinds: [...new Set(row.edits.map(({ kind }) => kind.replace("constraint-", "")))],
    },
    verdict: allSatisfied === undefined ? "pair" : allSatisfied ? "pair: chosen keeps all" : "pair: chosen misses some",
    texts: [
      ["clean instruction", clip(row.clean_instruction)],
      ["noised instruction", clip(row.noised_instruction)],
      ["chosen", clip(row.chosen)],
      ["rejected", clip(row.rejected)],
    ],
    questions: verdicts?.map(({ question, satisfied }) => [question, word(satisfied)]),
  }
}

/** A row that failed, with the raw text of the stage's last call. */
export function failedSample(row: InstructionRow & { failure: Failure }, seed: number): Sample {
  const { stage, reason } = row.failure
  const call = row.calls?.[stage]?.at(-1)
  return {
    ...{ stage, id: `${row.id}`, seed, kinds: [], verdict: `failed: ${reason}` },
    texts: [
      ["instruction", clip(`${row.instruction ?? ""}`)],
      ...(call ? [["raw reply", clip(call.text)] as const] : []),
    ],
  }
}

/** A graded answer. */
export function answerSample({ id, seed, method, temperature, instruction, answer, constraints }: EvalItem): Sample {
  const share = constraintShare(constraints)
  return {
    ...{ stage: `${method}, temperature ${temperature}`, id, seed },
    kinds: [...new Set(constraints.map(({ kind }) => kind).filter((kind) => kind))],
    verdict: Number.isNaN(share) ? "unreadable" : share === 1 ? "keeps all" : "misses some",
    texts: [
      ["instruction", clip(instruction)],
      ["answer", clip(answer)],
    ],
    questions: constraints.map(({ question, satisfied }) => [question, word(satisfied)]),
  }
}

/** The browser, drawn by `samplesScript`. */
export function samplesSection(samples: readonly Sample[]): Html | undefined {
  if (!samples.length) return undefined
  return html`<div class="samples"><p class="note">A fixed random sample of pairs, failed rows and answers:
at most ${MOST_SAMPLES} of each stage, method and temperature. The run folder holds all of them.</p>
<div class="controls"><input id="sample-search" type="search" placeholder="search all texts" aria-label="search all texts">
<label>stage <select id="sample-stage"></select></label> <label>kind <select id="sample-kind"></select></label>
<label>verdict <select id="sample-verdict"></select></label> <span id="sample-count" class="note" aria-live="polite"></span></div>
<div id="sample-list"></div><button id="sample-more" type="button">show more</button></div>
${dataBlock("sample-data", samples)}`
}

/** Fills the browser. Texts become text nodes, never HTML. */
export const samplesScript = `
const sampleData = document.getElementById("sample-data")
if (sampleData) {
  const samples = JSON.parse(sampleData.textContent)
  const el = (name) => document.getElementById("sample-" + name)
  const fill = (name, values) => {
    for (const value of ["", ...[...new Set(values)].sort()]) el(name).append(new Option(value || "all", value))
  }
  fill("stage", samples.map(({ stage }) => stage))
  fill("kind", samples.flatMap(({ kinds }) => kinds))
  fill("verdict", samples.map(({ verdict }) => verdict))
  const add = (parent, tag, text) => {
    const child = parent.appendChild(document.createElement(tag))
    if (text !== undefined) child.textContent = text
    return child
  }
  const signs = { yes: "✓", no: "✗" }
  const card = ({ stage, id, seed, kinds, verdict, texts, questions = [] }) => {
    const box = document.createElement("div")
    box.className = "card"
    add(box, "div", [id, "seed " + seed, stage, verdict, kinds.join(", ")].filter(Boolean).join(" · ")).className = "head"
    const row = add(box, "div") // two texts side by side: both instructions, both answers
    row.className = "two"
    for (const [label, text] of texts) {
      const part = add(row, "div")
      add(part, "h4", label)
      add(part, "div", text).className = "text"
    }
    if (questions.length) {
      add(box, "h4", texts.some(([label]) => label === "chosen") ? "constraints kept by chosen" : "constraints kept")
      const list = add(box, "ul")
      for (const [question, verdict] of questions) {
        const line = add(list, "li")
        const sign = add(line, "span", signs[verdict] ?? "(" + verdict + ")")
        sign.className = verdict === "yes" ? "kept" : "missed"
        sign.title = verdict
        line.append(" " + question)
      }
    }
    return box
  }
  let shown = 5
  const found = () => {
    const words = el("search").value.toLowerCase().split(/\\s+/).filter(Boolean)
    const holds = (all) => words.every((word) => all.includes(word))
    return samples.filter(({ stage, kinds, verdict, id, texts }) =>
      (!el("stage").value || stage === el("stage").value) && (!el("kind").value || kinds.includes(el("kind").value)) &&
      (!el("verdict").value || verdict === el("verdict").value) &&
      (!words.length || holds([id, ...texts.map(([, text]) => text)].join("\\n").toLowerCase())))
  }
  const redraw = () => {
    const list = found()
    el("list").replaceChildren(...list.slice(0, shown).map(card))
    el("count").textContent = list.length + " of " + samples.length + " samples"
    el("more").hidden = list.length <= shown
  }
  const restart = () => { shown = 5; redraw() }
  for (const name of ["search", "stage", "kind", "verdict"]) el(name).addEventListener("input", restart)
  el("more").addEventListener("click", () => { shown += 20; redraw() })
  redraw()
}
`
