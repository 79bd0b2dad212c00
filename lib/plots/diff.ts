import type { CorruptedRow, Edit } from "../data/schema"
import { besideCell, type Html, html, type Part } from "./html"

/** A run of words that both texts share, or that stands in the old or in the new one only. */
export interface DiffPart {
  kind: "same" | "old" | "new"
  text: string
}

/**
 * Most cells of the table that compares two texts; longer ones come out as all old, all new between their equal ends.
 */
const MOST_CELLS = 4_000_000

/** Words, single marks, and the spaces between them; together they are the text. */
const wordsOf = (text: string): string[] => text.match(/[\p{L}\p{M}\p{N}'’_-]+|\s+|\S/gu) ?? []

/** The words in which two texts differ: longest common subsequence of words and the spaces between them. */
export function wordDiff(before: string, after: string): DiffPart[] {
  const [a, b] = [wordsOf(before), wordsOf(after)]
  const shortest = Math.min(a.length, b.length)
  let head = 0
  while (head < shortest && a[head] === b[head]) head++
  let tail = 0
  while (tail < shortest - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++
  const middle = between(a.slice(head, a.length - tail), b.slice(head, b.length - tail))
  return joined([...same(a.slice(0, head)), ...middle, ...same(tail ? a.slice(-tail) : [])])
}

const parts = (kind: DiffPart["kind"]) => (words: readonly string[]) => words.map((text) => ({ kind, text }))
const [same, old, fresh] = [parts("same"), parts("old"), parts("new")]

function between(a: readonly string[], b: readonly string[]): DiffPart[] {
  const width = b.length + 1
  if ((a.length + 1) * width > MOST_CELLS) return [...old(a), ...fresh(b)]
  // common[i * width + j]: words that a[i …] and b[j …] have in common
  const common = new Uint32Array((a.length + 1) * width)
  const at = (i: number, j: number) => common[i * width + j]!
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i * width + j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  const out: DiffPart[] = []
  let [i, j] = [0, 0]
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) {
      out.push(...same([a[i]!]))
      i++
      j++
    } else if (at(i + 1, j) >= at(i, j + 1)) out.push(...old([a[i++]!]))
    else out.push(...fresh([b[j++]!]))
  }
  return [...out, ...old(a.slice(i)), ...fresh(b.slice(j))]
}

/** Letters that two texts must share between two changes to count as shared there: fewer would tear phrases apart. */
const LEAST_SHARED = 5

/** Neighbours of one kind as one part; a few letters between two changes count as changed in both texts. */
function joined(list: readonly DiffPart[]): DiffPart[] {
  const runs: { same: boolean; old: string; new: string }[] = []
  const add = (isSame: boolean, before: string, after: string) => {
    if (runs.at(-1)?.same !== isSame) runs.push({ same: isSame, old: "", new: "" })
    runs.at(-1)!.old += before
    runs.at(-1)!.new += after
  }
  for (const { kind, text } of list) add(kind === "same", kind === "new" ? "" : text, kind === "old" ? "" : text)
  const wide = runs.splice(0)
  wide.forEach((run, i) => {
    const inside = i > 0 && i < wide.length - 1
    add(run.same && !(inside && run.old.trim().length < LEAST_SHARED), run.old, run.new)
  })
  return runs.flatMap((run) => {
    if (run.same) return same([run.old])
    // Spaces at the ends of both texts are no change.
    const before = /^\s*/.exec(run.old)![0]
    const after = run.old.slice(run.old.trimEnd().length)
    const both = run.new.trim() && run.old.trim()
    const [lead, trail] = [
      both && run.new.startsWith(before) ? before : "",
      both && run.new.endsWith(after) ? after : "",
    ]
    const inner = (text: string) => text.slice(lead.length, text.length - trail.length)
    const out = [...same([lead]), ...old([inner(run.old)]), ...fresh([inner(run.new)]), ...same([trail])]
    return out.filter(({ text }) => text)
  })
}

const oldStyle =
  "color:#9c3a00;background:rgba(213,94,0,.13);text-decoration:line-through;border-radius:2px;margin:0 1px"
const newStyle = "color:#004f7c;background:rgba(0,114,178,.13);text-decoration:underline;border-radius:2px;margin:0 1px"
const mark = {
  same: (text: Part) => html`${text}`,
  old: (text: Part) => html`<del style="${oldStyle}">${text}</del>`,
  new: (text: Part) => html`<ins style="${newStyle}">${text}</ins>`,
}

/** Two texts in one: words of the old one struck through, words of the new one underlined. Styles are inline. */
export const diffHtml = (before: string, after: string): Html =>
  html`<div class="text" style="white-space:pre-wrap">${wordDiff(before, after).map(({ kind, text }) => mark[kind](text))}</div>`

const verbs = {
  "constraint-dropout": "drop",
  "constraint-negate": "negate",
  "constraint-substitute": "substitute",
} as const

const editLine = ({ kind, before, after }: Edit): Html =>
  html`<b style="font-size:12px">${verbs[kind]}</b> ${mark.old(before)}${after !== null && html` → ${mark.new(after)}`}`

/** The constraints of a row, corrupted ones marked by the edit asked for: dropped struck through, others old → new. */
export function editsHtml(row: Pick<CorruptedRow, "constraints" | "edits">): Html {
  const edits = new Map(row.edits.map((edit) => [edit.index, edit]))
  const line = (question: string, i: number) => (edits.has(i) ? editLine(edits.get(i)!) : html`${question}`)
  return html`<ol start="0" style="margin:6px 0;padding-left:26px">${row.constraints.map(
    (question, i) => html`<li>${line(question, i)}</li>`,
  )}</ol>`
}

/** One question about an answer; null when the verdict could not be read, absent when nobody judged. */
export interface Verdict {
  question: string
  satisfied?: boolean | null
}

const signs = new Map<boolean | null | undefined, Html>([
  [true, html`<span style="color:var(--kept,#00694d);font-weight:700" title="kept">✓</span>`],
  [false, html`<span style="color:var(--missed,#b04a00);font-weight:700" title="not kept">✗</span>`],
  [null, html`<span title="verdict not readable">?</span>`],
  [undefined, html`<span title="not judged">·</span>`],
])

/**
 * Answers side by side, and below each question whether each answer keeps it. All have verdicts on the same questions.
 */
export function answersHtml(answers: readonly { name: string; text: string; verdicts: readonly Verdict[] }[]): Html {
  const share = 100 / (answers.length || 1)
  const allSatisfied = (verdicts: readonly Verdict[]) => {
    const judged = verdicts.filter(({ satisfied }) => typeof satisfied === "boolean")
    return judged.length > 0 && ` keeps ${judged.filter(({ satisfied }) => satisfied).length} of ${judged.length}`
  }
  const judged = answers.some(({ verdicts }) => verdicts.some(({ satisfied }) => satisfied !== undefined))
  return html`<table style="width:100%;border-collapse:collapse;table-layout:fixed"><tr>${answers.map(
    ({ name, text, verdicts }) =>
      besideCell(
        share,
        html`<b>${name}</b><small>${allSatisfied(verdicts)}</small><div class="text" style="white-space:pre-wrap">${text}</div>`,
      ),
  )}</tr></table>
${judged ? verdictTable(answers) : html`<ul>${answers[0]?.verdicts.map(({ question }) => html`<li>${question}</li>`)}</ul>`}`
}

function verdictTable(answers: readonly { name: string; verdicts: readonly Verdict[] }[]): Html {
  const heads = answers.map(({ name }) => html`<th class="mark" style="width:110px;text-align:center">${name}</th>`)
  const marks = (i: number) =>
    answers.map(
      ({ verdicts }) => html`<td class="mark" style="text-align:center">${signs.get(verdicts[i]?.satisfied)}</td>`,
    )
  const rows = answers[0]?.verdicts.map(
    ({ question }, i) => html`<tr><td style="text-align:left">${question}</td>${marks(i)}</tr>\n`,
  )
  return html`<table><thead><tr><th style="text-align:left">constraint</th>${heads}</tr></thead><tbody>${rows}</tbody></table>`
}
