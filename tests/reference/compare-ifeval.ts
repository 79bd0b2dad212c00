// Compares our IFEval checks with the verdicts that tests/reference/ifeval.py wrote:
//   npx tsx tests/reference/compare-ifeval.ts cases CASES.jsonl
//   npx tsx tests/reference/compare-ifeval.ts answers DATA.jsonl ANSWERS.jsonl
//   npx tsx tests/reference/compare-ifeval.ts items RESULT_FOLDER VERDICTS.jsonl
// `items` takes what `musc benchmark ifeval` wrote for the responses that `ifeval.py responses` graded, and exits with
// 1 where a verdict differs that lm-eval does not leave to chance and that needs no language detector.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Scoring } from "../../lib/eval/benchmark"
import { checks } from "../../lib/eval/ifeval/checks"
import { ifeval } from "../../lib/eval/ifeval/ifeval"
import { loadLanguages } from "../../lib/eval/ifeval/language"
import { strip } from "../../lib/eval/python"

const scoring: Scoring = "official"
const rows = <Row>(file: string) =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line)
    .map((line) => JSON.parse(line) as Row)

async function compareCases(file: string) {
  interface Case {
    id: string
    kwargs: Record<string, unknown>
    text: string
    verdict: boolean | null
  }
  const counts = new Map<string, [cases: number, wrong: number]>()
  let unseeded = 0
  for (const { id, kwargs, text, verdict } of rows<Case>(file)) {
    if (verdict === null) {
      unseeded++
      continue
    }
    const ours = strip(text) !== "" && checks[id]!.follows(text, kwargs, scoring)
    const [cases, wrong] = counts.get(id) ?? [0, 0]
    counts.set(id, [cases + 1, wrong + Number(ours !== verdict)])
    if (ours !== verdict)
      console.log(id, JSON.stringify(kwargs).slice(0, 200), JSON.stringify(text).slice(0, 400), verdict)
  }
  const all = [...counts.values()]
  const sum = (column: 0 | 1) => all.reduce((total, row) => total + row[column], 0)
  console.log(`${sum(0)} cases, ${sum(1)} disagreements, ${unseeded} unseeded left out`)
  for (const [id, [cases, wrong]] of counts) if (wrong) console.log(`  ${id}: ${wrong} of ${cases}`)
}

async function compareAnswers(data: string, file: string) {
  interface Answer {
    key: number
    response: string
    prompt: [boolean, boolean]
    instructions: [boolean, boolean][]
  }
  const answers = new Map(rows<Answer>(file).map((row) => [row.key, row]))
  const items = await ifeval.load(data)
  const official = items.map(({ data: { key, instructions } }) =>
    answers.get(key)!.instructions.map(([strict, loose], i) => ({ id: instructions[i]!.id, strict, loose })),
  )
  const ours = items.map((item) => ifeval.score(item, [answers.get(item.data.key)!.response], null, scoring))
  ours.forEach((result, i) => {
    result.forEach(({ id, strict, loose }, j) => {
      const other = official[i]![j]!
      if (strict !== other.strict || loose !== other.loose) console.log(items[i]!.id, id, { strict, loose }, other)
    })
  })
  const [a, b] = [ifeval.figures(official, scoring), ifeval.figures(ours, scoring)]
  for (const name of Object.keys(a).slice(0, 4)) console.log(`${name}: lm-eval ${a[name]}, ours ${b[name]}`)
}

const detects = (id: string) => id.startsWith("language:") || id.startsWith("change_case:english")

function compareItems(folder: string, file: string) {
  interface Verdicts {
    key: number
    instructions: [strict: boolean | null, loose: boolean | null][]
  }
  interface Item {
    id: string
    result: { id: string; strict: boolean; loose: boolean }[]
  }
  const ours = new Map(rows<Item>(join(folder, "items.jsonl")).map((item) => [item.id, item.result]))
  const counts = { compared: 0, language: 0, chance: 0, "language differs": 0, differs: 0 }
  for (const { key, instructions } of rows<Verdicts>(file)) {
    const own = ours.get(`${key}`)!
    for (const [i, official] of instructions.entries()) {
      const { id, ...found } = own[i]!
      for (const [j, kind] of (["strict", "loose"] as const).entries()) {
        if (official[j] === null) {
          counts.chance++
          continue
        }
        counts[detects(id) ? "language" : "compared"]++
        if (found[kind] === official[j]) continue
        counts[detects(id) ? "language differs" : "differs"]++
        console.log(key, id, kind, "lm-eval", official[j], "ours", found[kind])
      }
    }
  }
  console.log(
    `${ours.size} answers; verdicts without language: ${counts.differs} of ${counts.compared} differ; with language: ` +
      `${counts["language differs"]} of ${counts.language}; left to chance by lm-eval: ${counts.chance}`,
  )
  if (counts.differs || !counts.compared) process.exitCode = 1
}

async function main([command, first = "", second]: string[]) {
  await loadLanguages()
  if (command === "items") compareItems(first, second ?? "")
  else if (command === "cases") await compareCases(first)
  else await compareAnswers(first, second ?? "")
}

void main(process.argv.slice(2))
